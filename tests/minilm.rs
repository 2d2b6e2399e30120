//! all-MiniLM-L6-v2 makes of 200 varied texts what sentence-transformers makes of them, from safetensors and as ONNX.

use std::fs;
use std::thread;

use serde_json::{Value, json};
use sluicegate_testkit::client::{Client, Request};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::process::{Gateway, engine, repository};
use sluicegate_tests::{ask, infer_path};

/// Numbers of a vector.
const SIZE: usize = 384;

/// Texts of a request, and requests at a time.
const ROWS: usize = 10;
const CALLERS: usize = 4;

/// What each number may be off by. Two engines that keep to it are within 1e-4 of each other.
const TOLERANCE: f32 = 5e-5;

#[test]
fn safetensors_give_the_vectors_of_sentence_transformers() {
    hold("minilm", "candle");
}

#[test]
fn onnx_runtime_gives_the_same_of_the_same_weights() {
    hold("minilm-onnx", "onnxruntime");
}

/// Asks for all texts, several at a time and several callers at once.
fn hold(model: &str, engine: &str) {
    let Some(gateway) = served(model) else { return };
    assert!(gateway.model(model).to_string().contains(engine), "{}", gateway.model(model));
    let (texts, vectors) = goldens();
    let batches: Vec<_> = texts.chunks(ROWS).zip(vectors.chunks(ROWS)).collect();
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (batches, mut client) = (&batches, gateway.client());
            scope.spawn(move || {
                for (place, (texts, wanted)) in batches.iter().enumerate().skip(caller).step_by(CALLERS) {
                    let protocol = place % 2 == 1;
                    let got = if protocol { infer(&mut client, model, texts) } else { predict(&mut client, model, texts) };
                    assert_eq!(got.len(), wanted.len());
                    for ((text, wanted), (got, tokens)) in texts.iter().zip(*wanted).zip(&got) {
                        check(&text.chars().take(40).collect::<String>(), got, wanted, *tokens);
                    }
                }
            });
        }
    });
}

fn check(text: &str, got: &[f32], wanted: &[f32], tokens: u64) {
    assert!((2..=256).contains(&tokens), "{text:?}: {tokens} tokens");
    assert_eq!(got.len(), SIZE, "{text:?}");
    let cosine = dot(got, wanted) / (dot(got, got) * dot(wanted, wanted)).sqrt();
    assert!(cosine >= 0.99999, "{text:?}: cosine {cosine}");
    let off = got.iter().zip(wanted).map(|(got, wanted)| (got - wanted).abs()).fold(0.0, f32::max);
    assert!(off <= TOLERANCE, "{text:?}: off by {off}");
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Vectors and tokens by the typed route.
fn predict(client: &mut Client, model: &str, texts: &[String]) -> Vec<(Vec<f32>, u64)> {
    let records: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
    let answer = ask(client, &Request::post(&format!("/models/{model}/predict"), json!(records).to_string())).json();
    let rows = answer.as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| (floats(&row["embedding"]), row["tokens"].as_u64().unwrap_or(0))).collect()
}

/// The same by the protocol.
fn infer(client: &mut Client, model: &str, texts: &[String]) -> Vec<(Vec<f32>, u64)> {
    let body = json!({ "inputs": [{ "name": "text", "datatype": "BYTES", "shape": [texts.len()], "data": texts }] });
    let answer = ask(client, &Request::post(&infer_path(model), body.to_string())).json();
    let data = |name: &str| {
        let outputs = answer["outputs"].as_array().cloned().unwrap_or_default();
        outputs.into_iter().find(|output| output["name"] == name).map(|mut output| output["data"].take()).unwrap_or_default()
    };
    let tokens = data("tokens").as_array().cloned().unwrap_or_default();
    floats(&data("embedding")).chunks(SIZE).map(<[f32]>::to_vec).zip(tokens.iter().filter_map(Value::as_u64)).collect()
}

fn floats(data: &Value) -> Vec<f32> {
    data.as_array().into_iter().flatten().filter_map(Value::as_f64).map(|number| number as f32).collect()
}

/// The texts, and what sentence-transformers makes of each.
fn goldens() -> (Vec<String>, Vec<Vec<f32>>) {
    let folder = repository().join("tests/goldens");
    let texts = fs::read_to_string(folder.join("minilm.jsonl")).expect("the texts");
    let texts: Vec<String> = texts.lines().map(|line| serde_json::from_str(line).expect("a text a line")).collect();
    let bytes = fs::read(folder.join("minilm.f32")).expect("their vectors");
    let numbers = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four bytes")));
    let vectors: Vec<_> = numbers.collect::<Vec<_>>().chunks(SIZE).map(<[f32]>::to_vec).collect();
    assert_eq!((texts.len(), vectors.len()), (200, 200));
    (texts, vectors)
}

/// A gateway with this model alone, where `make minilm` has fetched it. The engine is the model's own, whichever is asked for, so
/// that one pass of the tests is enough.
#[allow(clippy::disallowed_methods, reason = "a test's switch; the product reads no environment here")]
fn served(model: &str) -> Option<Gateway> {
    if engine() == "tract" {
        eprintln!("skipped for tract: {model} is for another engine");
        return None;
    }
    let registry = repository().join(".models");
    if !registry.join(model).is_dir() {
        assert!(std::env::var_os("SLUICEGATE_REQUIRE_MINILM").is_none(), ".models/{model} is not there: run `make minilm`");
        eprintln!("skipped: .models/{model} is not there; `make minilm` fetches it");
        return None;
    }
    let config = format!(
        "registries: {{ own: {{ type: directory, path: {registry:?} }} }}\nmodels: [{{ name: {model}, registry: own }}]\nbatching: {{ queue_timeout: 5m }}\n"
    );
    Some(Gateway::start(&Folder::default(), &config))
}
