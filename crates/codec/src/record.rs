//! Records of named fields, as typed routes take and give them.
//!
//! [`decode`] reads records straight into tensors; where one does not fit, [`problems`] reads the body again, slowly, and
//! lists all that is wrong with it. [`encode`] writes answers in the form that [`view`] gives each output.

pub mod decode;
pub mod encode;
pub mod problems;
pub mod view;

use sluicegate_core::{Error, Result, Signature};

pub use decode::{Form, Records};

/// Reads records.
///
/// # Errors
/// [`Code::InvalidFields`](sluicegate_core::Code::InvalidFields) with every problem of every record.
pub fn read(signature: &Signature, content: &[u8]) -> Result<Records> {
    decode::read(signature, content).map_err(|error| Error::invalid(problems::find(signature, content, &error)))
}
