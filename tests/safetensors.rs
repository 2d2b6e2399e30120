//! A version in safetensors is one as any other: found, typed, answered on every route, and named where it cannot be loaded.

use sluicegate_testkit::encoder::{config, weights, write};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::process::Gateway;
#[cfg(feature = "candle")]
use {
    serde_json::json,
    sluicegate_testkit::{client::Request, encoder::SIZE},
    sluicegate_tests::{ask, infer_path},
};

#[cfg(feature = "candle")]
#[test]
fn an_encoder_answers_text_on_the_typed_route_and_in_the_protocol() {
    let folder = Folder::default();
    write(&folder.version("encoder", 1), &config("BertModel"), &weights(""));
    let gateway = Gateway::start(&folder, "");
    let mut client = gateway.client();
    let one = ask(&mut client, &Request::post("/models/encoder/predict", json!({ "text": "the gates" }).to_string())).json();
    let vector = one["embedding"].as_array().expect("numbers");
    assert_eq!((vector.len(), &one["tokens"]), (SIZE, &json!(5)), "{one}");
    let two = json!([{ "text": "the lock fills slowly" }, { "text": "the gates" }]);
    let two = ask(&mut client, &Request::post("/models/encoder/predict", two.to_string())).json();
    assert_eq!(two[1], one, "a text has the same vector in any company");
    let body = json!({ "inputs": [{ "name": "text", "datatype": "BYTES", "shape": [1], "data": ["the gates"] }], "outputs": [{ "name": "embedding" }] });
    let said = ask(&mut client, &Request::post(&infer_path("encoder"), body.to_string())).json();
    assert_eq!(&said["outputs"][0]["data"], &one["embedding"], "{said}");
    let wrong = client.request(&Request::post("/models/encoder/predict", json!({ "text": 7 }).to_string())).expect("an answer");
    assert_eq!(wrong.status, 422, "{}", wrong.text());
    let model = gateway.model("encoder");
    assert!(model.to_string().contains("candle"), "{model}");
    assert!(gateway.status().to_string().contains("export it to ONNX"), "the faster way is advised: {}", gateway.status());
    let listed = client.get("/models/encoder/batching").expect("an answer").json();
    assert!(listed.to_string().contains("threads"), "text never runs on a serving thread: {listed}");
}

#[cfg(feature = "candle")]
#[test]
fn weights_that_do_not_fit_fail_the_version_by_name_and_what_serves_goes_on() {
    let folder = Folder::default();
    write(&folder.version("encoder", 1), &config("BertModel"), &weights(""));
    let gateway = Gateway::start(&folder, "");
    let mut weights = weights("");
    weights.remove("encoder.layer.1.output.dense.bias");
    write(&folder.version("encoder", 2), &config("BertModel"), &weights);
    gateway.wait_for_state("encoder", 2, "failed");
    let status = gateway.status().to_string();
    assert!(status.contains("no tensor `encoder.layer.1.output.dense.bias`"), "{status}");
    let body = json!({ "text": "water" }).to_string();
    assert_eq!(ask(&mut gateway.client(), &Request::post("/models/encoder/predict", body)).header("x-model-version"), Some("1"));
}

#[cfg(not(feature = "candle"))]
#[test]
fn a_build_without_candle_says_so() {
    let folder = Folder::default();
    write(&folder.version("encoder", 1), &config("BertModel"), &weights(""));
    let gateway = Gateway::start(&folder, "");
    gateway.wait_for_state("encoder", 1, "failed");
    let status = gateway.status().to_string();
    assert!(status.contains("--features candle"), "{status}");
}
