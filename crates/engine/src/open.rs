//! Which engine loads a model: the runtimes found on this machine, and the order in which they are tried.

use std::path::Path;

use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{Code, Error, Result};

use crate::{Engine, EngineChoice, Options};

/// The runtimes of this process, found once at start.
pub struct Engines {
    // filled in by the engine room
}

/// A model that an engine has loaded.
pub struct Opened {
    /// What really runs it: `onnxruntime` or `tract`.
    pub engine: EngineChoice,
    /// Why it is not the preferred engine, where it is not.
    pub fallback: Option<String>,
    /// The device that it runs on, as `cpu` or `cuda:0`.
    pub device: String,
    /// The inputs in the engine's order.
    pub inputs: Vec<TensorSpec>,
    /// The outputs in the engine's order; sequences and maps already told as the tensors that they will be served as.
    pub outputs: Vec<TensorSpec>,
    /// One per instance asked for.
    pub instances: Vec<Box<dyn Engine>>,
}

impl Engines {
    /// Looks for the runtimes. `library` is the ONNX Runtime library that was asked for; else the places of
    /// [`candidates`] are tried in order.
    pub fn find(_library: Option<&Path>) -> Result<Self> {
        Err(Error::new(Code::NoEngine, "not written yet"))
    }

    /// Loads a model file.
    pub fn open(&self, _model: &Path, _options: &Options) -> Result<Opened> {
        Err(Error::new(Code::NoEngine, "not written yet"))
    }
}
