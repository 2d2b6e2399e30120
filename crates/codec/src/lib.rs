//! Wire formats: bytes into requests, responses into bytes. Knows no transport, so that every one of them has the same.
//!
//! In reading order: [`elements`] (JSON numbers, booleans and strings as elements of a tensor), [`json`] (the Open Inference
//! Protocol), [`binary`] (its raw tensors), [`protobuf`] (its messages
//! for gRPC), [`record`] (named fields in, named answers out).

pub mod binary;
pub mod elements;
pub mod json;
pub mod protobuf;
pub mod record;
