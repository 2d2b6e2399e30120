//! The words that every other crate shares: names, tensors, signatures, requests, errors, metrics.
//!
//! In reading order: [`name`], [`dtype`], [`shape`], [`tensor`], [`signature`], [`request`],
//! [`response`], [`text`], [`error`], [`metric`], [`meter`], [`histogram`], [`split`], [`tally`], [`trace`]. Nothing here does I/O, waits, or reads a clock.

pub mod dtype;
pub mod error;
pub mod histogram;
pub mod meter;
pub mod metric;
pub mod name;
pub mod request;
pub mod response;
pub mod shape;
pub mod signature;
pub mod split;
pub mod tally;
pub mod tensor;
pub mod text;
pub mod trace;

pub use dtype::DType;
pub use error::{Code, Error, Fault, Problem, Result};
pub use name::{Digest, ModelName, ModelRef, VersionRef};
pub use request::Request;
pub use response::Response;
pub use shape::{Dim, Shape};
pub use signature::Signature;
pub use tensor::{Data, Tensor};
pub use text::{TextOptions, TokenCount};
pub use trace::Trace;
