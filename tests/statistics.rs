//! What clients of the Open Inference Protocol ask beside inference: configuration, statistics, classes, text.

use serde_json::{Value, json};
use sluicegate_core::{DType, Dim};
use sluicegate_testkit::client::Request;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx::{self, rows};
use sluicegate_testkit::process::{Gateway, engine};
use sluicegate_tests::{ask, infer, infer_path, numbers};

fn get(gateway: &Gateway, path: &str) -> Value {
    ask(&mut gateway.client(), &Request::new("GET", path)).json()
}

fn statistics(gateway: &Gateway, model: &str) -> Value {
    get(gateway, &format!("/v2/models/{model}/stats"))["model_stats"][0].clone()
}

fn post(gateway: &Gateway, path: &str, body: &Value) -> (u16, Value) {
    let response = gateway.client().request(&Request::post(path, body.to_string())).expect("an answer");
    (response.status, response.json())
}

fn once(gateway: &Gateway, model: &str, rows: usize) {
    ask(&mut gateway.client(), &Request::post(&infer_path(model), infer(&[rows, 2], &vec![1.0; 2 * rows]).to_string()));
}

#[test]
fn every_request_is_in_the_statistics_and_cached_rows_are_not_inferences() {
    let folder = Folder::default();
    folder.publish("m", 3, &onnx::add_constant(1.0, 2));
    folder.publish("cached", 1, &onnx::add_constant(1.0, 2));
    let gateway = Gateway::start(&folder, "models: [ { name: m }, { name: cached, cache: { size: 1MiB } } ]");
    let before = statistics(&gateway, "m");
    assert_eq!((&before["name"], &before["version"], &before["last_inference"]), (&json!("m"), &json!("3"), &json!(0)));
    for key in ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"] {
        assert_eq!(before["inference_stats"][key], json!({ "count": 0, "ns": 0 }), "{key} is there from the start");
    }
    assert_eq!((&before["response_stats"], &before["memory_usage"]), (&json!({}), &json!([])));

    [1, 3, 3].iter().for_each(|&rows| once(&gateway, "m", rows));
    let none = Request::post(&infer_path("m"), infer(&[0, 2], &[]).to_string());
    ask(&mut gateway.client(), &none);
    assert_eq!(post(&gateway, &infer_path("m"), &infer(&[1, 5], &[0.0; 5])).0, 400);
    let after = statistics(&gateway, "m");
    let count = |stats: &Value, key: &str| stats["inference_stats"][key]["count"].as_u64().expect("a number");
    let counts = ["success", "fail", "queue", "compute_infer"].map(|key| count(&after, key));
    assert_eq!(counts, [4, 1, 5, 3], "those without rows and those that fail are counted too");
    assert_eq!((&after["inference_count"], &after["execution_count"]), (&json!(7), &json!(3)));
    assert!(after["last_inference"].as_u64() > Some(1_600_000_000_000), "milliseconds since 1970");
    let batches: Vec<_> = after["batch_stats"].as_array().expect("a list").iter().collect();
    let sizes: Vec<_> = batches.iter().map(|batch| (&batch["batch_size"], &batch["compute_infer"]["count"])).collect();
    assert_eq!(sizes, [(&json!(1), &json!(1)), (&json!(3), &json!(2))]);
    assert!(after["inference_stats"]["fail"]["ns"].as_u64() > Some(0));
    assert_eq!(get(&gateway, "/v2/models/m/versions/3/stats")["model_stats"][0]["inference_count"], 7);

    (0..4).for_each(|_| once(&gateway, "cached", 2));
    let cached = statistics(&gateway, "cached");
    assert_eq!(["success", "queue", "cache_hit", "cache_miss"].map(|key| count(&cached, key)), [4, 4, 3, 1]);
    assert_eq!((&cached["inference_count"], &cached["execution_count"]), (&json!(2), &json!(1)));
    let all = get(&gateway, "/v2/models/stats");
    let names: Vec<_> = all["model_stats"].as_array().expect("a list").iter().map(|stats| stats["name"].clone()).collect();
    assert_eq!(names, ["cached", "m"]);
    assert_eq!(gateway.client().get("/v2/models/nobody/stats").expect("an answer").status, 404);
    assert_eq!(gateway.client().get("/v2/models/m/versions/9/stats").expect("an answer").status, 404);
}

#[test]
fn the_configuration_says_what_perf_analyzer_reads() {
    let folder = Folder::default();
    folder.publish("m", 1, &onnx::add_constant(1.0, 2));
    let fixed = [Dim::Fixed(2), Dim::Fixed(3)];
    folder.publish("whole", 1, &onnx::identity(DType::Int64, &fixed));
    let config = "http: { root_path: /ml }\nmodels: [ { name: m, batching: { max_rows: 16, max_delay: 2ms } }, { name: whole, cache: { size: 1MiB } } ]";
    let gateway = Gateway::start(&folder, config);
    let m = get(&gateway, "/v2/models/m/config");
    assert_eq!((&m["name"], &m["max_batch_size"]), (&json!("m"), &json!(16)));
    assert_eq!((&m["input"][0]["name"], &m["input"][0]["dims"]), (&json!("x"), &json!([2])));
    assert_eq!((&m["input"][0]["data_type"], &m["input"][0]["optional"]), (&json!("TYPE_FP32"), &json!(false)));
    assert_eq!(m["input"][0]["is_shape_tensor"], false);
    assert_eq!(m["dynamic_batching"]["max_queue_delay_microseconds"], 2000);
    assert_eq!(m["version_policy"], json!({ "latest": { "num_versions": 1 } }));
    assert_eq!(m["model_transaction_policy"], json!({ "decoupled": false }));
    assert_eq!(m["response_cache"], json!({ "enable": false }));
    assert!(m["instance_group"][0]["count"].as_i64() > Some(0) && m["instance_group"][0]["kind"] == "KIND_CPU", "{m}");
    assert!(m.get("sequence_batching").is_none() && m.get("ensemble_scheduling").is_none());
    let whole = get(&gateway, "/v2/models/whole/versions/1/config");
    assert_eq!((&whole["max_batch_size"], &whole["input"][0]["dims"]), (&json!(0), &json!([2, 3])));
    assert!(whole.get("dynamic_batching").is_none() && whole["response_cache"]["enable"] == true);

    // An ingress may leave its prefix on.
    assert_eq!(get(&gateway, "/ml/v2/models/m/config"), m);
    for path in ["/ml/v2/models/stats", "/ml/v2/logging", "/ml/v2/trace/setting"] {
        get(&gateway, path);
    }
    assert_eq!(gateway.client().get("/v2/models/nobody/config").expect("an answer").status, 404);
}

#[test]
fn an_output_can_be_asked_for_as_its_best_classes() {
    let folder = Folder::default();
    let labels = "signature: { outputs: [ { name: y, kind: score, labels: [ low, high ] } ] }";
    folder.publish_with("m", 1, &onnx::add_constant(0.5, 2), labels);
    let gateway = Gateway::start(&folder, "");
    let request = |classes: i64| {
        let mut body = infer(&[2, 2], &[1.0, 2.0, 4.0, 3.0]);
        body["outputs"] = json!([{ "name": "y", "parameters": { "classification": classes } }]);
        post(&gateway, &infer_path("m"), &body)
    };
    let (_, best) = request(1);
    let expected = json!({ "name": "y", "datatype": "BYTES", "shape": [2, 1], "data": ["2.500000:1:high", "4.500000:0:low"] });
    assert_eq!(best["outputs"][0], expected);
    assert_eq!(request(9).1["outputs"][0]["shape"], json!([2, 2]), "no more than there are");
    assert_eq!(numbers(&request(0).1), [1.5, 2.5, 4.5, 3.5], "none asked for");
    assert_eq!(request(-1).0, 400);
}

#[test]
fn text_is_generated_by_models_of_text_and_others_say_why_not() {
    let folder = Folder::default();
    folder.publish("m", 1, &onnx::add_constant(0.5, 2));
    let has_text = engine() != "tract";
    if has_text {
        folder.publish("echo", 1, &onnx::identity(DType::Bytes, &[rows(), Dim::Fixed(1)]));
    }
    let gateway = Gateway::start(&folder, "");
    let (status, refusal) = post(&gateway, "/v2/models/m/generate", &json!({ "text_input": "hi" }));
    let why = refusal["error"].as_str().unwrap_or_default();
    assert!(status == 400 && why.contains("takes 0 tensors of text"), "{status} {refusal}");
    assert_eq!(post(&gateway, "/v2/models/nobody/generate", &json!({ "text_input": "hi" })).0, 404);
    if !has_text {
        return;
    }
    let (status, answer) = post(&gateway, "/v2/models/echo/generate", &json!({ "id": "7", "text_input": "grüß \"dich\"" }));
    assert_eq!(status, 200);
    assert_eq!(answer, json!({ "id": "7", "model_name": "echo", "model_version": "1", "text_output": "grüß \"dich\"" }));
    let body = json!({ "id": "7", "text_input": "a\nb", "parameters": { "priority": 1 } }).to_string();
    let stream = ask(&mut gateway.client(), &Request::post("/v2/models/echo/versions/1/generate_stream", body));
    assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let text = stream.text();
    let event = text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).expect("one event");
    assert_eq!(serde_json::from_str::<Value>(event).expect("JSON")["text_output"], "a\nb");
    let (status, _) = post(&gateway, "/v2/models/echo/generate_stream", &json!({ "text": "hi" }));
    assert_eq!(status, 400, "an error before the first event has its own status");
}

#[test]
fn what_is_not_served_says_so() {
    let folder = Folder::default();
    folder.publish("m", 1, &onnx::add_constant(0.5, 2));
    let gateway = Gateway::start(&folder, "protocols: { control: true }");
    assert_eq!(get(&gateway, "/v2/models/m/trace/setting")["trace_level"], json!(["OFF"]));
    assert_eq!(gateway.client().get("/v2/models/nobody/trace/setting").expect("an answer").status, 404);
    for path in ["/v2/trace/setting", "/v2/models/m/trace/setting", "/v2/systemsharedmemory/region/a/register"] {
        assert_eq!(post(&gateway, path, &json!({ "trace_level": ["TIMESTAMPS"] })).0, 501, "{path}");
    }
    for path in ["/v2/cudasharedmemory/region/a/unregister", "/v2/systemsharedmemory/unregister"] {
        assert_eq!(post(&gateway, path, &Value::Null).0, 501, "{path}");
    }
    let status = gateway.client().get("/v2/cudasharedmemory/status").expect("an answer");
    assert!(status.status == 501 && status.text().contains("shared memory is not served"), "{}", status.text());
    let sequence = post(&gateway, &infer_path("m"), &json!({ "parameters": { "sequence_id": 1 }, "inputs": [] }));
    assert!(sequence.0 == 501 && sequence.1["error"].to_string().contains("sequence_id"), "{sequence:?}");
}
