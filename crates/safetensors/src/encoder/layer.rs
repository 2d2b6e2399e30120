//! The layers of a transformer, with their weights.

use candle_core::Tensor;
use candle_nn::ops;
use sluicegate_core::Result;

use super::config::{Config, Names};
use crate::ready;
use crate::weights::Weights;

/// Weights transposed, and a bias.
pub(super) struct Linear(Tensor, Tensor);

impl Linear {
    pub(super) fn take(weights: &Weights, name: &str, from: usize, to: usize) -> Result<Self> {
        let weight = weights.take(&format!("{name}.weight"), &[to, from])?;
        let bias = weights.take(&format!("{name}.bias"), &[to])?;
        Ok(Self(ready(weight.t().and_then(|weight| weight.contiguous()))?, bias))
    }

    pub(super) fn forward(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        rows.matmul(&self.0)?.broadcast_add(&self.1)
    }
}

pub(super) struct Norm(Tensor, Tensor, f32);

impl Norm {
    /// Files of old have TensorFlow's names.
    pub(super) fn take(weights: &Weights, name: &str, size: usize, eps: f64) -> Result<Self> {
        let one = |new: &str, old: &str| {
            let old = format!("{name}.{old}");
            weights.take(if weights.has(&old) { old } else { format!("{name}.{new}") }.as_str(), &[size])
        };
        Ok(Self(one("weight", "gamma")?, one("bias", "beta")?, eps as f32))
    }

    pub(super) fn forward(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        ops::layer_norm(rows, &self.0, &self.1, self.2)
    }
}

pub(super) struct Layer {
    /// Queries, keys and values in one; the queries scaled already.
    pub(super) asks: Linear,
    pub(super) attended: Linear,
    pub(super) attended_norm: Norm,
    pub(super) wide: Linear,
    pub(super) narrow: Linear,
    pub(super) norm: Norm,
}

impl Layer {
    pub(super) fn take(weights: &Weights, prefix: &str, names: &Names, config: &Config) -> Result<Self> {
        let (size, wide, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let linear = |name: &str, from: usize, to: usize| Linear::take(weights, &format!("{prefix}{name}"), from, to);
        let norm = |name: &str| Norm::take(weights, &format!("{prefix}{name}"), size, eps);
        let scale = 1.0 / ((size / config.num_attention_heads) as f64).sqrt();
        let Linear(query, query_bias) = linear(names.query, size, size)?;
        let (key, value) = (linear(names.key, size, size)?, linear(names.value, size, size)?);
        let scaled = |tensor: Tensor| ready(tensor * scale);
        let asks = Linear(
            ready(Tensor::cat(&[scaled(query)?, key.0, value.0], 1))?,
            ready(Tensor::cat(&[scaled(query_bias)?, key.1, value.1], 0))?,
        );
        Ok(Self {
            asks,
            attended: linear(names.attended, size, size)?,
            attended_norm: norm(names.attended_norm)?,
            wide: linear(names.wide, size, wide)?,
            narrow: linear(names.narrow, wide, size)?,
            norm: norm(names.norm)?,
        })
    }
}
