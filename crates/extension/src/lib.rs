//! The protocol's extensions beside inference: what they mean, for every transport. They take and give the protobuf messages.
//!
//! In reading order: [`config`] (a version's configuration in Triton's words), [`statistics`] (what it has done), [`repository`]
//! (loads and unloads by hand), [`overlay`] (a configuration that comes with a load), [`logging`], [`trace`],
//! [`tensorflow`] (a signature in another protocol's words). Knows no transport.

pub mod config;
pub mod logging;
pub mod overlay;
pub mod repository;
pub mod statistics;
pub mod tensorflow;
pub mod trace;

use sluicegate_core::{Code, Error, Result};
use sluicegate_registry::{Control, Published};

/// Changes what is logged to these levels, where some are given, and gives those that are logged then.
pub type LogLevel = dyn Fn(Option<&str>) -> Result<String> + Send + Sync;

/// What callers may change, and the ways to it.
#[derive(Clone, Copy)]
pub struct Controls<'a> {
    /// Whether they may load and unload models and change what is logged.
    pub allowed: bool,
    /// What serves.
    pub published: &'a Published,
    /// The way to load and unload.
    pub registry: &'a Control,
    /// The way to what is logged.
    pub log_level: &'a LogLevel,
}

/// The extensions that are really served; some only where callers may change things.
pub fn served(control: bool) -> Vec<&'static str> {
    let mut served = vec![
        "binary_tensor_data",
        "classification",
        "generate",
        "model_configuration",
        "parameters",
        "schedule_policy",
        "statistics",
    ];
    if control {
        served.extend(["logging", "model_repository", "model_repository(unload_dependents)"]);
    }
    served
}

impl Controls<'_> {
    /// Refuses where callers may not change what is served and logged.
    fn check(&self) -> Result<()> {
        if self.allowed {
            return Ok(());
        }
        let message = "callers may not list, load or unload models or change what is logged here; set protocols.control to true to allow it";
        Err(Error::new(Code::Forbidden, message))
    }
}

/// The refusal of every call of the shared memory extensions.
pub fn shared_memory() -> Error {
    Error::new(Code::Unsupported, "shared memory is not served; send tensors in the body, where binary ones are not copied")
}
