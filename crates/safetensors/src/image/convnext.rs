//! ConvNeXt and ConvNeXt V2: wide filters of one channel each, and dense layers across channels.
//!
//! Liu et al., "A ConvNet for the 2020s", 2022; Woo et al., "ConvNeXt V2", 2023. The names of the weights are those of `transformers`.

use candle_core::{D, Tensor};
use serde::Deserialize;
use sluicegate_core::Result;
use sluicegate_text::files::{parse, refused};

use super::convolution::{Convolution, Depthwise, Sizes, means, side};
use super::input::{Input, Size};
use super::{Body, Built};
use crate::layer::{Activation, Linear, Norm};
use crate::ready;
use crate::weights::Weights;

const MAX_LAYERS: usize = 1_000;

/// Width of a layer's filters, how much wider its middle is, and what its norms add to a variance.
const KERNEL: usize = 7;
const WIDER: usize = 4;
const EPS: f64 = 1e-6;

#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default = "patch_size")]
    patch_size: Size,
    hidden_sizes: Vec<usize>,
    depths: Vec<usize>,
    #[serde(default)]
    hidden_act: Activation,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
}

fn patch_size() -> Size {
    Size::Both(4)
}

fn eps() -> f64 {
    1e-12
}

struct ConvNext {
    patches: Convolution,
    norm: Norm,
    stages: Vec<Stage>,
    last: Norm,
    activation: Activation,
}

struct Stage {
    before: Option<(Norm, Convolution)>,
    layers: Vec<Layer>,
}

struct Layer {
    filters: Depthwise,
    norm: Norm,
    wide: Linear,
    /// Weight and bias of what V2 makes of how strong the channels are.
    response: Option<(Tensor, Tensor)>,
    narrow: Linear,
    scale: Option<Tensor>,
}

pub(super) fn load(model_type: &str, config: &[u8], input: &Input, weights: &Weights) -> Result<Built> {
    let config: Config = parse("config.json", config)?;
    let (patch, other) = config.patch_size.sides();
    let count = config.depths.iter().try_fold(0_usize, |sum, depth| sum.checked_add(*depth));
    let sizes = &config.hidden_sizes;
    if sizes.len() != config.depths.len() || count.is_none_or(|count| count > MAX_LAYERS) {
        let message =
            format!("{} hidden_sizes for {} depths, or more than {MAX_LAYERS} layers", sizes.len(), config.depths.len());
        return Err(refused(format!("config.json: {message}")));
    }
    let ([first, ..], [.., last]) = (&sizes[..], &sizes[..]) else { return Err(refused("config.json: hidden_sizes are empty")) };
    if patch != other {
        return Err(refused(format!("config.json: patches of {patch} by {other} are not square")));
    }
    for length in [input.height, input.width] {
        (1..sizes.len()).try_fold(side(length, patch, patch, 0)?, |length, _| side(length, 2, 2, 0))?;
    }
    let name = |name: &str| format!("{model_type}.{name}");
    let stage = |(stage, depth): (usize, &usize)| {
        let name = |part: &str| name(&format!("encoder.stages.{stage}.{part}"));
        let size = sizes[stage];
        let before = || {
            let from = sizes[stage - 1];
            let norm = Norm::take(weights, &name("downsampling_layer.0"), from, EPS)?;
            let halved = Sizes { from, to: size, kernel: 2, stride: 2 };
            Ok((norm, Convolution::take(weights, &name("downsampling_layer.1"), halved)?))
        };
        let layer = |place: usize| Layer::take(weights, &name(&format!("layers.{place}")), size, model_type == "convnextv2");
        Ok(Stage { before: (stage > 0).then(before).transpose()?, layers: (0..*depth).map(layer).collect::<Result<_>>()? })
    };
    let patches = Sizes { from: input.channels, to: *first, kernel: patch, stride: patch };
    let net = ConvNext {
        patches: Convolution::take(weights, &name("embeddings.patch_embeddings"), patches)?,
        norm: Norm::take(weights, &name("embeddings.layernorm"), *first, EPS)?,
        stages: config.depths.iter().enumerate().map(stage).collect::<Result<_>>()?,
        last: Norm::take(weights, &name("layernorm"), *last, config.layer_norm_eps)?,
        activation: config.hidden_act,
    };
    Ok((Box::new(net), *last))
}

impl Layer {
    fn take(weights: &Weights, name: &str, size: usize, is_second: bool) -> Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        let wide = size.checked_mul(WIDER).ok_or_else(|| refused("config.json: hidden_sizes are too large"))?;
        let response = |what: &str| {
            let taken = weights.take(&part(&format!("grn.{what}")), &[1, 1, 1, wide])?;
            ready(taken.flatten_all())
        };
        let scale = part("layer_scale_parameter");
        Ok(Self {
            filters: Depthwise::take(weights, &part("dwconv"), size, KERNEL)?,
            norm: Norm::take(weights, &part("layernorm"), size, EPS)?,
            wide: Linear::take(weights, &part("pwconv1"), size, wide)?,
            response: is_second.then(|| Ok((response("weight")?, response("bias")?))).transpose()?,
            narrow: Linear::take(weights, &part("pwconv2"), wide, size)?,
            scale: weights.has(&scale).then(|| weights.take(&scale, &[size])).transpose()?,
        })
    }

    fn forward(&self, pictures: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
        let (rows, size, height, width) = pictures.dims4()?;
        let made = self.norm.forward(&last_channels(&self.filters.forward(pictures)?)?)?;
        let mut made = activation.forward(&self.wide.forward(&made.reshape((rows * height * width, size))?)?)?;
        if let Some((weight, bias)) = &self.response {
            let by_row = made.reshape((rows, height * width, size * WIDER))?;
            let strengths = by_row.sqr()?.sum_keepdim(1)?.sqrt()?;
            let relative = strengths.broadcast_div(&(strengths.mean_keepdim(D::Minus1)? + EPS)?)?;
            let answer = by_row.broadcast_mul(&relative)?.broadcast_mul(weight)?.broadcast_add(bias)?;
            made = (answer + by_row)?.reshape(made.dims())?;
        }
        let mut made = self.narrow.forward(&made)?;
        if let Some(scale) = &self.scale {
            made = made.broadcast_mul(scale)?;
        }
        pictures + made.reshape((rows, height, width, size))?.permute((0, 3, 1, 2))?
    }
}

impl Body for ConvNext {
    fn vectors(&self, pictures: &Tensor) -> candle_core::Result<Tensor> {
        let mut made = normed(&self.norm, &self.patches.forward(pictures)?)?;
        for stage in &self.stages {
            if let Some((norm, halved)) = &stage.before {
                made = halved.forward(&normed(norm, &made)?)?;
            }
            for layer in &stage.layers {
                made = layer.forward(&made, self.activation)?;
            }
        }
        self.last.forward(&means(&made)?)
    }
}

fn last_channels(pictures: &Tensor) -> candle_core::Result<Tensor> {
    pictures.permute((0, 2, 3, 1))?.contiguous()
}

/// Normalised across channels, place by place.
fn normed(norm: &Norm, pictures: &Tensor) -> candle_core::Result<Tensor> {
    norm.forward(&last_channels(pictures)?)?.permute((0, 3, 1, 2))?.contiguous()
}
