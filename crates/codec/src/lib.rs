//! Wire formats of the Open Inference Protocol and of records: bytes into requests, responses into bytes. Knows no transport, so that
//! every one of them has the same.
//!
//! In reading order: [`elements`] (JSON numbers, booleans and strings as elements of a tensor), [`parameters`] (the protocol's,
//! for every transport), [`json`] (the Open Inference Protocol), [`binary`] (its raw tensors), [`protobuf`] (its messages for gRPC),
//! [`classify`] (the best of an output's classes), [`record`] (named fields in, named answers out).

pub mod binary;
pub mod classify;
pub mod elements;
pub mod json;
pub mod parameters;
pub mod protobuf;
pub mod record;
pub mod sticky;
