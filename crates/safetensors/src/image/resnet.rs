//! ResNet: convolutions in stages, each of which adds to what it is given.
//!
//! He et al., "Deep Residual Learning for Image Recognition", 2015. The names of the weights are those of `transformers`.

use candle_core::Tensor;
use serde::Deserialize;
use sluicegate_core::Result;
use sluicegate_text::files::{parse, refused};

use super::convolution::{Convolution, Sizes, means, side};
use super::input::Input;
use super::{Body, Built};
use crate::layer::Activation;
use crate::weights::Weights;

const MAX_LAYERS: usize = 1_000;

/// What PyTorch's norm of channels adds to a variance.
const EPS: f64 = 1e-5;

/// By how much a bottleneck narrows.
const REDUCTION: usize = 4;

#[derive(Debug, Deserialize)]
struct Config {
    embedding_size: usize,
    hidden_sizes: Vec<usize>,
    depths: Vec<usize>,
    #[serde(default)]
    layer_type: Kind,
    #[serde(default = "relu")]
    hidden_act: Activation,
    #[serde(default)]
    downsample_in_first_stage: bool,
    #[serde(default)]
    downsample_in_bottleneck: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Basic,
    #[default]
    Bottleneck,
}

fn relu() -> Activation {
    Activation::Relu
}

struct ResNet {
    stem: Convolution,
    layers: Vec<Layer>,
    activation: Activation,
}

struct Layer {
    convolutions: Vec<Convolution>,
    shortcut: Option<Convolution>,
}

pub(super) fn load(config: &[u8], input: &Input, weights: &Weights) -> Result<Built> {
    let config: Config = parse("config.json", config)?;
    let stages = config.hidden_sizes.len();
    let count = config.depths.iter().try_fold(0_usize, |sum, depth| sum.checked_add(*depth));
    if stages == 0 || stages != config.depths.len() || count.is_none_or(|count| count > MAX_LAYERS) {
        let message = format!("{stages} hidden_sizes for {} depths, or more than {MAX_LAYERS} layers", config.depths.len());
        return Err(refused(format!("config.json: {message}")));
    }
    let stem = Sizes { from: input.channels, to: config.embedding_size, kernel: 7, stride: 2 };
    for length in [input.height, input.width] {
        side(side(length, 7, 2, 3)?, 3, 2, 1)?;
    }
    let mut from = config.embedding_size;
    let mut layers = Vec::new();
    for (stage, (&to, &depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
        for place in 0..depth {
            let halves = place == 0 && (stage > 0 || config.downsample_in_first_stage);
            let name = format!("resnet.encoder.stages.{stage}.layers.{place}");
            layers.push(Layer::take(weights, &name, &config, from, to, if halves { 2 } else { 1 })?);
            from = to;
        }
    }
    let stem = Convolution::take_with_norm(weights, "resnet.embedder.embedder", stem, EPS)?;
    Ok((Box::new(ResNet { stem, layers, activation: config.hidden_act }), from))
}

impl Layer {
    fn take(weights: &Weights, name: &str, config: &Config, from: usize, to: usize, stride: usize) -> Result<Self> {
        let sizes = |from, to, kernel, stride| Sizes { from, to, kernel, stride };
        let inner = to / REDUCTION;
        let all = match config.layer_type {
            Kind::Basic => vec![sizes(from, to, 3, stride), sizes(to, to, 3, 1)],
            Kind::Bottleneck => {
                let (first, second) = if config.downsample_in_bottleneck { (stride, 1) } else { (1, stride) };
                vec![sizes(from, inner, 1, first), sizes(inner, inner, 3, second), sizes(inner, to, 1, 1)]
            }
        };
        let take =
            |(place, sizes): (usize, Sizes)| Convolution::take_with_norm(weights, &format!("{name}.layer.{place}"), sizes, EPS);
        let convolutions = all.into_iter().enumerate().map(take).collect::<Result<_>>()?;
        let shortcut = (from != to || stride != 1)
            .then(|| Convolution::take_with_norm(weights, &format!("{name}.shortcut"), sizes(from, to, 1, stride), EPS));
        Ok(Self { convolutions, shortcut: shortcut.transpose()? })
    }

    fn forward(&self, pictures: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
        let kept = match &self.shortcut {
            Some(shortcut) => shortcut.forward(pictures)?,
            None => pictures.clone(),
        };
        let mut made = pictures.clone();
        for (place, convolution) in self.convolutions.iter().enumerate() {
            made = if place > 0 { convolution.forward(&activation.forward(&made)?)? } else { convolution.forward(&made)? };
        }
        activation.forward(&(made + kept)?)
    }
}

impl Body for ResNet {
    fn vectors(&self, pictures: &Tensor) -> candle_core::Result<Tensor> {
        let stem = self.activation.forward(&self.stem.forward(pictures)?)?;
        // What lies outside never is the highest; what lies beside it is seen anyway.
        let padded = stem.pad_with_same(2, 1, 1)?.pad_with_same(3, 1, 1)?;
        let mut made = padded.max_pool2d_with_stride(3, 2)?;
        for layer in &self.layers {
            made = layer.forward(&made, self.activation)?;
        }
        means(&made)
    }
}
