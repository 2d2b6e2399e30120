//! ViT: a picture is cut into patches, which are read as words are.
//!
//! Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020. The weights have the names of `transformers`, of before its version 5 or
//! since.

use candle_core::Tensor;
use serde::Deserialize;
use sluicegate_core::Result;
use sluicegate_text::files::{parse, refused};

use super::convolution::{Convolution, Sizes};
use super::input::{Input, Size};
use super::{Body, Built};
use crate::layer::{Activation, Linear, Look, Norm, attend, parted};
use crate::weights::Weights;

const MAX_LAYERS: usize = 256;

#[derive(Debug, Deserialize)]
struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    #[serde(default)]
    hidden_act: Activation,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    image_size: Size,
    patch_size: Size,
    #[serde(default = "yes")]
    qkv_bias: bool,
}

fn eps() -> f64 {
    1e-12
}

fn yes() -> bool {
    true
}

struct Vit {
    patches: Convolution,
    first: Tensor,
    positions: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    heads: usize,
    activation: Activation,
}

struct Layer {
    norm: Norm,
    asks: Linear,
    attended: Linear,
    wide_norm: Norm,
    wide: Linear,
    narrow: Linear,
}

pub(super) fn load(config: &[u8], input: &Input, weights: &Weights) -> Result<Built> {
    let config: Config = parse("config.json", config)?;
    let (size, heads) = (config.hidden_size, config.num_attention_heads);
    if heads == 0 || size == 0 || !size.is_multiple_of(heads) || config.num_hidden_layers > MAX_LAYERS {
        let message =
            format!("config.json: {heads} heads do not share {size} columns, or there are more than {MAX_LAYERS} layers");
        return Err(refused(message));
    }
    let (height, width) = config.image_size.sides();
    if (height, width) != (input.height, input.width) {
        let said = format!("{} by {}", input.height, input.width);
        return Err(refused(format!(
            "config.json: image_size is {height} by {width}, and preprocessor_config.json makes {said}"
        )));
    }
    let (patch, other) = config.patch_size.sides();
    if patch == 0 || patch != other || height < patch || width < patch {
        return Err(refused(format!(
            "config.json: patches of {patch} by {other} do not cut {height} by {width}, or are not square"
        )));
    }
    let (eps, name) = (config.layer_norm_eps, |name: &str| format!("vit.{name}"));
    let sizes = Sizes { from: input.channels, to: size, kernel: patch, stride: patch };
    let positions = (height / patch) * (width / patch) + 1;
    let layer = |place: usize| Layer::take(weights, place, &config);
    let vit = Vit {
        patches: Convolution::take(weights, &name("embeddings.patch_embeddings.projection"), sizes)?,
        first: weights.take(&name("embeddings.cls_token"), &[1, 1, size])?,
        positions: weights.take(&name("embeddings.position_embeddings"), &[1, positions, size])?,
        layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
        norm: Norm::take(weights, &name("layernorm"), size, eps)?,
        heads,
        activation: config.hidden_act,
    };
    Ok((Box::new(vit), size))
}

impl Layer {
    fn take(weights: &Weights, place: usize, config: &Config) -> Result<Self> {
        let (size, wide, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let old = format!("vit.encoder.layer.{place}.");
        let is_old = weights.has(&format!("{old}layernorm_before.weight"));
        let prefix = if is_old { old } else { format!("vit.layers.{place}.") };
        let name = |old: &str, new: &str| format!("{prefix}{}", if is_old { old } else { new });
        let ask = |old: &str, new: &str| {
            let name = name(&format!("attention.attention.{old}"), &format!("attention.{new}"));
            Linear::take_with(weights, &name, size, size, config.qkv_bias)
        };
        let asks = Linear::asks([ask("query", "q_proj")?, ask("key", "k_proj")?, ask("value", "v_proj")?])?;
        let linear = |name: &str, from, to| Linear::take(weights, name, from, to);
        Ok(Self {
            norm: Norm::take(weights, &format!("{prefix}layernorm_before"), size, eps)?,
            asks: asks.scaled(size, size / config.num_attention_heads)?,
            attended: linear(&name("attention.output.dense", "attention.o_proj"), size, size)?,
            wide_norm: Norm::take(weights, &format!("{prefix}layernorm_after"), size, eps)?,
            wide: linear(&name("intermediate.dense", "mlp.fc1"), size, wide)?,
            narrow: linear(&name("output.dense", "mlp.fc2"), wide, size)?,
        })
    }
}

impl Body for Vit {
    fn vectors(&self, pictures: &Tensor) -> candle_core::Result<Tensor> {
        let rows = pictures.dim(0)?;
        let (_, length, size) = self.positions.dims3()?;
        let patches = self.patches.forward(pictures)?.flatten_from(2)?.transpose(1, 2)?;
        let first = self.first.expand((rows, 1, size))?;
        let states = Tensor::cat(&[&first, &patches.contiguous()?], 1)?.broadcast_add(&self.positions)?;
        let mut states = states.reshape((rows * length, size))?;
        for layer in &self.layers {
            let asks = layer.asks.forward(&layer.norm.forward(&states)?)?;
            let attended = attend(&parted(&asks, length, self.heads)?, &Look::All, None)?;
            states = (states + layer.attended.forward(&attended)?)?;
            let wide = self.activation.forward(&layer.wide.forward(&layer.wide_norm.forward(&states)?)?)?;
            states = (states + layer.narrow.forward(&wide)?)?;
        }
        let first = states.reshape((rows, length, size))?.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        self.norm.forward(&first)
    }
}
