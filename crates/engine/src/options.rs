//! How a version is to be opened: engine, device, instances, threads.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};
use sluicegate_core::TextOptions;

use crate::Device;

/// Which engine loads a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// For ONNX: ONNX Runtime where its library is found, else tract; the other one where the first cannot load the model.
    #[default]
    Auto,
    /// ONNX Runtime or an error.
    OnnxRuntime,
    /// tract or an error.
    Tract,
    /// candle. It loads safetensors, whatever is chosen for ONNX, and nothing else.
    Candle,
}

impl EngineChoice {
    /// The word for it in configuration, metadata and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::OnnxRuntime => "onnxruntime",
            Self::Tract => "tract",
            Self::Candle => "candle",
        }
    }
}

/// How a version is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which engine.
    pub engine: EngineChoice,
    /// Which device.
    pub device: Device,
    /// How many instances, each of which runs one batch at a time.
    pub instances: NonZeroUsize,
    /// Threads that one instance may use within a run.
    pub threads: NonZeroUsize,
    /// How a model that reads text reads it.
    pub text: TextOptions,
}

impl Default for Options {
    fn default() -> Self {
        let one = NonZeroUsize::MIN;
        Self { engine: EngineChoice::Auto, device: Device::Auto, instances: one, threads: one, text: TextOptions::default() }
    }
}
