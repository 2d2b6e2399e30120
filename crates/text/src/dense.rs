//! A dense layer of sentence-transformers: few numbers a text, so that it needs no runtime.

use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sluicegate_core::Result;

use crate::files::{MAX_WEIGHTS, bytes_up_to, read, refused};

const WEIGHT: &str = "linear.weight";
const BIAS: &str = "linear.bias";

/// A layer: each number of what it gives is a sum of those that it takes, by its row of the weights.
#[derive(Debug, PartialEq)]
pub struct Dense {
    from: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation,
}

/// The classes of PyTorch that `config.json` may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Activation {
    #[serde(rename = "torch.nn.modules.linear.Identity")]
    Identity,
    #[default]
    #[serde(rename = "torch.nn.modules.activation.Tanh")]
    Tanh,
    #[serde(rename = "torch.nn.modules.activation.ReLU")]
    Relu,
    #[serde(rename = "torch.nn.modules.activation.Sigmoid")]
    Sigmoid,
    #[serde(rename = "torch.nn.modules.activation.SiLU")]
    Silu,
}

#[derive(Deserialize)]
struct Config {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default)]
    activation_function: Activation,
    #[serde(default)]
    module_input_name: Option<String>,
    #[serde(default)]
    module_output_name: Option<String>,
    #[serde(default)]
    use_residual: bool,
}

fn yes() -> bool {
    true
}

impl Dense {
    /// Reads the layer that lies there, for vectors of `from` numbers.
    ///
    /// # Errors
    /// What of it is not served, or does not fit.
    pub(crate) fn load(folder: &Path, path: &str, from: usize) -> Result<Self> {
        let name = format!("{path}/config.json");
        let config: Config = read(folder, &name)?;
        if config.in_features != from || config.out_features == 0 {
            let (takes, gives) = (config.in_features, config.out_features);
            return Err(refused(format!("{name} makes {gives} numbers of {takes}, and gets vectors of {from}")));
        }
        let elsewhere = [&config.module_input_name, &config.module_output_name].into_iter().flatten();
        if config.use_residual || elsewhere.into_iter().any(|name| name != "sentence_embedding") {
            return Err(refused(format!("{name}: use_residual, and names other than `sentence_embedding`, are not served")));
        }
        let name = format!("{path}/model.safetensors");
        let content = bytes_up_to(folder, &name, MAX_WEIGHTS)?;
        let tensors = SafeTensors::deserialize(&content).map_err(|error| refused(format!("{name}: {error}")))?;
        let to = config.out_features;
        let is_used = |name: &str| name == WEIGHT || name == BIAS && config.bias;
        if let Some(other) = tensors.names().into_iter().find(|other| !is_used(other)) {
            return Err(refused(format!("{name} has a tensor that the layer has no use for: `{other}`")));
        }
        let take = |tensor: &str, shape: &[usize]| numbers(&name, &tensors, tensor, shape);
        Ok(Self {
            from,
            weight: take(WEIGHT, &[to, from])?,
            bias: if config.bias { take(BIAS, &[to])? } else { vec![0.0; to] },
            activation: config.activation_function,
        })
    }

    /// Numbers of a vector that it gives.
    pub fn width(&self) -> usize {
        self.bias.len()
    }

    pub(crate) fn forward(&self, vector: &[f32]) -> Vec<f32> {
        let one = |(row, bias): (&[f32], &f32)| {
            let sum = row.iter().zip(vector).map(|(weight, value)| weight * value).sum::<f32>() + bias;
            match self.activation {
                Activation::Identity => sum,
                Activation::Tanh => sum.tanh(),
                Activation::Relu => sum.max(0.0),
                Activation::Sigmoid => sigmoid(sum),
                Activation::Silu => sum * sigmoid(sum),
            }
        };
        self.weight.chunks_exact(self.from).zip(&self.bias).map(one).collect()
    }
}

/// A number between 0 and 1.
pub(crate) fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

fn numbers(file: &str, tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let view = tensors.tensor(name).map_err(|_| refused(format!("{file} has no tensor `{name}`")))?;
    if view.shape() != shape {
        return Err(refused(format!("{file}: tensor `{name}` has the shape {:?}, expected {shape:?}", view.shape())));
    }
    let data = view.data();
    Ok(match view.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => data.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks::<2>().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        other => return Err(refused(format!("{file}: tensor `{name}` is {other:?}, expected F32, F16 or BF16"))),
    })
}
