//! Wire formats: bytes into requests, responses into bytes. Knows no transport, so that every one of them has the same.
//!
//! In reading order: [`elements`] (JSON numbers, booleans and strings as elements of a tensor), [`parameters`] (the protocol's,
//! for every transport), [`json`] (the Open Inference Protocol), [`binary`] (its raw tensors), [`protobuf`] (its messages for gRPC),
//! [`classify`] (the best of an output's classes), [`record`] (named fields in, named answers out); `nest` and `rows` (plain values
//! into the inputs of a signature), [`instances`] (KServe's first protocol, TensorFlow Serving), [`scoring`] (MLflow, CSV).

pub mod binary;
pub mod classify;
pub mod elements;
pub mod instances;
pub mod json;
mod nest;
pub mod parameters;
pub mod protobuf;
pub mod record;
mod rows;
pub mod scoring;
