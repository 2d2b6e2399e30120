//! One port for all: HTTP/1.1, HTTP/2 and gRPC at once, nothing lost and nothing crossed.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use sluicegate_testkit::client::Request;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::Gateway;
use sluicegate_tests::grpc::{Caller, numbers, request, runtime};
use sluicegate_tests::{ask, infer_path, tensor};
use tokio::net::TcpStream;

/// Requests of each kind.
const EACH: usize = 10_000;

/// Connections of each kind, and threads of the client that blocks.
const CONNECTIONS: usize = 8;

/// A number that tells a request from all others, exact in FP32.
fn number(kind: usize, request: usize) -> f32 {
    (kind * EACH + request) as f32
}

fn body(kind: usize, request: usize) -> String {
    let x = number(kind, request);
    json!({ "id": request.to_string(), "inputs": [tensor("x", "FP32", &[1, 2], &[x, -x])] }).to_string()
}

fn check(kind: usize, request: usize, answer: &serde_json::Value) {
    let x = number(kind, request);
    assert_eq!(answer["id"], request.to_string());
    assert_eq!(sluicegate_tests::numbers(answer), [x + 1.0, 1.0 - x]);
}

fn over_http1(gateway: &Gateway) {
    std::thread::scope(|scope| {
        for share in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut client = gateway.client();
                for request in (share..EACH).step_by(CONNECTIONS) {
                    check(0, request, &ask(&mut client, &Request::post(&infer_path("add"), body(0, request))).json());
                }
            });
        }
    });
}

async fn over_http2(address: SocketAddr) {
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).await.expect("connected");
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 by its first bytes");
        tokio::spawn(connection);
        senders.push(sender);
    }
    let all: FuturesUnordered<_> = (0..EACH)
        .map(|request| {
            let mut sender = senders[request % CONNECTIONS].clone();
            tokio::spawn(async move {
                let uri = format!("http://{address}{}", infer_path("add"));
                let body = Full::new(Bytes::from(body(1, request)));
                sender.ready().await.expect("an open connection");
                let answer = sender.send_request(http::Request::post(uri).body(body).expect("a request")).await;
                let answer = answer.expect("an answer");
                assert_eq!(answer.status(), 200);
                let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
                check(1, request, &serde_json::from_slice(&body).expect("JSON"));
            })
        })
        .collect();
    all.for_each(|done| async { done.expect("its answer is its own") }).await;
}

async fn over_grpc(address: SocketAddr) {
    let callers: Arc<[Caller]> = (0..CONNECTIONS).map(|_| Caller::new(address)).collect();
    let all: FuturesUnordered<_> = (0..EACH)
        .map(|one| {
            let callers = Arc::clone(&callers);
            tokio::spawn(async move {
                let x = number(2, one);
                let mut message = request("add", &[1, 2], &[x, -x]);
                message.id = one.to_string();
                let answer = callers[one % CONNECTIONS].infer(message).await.expect("an answer").into_inner();
                assert_eq!((numbers(&answer), answer.id), (vec![x + 1.0, 1.0 - x], one.to_string()));
            })
        })
        .collect();
    all.for_each(|done| async { done.expect("its answer is its own") }).await;
}

#[test]
fn three_protocols_on_one_port_lose_nothing_and_cross_nothing() {
    let folder = Folder::default();
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    let config = "models: [ { name: add, batching: { queue_rows: 100000, queue_timeout: 10m } } ]\nlimits: { in_flight: 100000 }";
    let gateway = Gateway::start(&folder, config);
    let runtime = runtime();
    let address = gateway.http();
    let (http2, grpc) = (runtime.spawn(over_http2(address)), runtime.spawn(over_grpc(address)));
    over_http1(&gateway);
    runtime.block_on(async {
        http2.await.expect("HTTP/2");
        grpc.await.expect("gRPC");
    });
    assert_eq!(gateway.metric("sluicegate_requests_total", &[("model", "add"), ("code", "ok")]), 3.0 * EACH as f64);
    assert_eq!(gateway.metric("sluicegate_in_flight_requests", &[]), 0.0);
}
