//! Requests share runs where they may, get what they would have got alone, and one can ask why a batch was as it was.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use sluicegate_core::{DType, Dim};
use sluicegate_testkit::client::Request;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx::{self, Attr, Model, rows};
use sluicegate_testkit::process::Gateway;
use sluicegate_tests::{ask, infer, infer_once, infer_path, numbers};

/// `y = x` and `sum` of each row, for rows of any length.
fn of_any_length() -> Vec<u8> {
    let any = [rows(), Dim::Free(Some("length".into()))];
    Model::new(11)
        .input("x", DType::Fp32, &any)
        .output("y", DType::Fp32, &any)
        .output("sum", DType::Fp32, &[rows(), Dim::Fixed(1)])
        .node("Identity", &["x"], &["y"], &[])
        .node("ReduceSum", &["x"], &["sum"], &[Attr::Ints("axes", &[1]), Attr::Int("keepdims", 1)])
        .build()
}

/// An idle instance waits until four rows are there, or for as long as it may be told to.
const PATIENT: &str = "batching: { max_rows: 4, max_delay: 1s, queue_timeout: 120s, instances: 1 }";

fn last(gateway: &Gateway, model: &str) -> Value {
    gateway.client().get(&format!("/models/{model}/batching")).expect("an answer").json()
}

/// Sends rows of these lengths at once; each gets its own back.
fn send(gateway: &Gateway, model: &str, lengths: &[usize]) {
    let barrier = Barrier::new(lengths.len());
    thread::scope(|scope| {
        for (number, &length) in lengths.iter().enumerate() {
            let (mut client, barrier) = (gateway.client(), &barrier);
            scope.spawn(move || {
                let row: Vec<f32> = (0..length).map(|i| (100 * number + i + 1) as f32).collect();
                barrier.wait();
                let answer = ask(&mut client, &Request::post(&infer_path(model), infer(&[1, length], &row).to_string())).json();
                assert_eq!(answer["outputs"][0]["shape"], json!([1, length]));
                assert_eq!(numbers(&answer), row);
                assert_eq!(answer["outputs"][1]["data"], json!([row.iter().sum::<f32>()]), "the pad changes no sum");
            });
        }
    });
}

#[test]
fn rows_of_different_lengths_share_a_run_where_the_model_says_what_to_pad_with() {
    let folder = Folder::default();
    folder.publish_with("any", 1, &of_any_length(), "signature: { inputs: [ { name: x, pad: 0 } ] }");
    let gateway = Gateway::start(&folder, PATIENT);
    // On a busy machine one may come later than the others have patience.
    for _ in 0..20 {
        send(&gateway, "any", &[3, 5, 8, 1]);
        let newest = last(&gateway, "any")["batches"][0].clone();
        if newest["rows"] == 4 {
            assert_eq!((&newest["requests"], &newest["left"]), (&json!(4), &json!("full")));
            return;
        }
    }
    panic!("never in one run: {}", last(&gateway, "any"));
}

#[test]
fn rows_of_different_lengths_run_apart_where_it_does_not() {
    let folder = Folder::default();
    folder.publish("any", 1, &of_any_length());
    let gateway = Gateway::start(&folder, PATIENT);
    send(&gateway, "any", &[3, 5, 3, 5]);
    let batches = last(&gateway, "any")["batches"].clone();
    let rows: Vec<_> = batches.as_array().into_iter().flatten().filter_map(|batch| batch["rows"].as_u64()).collect();
    assert!(rows.iter().sum::<u64>() == 4 && rows.iter().all(|&rows| rows <= 2), "{batches}");
}

#[test]
fn a_pad_that_could_not_be_cut_off_again_fails_the_version_with_what_to_change() {
    let folder = Folder::default();
    let any = [rows(), Dim::Free(Some("length".into()))];
    let other = [rows(), Dim::Free(Some("other".into()))];
    let model = Model::new(17)
        .input("x", DType::Fp32, &any)
        .input("o", DType::Fp32, &other)
        .output("y", DType::Fp32, &any)
        .output("z", DType::Fp32, &other)
        .node("Identity", &["x"], &["y"], &[])
        .node("Identity", &["o"], &["z"], &[])
        .build();
    folder.publish_with("odd", 1, &model, "signature: { inputs: [ { name: x, pad: 0 } ] }");
    let gateway = Gateway::begin(&folder, "");
    let reason = gateway.wait_for_state("odd", 1, "failed");
    assert!(reason.contains("padding could not be cut off"), "{reason}");
}

#[test]
fn the_last_batches_say_why_each_left() {
    let folder = Folder::default();
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    let gateway = Gateway::start(&folder, "batching: { max_rows: 3 }");
    infer_once(&gateway, "add", &[1, 2], &[1.0, 2.0]);
    infer_once(&gateway, "add", &[3, 2], &[0.0; 6]);
    infer_once(&gateway, "add", &[7, 2], &[0.0; 14]);
    let told = last(&gateway, "add");
    let batches = told["batches"].as_array().cloned().unwrap_or_default();
    let each: Vec<_> = batches.iter().map(|batch| (batch["rows"].as_u64(), batch["left"].as_str())).collect();
    let alone = |batch: &&(Option<u64>, Option<&str>)| **batch == (Some(1), Some("took_all"));
    assert_eq!(each.iter().filter(alone).count(), 2, "the lone row, and the rest of the seven: {each:?}");
    assert_eq!(each.iter().filter(|batch| **batch == (Some(3), Some("full"))).count(), 3, "{each:?}");
    assert_eq!(each.last(), Some(&(Some(1), Some("took_all"))), "the newest comes first");
    assert!(batches.iter().all(|batch| batch["because"].as_str().is_some_and(|because| !because.is_empty())));
    assert_eq!((&told["max_rows"], &told["queued_rows"], &told["version"]), (&json!(3), &json!(0), &json!("1")));
    let missing = gateway.client().get("/models/none/batching").expect("an answer");
    assert_eq!(missing.status, 404);
}

#[test]
fn models_that_nobody_asks_cost_no_threads() {
    let folder = Folder::default();
    for number in 0..20 {
        folder.publish(&format!("m{number}"), 1, &onnx::add_constant(number as f32, 2));
    }
    let gateway = Gateway::start(&folder, "batching: { execution: threads, instances: 4 }");
    let threads = || gateway.metric("sluicegate_process_threads", &[]);
    let before = threads();
    infer_once(&gateway, "m3", &[1, 2], &[1.0, 2.0]);
    assert!(threads() <= before + 1.0, "one request starts one thread");
    assert!(before < 40.0, "{before} threads for twenty models");
}
