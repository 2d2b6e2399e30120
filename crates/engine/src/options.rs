//! How a version is to be opened: engine, device, instances, threads.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};
use sluicegate_core::TextOptions;

use crate::{Device, Gpus};

/// Which engine loads a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// For ONNX: ONNX Runtime where its library is found, else tract; the other one where the first cannot load the model.
    #[default]
    Auto,
    /// ONNX Runtime or an error.
    OnnxRuntime,
    /// ONNX Runtime with TensorRT on CUDA devices, or an error.
    TensorRt,
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
            Self::TensorRt => "tensorrt",
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
    /// How many instances, each of which runs one batch at a time. On CUDA devices each has its own copy of the weights, and each device
    /// has at least one.
    pub instances: NonZeroUsize,
    /// Whether it is left to us how many of the instances are used. A CUDA device then has one.
    pub auto_instances: bool,
    /// Threads that one instance may use within a run.
    pub threads: NonZeroUsize,
    /// The most rows of a run, for engines that prepare for those.
    pub max_rows: NonZeroUsize,
    /// How a model that reads text reads it.
    pub text: TextOptions,
}

impl Default for Options {
    fn default() -> Self {
        let one = NonZeroUsize::MIN;
        Self {
            engine: EngineChoice::Auto,
            device: Device::Auto,
            instances: one,
            auto_instances: false,
            threads: one,
            max_rows: one,
            text: TextOptions::default(),
        }
    }
}

impl Options {
    /// The device of each instance on CUDA devices.
    pub(crate) fn on(&self, gpus: Gpus) -> impl Iterator<Item = u32> {
        let asked = if self.auto_instances { 1 } else { self.instances.get() };
        (0..asked.max(gpus.count())).map(move |place| gpus.of_instance(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_an_instance_and_no_copy_of_the_weights_that_nobody_asked_for() {
        let gpus = Gpus::new([0, 1]).expect("two");
        let devices = |instances: usize, auto_instances: bool| {
            let instances = NonZeroUsize::new(instances).expect("some");
            Options { instances, auto_instances, ..Options::default() }.on(gpus).collect::<Vec<_>>()
        };
        assert_eq!(devices(16, true), [0, 1]);
        assert_eq!([devices(1, false), devices(2, false)], [[0, 1], [0, 1]]);
        assert_eq!(devices(3, false), [0, 1, 0]);
    }
}
