//! Clients of KServe's first protocol, of TensorFlow Serving, MLflow and SageMaker land here unchanged; each protocol can be switched off.

use serde_json::{Value, json};
use sluicegate_core::DType;
use sluicegate_testkit::client::{Client, Request, Response};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx::{self, Model, rows};
use sluicegate_testkit::process::{Gateway, wait_for, write_config};
use sluicegate_tests::{ask, infer_once, numbers};

/// `y = x / 2 + 3` on one number a row, TensorFlow Serving's own example.
fn half_plus_three() -> Vec<u8> {
    Model::new(17)
        .input("x", DType::Fp32, &[rows()])
        .output("y", DType::Fp32, &[rows()])
        .constant("half", DType::Fp32, &[], &0.5f32.to_le_bytes())
        .constant("three", DType::Fp32, &[], &3f32.to_le_bytes())
        .node("Mul", &["x", "half"], &["h"], &[])
        .node("Add", &["h", "three"], &["y"], &[])
        .build()
}

const COLUMNS: &str = "signature: { inputs: [ { name: x, features: [ { name: a }, { name: b } ] } ] }";

/// `half`, `two` (`more = x + 1`, `twice = x + x`, with columns `a` and `b`) and `swapped` in two versions.
fn start(config: &str) -> (Folder, Gateway) {
    let folder = Folder::default();
    folder.publish("half", 1, &half_plus_three());
    folder.publish_with("two", 1, &onnx::two_outputs(2), COLUMNS);
    folder.publish("swapped", 1, &onnx::add_constant(1.0, 2));
    folder.publish("swapped", 2, &onnx::add_constant(2.0, 2));
    let gateway = Gateway::start(&folder, &format!("{}\n{config}", models("{ stable: 1, canary: 2 }")));
    gateway.wait_for_state("swapped", 1, "live");
    (folder, gateway)
}

fn models(aliases: &str) -> String {
    format!("models: [ {{ name: half }}, {{ name: two }}, {{ name: swapped, also: all, aliases: {aliases} }} ]")
}

fn post(client: &mut Client, path: &str, body: &Value) -> Response {
    let response = client.post_json(path, body).expect("an answer");
    assert!(response.header("x-request-id").is_some(), "{path}");
    response
}

/// What a good request gives. It says who answered.
fn good(client: &mut Client, path: &str, body: &Value) -> Value {
    let response = post(client, path, body);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    assert!(response.header("x-model-version").is_some() && response.header("x-model-digest").is_some(), "{path}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    response.json()
}

/// The status and the text of an error at `key`.
fn bad(client: &mut Client, path: &str, body: &Value, key: &str) -> (u16, String) {
    let response = post(client, path, body);
    (response.status, response.json()[key].as_str().unwrap_or_else(|| panic!("{path}: {}", response.text())).to_owned())
}

#[test]
fn rows_are_answered_with_predictions_and_columns_with_outputs() {
    let (_folder, gateway) = start("");
    let mut client = gateway.client();
    let half = "/v1/models/half:predict";
    assert_eq!(good(&mut client, half, &json!({ "instances": [1.0, 2.0, 5.0] })), json!({ "predictions": [3.5, 4.0, 5.5] }));
    assert_eq!(good(&mut client, half, &json!({ "inputs": [1.0, 2.0] })), json!({ "outputs": [3.5, 4.0] }));
    assert_eq!(good(&mut client, half, &json!({ "instances": [{ "x": 1 }] })), json!({ "predictions": [3.5] }));
    let two = "/v1/models/two/versions/1:predict";
    let row = json!({ "more": [2.0, 3.0], "twice": [2.0, 4.0] });
    assert_eq!(
        good(&mut client, two, &json!({ "instances": [{ "b": 2, "a": 1 }, [1, 2]] })),
        json!({ "predictions": [row, row] })
    );
    assert_eq!(
        good(&mut client, two, &json!({ "inputs": { "x": [[1, 2]] }, "signature_name": "serving_default" })),
        json!({ "outputs": { "more": [[2.0, 3.0]], "twice": [[2.0, 4.0]] } })
    );
    let regress = json!({ "signature_name": "tensorflow/serving/regress", "examples": [{ "x": 1.0 }, { "x": 2.0 }] });
    assert_eq!(good(&mut client, "/v1/models/half:regress", &regress), json!({ "results": [3.5, 4.0] }));
    let classify = json!({ "examples": [{ "a": 1 }], "context": { "b": 2 } });
    assert_eq!(good(&mut client, "/v1/models/two:classify", &classify), json!({ "results": [[["", 2.0], ["", 3.0]]] }));
    // The same rows by the Open Inference Protocol.
    assert_eq!(numbers(&infer_once(&gateway, "two", &[1, 2], &[1.0, 2.0])), [2.0, 3.0]);
}

#[test]
fn errors_are_told_in_the_form_of_each_protocol() {
    let (_folder, gateway) = start("http: { max_body: 1MiB }");
    let mut client = gateway.client();
    let any = json!({ "instances": [1] });
    for (path, body, status, why) in [
        ("/v1/models/half:predict", json!({ "instances": ["x"] }), 400, "\"x\" is no FP32"),
        ("/v1/models/half:predict", json!({ "instances": [[1, 2]] }), 400, "expected one FP32"),
        ("/v1/models/two:predict", json!({ "instances": [[1, 2, 3]] }), 400, "`x` has shape [1, 3], expected [-1, 2]"),
        ("/v1/models/half:predict", json!({ "instances": [1], "signature_name": "other" }), 400, "serving_default"),
        ("/v1/models/nobody:predict", any.clone(), 404, "no model is called `nobody`"),
        ("/v1/models/half/versions/7:predict", any.clone(), 404, "no live version 7"),
        ("/v1/models/half/labels/stable:predict", any.clone(), 404, "no live version @stable"),
        ("/v1/models/half:explain", any.clone(), 501, "no explainer"),
        ("/v1/models/nobody:explain", any.clone(), 404, "nobody"),
        ("/v1/models/half:train", any.clone(), 404, "Not Found"),
        ("/v1/models/half", any.clone(), 405, "verb"),
        ("/v1/models/half:classify", json!({ "examples": [] }), 400, "one score for each class"),
        ("/v1/models/two:regress", json!({ "examples": [] }), 400, "one number for each row"),
    ] {
        let (got, message) = bad(&mut client, path, &body, "error");
        assert!(got == status && message.contains(why), "{path} {body}: {got} {message}");
    }
    let large = Request::post("/v1/models/half:predict", format!("{{\"instances\": [{}1]}}", "1,".repeat(1 << 19)));
    assert_eq!(client.request(&large).expect("an answer").status, 413);
    let wrong_method = client.get("/v1/models/half:predict").expect("an answer");
    assert!(wrong_method.status == 405 && wrong_method.json()["error"].is_string());

    let (status, message) = bad(&mut client, "/invocations", &any, "message");
    assert!(status == 404 && message.contains("protocols.invocations_model"), "{message}");
    let scoring = |body: &str, kind: &str| {
        let request =
            Request::post("/invocations", body).header("content-type", kind).header("x-amzn-sagemaker-target-model", "two");
        let response = gateway.client().request(&request).expect("an answer");
        let body = response.json();
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        (response.status, text("error_code"), text("message"))
    };
    for (body, kind, status, code, why) in [
        ("{", "application/json", 400, "BAD_REQUEST", "EOF"),
        ("{\"instances\": [[1, 2]], \"params\": {\"k\": 1}}", "application/json", 400, "BAD_REQUEST", "params"),
        ("{\"instances\": [[1, 2, 3]]}", "application/json", 400, "INVALID_PARAMETER_VALUE", "shape [1, 3]"),
        ("a,c\n1,2\n", "text/csv", 400, "BAD_REQUEST", "columns unknown: `c`; missing: `b`"),
        ("{}", "application/x-npy", 415, "BAD_REQUEST", "application/x-npy"),
    ] {
        let (got, word, message) = scoring(body, kind);
        assert!((got, &*word) == (status, code) && message.contains(why), "{body}: {got} {word} {message}");
    }
}

#[test]
fn a_model_says_how_it_is_in_both_words() {
    let (_folder, gateway) = start("");
    let mut client = gateway.client();
    let mut get = |path: &str| client.get(path).expect("an answer");
    assert_eq!(get("/").json(), json!({ "status": "alive" }));
    assert_eq!(get("/v1/models").json(), json!({ "models": ["half", "swapped", "two"] }));
    let available = |version: &str| json!({ "version": version, "state": "AVAILABLE", "status": { "error_code": "OK", "error_message": "" } });
    let status = get("/v1/models/swapped").json();
    assert_eq!(status, json!({ "name": "swapped", "ready": true, "model_version_status": [available("2"), available("1")] }));
    for path in ["/v1/models/swapped/versions/1", "/v1/models/swapped/labels/stable"] {
        assert_eq!(get(path).json()["model_version_status"], json!([available("1")]));
    }
    assert_eq!(get("/v1/models/nobody").status, 404);
    let metadata = get("/v1/models/half/metadata").json();
    assert_eq!(metadata["model_spec"], json!({ "name": "half", "signature_name": "", "version": "1" }));
    let signature = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
    let shape = json!({ "dim": [{ "size": "-1", "name": "" }], "unknown_rank": false });
    assert_eq!(signature["inputs"]["x"], json!({ "dtype": "DT_FLOAT", "tensor_shape": shape, "name": "x" }));
    assert_eq!(get("/v1/models/swapped/labels/canary/metadata").json()["model_spec"]["version"], "2");
}

#[test]
fn a_model_that_is_not_ready_is_told_as_such() {
    let folder = Folder::default();
    folder.publish("broken", 1, &onnx::unknown_operator());
    let gateway = Gateway::begin(&folder, "models: [ { name: broken } ]");
    gateway.wait_for_state("broken", 1, "failed");
    let mut client = gateway.client();
    let answer = client.get("/v1/models/broken").expect("an answer");
    let body = answer.json();
    assert_eq!((answer.status, &body["ready"], &body["name"]), (503, &json!(false), &json!("broken")));
    assert_eq!(body["model_version_status"][0]["state"], "END");
    assert!(body["error"].as_str().is_some_and(|error| error.contains("not ready")), "{body}");
    assert_eq!(client.get("/ping").expect("an answer").status, 503);
    let (status, _) = bad(&mut client, "/v1/models/broken:predict", &json!({ "instances": [] }), "error");
    assert_eq!(status, 503);
}

#[test]
fn an_alias_names_a_version_on_every_route_and_moves_without_a_load() {
    let (folder, gateway) = start("");
    let mut client = gateway.client();
    let seen = |client: &mut Client, alias: &str| -> Vec<Value> {
        let instances = json!({ "instances": [[1, 1]] });
        let v2 = json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 1] }] });
        let v1 = good(client, &format!("/v1/models/swapped/labels/{alias}:predict"), &instances);
        let typed = good(client, &format!("/models/swapped@{alias}/predict"), &json!({ "x": [1, 1] }));
        let infer = good(client, &format!("/v2/models/swapped/versions/{alias}/infer"), &v2);
        vec![v1["predictions"][0].clone(), typed["y"].clone(), infer["outputs"][0]["data"].clone()]
    };
    assert_eq!(seen(&mut client, "stable"), vec![json!([2.0, 2.0]); 3]);
    assert_eq!(seen(&mut client, "canary"), vec![json!([3.0, 3.0]); 3]);
    let listed = ask(&mut client, &Request::new("GET", "/models")).json();
    let swapped = listed["models"].as_array().and_then(|models| models.iter().find(|model| model["name"] == "swapped")).cloned();
    assert_eq!(swapped.expect("it is listed")["aliases"], json!({ "canary": "2", "stable": "1" }));
    assert_eq!(gateway.model("swapped")["aliases"], json!({ "canary": "2", "stable": "1" }));

    let loads = gateway.metric("sluicegate_loads_total", &[]);
    write_config(&folder, &models("{ stable: 2 }"));
    wait_for("the alias to move", || (seen(&mut client, "stable")[0] == json!([3.0, 3.0])).then_some(()));
    assert_eq!(seen(&mut client, "stable"), vec![json!([3.0, 3.0]); 3]);
    assert_eq!(client.get("/v1/models/swapped/labels/canary").expect("an answer").status, 404);
    assert_eq!(gateway.metric("sluicegate_loads_total", &[]), loads);
}

#[test]
fn invocations_take_tables_and_answer_in_the_form_that_is_accepted() {
    let (_folder, gateway) = start("protocols: { invocations_model: two }");
    let mut client = gateway.client();
    let row = json!({ "more": [2.0, 3.0], "twice": [2.0, 4.0] });
    for body in [
        json!({ "dataframe_split": { "columns": ["b", "a"], "data": [[2, 1]] } }),
        json!({ "dataframe_records": [{ "a": 1, "b": 2 }] }),
        json!({ "instances": [[1, 2]] }),
        json!({ "inputs": [[1, 2]] }),
    ] {
        assert_eq!(good(&mut client, "/invocations", &body), json!({ "predictions": [row] }), "{body}");
    }
    let csv = |accept: &str, kind: &str, body: &str| {
        let request = Request::post("/invocations", body).header("content-type", kind).header("accept", accept);
        let response = gateway.client().request(&request).expect("an answer");
        (response.status, response.header("content-type").unwrap_or_default().to_owned(), response.text())
    };
    let (status, kind, text) = csv("text/csv", "text/csv", "b,a\n2,1\n4,3\n");
    assert_eq!((status, &*kind, &*text), (200, "text/csv", "2.0,3.0,2.0,4.0\n4.0,5.0,6.0,8.0\n"));
    let (status, kind, text) = csv("*/*", "text/csv; header=absent", "1,2\n");
    assert_eq!((status, &*kind, &*text), (200, "application/json", &*json!({ "predictions": [row] }).to_string()));
    assert_eq!(csv("image/png", "text/csv", "a,b\n").0, 406);
    // A multi-model endpoint: the caller names the archive.
    let named = Request::post("/invocations", "{\"instances\": [1]}").header("x-amzn-sagemaker-target-model", "half.tar.gz");
    assert_eq!(ask(&mut client, &named).json(), json!({ "predictions": [3.5] }));
    for path in ["/ping", "/health", "/version"] {
        assert_eq!(ask(&mut client, &Request::new("GET", path)).status, 200);
    }
}

#[test]
fn the_only_model_needs_no_name() {
    let folder = Folder::default();
    folder.publish("half", 1, &half_plus_three());
    let gateway = Gateway::start(&folder, "");
    assert_eq!(good(&mut gateway.client(), "/invocations", &json!({ "inputs": [1.0] })), json!({ "predictions": [3.5] }));
}

#[test]
fn a_path_prefix_is_kept_as_clients_write_it() {
    let folder = Folder::default();
    folder.publish("half", 1, &half_plus_three());
    let gateway = Gateway::start(&folder, "http: { root_path: /ml }");
    let mut client = gateway.client();
    for path in ["/", "/ml", "/ml/"] {
        assert_eq!(client.get(path).expect("an answer").json(), json!({ "status": "alive" }), "{path}");
    }
    assert_eq!(good(&mut client, "/ml/v1/models/half:predict", &json!({ "instances": [1.0] })), json!({ "predictions": [3.5] }));
    let (status, _) = bad(&mut client, "/ml/v1/models/nobody:predict", &json!({ "instances": [1.0] }), "error");
    assert_eq!(status, 404);
}

#[test]
fn what_is_switched_off_is_not_there() {
    let (_folder, gateway) = start("protocols: { v1: false, invocations: false }");
    let mut client = gateway.client();
    let body = json!({ "instances": [1] });
    for path in ["/v1/models/half:predict", "/invocations"] {
        assert_eq!(post(&mut client, path, &body).status, 404, "{path}");
    }
    for path in ["/", "/v1/models", "/v1/models/half", "/ping", "/health", "/version"] {
        assert_eq!(client.get(path).expect("an answer").status, 404, "{path}");
    }
    let paths = client.get("/openapi.json").expect("an answer").json()["paths"].clone();
    let paths: Vec<&String> = paths.as_object().expect("paths").keys().collect();
    assert!(!paths.iter().any(|path| path.starts_with("/v1/models") || *path == "/invocations"), "{paths:?}");
}

#[test]
fn these_requests_are_counted_and_cached_as_all_others() {
    let folder = Folder::default();
    folder.publish("half", 1, &half_plus_three());
    let gateway = Gateway::start(&folder, "models: [ { name: half, cache: { size: 1MiB } } ]");
    let mut client = gateway.client();
    let body = json!({ "instances": [1.0] });
    let first = post(&mut client, "/v1/models/half:predict", &body);
    let again = post(&mut client, "/invocations", &body);
    assert_eq!((first.header("x-cache"), again.header("x-cache")), (Some("miss"), Some("hit")));
    assert_eq!(post(&mut client, "/invocations", &json!({})).status, 400);
    assert_eq!(gateway.metric("sluicegate_requests_total", &[("model", "half")]), 3.0);
}
