//! What the nets of the hub are made of: dense layers, norms, activations, and attention.

use candle_core::Tensor;
use candle_nn::ops;
use serde::Deserialize;
use sluicegate_core::Result;

use crate::ready;
use crate::weights::Weights;

/// Tokens that look at others at once: what they make of those is a number for each pair and head.
const BLOCK: usize = 512;

/// Weights transposed, and a bias.
pub(crate) struct Linear(Tensor, Option<Tensor>);

impl Linear {
    pub(crate) fn take(weights: &Weights, name: &str, from: usize, to: usize) -> Result<Self> {
        Self::take_with(weights, name, from, to, true)
    }

    pub(crate) fn take_with(weights: &Weights, name: &str, from: usize, to: usize, bias: bool) -> Result<Self> {
        let weight = weights.take(&format!("{name}.weight"), &[to, from])?;
        let bias = bias.then(|| weights.take(&format!("{name}.bias"), &[to])).transpose()?;
        Ok(Self(ready(weight.t().and_then(|weight| weight.contiguous()))?, bias))
    }

    /// Queries, keys and values in one.
    pub(crate) fn asks(parts: [Self; 3]) -> Result<Self> {
        let [query, key, value] = parts;
        let bias = match (query.1, key.1, value.1) {
            (Some(query), Some(key), Some(value)) => Some(ready(Tensor::cat(&[query, key, value], 0))?),
            _ => None,
        };
        Ok(Self(ready(Tensor::cat(&[query.0, key.0, value.0], 1))?, bias))
    }

    /// The same with its queries, the first columns, scaled for heads of this width.
    pub(crate) fn scaled(self, columns: usize, width: usize) -> Result<Self> {
        let scale = 1.0 / (width as f64).sqrt();
        let scaled = |tensor: &Tensor, dim: usize| {
            let others = tensor.narrow(dim, columns, tensor.dim(dim)? - columns)?;
            Tensor::cat(&[(tensor.narrow(dim, 0, columns)? * scale)?, others], dim)
        };
        let bias = self.1.map(|bias| ready(scaled(&bias, 0))).transpose()?;
        Ok(Self(ready(scaled(&self.0, 1))?, bias))
    }

    /// Takes rows of two sizes.
    pub(crate) fn forward(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        let product = rows.matmul(&self.0)?;
        match &self.1 {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}

pub(crate) struct Norm(Tensor, Tensor, f32);

impl Norm {
    pub(crate) fn take(weights: &Weights, name: &str, size: usize, eps: f64) -> Result<Self> {
        Self::take_with(weights, name, size, eps, true)
    }

    /// Files of old have TensorFlow's names.
    pub(crate) fn take_with(weights: &Weights, name: &str, size: usize, eps: f64, bias: bool) -> Result<Self> {
        let one = |new: &str, old: &str| {
            let old = format!("{name}.{old}");
            weights.take(if weights.has(&old) { old } else { format!("{name}.{new}") }.as_str(), &[size])
        };
        let weight = one("weight", "gamma")?;
        let bias = if bias { one("bias", "beta")? } else { ready(weight.zeros_like())? };
        Ok(Self(weight, bias, eps as f32))
    }

    /// Takes rows that lie one after the other.
    pub(crate) fn forward(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        ops::layer_norm(rows, &self.0, &self.1, self.2)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activation {
    #[default]
    Gelu,
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Relu,
    #[serde(alias = "swish")]
    Silu,
    Tanh,
}

impl Activation {
    pub(crate) fn forward(self, rows: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Gelu => rows.gelu_erf(),
            Self::GeluNew => rows.gelu(),
            Self::Relu => rows.relu(),
            Self::Silu => rows.silu(),
            Self::Tanh => rows.tanh(),
        }
    }
}

/// Which tokens look at which of their row.
pub(crate) enum Look {
    /// Each at all.
    All,
    /// Each at those that are no further away.
    Near(usize),
    /// Each at all, with something added for each head and pair.
    Biased(Tensor),
}

/// The queries, keys and values of rows of one length, out of those of their tokens: [rows, heads, length, width] each.
pub(crate) fn parted(asks: &Tensor, length: usize, heads: usize) -> candle_core::Result<[Tensor; 3]> {
    let (tokens, columns) = asks.dims2()?;
    let asks = asks.reshape((tokens / length, length, 3, heads, columns / 3 / heads))?;
    let part = |which: usize| asks.narrow(2, which, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    Ok([part(0)?, part(1)?, part(2)?])
}

/// Lets tokens look at each other, but for what is added to hide some from all of their row, and gives them as rows again.
pub(crate) fn attend([query, key, value]: &[Tensor; 3], look: &Look, hidden: Option<&Tensor>) -> candle_core::Result<Tensor> {
    let (rows, heads, length, width) = query.dims4()?;
    let one = |start: usize| {
        let size = BLOCK.min(length - start);
        let (from, to) = match look {
            Look::Near(reach) => (start.saturating_sub(*reach), (start + size).saturating_add(*reach).min(length)),
            Look::All | Look::Biased(_) => (0, length),
        };
        let seen = |tensor: &Tensor| tensor.narrow(2, from, to - from)?.contiguous();
        let scores = query.narrow(2, start, size)?.contiguous()?.matmul(&seen(key)?.t()?)?;
        let scores = match look {
            Look::Near(reach) if to - from > reach + 1 => scores.broadcast_add(&near(start, size, from, to, *reach, &scores)?)?,
            Look::Biased(bias) => scores.broadcast_add(&bias.narrow(1, start, size)?)?,
            Look::Near(_) | Look::All => scores,
        };
        let scores = match hidden {
            Some(hidden) => scores.broadcast_add(&hidden.narrow(3, from, to - from)?)?,
            None => scores,
        };
        ops::softmax_last_dim(&scores)?.matmul(&seen(value)?)
    };
    let blocks = (0..length).step_by(BLOCK).map(one).collect::<candle_core::Result<Vec<_>>>()?;
    let attended = if let [only] = &blocks[..] { only.clone() } else { Tensor::cat(&blocks, 2)? };
    attended.transpose(1, 2)?.reshape((rows * length, heads * width))
}

/// What is added to such scores so that each of these tokens looks no further than `reach`.
fn near(start: usize, size: usize, from: usize, to: usize, reach: usize, like: &Tensor) -> candle_core::Result<Tensor> {
    let one = |(token, other): (usize, usize)| if token.abs_diff(other) <= reach { 0.0 } else { f32::NEG_INFINITY };
    let pairs = (start..start + size).flat_map(|token| (from..to).map(move |other| (token, other)));
    Tensor::from_vec(pairs.map(one).collect(), (size, to - from), like.device())?.to_dtype(like.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Attention row by row, in the plainest way.
    fn plain(parts: &[Tensor; 3], sees: impl Fn(usize, usize) -> bool) -> Vec<f32> {
        let [query, key, value] = parts.each_ref().map(|part| part.squeeze(0).expect("a row").to_vec3::<f32>().expect("FP32"));
        let (length, sees) = (query[0].len(), &sees);
        let one = |token: usize| {
            query.iter().zip(&key).zip(&value).flat_map(move |((query, key), value)| {
                let weight = |other: usize| query[token].iter().zip(&key[other]).map(|(a, b)| a * b).sum::<f32>().exp();
                let seen: Vec<usize> = (0..length).filter(|other| sees(token, *other)).collect();
                let total: f32 = seen.iter().map(|other| weight(*other)).sum();
                let column = |i: usize| seen.iter().map(|other| weight(*other) / total * value[*other][i]).sum::<f32>();
                (0..value[0].len()).map(column).collect::<Vec<_>>()
            })
        };
        (0..length).flat_map(one).collect()
    }

    #[test]
    fn attention_in_blocks_is_attention_at_once() {
        let length = BLOCK + 37;
        let numbers: Vec<f32> = (0..length * 3 * 4).map(|i| (i as f32 * 0.37).sin()).collect();
        let asks = Tensor::from_vec(numbers, (length, 12), &Device::Cpu).expect("fits");
        let parts = parted(&asks, length, 2).expect("parts");
        for (look, reach) in [(Look::All, length), (Look::Near(3), 3), (Look::Near(length), length), (Look::Near(0), 0)] {
            let got =
                attend(&parts, &look, None).expect("runs").flatten_all().and_then(|all| all.to_vec1::<f32>()).expect("FP32");
            let expected = plain(&parts, |token, other| token.abs_diff(other) <= reach);
            let off = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(got.len() == expected.len() && off < 1e-5, "reach {reach}: off by {off}");
        }
    }
}
