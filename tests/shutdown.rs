//! The end: not ready first, then no new connections, then nothing is left unanswered, then exit 0.

use std::net::TcpStream;
use std::thread::{self, JoinHandle};

use sluicegate_testkit::client::{Request, Response};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, wait_for};
use sluicegate_tests::{ask, infer, infer_path, slow, slow_request, slow_rows};

fn start(shutdown: &str) -> (Folder, Gateway) {
    let folder = Folder::default();
    folder.publish("slow", 1, &slow());
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    let batching = "{ max_rows: 1, queue_rows: 1000000, queue_timeout: 60s, execution: threads, instances: 1 }";
    let models = format!("models: [ {{ name: slow, batching: {batching} }}, {{ name: add }} ]");
    let gateway = Gateway::start(&folder, &format!("{models}\nshutdown: {shutdown}"));
    (folder, gateway)
}

/// A request of about so many seconds, which is in flight when this returns.
fn in_flight(gateway: &Gateway, seconds: f64) -> JoinHandle<std::io::Result<Response>> {
    let request = slow_request("slow", slow_rows(gateway, "slow", seconds));
    let mut client = gateway.client();
    let asked = thread::spawn(move || client.request(&request));
    wait_for("a request in flight", || (gateway.status()["in_flight"] == 1).then_some(()));
    asked
}

fn has(log: &[String], words: &str) -> bool {
    log.iter().any(|line| line.contains(words))
}

#[test]
fn what_is_in_flight_is_answered_in_the_order_of_the_end() {
    let (_folder, gateway) = start("{ grace: 60s, not_ready: 2s }");
    let asked = in_flight(&gateway, 6.0);
    let mut idle = gateway.client();
    let quick = Request::post(&infer_path("add"), infer(&[1, 2], &[1.0, 2.0]).to_string());
    ask(&mut idle, &quick);
    gateway.signal("TERM");
    wait_for("a gateway that is not ready", || (!gateway.is_ready()).then_some(()));
    // A load balancer that has not noticed yet still gets its answers.
    ask(&mut gateway.client(), &quick);
    wait_for("no new connections", || TcpStream::connect(gateway.http()).err());
    assert!(!gateway.is_ready(), "operators watch to the end");
    assert!(!asked.is_finished(), "the slow request outlasts that");
    let response = asked.join().expect("it ends").expect("an answer");
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(idle.request(&quick).is_err(), "idle connections are closed");
    let ended = gateway.ended();
    assert_eq!(ended.status.code(), Some(0), "{:#?}", ended.log);
    assert!(has(&ended.log, "drained: every request was answered"), "{:#?}", ended.log);
}

#[test]
fn what_outlasts_the_grace_is_cut_and_told() {
    let (_folder, gateway) = start("{ grace: 300ms }");
    let asked = in_flight(&gateway, 30.0);
    let ended = gateway.terminate();
    assert_eq!(ended.status.code(), Some(0), "{:#?}", ended.log);
    assert!(asked.join().expect("it ends").is_err(), "the connection was cut");
    assert!(has(&ended.log, "did not finish within shutdown.grace"), "{:#?}", ended.log);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let (_folder, gateway) = start("{ grace: 1h }");
        let asked = in_flight(&gateway, 30.0);
        gateway.signal(signal);
        wait_for("a gateway that goes", || has(&gateway.log(), "going: not ready").then_some(()));
        assert!(!gateway.is_ready());
        gateway.signal(signal);
        let ended = gateway.ended();
        assert_eq!(ended.status.code(), Some(code), "{:#?}", ended.log);
        assert!(has(&ended.log, "second signal"), "{:#?}", ended.log);
        assert!(asked.join().expect("it ends").is_err(), "the connection was cut");
    }
}

#[test]
fn an_idle_gateway_ends_at_once_for_either_signal() {
    for signal in ["TERM", "INT"] {
        let (_folder, gateway) = start("{ grace: 1h }");
        gateway.signal(signal);
        let ended = gateway.ended();
        assert_eq!(ended.status.code(), Some(0), "{:#?}", ended.log);
    }
}
