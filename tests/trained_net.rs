//! A net that was trained with PyTorch answers as PyTorch does: `tests/goldens/digits_net.py` made it, and keeps what it said.

use std::fs;

use serde_json::{Value, json};
use sluicegate_testkit::client::Request;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::process::{Gateway, repository};
use sluicegate_tests::{ask, infer_path, numbers};

const TOLERANCE: f32 = 1e-5;

#[test]
fn a_net_trained_with_pytorch_answers_as_pytorch_does() {
    let goldens = repository().join("tests/goldens");
    let folder = Folder::default();
    let version = folder.version("digits-net", 1);
    fs::create_dir_all(&version).expect("a version's directory");
    for file in ["model.safetensors", "config.json", "model.yaml"] {
        fs::copy(goldens.join("digits-net/1").join(file), version.join(file)).expect("a file of the net");
    }
    let gateway = Gateway::start(&folder, "");
    let mut client = gateway.client();
    let lines = fs::read_to_string(goldens.join("digits-net.jsonl")).expect("what PyTorch said");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 50);

    let data: Vec<&Value> = lines.iter().map(|line| &line["image"]).collect();
    let body = json!({ "inputs": [{ "name": "image", "datatype": "FP32", "shape": [lines.len(), 1, 8, 8], "data": data }] });
    let all = numbers(&ask(&mut client, &Request::post(&infer_path("digits-net"), body.to_string())).json());
    for (row, line) in lines.iter().enumerate() {
        let wanted: Vec<f32> = line["probabilities"].as_array().into_iter().flatten().filter_map(number).collect();
        assert_close(&all[10 * row..10 * (row + 1)], &wanted);
        let record = json!({ "image": line["image"] }).to_string();
        let typed = ask(&mut client, &Request::post("/models/digits-net/predict", record)).json();
        let by_label: Vec<f32> = (0..10).filter_map(|label| number(&typed["probabilities"][label.to_string()])).collect();
        assert_close(&by_label, &wanted);
    }
}

fn number(value: &Value) -> Option<f32> {
    value.as_f64().map(|number| number as f32)
}

fn assert_close(got: &[f32], wanted: &[f32]) {
    assert_eq!(got.len(), wanted.len());
    let off = got.iter().zip(wanted).map(|(got, wanted)| (got - wanted).abs()).fold(0.0, f32::max);
    assert!(off <= TOLERANCE, "off by {off}: {got:?} in place of {wanted:?}");
}
