//! The protocol's extensions beside inference: what they mean, for every transport. They take and give the protobuf messages.

pub mod config;
pub mod logging;
pub mod overlay;
pub mod repository;
pub mod statistics;
pub mod trace;

use sluicegate_core::{Code, Error, Result};

use crate::http::Protocols;

/// The extensions that are really served.
pub fn served(protocols: &Protocols) -> Vec<&'static str> {
    let mut served = vec![
        "binary_tensor_data",
        "classification",
        "generate",
        "model_configuration",
        "parameters",
        "schedule_policy",
        "statistics",
    ];
    if protocols.control {
        served.extend(["logging", "model_repository", "model_repository(unload_dependents)"]);
    }
    served
}

/// Refuses where callers may not change what is served and logged.
///
/// # Errors
/// [`Code::Forbidden`].
pub fn allowed(protocols: &Protocols) -> Result<()> {
    if protocols.control {
        return Ok(());
    }
    let message =
        "callers may not load and unload models or change what is logged here; set protocols.control to true to allow it";
    Err(Error::new(Code::Forbidden, message))
}

/// The refusal of every call of the shared memory extensions.
pub fn shared_memory() -> Error {
    Error::new(Code::Unsupported, "shared memory is not served; send tensors in the body, where binary ones are not copied")
}
