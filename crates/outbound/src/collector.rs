//! Spans told to a receiver of OTLP over HTTP: one POST, which its caller may send again.

use std::time::Duration;

use crate::address::Address;
use crate::client::{Failure, Post};
use crate::secret::Secret;

/// Most bytes of an answer that are read: it says how many spans were refused, and why.
const MOST: usize = 64 * 1024;

/// Sends a message of protobuf; what the receiver answers.
///
/// # Errors
/// Where nobody took it; with statuses that may pass, and others, as the specification of OTLP has them.
pub fn send(address: &Address, headers: &[(String, Secret)], body: &[u8], timeout: Duration) -> Result<Vec<u8>, Failure> {
    let own = headers.iter().map(|(name, value)| (name.as_str(), value.expose().to_owned()));
    let headers: Vec<_> = own.chain([("content-type", "application/x-protobuf".to_owned())]).collect();
    let answer = Post { address, headers: &headers, body, timeout, most: MOST, again: true }.send()?;
    match answer.status {
        200..300 => answer.body,
        status => {
            let why =
                format!("{address} answered {status}; look whether it takes OTLP over HTTP at this path, and with these headers");
            Err(Failure { why, may_pass: matches!(status, 429 | 502 | 503 | 504) })
        }
    }
}
