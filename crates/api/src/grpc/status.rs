//! A gRPC status of an error: its code from the one table, its ids and its word in the metadata.

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use sluicegate_core::Error;
use sluicegate_registry::Live;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::http::answer::{self, Head};
use crate::status::wire;

/// The error's word, as HTTP has it in the body.
pub const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");

/// Milliseconds after which a client's retry policy may try again (gRPC A6).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The status of an error. Logs it as an answer over HTTP does.
pub fn of(error: &Error, head: &Head, live: Option<&Live>) -> Status {
    let wire = wire(error.code());
    answer::log(head, error);
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(answer::REQUEST_ID, head.id.clone());
    headers.insert(ERROR_CODE, HeaderValue::from_static(error.code().name()));
    if let Some(seconds) = wire.retry_after {
        headers.insert(PUSHBACK, HeaderValue::from(u64::from(seconds) * 1000));
    }
    if let Some(live) = live {
        answer::sign_headers(&mut headers, live);
    }
    Status::with_metadata(Code::from_i32(wire.grpc), answer::told(error), MetadataMap::from_headers(headers))
}

/// A message over the bound is refused by the transport, which knows nothing of our settings: its words become ours.
pub fn name_the_setting(mut response: Response, bound: usize) -> Response {
    let headers = response.headers_mut();
    let has = |name: &str, part: &[u8]| {
        headers.get(name).is_some_and(|value| value.as_bytes().windows(part.len()).any(|window| window == part))
    };
    // 11 for what is announced, 8 for what decompression brought to light.
    let announced = has("grpc-status", b"11") && has("grpc-message", b"too%20large");
    if announced || (has("grpc-status", b"8") && has("grpc-message", b"size%20limit")) {
        let message = format!("the message is larger than {bound} bytes; raise grpc.max_message to accept it");
        let status = Status::new(Code::ResourceExhausted, message);
        headers.insert(ERROR_CODE, HeaderValue::from_static(sluicegate_core::Code::BodyTooLarge.name()));
        // Its own headers have nothing that a header could not have.
        let _ = status.add_header(headers);
    }
    response
}
