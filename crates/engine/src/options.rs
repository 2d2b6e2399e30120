//! How a version is to be opened: engine, device, instances, threads.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

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

/// How a model that reads text reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// Whether an ONNX model with a tokenizer beside it takes texts, and not the tokens that its graph takes.
    pub tokenize: bool,
    /// Most tokens of one text, if not what its files say; never more than the model has positions for.
    pub max_length: Option<NonZeroUsize>,
    /// Whether a longer text is cut; if not, it is refused.
    pub truncate: bool,
    /// Most tokens that are computed at once, padding included. One text alone may have more.
    pub max_tokens: NonZeroUsize,
}

impl TextOptions {
    /// With them grow the activations: 12 KB a token and layer in a small model.
    pub const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(8192).expect("8192 is not zero");
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { tokenize: true, max_length: None, truncate: true, max_tokens: Self::MAX_TOKENS }
    }
}
