//! Too much at once costs those who are too many an answer that says so, and nobody else anything.

use std::sync::Barrier;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::json;
use sluicegate_core::DType;
use sluicegate_testkit::client::{Request, Response};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, wait_for};
use sluicegate_tests::{EACH, SLOW_WIDTH, TIMED, ask, infer, infer_path, numbers, raw, slow, slow_request, slow_rows};

/// `slow`, one row a run, with this much room in its queue; and `add`, which is quick.
fn slow_and_quick(queue_rows: usize, more: &str) -> (Folder, Gateway) {
    let folder = Folder::default();
    folder.publish("slow", 1, &slow());
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    let batching = format!("{{ max_rows: 1, queue_rows: {queue_rows}, queue_timeout: 60s, execution: threads, instances: 1 }}");
    let gateway =
        Gateway::start(&folder, &format!("models: [ {{ name: slow, batching: {batching} }}, {{ name: add }} ]\n{more}"));
    (folder, gateway)
}

/// A request that keeps `slow` busy for about a second; the gateway has it when this returns.
fn occupy(gateway: &Gateway) -> (usize, JoinHandle<Response>) {
    let rows = slow_rows(gateway, "slow", 1.0).max(20);
    let mut client = gateway.client();
    let busy = thread::spawn(move || client.request(&slow_request("slow", rows)).expect("an answer to who came first"));
    wait_for("a busy model", || (gateway.model("slow")["queued_rows"].as_u64()? > 10).then_some(()));
    (rows, busy)
}

/// The answer to [`occupy`] has each row in its place.
fn check_occupied((rows, busy): (usize, JoinHandle<Response>)) {
    let response = busy.join().expect("it was answered");
    assert_eq!(response.status, 200, "{}", response.text());
    let (_, bytes) = response.binary().expect("binary outputs");
    let expected: Vec<f32> = (0..rows).flat_map(|row| std::iter::repeat_n(row as f32, SLOW_WIDTH)).collect();
    assert!(bytes == raw(&expected), "the rows are in order");
}

fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.json()["code"].as_str()), (status, Some(code)), "{}", response.text());
    assert_eq!(response.header("retry-after").is_some(), status == 429, "{:?}", response.headers);
    assert!(response.header("x-request-id").is_some());
}

fn add_one() -> Request {
    Request::post(&infer_path("add"), infer(&[1, 2], &[1.0, 2.0]).to_string())
}

#[test]
fn a_full_queue_refuses_at_once_and_other_models_notice_nothing() {
    let (_folder, gateway) = slow_and_quick(8, "");
    let busy = occupy(&gateway);
    let mut client = gateway.client();
    refused(&client.request(&slow_request("slow", 1)).expect("an answer"), 429, "queue_full");
    assert_eq!(numbers(&ask(&mut client, &add_one()).json()), [2.0, 3.0]);
    assert_eq!(gateway.metric("sluicegate_requests_total", &[("model", "slow"), ("code", "queue_full")]), 1.0);
    check_occupied(busy);
    assert_eq!(client.request(&slow_request("slow", 1)).expect("an answer").status, 200, "there is room again");
}

#[test]
fn a_request_whose_time_is_up_is_not_run() {
    let (_folder, gateway) = slow_and_quick(1_000_000, "");
    let busy = occupy(&gateway);
    let late = json!({
        "parameters": { "timeout": 1000 },
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, SLOW_WIDTH], "data": vec![0.0; SLOW_WIDTH] }],
    });
    let response = gateway.client().post_json(&infer_path("slow"), &late).expect("an answer");
    refused(&response, 504, "deadline_exceeded");
    let rows = (TIMED * EACH + busy.0) as f64;
    check_occupied(busy);
    assert_eq!(gateway.metric("sluicegate_requests_total", &[("code", "deadline_exceeded")]), 1.0);
    assert_eq!(gateway.metric("sluicegate_batch_rows_sum", &[("model", "slow")]), rows, "the late row was never run");
    assert_eq!(gateway.metric("sluicegate_abandoned_total", &[("model", "slow")]), 0.0, "nobody has left");
}

#[test]
fn as_many_requests_as_may_be_are_in_flight() {
    let (_folder, gateway) = slow_and_quick(1_000_000, "limits: { in_flight: 1 }");
    let busy = occupy(&gateway);
    let mut client = gateway.client();
    refused(&client.request(&add_one()).expect("an answer"), 429, "too_busy");
    let health = client.get("/v2/health/ready").expect("an answer");
    assert_eq!(health.status, 200, "health is no request: {}", health.text());
    check_occupied(busy);
    ask(&mut client, &add_one());
    assert_eq!(gateway.metric("sluicegate_unrouted_total", &[("code", "too_busy")]), 1.0);
}

#[test]
fn a_caller_who_leaves_is_dropped_before_the_run_and_counted() {
    let (_folder, gateway) = slow_and_quick(1_000_000, "");
    let busy = occupy(&gateway);
    let mut leaves = gateway.client();
    leaves.write(&slow_request("slow", 3).bytes()).expect("it is taken");
    wait_for("two requests in flight", || (gateway.status()["in_flight"] == 2).then_some(()));
    leaves.close();
    let cancelled = || gateway.metric("sluicegate_requests_total", &[("model", "slow"), ("code", "cancelled")]);
    wait_for("a request that is cancelled", || (cancelled() == 1.0).then_some(()));
    assert_eq!(gateway.status()["in_flight"], 1, "its room is free");
    let rows = (TIMED * EACH + busy.0) as f64;
    check_occupied(busy);
    // The next one in line finds those that are gone, and runs.
    ask(&mut gateway.client(), &slow_request("slow", 1));
    let metric = |name: &str| gateway.metric(name, &[("model", "slow")]);
    assert_eq!(metric("sluicegate_batch_rows_sum"), rows + 1.0, "the rows of who left were never run");
    assert_eq!(metric("sluicegate_abandoned_total"), 1.0, "one request was abandoned, whatever it was split into");
}

/// `count` callers ask at the same moment, each with its own request.
fn together(gateway: &Gateway, count: usize, request: impl Fn(usize) -> Request + Sync) -> Vec<Response> {
    let start = Barrier::new(count);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..count)
            .map(|i| {
                let (start, request) = (&start, &request);
                let mut client = gateway.client();
                scope.spawn(move || {
                    start.wait();
                    client.request(&request(i)).expect("an answer")
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("it was answered")).collect()
    })
}

/// Repeats a round until a run had several requests in it.
fn until_merged(gateway: &Gateway, model: &str, mut round: impl FnMut()) {
    let metric = |name: &str| gateway.metric(name, &[("model", model)]);
    wait_for("a batch of more than one", || {
        round();
        (metric("sluicegate_batch_rows_sum") > metric("sluicegate_batch_rows_count")).then_some(())
    });
    let single = gateway.metric("sluicegate_batch_rows_bucket", &[("model", model), ("le", "1")]);
    assert!(single < metric("sluicegate_batch_rows_count"), "the histogram shows a run of more than one row");
}

#[test]
fn requests_that_share_a_run_get_their_own_answers() {
    let folder = Folder::default();
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    let gateway = Gateway::start(&folder, "batching: { max_rows: 16, max_delay: 100ms, execution: threads, instances: 1 }");
    let request = |i: usize| Request::post(&infer_path("add"), infer(&[1, 2], &[i as f32, 0.5]).to_string());
    until_merged(&gateway, "add", || {
        for (i, response) in together(&gateway, 16, request).into_iter().enumerate() {
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(numbers(&response.json()), [i as f32 + 1.0, 1.5]);
        }
    });
}

#[test]
fn a_request_that_fails_in_the_run_fails_alone() {
    let folder = Folder::default();
    folder.publish("table", 1, &onnx::fails_on_some());
    let gateway = Gateway::start(&folder, "batching: { max_rows: 8, max_delay: 100ms, execution: threads, instances: 1 }");
    let request = |i: usize| {
        let index = if i == 5 { 99 } else { i % 3 };
        let input = json!({ "name": "index", "datatype": "INT64", "shape": [1], "data": [index] });
        Request::post(&infer_path("table"), json!({ "inputs": [input] }).to_string())
    };
    until_merged(&gateway, "table", || {
        for (i, response) in together(&gateway, 8, request).into_iter().enumerate() {
            if i == 5 {
                refused(&response, 500, "run_failed");
            } else {
                assert_eq!(response.status, 200, "{}", response.text());
                assert_eq!(numbers(&response.json()), [[10.0, 20.0, 30.0][i % 3]]);
            }
        }
    });
}

/// x86 has a signal for the one, and tract panics at the other.
#[test]
fn whole_numbers_that_cannot_be_divided_end_no_process() {
    let folder = Folder::default();
    let example = b"signature: { example: { x: 7, by: 2 } }\n";
    folder.write("ratio", 1, &[("model.onnx", &onnx::of_two("Div", DType::Int64)), ("model.yaml", example)]);
    let gateway = Gateway::start(&folder, "");
    let mut client = gateway.client();
    let mut divide = |x: i64, by: i64| {
        let input = |name: &str, value: i64| json!({ "name": name, "datatype": "INT64", "shape": [1], "data": [value] });
        let body = json!({ "inputs": [input("x", x), input("by", by)] });
        client.request(&Request::post(&infer_path("ratio"), body.to_string())).expect("an answer")
    };
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(divide(i64::MIN, -1).json()["outputs"][0]["data"], json!([i64::MIN]));
        refused(&divide(1, 0), 500, "run_failed");
        assert_eq!(divide(-7, 2).json()["outputs"][0]["data"], json!([-3]));
    }
    // Each request that failed has a line of its own.
    let told = gateway.log().iter().filter(|line| line.contains(r#""message":"panicked""#)).count() as u64;
    assert!(told <= began.elapsed().as_secs() + 1, "{told} panics were told");
}

#[test]
fn a_request_of_many_rows_is_split_and_joined_in_order() {
    let folder = Folder::default();
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    for execution in ["threads", "inline"] {
        let gateway =
            Gateway::start(&folder, &format!("batching: {{ max_rows: 4, queue_rows: 8, instances: 3, execution: {execution} }}"));
        let sent: Vec<f32> = (0..206u16).map(f32::from).collect();
        let expected: Vec<f32> = sent.iter().map(|number| number + 1.0).collect();
        let answer = ask(&mut gateway.client(), &Request::post(&infer_path("add"), infer(&[103, 2], &sent).to_string()));
        assert_eq!(numbers(&answer.json()), expected, "{execution}");
        let metric = |name: &str, labels: &[(&str, &str)]| gateway.metric(name, labels);
        assert_eq!(metric("sluicegate_batch_rows_sum", &[]), 103.0);
        let small = metric("sluicegate_batch_rows_bucket", &[("le", "4")]);
        assert_eq!(small, metric("sluicegate_batch_rows_count", &[]), "no run has more rows than may be");
    }
}
