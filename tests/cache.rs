//! A cached answer is the answer that a run would have given, and costs no run; what is kept has a bound, and ends with its version.

use serde_json::{Value, json};
use sluicegate_testkit::client::{Client, Request, Response};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, wait_for};
use sluicegate_tests::{ask, infer, infer_path, numbers, raw};

/// `two` (`more = x + 1`, `twice = x + x`) with a cache, `plain` without one.
fn start() -> (Folder, Gateway) {
    let folder = Folder::default();
    folder.publish("two", 1, &onnx::two_outputs(2));
    folder.publish("plain", 1, &onnx::add_constant(1.0, 2));
    let gateway = Gateway::start(&folder, "models: [ { name: two, cache: { size: 1MiB } }, { name: plain } ]");
    (folder, gateway)
}

fn json_request(model: &str, data: &[f32]) -> Request {
    Request::post(&infer_path(model), infer(&[data.len() / 2, 2], data).to_string())
}

fn cached(response: &Response) -> Option<&str> {
    response.header("x-cache")
}

fn metric(gateway: &Gateway, name: &str) -> f64 {
    gateway.metric(&format!("sluicegate_{name}"), &[("model", "two")])
}

/// An answer without what is of this one request.
fn answer(response: &Response) -> Value {
    let mut body = response.json();
    if let Some(body) = body.as_object_mut() {
        body.remove("id");
    }
    body
}

#[test]
fn the_same_again_is_answered_without_a_run_on_every_route() {
    let (_folder, gateway) = start();
    let mut client = gateway.client();
    let first = ask(&mut client, &json_request("two", &[1.0, 2.0]));
    assert_eq!((cached(&first), numbers(&first.json())), (Some("miss"), vec![2.0, 3.0]));

    let again = ask(&mut client, &json_request("two", &[1.0, 2.0]));
    assert_eq!((cached(&again), answer(&again)), (Some("hit"), answer(&first)));
    assert!(again.header("x-model-digest").is_some() && again.header("x-model-digest") == first.header("x-model-digest"));
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));

    let typed = ask(&mut client, &Request::post("/models/two/predict", json!({ "x": [1.0, 2.0] }).to_string()));
    assert_eq!((cached(&typed), typed.json()["twice"].clone()), (Some("hit"), json!([2.0, 4.0])));
    let head = json!({
        "id": "mine", "parameters": { "binary_data_output": true },
        "inputs": [{ "name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": { "binary_data_size": 8 } }],
    });
    let binary = ask(&mut client, &Request::binary(&infer_path("two"), &head, &raw(&[1.0, 2.0])));
    let (said, bytes) = binary.binary().expect("binary outputs");
    assert_eq!((cached(&binary), said["id"].as_str(), bytes), (Some("hit"), Some("mine"), &raw(&[2.0, 3.0, 2.0, 4.0])[..]));

    assert_eq!((metric(&gateway, "cache_hits_total"), metric(&gateway, "cache_misses_total")), (3.0, 1.0));
    assert_eq!((metric(&gateway, "batch_rows_sum"), metric(&gateway, "batch_rows_count")), (1.0, 1.0));
    assert_eq!(metric(&gateway, "requests_total"), 4.0);
}

#[test]
fn another_question_is_another_answer() {
    let (_folder, gateway) = start();
    let mut client = gateway.client();
    let mut first_time = |request: &Request| {
        let (miss, hit) = (ask(&mut client, request), ask(&mut client, request));
        assert_eq!((cached(&miss), cached(&hit)), (Some("miss"), Some("hit")), "{request:?}");
        assert_eq!(answer(&miss), answer(&hit));
        miss.json()
    };
    assert_eq!(numbers(&first_time(&json_request("two", &[1.0, 2.0]))), [2.0, 3.0]);
    assert_eq!(numbers(&first_time(&json_request("two", &[2.0, 1.0]))), [3.0, 2.0]);
    // The same elements in another shape, and other outputs of the same inputs.
    assert_eq!(numbers(&first_time(&json_request("two", &[1.0, 2.0, 2.0, 1.0]))), [2.0, 3.0, 3.0, 2.0]);
    let wanting = |names: &[&str]| {
        let mut body = infer(&[1, 2], &[1.0, 2.0]);
        body["outputs"] = names.iter().map(|name| json!({ "name": name })).collect();
        Request::post(&infer_path("two"), body.to_string())
    };
    assert_eq!(numbers(&first_time(&wanting(&["twice"]))), [2.0, 4.0]);
    let turned = first_time(&wanting(&["twice", "more"]));
    assert_eq!((turned["outputs"][0]["name"].as_str(), numbers(&turned)), (Some("twice"), vec![2.0, 4.0]));
    assert_eq!(numbers(&first_time(&wanting(&["more"]))), [2.0, 3.0]);
}

#[test]
fn a_caller_may_ask_anew() {
    let (_folder, gateway) = start();
    let mut client = gateway.client();
    let mut how = |control: &str, number: f32| {
        let request = json_request("two", &[number, 0.0]).header("cache-control", control);
        cached(&ask(&mut client, &request)).map(str::to_owned)
    };
    assert_eq!(how("no-store", 1.0), None);
    assert_eq!(how("", 1.0).as_deref(), Some("miss"), "what was not to be kept was not");
    assert_eq!(how("no-cache", 1.0).as_deref(), Some("miss"));
    assert_eq!(how("no-cache", 2.0).as_deref(), Some("miss"));
    assert_eq!(how("", 2.0).as_deref(), Some("hit"), "what was asked anew is kept");
    assert_eq!((metric(&gateway, "cache_hits_total"), metric(&gateway, "cache_misses_total")), (1.0, 1.0));
    assert_eq!(metric(&gateway, "batch_rows_sum"), 4.0);
}

#[test]
fn what_failed_or_had_no_rows_is_not_kept() {
    let folder = Folder::default();
    folder.publish("two", 1, &onnx::fails_on_some());
    let gateway = Gateway::start(&folder, "models: [ { name: two, cache: { size: 1MiB } } ]");
    let mut client = gateway.client();
    let mut status = |index: &[i64]| {
        let input = json!({ "name": "index", "shape": [index.len()], "datatype": "INT64", "data": index });
        let response = client.post_json(&infer_path("two"), &json!({ "inputs": [input] })).expect("an answer");
        (response.status, cached(&response).map(str::to_owned))
    };
    assert_eq!([status(&[7]).0, status(&[7]).0], [500, 500]);
    assert_eq!(metric(&gateway, "cache_misses_total"), 2.0);
    assert_eq!([status(&[]), status(&[])], [(200, None), (200, None)]);
    assert_eq!(metric(&gateway, "cache_bytes"), 0.0);
}

#[test]
fn a_swap_empties_it_and_so_does_another_size() {
    let folder = Folder::default();
    folder.publish("two", 1, &onnx::add_constant(1.0, 2));
    let config = |size: &str| format!("models: [ {{ name: two, cache: {{ size: {size} }} }} ]");
    let gateway = Gateway::start(&folder, &config("1MiB"));
    let mut client = gateway.client();
    let mut seen = || {
        let response = ask(&mut client, &json_request("two", &[1.0, 2.0]));
        let version = response.header("x-model-version").expect("it says who answered").to_owned();
        (cached(&response).expect("it has a cache").to_owned(), version, numbers(&response.json()))
    };
    let of = |cached: &str, version: &str, numbers: &[f32]| (cached.to_owned(), version.to_owned(), numbers.to_vec());
    assert_eq!(seen(), of("miss", "1", &[2.0, 3.0]));
    assert_eq!(seen(), of("hit", "1", &[2.0, 3.0]));

    folder.publish("two", 2, &onnx::add_constant(10.0, 2));
    let mut first = wait_for("the second version", || Some(seen()).filter(|(_, version, _)| version == "2"));
    assert_eq!(first, of("miss", "2", &[11.0, 12.0]));
    assert_eq!(seen(), of("hit", "2", &[11.0, 12.0]));
    gateway.wait_for_state("two", 1, "gone");
    assert_eq!(gateway.metric("sluicegate_cache_bytes", &[("version", "1")]), 0.0);

    sluicegate_testkit::process::write_config(&folder, &config("2MiB"));
    wait_for("another size", || (metric(&gateway, "cache_size_bytes") >= f64::from(2 << 20)).then_some(()));
    first = wait_for("an empty cache", || Some(seen()).filter(|(cached, ..)| cached == "miss"));
    assert_eq!(first, of("miss", "2", &[11.0, 12.0]));
}

#[test]
fn without_the_key_there_is_none() {
    let (_folder, gateway) = start();
    let mut client = gateway.client();
    for _ in 0..2 {
        assert_eq!(cached(&ask(&mut client, &json_request("plain", &[1.0, 2.0]))), None);
    }
    assert_eq!(gateway.metric("sluicegate_batch_rows_sum", &[("model", "plain")]), 2.0);
    let text = Client::new(gateway.ops()).get("/metrics").expect("the ops address answers").text();
    let series: Vec<&str> = text.lines().filter(|line| line.starts_with("sluicegate_cache_")).collect();
    assert!(!series.is_empty() && series.iter().all(|line| line.contains("model=\"two\"")), "{series:?}");
    let size = |model: &str| {
        ask(&mut gateway.client(), &Request::new("GET", &format!("/models/{model}"))).json()["cache_size_bytes"].clone()
    };
    assert_eq!((size("two"), size("plain")), (json!(1 << 20), Value::Null));
}

#[test]
fn many_different_requests_stay_within_the_bound() {
    let folder = Folder::default();
    folder.publish("two", 1, &onnx::two_outputs(256));
    let gateway = Gateway::start(&folder, "models: [ { name: two, cache: { size: 1MiB } } ]");
    let mut client = gateway.client();
    let request = |number: u32, rows: usize| {
        let data = vec![number as f32; 256 * rows];
        let size = json!({ "binary_data_size": 4 * data.len() });
        let input = json!({ "name": "x", "shape": [rows, 256], "datatype": "FP32", "parameters": size });
        let head = json!({ "parameters": { "binary_data_output": true }, "inputs": [input] });
        Request::binary(&infer_path("two"), &head, &raw(&data))
    };
    let mut most: f64 = 0.0;
    for number in 0..1500 {
        ask(&mut client, &request(number, 1));
        if number % 100 == 0 {
            most = most.max(metric(&gateway, "cache_bytes"));
        }
    }
    assert!(most > f64::from(1 << 19) && most <= metric(&gateway, "cache_size_bytes"), "{most} bytes at most");
    assert!(metric(&gateway, "cache_evictions_total") > 500.0);

    // An answer above a sixteenth of the bound is given, and not kept.
    assert_eq!(cached(&ask(&mut client, &request(9, 64))), Some("miss"));
    assert_eq!(cached(&ask(&mut client, &request(9, 64))), Some("miss"));
}
