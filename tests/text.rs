//! Clients of OpenAI, Cohere, Jina and text-embeddings-inference land here unchanged, on models that read text.

use serde_json::{Value, json};
use sluicegate_testkit::client::{Client, Request, Response};
use sluicegate_testkit::encoder::{self, POSITIONS, SIZE, weights, with_classifier};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::Gateway;
use sluicegate_tests::ask;

const LABELS: [&str; 3] = ["calm", "flood", "drought"];

/// `embedder` in two versions, `ranker`, `classifier`, and `numbers`, which reads none.
fn start(config: &str) -> (Folder, Gateway) {
    let folder = Folder::default();
    for version in [1, 2] {
        encoder::write(&folder.version("embedder", version), &encoder::config("BertModel"), &weights(""));
    }
    let mut said = encoder::config("BertForSequenceClassification");
    encoder::write(&folder.version("ranker", 1), &said, &with_classifier(weights("bert."), 1));
    said["id2label"] = json!({ "0": LABELS[0], "1": LABELS[1], "2": LABELS[2] });
    encoder::write(&folder.version("classifier", 1), &said, &with_classifier(weights("bert."), LABELS.len()));
    folder.publish("numbers", 1, &onnx::add_constant(1.0, 2));
    let embedder = "{ name: embedder, also: all, aliases: { stable: 1 } }";
    let models = format!("models: [ {embedder}, {{ name: ranker }}, {{ name: classifier }}, {{ name: numbers }} ]");
    let gateway = Gateway::start(&folder, &format!("{models}\n{config}"));
    gateway.wait_for_state("embedder", 1, "live");
    (folder, gateway)
}

fn post(client: &mut Client, path: &str, body: &Value) -> Response {
    let response = client.post_json(path, body).expect("an answer");
    assert!(response.header("x-request-id").is_some(), "{path}");
    response
}

/// What a good request gives. It says who answered.
fn good(client: &mut Client, path: &str, body: &Value) -> Value {
    let response = post(client, path, body);
    assert_eq!(response.status, 200, "{path} {body}: {}", response.text());
    assert!(response.header("x-model-version").is_some() && response.header("x-model-digest").is_some(), "{path}");
    response.json()
}

/// What the typed route gives.
fn typed(client: &mut Client, model: &str, record: &Value) -> Value {
    ask(client, &Request::post(&format!("/models/{model}/predict"), record.to_string())).json()
}

fn close(a: &Value, b: f64) {
    let a = a.as_f64().expect("a number");
    assert!((a - b).abs() < 1e-6, "{a} is not {b}");
}

#[test]
fn embeddings_are_the_vectors_of_the_typed_route_with_their_tokens() {
    let (_folder, gateway) = start("");
    let mut client = gateway.client();
    let alone = typed(&mut client, "embedder", &json!({ "text": "the gates" }));
    let body = json!({ "model": "embedder", "input": ["the gates", "water"], "dimensions": SIZE, "user": "someone" });
    let said = good(&mut client, "/v1/embeddings", &body);
    assert_eq!(said["data"][0], json!({ "object": "embedding", "index": 0, "embedding": alone["embedding"] }));
    assert_eq!((&said["object"], &said["data"][1]["index"], &said["model"]), (&json!("list"), &json!(1), &json!("embedder")));
    assert_eq!(said["usage"], json!({ "prompt_tokens": 8, "total_tokens": 8 }));
    let one = good(&mut client, "/v1/embeddings", &json!({ "model": "embedder", "input": "the gates" }));
    assert_eq!(one["data"].as_array().map(Vec::len), Some(1));
    let base64 = json!({ "model": "embedder", "input": "the gates", "encoding_format": "base64" });
    let text = good(&mut client, "/v1/embeddings", &base64)["data"][0]["embedding"].as_str().map(str::len);
    assert_eq!(text, Some((4 * SIZE).div_ceil(3) * 4));
    for (model, version) in [("embedder", "2"), ("embedder@stable", "1"), ("embedder@2", "2")] {
        let response = post(&mut client, "/v1/embeddings", &json!({ "model": model, "input": "" }));
        assert_eq!(response.header("x-model-version"), Some(version), "{model}: {}", response.text());
    }
    let counted = gateway.metric("sluicegate_requests_total", &[("model", "embedder")]);
    assert_eq!(counted, 7.0, "these are counted as all others");
}

#[test]
fn documents_are_ranked_by_the_scores_of_the_typed_route() {
    let (_folder, gateway) = start("");
    let mut client = gateway.client();
    let texts = ["water", "the lock fills slowly", "gates"];
    let score = |client: &mut Client, text: &str| {
        let record = json!({ "query": "the gate opens", "text": text });
        let said = typed(client, "ranker", &record);
        (said["score"].as_f64().expect("a score"), said["tokens"].as_u64().expect("a count"))
    };
    let mut expected: Vec<(usize, (f64, u64))> = (0..3).map(|place| (place, score(&mut client, texts[place]))).collect();
    let tokens: u64 = expected.iter().map(|(_, (_, tokens))| tokens).sum();
    expected.sort_by(|(_, a), (_, b)| b.0.total_cmp(&a.0));
    let documents = json!([texts[0], { "text": texts[1] }, texts[2]]);
    let body = json!({ "model": "ranker", "query": "the gate opens", "documents": documents, "return_documents": true });
    for path in ["/v1/rerank", "/v2/rerank"] {
        let said = good(&mut client, path, &body);
        for (result, (place, (score, _))) in said["results"].as_array().expect("a list").iter().zip(&expected) {
            assert_eq!((&result["index"], &result["document"]["text"]), (&json!(place), &json!(texts[*place])), "{said}");
            close(&result["relevance_score"], *score);
        }
        assert_eq!((&said["usage"]["total_tokens"], &said["meta"]["tokens"]["input_tokens"]), (&json!(tokens), &json!(tokens)));
    }
    let named = Request::post("/v1/rerank", json!({ "query": "q", "documents": texts, "top_n": 1 }).to_string());
    let said = ask(&mut client, &named.header("x-request-id", "mine")).json();
    assert_eq!(
        (&said["id"], &said["model"], said["results"].as_array().map(Vec::len)),
        (&json!("mine"), &json!("ranker"), Some(1))
    );

    let body = json!({ "query": "the gate opens", "texts": texts, "return_text": true });
    let said = good(&mut client, "/rerank", &body);
    for (rank, (place, (score, _))) in said.as_array().expect("a list").iter().zip(&expected) {
        assert_eq!((&rank["index"], &rank["text"]), (&json!(place), &json!(texts[*place])), "{said}");
        close(&rank["score"], *score);
    }
}

#[test]
fn text_embeddings_inference_is_answered_by_the_only_model_that_can() {
    let (_folder, gateway) = start("");
    let mut client = gateway.client();
    let alone = typed(&mut client, "embedder", &json!({ "text": "the gates" }))["embedding"].clone();
    let raw = good(&mut client, "/embed", &json!({ "inputs": "the gates", "normalize": false }));
    assert_eq!(raw, json!([alone]));
    let unit = good(&mut client, "/embed", &json!({ "inputs": ["the gates", "water"], "truncate": true }));
    let length: f64 = unit[0].as_array().expect("a vector").iter().filter_map(Value::as_f64).map(|number| number * number).sum();
    close(&json!(length), 1.0);

    let named = typed(&mut client, "classifier", &json!({ "text": "the gates" }))["probabilities"].clone();
    let said = good(&mut client, "/predict", &json!({ "inputs": "the gates" }));
    let said = said.as_array().expect("a list");
    assert_eq!(said.len(), LABELS.len());
    assert!(said.is_sorted_by_key(|each| each["score"].as_f64().map(|score| (-score * 1e9) as i64)), "{said:?}");
    for each in said {
        assert_eq!(each["score"], named[each["label"].as_str().expect("a label")]);
    }
    let batch = good(&mut client, "/predict", &json!({ "inputs": [["the gates"], ["water"]] }));
    assert_eq!((&batch[0], batch.as_array().map(Vec::len)), (&json!(said), Some(2)));
}

#[test]
fn a_text_is_cut_unless_the_caller_forbids_it() {
    let (_folder, gateway) = start("");
    let mut client = gateway.client();
    let long = "water ".repeat(POSITIONS);
    let said = good(&mut client, "/v1/embeddings", &json!({ "model": "embedder", "input": long }));
    assert_eq!(said["usage"]["total_tokens"], POSITIONS);
    good(&mut client, "/embed", &json!({ "inputs": long }));
    good(&mut client, "/embed", &json!({ "inputs": "water", "truncate": false }));
    let refused = post(&mut client, "/embed", &json!({ "inputs": ["water", long], "truncate": false }));
    assert!(refused.status == 400 && refused.text().contains("`truncate`: text 1 has 12 tokens"), "{}", refused.text());
}

#[test]
fn errors_are_told_in_the_form_of_each_client() {
    let (_folder, gateway) = start("http: { max_body: 1MiB }");
    let mut client = gateway.client();
    let with = |key: &str, value: Value| {
        let mut body = json!({ "model": "embedder", "input": "water" });
        body[key] = value;
        body
    };
    for (body, status, param, code, why) in [
        (with("model", json!("nobody")), 404, Value::Null, "model_not_found", "no model is called `nobody`"),
        (with("model", json!("embedder@7")), 404, Value::Null, "model_not_found", "no live version 7"),
        (with("model", json!("numbers")), 400, json!("model"), "invalid_fields", "this one takes `x` FP32"),
        (with("model", json!("classifier")), 400, json!("model"), "invalid_fields", "`probabilities` FP32 [-1, 3]"),
        (with("input", json!([1, 2])), 400, json!("input"), "invalid_fields", "ids of tokens are not taken"),
        (with("input", json!([])), 400, json!("input"), "invalid_fields", "empty"),
        (with("dimensions", json!(4)), 400, json!("dimensions"), "invalid_fields", "have 8 numbers"),
        (with("task", json!("query")), 400, Value::Null, "malformed", "`task` is not known here"),
        (with("input", json!("x".repeat(1 << 20))), 413, Value::Null, "body_too_large", "http.max_body"),
    ] {
        let response = post(&mut client, "/v1/embeddings", &body);
        let error = response.json()["error"].clone();
        let message = error["message"].as_str().unwrap_or_default();
        assert_eq!((response.status, &error["param"], &error["code"]), (status, &param, &json!(code)), "{error}");
        assert!(error["type"] == "invalid_request_error" && message.contains(why), "{error}");
        assert_eq!(error.as_object().map(serde_json::Map::len), Some(4), "as the client knows it");
    }
    let wrong_method = client.get("/v1/embeddings").expect("an answer");
    assert!(wrong_method.status == 405 && wrong_method.json()["error"]["message"].is_string(), "{}", wrong_method.text());
    for (path, body, why) in [
        ("/embed", json!({}), "`inputs`: it is missing"),
        ("/embed", json!({ "inputs": "a", "prompt_name": "query" }), "`prompt_name`"),
        ("/predict", json!({ "inputs": ["a", "b"] }), "the model takes one text"),
        ("/predict", json!({ "inputs": "a", "raw_scores": true }), "`raw_scores`"),
        ("/rerank", json!({ "query": "q", "texts": ["a"], "raw_scores": true }), "`raw_scores`"),
    ] {
        let response = post(&mut client, path, &body);
        let told = response.json();
        assert_eq!((response.status, &told["error_type"]), (400, &json!("Validation")), "{path} {told}");
        assert!(told["error"].as_str().is_some_and(|error| error.contains(why)), "{path} {told}");
    }
}

#[test]
fn where_several_models_can_the_caller_or_the_operator_says_which() {
    let (folder, gateway) = start("");
    drop(gateway);
    encoder::write(&folder.version("other", 1), &encoder::config("BertModel"), &weights(""));
    let gateway = Gateway::start(&folder, "");
    let mut client = gateway.client();
    let body = json!({ "inputs": "water" });
    let response = post(&mut client, "/embed", &body);
    let told = response.text();
    assert_eq!(response.status, 404, "{told}");
    for part in ["2 models", "embedder, other", "x-model", "protocols.text_models"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let other = |client: &mut Client, header: &str| {
        client.request(&Request::post("/embed", body.to_string()).header("x-model", header)).expect("an answer")
    };
    assert_eq!(other(&mut client, "other").header("x-model-version"), Some("1"));
    assert_eq!(other(&mut client, "embedder@2").header("x-model-version"), Some("2"));
    assert_eq!(other(&mut client, "nobody").status, 404);
    good(&mut client, "/rerank", &json!({ "query": "q", "texts": ["water"] }));
    drop(gateway);

    let gateway = Gateway::start(&folder, "protocols: { text_models: [ranker, other] }");
    let mut client = gateway.client();
    assert_eq!(post(&mut client, "/embed", &body).header("x-model-version"), Some("1"), "a ranker embeds nothing");
    let named = json!({ "model": "embedder", "input": "water" });
    assert_eq!(post(&mut client, "/v1/embeddings", &named).header("x-model-version"), Some("2"), "the body says more");
}

#[test]
fn without_a_model_of_text_that_is_said() {
    let folder = Folder::default();
    folder.publish("numbers", 1, &onnx::add_constant(1.0, 2));
    let gateway = Gateway::start(&folder, "");
    let mut client = gateway.client();
    for (path, body, what) in [
        ("/embed", json!({ "inputs": "a" }), "embed texts"),
        ("/predict", json!({ "inputs": "a" }), "classify texts"),
        ("/rerank", json!({ "query": "q", "texts": ["a"] }), "rank texts"),
    ] {
        let response = post(&mut client, path, &body);
        assert!(response.status == 404 && response.text().contains(what), "{}", response.text());
    }
}

#[test]
fn what_is_switched_off_is_not_there() {
    let paths = |gateway: &Gateway| {
        let paths = gateway.client().get("/openapi.json").expect("an answer").json()["paths"].clone();
        paths.as_object().expect("paths").keys().cloned().collect::<Vec<_>>()
    };
    let all = ["/v1/embeddings", "/v1/rerank", "/v2/rerank", "/embed", "/predict", "/rerank"];
    let (_folder, gateway) = start("");
    let listed = paths(&gateway);
    assert!(all.iter().all(|path| listed.iter().any(|listed| listed == path)), "{listed:?}");
    let (_folder, gateway) = start("protocols: { text: false }");
    for path in all {
        assert_eq!(post(&mut gateway.client(), path, &json!({})).status, 404, "{path}");
        assert!(!paths(&gateway).iter().any(|listed| listed == path), "{path}");
    }
}
