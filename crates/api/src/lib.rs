//! Wire formats and status codes. Thin: a request is decoded, handed to the gateway, and its answer encoded.
//!
//! [`status`] is the one table from errors to the codes of each transport; [`http`] the routes, one file an endpoint.

pub mod http;
pub mod status;
