//! The protobuf messages of the Open Inference Protocol, of Triton's model configuration, and of OpenTelemetry's protocol.
//!
//! [`inference`] has the messages, [`DESCRIPTORS`] what they are made from, [`config`] the two text forms of a model's
//! configuration: `config.pbtxt` and JSON, [`json`] the JSON of any message, [`otlp`] what receivers of traces are told. The service
//! itself is made where it is served.

pub mod config;
pub mod json;

/// The messages, as `proto/*.proto` has them.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod inference {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

/// The messages of OTLP 1.x, as `proto/opentelemetry` has them.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod otlp {
    include!(concat!(env!("OUT_DIR"), "/otlp.rs"));
}

/// The `FileDescriptorSet` of all messages and of the service, encoded.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
