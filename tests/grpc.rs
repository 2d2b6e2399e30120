//! gRPC goes the way that HTTP goes: the same bounds, deadlines and refusals, counted once, and nothing of it lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sluicegate_proto::inference::{
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse,
    SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{DEADLINE, Gateway, wait_for};
use sluicegate_tests::grpc::{Caller, code, numbers, request, runtime};
use sluicegate_tests::{EACH, SLOW_WIDTH, TIMED, slow, slow_rows};
use tonic::{Code, Request};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// `add`, which is quick, and `slow`, whose rows run one by one.
fn start(more: &str) -> (Folder, Gateway) {
    let folder = Folder::default();
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    folder.publish("slow", 1, &slow());
    let batching = "{ max_rows: 1, queue_rows: 1000000, queue_timeout: 60s, execution: threads, instances: 1 }";
    let config = format!("models: [ {{ name: add }}, {{ name: slow, batching: {batching} }} ]\n{more}");
    let gateway = Gateway::start(&folder, &config);
    (folder, gateway)
}

/// Rows that keep `slow` busy for longer than a test needs.
fn many_rows(gateway: &Gateway) -> usize {
    slow_rows(gateway, "slow", 3.0).max(40)
}

fn slow_request(rows: usize) -> sluicegate_proto::inference::ModelInferRequest {
    request("slow", &[rows, SLOW_WIDTH], &vec![1.0; rows * SLOW_WIDTH])
}

#[test]
fn both_addresses_answer_and_say_who_did() {
    let (_folder, gateway) = start("");
    runtime().block_on(async {
        for address in [gateway.grpc(), gateway.http()] {
            let caller = Caller::new(address);
            let mut message = Request::new(request("add", &[1, 2], &[1.0, 2.0]));
            message.metadata_mut().insert("x-request-id", "mine".parse().expect("ascii"));
            let answer = caller.call(sluicegate_tests::grpc::INFER, message).await.expect("an answer");
            let metadata = answer.metadata().clone();
            let answer: sluicegate_proto::inference::ModelInferResponse = answer.into_inner();
            assert_eq!(numbers(&answer), [2.0, 3.0]);
            assert_eq!((&*answer.model_name, &*answer.model_version, &*answer.id), ("add", "1", "mine"));
            assert_eq!(metadata.get("x-request-id").expect("an id"), "mine");
            assert_eq!(metadata.get("x-model-version").expect("a version"), "1");
            assert!(metadata.get("x-model-digest").expect("a digest").to_str().expect("ascii").starts_with("sha256:"));

            let live: ServerLiveResponse = caller
                .call("/inference.GRPCInferenceService/ServerLive", Request::new(ServerLiveRequest {}))
                .await
                .expect("an answer")
                .into_inner();
            assert!(live.live);
            let asked = ModelMetadataRequest { name: "add".into(), version: String::new() };
            let metadata: ModelMetadataResponse = caller
                .call("/inference.GRPCInferenceService/ModelMetadata", Request::new(asked))
                .await
                .expect("an answer")
                .into_inner();
            assert_eq!((&*metadata.inputs[0].name, &metadata.inputs[0].shape[..]), ("x", &[-1, 2][..]));
            for (name, version, expected) in [("add", "", true), ("add", "1", true), ("add", "9", false), ("none", "", false)] {
                let asked = ModelReadyRequest { name: name.into(), version: version.into() };
                let path = "/inference.GRPCInferenceService/ModelReady";
                let ready: ModelReadyResponse =
                    caller.call(path, Request::new(asked)).await.expect("an answer and no error").into_inner();
                assert_eq!(ready.ready, expected, "{name} {version}");
            }
        }
    });
    assert_eq!(gateway.metric("sluicegate_requests_total", &[("model", "add"), ("code", "ok")]), 2.0);
}

#[test]
fn grpc_is_answered_on_the_http_address_only_where_that_is_wanted_and_http_never_on_that_of_grpc() {
    let (_folder, gateway) = start("grpc: { on_http: false }");
    runtime().block_on(async {
        let refused = Caller::new(gateway.http()).infer(request("add", &[1, 2], &[1.0, 2.0])).await;
        assert!(refused.is_err());
        Caller::new(gateway.grpc()).infer(request("add", &[1, 2], &[1.0, 2.0])).await.expect("an answer");
    });
    let mut client = sluicegate_testkit::client::Client::new(gateway.grpc());
    let response = client.get("/v2/models/add").expect("an answer");
    assert_eq!(response.status, 415);
    assert!(response.text().contains("http.address"), "{}", response.text());
}

#[test]
fn health_is_that_of_the_gateway_and_of_each_model() {
    let (_folder, gateway) = start("");
    runtime().block_on(async {
        let caller = Caller::new(gateway.grpc());
        for name in ["", "inference.GRPCInferenceService", "add", "add@1"] {
            let asked = Request::new(HealthCheckRequest { service: name.into() });
            let answer: HealthCheckResponse = caller.call(HEALTH, asked).await.expect("an answer").into_inner();
            assert_eq!(answer.status, ServingStatus::Serving as i32, "{name}");
        }
        let asked = Request::new(HealthCheckRequest { service: "nobody".into() });
        let status = caller.call::<_, HealthCheckResponse>(HEALTH, asked).await.expect_err("nobody is called so");
        assert_eq!(status.code(), Code::NotFound);
    });
}

#[test]
fn what_is_not_served_is_said_to_be_unimplemented() {
    let (_folder, gateway) = start("");
    let path = "/inference.GRPCInferenceService/SystemSharedMemoryStatus";
    let asked = Request::new(SystemSharedMemoryStatusRequest::default());
    let status = runtime()
        .block_on(async { Caller::new(gateway.grpc()).call::<_, SystemSharedMemoryStatusResponse>(path, asked).await })
        .expect_err("there is no shared memory");
    assert_eq!((status.code(), code(&status)), (Code::Unimplemented, "unsupported"));
    assert!(status.message().contains("shared memory"), "{}", status.message());
}

#[test]
fn a_message_over_the_bound_is_refused_with_the_setting_that_raises_it() {
    let (_folder, gateway) = start("grpc: { max_message: 1MiB }");
    runtime().block_on(async {
        let caller = Caller::new(gateway.grpc());
        let rows = 200_000;
        let status = caller.infer(request("add", &[rows, 2], &vec![0.0; rows * 2])).await.expect_err("1.6 MB");
        assert_eq!((status.code(), code(&status)), (Code::ResourceExhausted, "body_too_large"), "{status}");
        assert!(status.message().contains("grpc.max_message"), "{}", status.message());
        let rows = 100_000;
        let answer = caller.infer(request("add", &[rows, 2], &vec![0.0; rows * 2])).await.expect("0.8 MB").into_inner();
        assert_eq!(numbers(&answer).len(), rows * 2);
    });
}

#[test]
fn a_deadline_ends_the_wait_and_the_row_is_never_run() {
    let (_folder, gateway) = start("");
    let rows = many_rows(&gateway);
    runtime().block_on(async {
        let (busy, late) = (Caller::new(gateway.grpc()), Caller::new(gateway.grpc()));
        let busy = tokio::spawn(async move { busy.infer(slow_request(rows)).await });
        while gateway.model("slow")["queued_rows"].as_u64().unwrap_or(0) <= 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The connection is there, and the time long enough for the request to arrive.
        late.infer(request("add", &[1, 2], &[1.0, 2.0])).await.expect("an answer");
        let status = late.infer_within(slow_request(1), Duration::from_secs(1)).await.expect_err("too late");
        // Whose clock is first, says it: the caller's own as cancelled or ours as late.
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
        assert_eq!(numbers(&busy.await.expect("runs").expect("an answer").into_inner()).len(), rows * SLOW_WIDTH);
    });
    wait_for("a count of every request", || {
        let code = |code| gateway.metric("sluicegate_requests_total", &[("model", "slow"), ("code", code)]);
        (code("deadline_exceeded") + code("cancelled") == 1.0 && code("ok") == (TIMED + 1) as f64).then_some(())
    });
    assert_eq!(
        gateway.metric("sluicegate_batch_rows_sum", &[("model", "slow")]),
        (TIMED * EACH + rows) as f64,
        "the late row was never run"
    );
}

#[test]
fn a_caller_who_leaves_takes_the_request_out_of_the_queue() {
    let (_folder, gateway) = start("");
    let rows = many_rows(&gateway);
    runtime().block_on(async {
        let (busy, leaves) = (Caller::new(gateway.grpc()), Caller::new(gateway.grpc()));
        let busy = tokio::spawn(async move { busy.infer(slow_request(rows)).await });
        while gateway.model("slow")["queued_rows"].as_u64().unwrap_or(0) <= 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let waits = tokio::spawn(async move { leaves.infer(slow_request(3)).await });
        while gateway.metric("sluicegate_stage_seconds_count", &[("model", "slow"), ("stage", "decode")]) < (TIMED + 2) as f64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        waits.abort();
        busy.await.expect("runs").expect("an answer");
    });
    wait_for("a request that was left", || {
        (gateway.metric("sluicegate_requests_total", &[("model", "slow"), ("code", "cancelled")]) == 1.0).then_some(())
    });
    assert_eq!(
        gateway.metric("sluicegate_batch_rows_sum", &[("model", "slow")]),
        (TIMED * EACH + rows) as f64,
        "its rows were never run"
    );
    assert_eq!(gateway.metric("sluicegate_in_flight_requests", &[]), 0.0);
}

#[test]
fn a_full_queue_is_unavailable_and_says_when_to_come_back() {
    let folder = Folder::default();
    folder.publish("slow", 1, &slow());
    let batching = "{ max_rows: 1, queue_rows: 4, queue_timeout: 60s, execution: threads, instances: 1 }";
    let gateway = Gateway::start(&folder, &format!("models: [ {{ name: slow, batching: {batching} }} ]"));
    let rows = many_rows(&gateway);
    runtime().block_on(async {
        let caller = Caller::new(gateway.grpc());
        let busy = caller.clone();
        // An oversized request finds room in an empty queue, and fills it.
        let busy = tokio::spawn(async move { busy.infer(slow_request(rows)).await });
        while gateway.model("slow")["queued_rows"].as_u64().unwrap_or(0) <= 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let status = caller.infer(slow_request(1)).await.expect_err("no room");
        assert_eq!((status.code(), code(&status)), (Code::Unavailable, "queue_full"));
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").expect("a time"), "1000");
        busy.await.expect("runs").expect("an answer");
    });
}

#[test]
fn bytes_that_are_no_message_are_the_callers_fault() {
    let (_folder, gateway) = start("");
    let mut stream = TcpStream::connect(gateway.grpc()).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    // A frame of three bytes that protobuf cannot read, over HTTP/1.1, which tells headers from trailers as well.
    let body = [0, 0, 0, 0, 3, 0xff, 0xff, 0xff];
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        sluicegate_tests::grpc::INFER,
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("grpc-status: 3"), "{answer}");
    assert_eq!(gateway.metric("sluicegate_in_flight_requests", &[]), 0.0);
}

#[test]
fn an_answer_is_compressed_only_for_who_compresses() {
    let (_folder, gateway) = start("");
    for (encoding, flag, message) in [("identity", 0, Vec::new()), ("gzip", 1, gzip(&[]))] {
        let mut stream = TcpStream::connect(gateway.grpc()).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        let body = [&[flag], &length[..], &message].concat();
        let head = format!(
            "POST /inference.GRPCInferenceService/ServerMetadata HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\n\
             grpc-encoding: {encoding}\r\ngrpc-accept-encoding: identity, deflate, gzip\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(answer.contains("grpc-encoding: "), encoding == "gzip", "{answer}");
    }
}

#[test]
fn a_message_that_does_not_come_is_not_waited_for() {
    let (_folder, gateway) = start("http: { body_timeout: 200ms }");
    let mut stream = TcpStream::connect(gateway.grpc()).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let head = "POST /inference.GRPCInferenceService/ModelInfer HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\n\
                connection: close\r\ncontent-length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("grpc-status: 4") && answer.contains("http.body_timeout"), "{answer}");
}

#[test]
fn calls_in_flight_are_answered_when_the_gateway_ends() {
    let (_folder, gateway) = start("");
    let rows = many_rows(&gateway);
    let runtime = runtime();
    let caller = runtime.block_on(async { Caller::new(gateway.grpc()) });
    let waits = runtime.spawn(async move { caller.infer(slow_request(rows)).await });
    wait_for("a busy model", || (gateway.model("slow")["queued_rows"].as_u64()? > 10).then_some(()));
    let ended = gateway.terminate();
    assert!(ended.status.success(), "{:?}", ended.log);
    let answer = runtime.block_on(waits).expect("runs").expect("an answer").into_inner();
    assert_eq!(numbers(&answer).len(), rows * SLOW_WIDTH);
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("to memory")
}
