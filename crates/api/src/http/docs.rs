//! `/docs` and `/redoc`: what is served, as pages, with all they need embedded. The document that they show is made in `openapi`.

mod page;
#[cfg(test)]
mod tests;

use http::HeaderMap;
use http::header::IF_NONE_MATCH;
use sha2::{Digest as _, Sha256};
use sluicegate_core::Digest;

pub use page::{Asset, CONTENT_SECURITY_POLICY, page, routes};

/// The strong `ETag` of a body.
pub fn etag(body: &[u8]) -> String {
    let digest = Digest::sha256(&Sha256::digest(body));
    let hex = digest.as_str().trim_start_matches("sha256:");
    format!("\"{}\"", &hex[..hex.len() / 2])
}

/// Whether the caller already has the body of this `ETag`, so that 304 answers the request.
pub fn is_fresh(headers: &HeaderMap, etag: &str) -> bool {
    let asked = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    asked.flat_map(|list| list.split(',')).map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == etag)
}
