//! Bytes that are no HTTP cost the connection that they came on, and nobody else anything.

use sluicegate_testkit::client::Request;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::Gateway;
use sluicegate_tests::{ask, infer, infer_path};

#[test]
fn what_is_no_http_ends_its_connection_and_no_other() {
    let folder = Folder::default();
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    let gateway = Gateway::start(&folder, "http: { max_body: 1MiB, header_timeout: 1s }");
    let path = infer_path("add");
    let head = format!("POST {path} HTTP/1.1\r\nhost: h\r\n");
    let endless = format!("GET /v2 HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let wrong: [(&str, Vec<u8>); 9] = [
        ("noise", b"\x16\x03\x01\x00\xff\x01\x02\r\n\r\n".to_vec()),
        ("no version", b"GET /v2\r\n\r\n".to_vec()),
        ("a version that is none", b"GET /v2 HTTP/7.3\r\n\r\n".to_vec()),
        ("a header without a colon", b"GET /v2 HTTP/1.1\r\nhost\r\n\r\n".to_vec()),
        ("endless headers", endless.into_bytes()),
        ("a length of text", format!("{head}content-length: many\r\n\r\n").into_bytes()),
        ("two lengths", format!("{head}content-length: 1\r\ncontent-length: 2\r\n\r\nab").into_bytes()),
        ("a chunk without size", format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n\r\n").into_bytes()),
        ("half a head", b"GET /v2 HT".to_vec()),
    ];
    let mut neighbour = gateway.client();
    for (name, bytes) in wrong {
        let mut client = gateway.client();
        // It may be cut off while it sends or waits; where it is answered, it is told that it was wrong.
        if let Ok(response) = client.send(&bytes) {
            assert!((400..500).contains(&response.status), "{name}: {} {}", response.status, response.text());
        }
        ask(&mut neighbour, &Request::post(&path, infer(&[1, 2], &[1.0, 2.0]).to_string()));
    }
    let mut leaves = gateway.client();
    leaves.write(format!("{head}content-length: 100\r\n\r\n{{").as_bytes()).expect("it is taken");
    leaves.close();
    ask(&mut neighbour, &Request::post(&path, infer(&[1, 2], &[1.0, 2.0]).to_string()));
    assert!(!gateway.log().iter().any(|line| line.contains("panicked")), "{:#?}", gateway.log());
}
