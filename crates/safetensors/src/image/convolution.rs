//! Convolutions: with the norm that follows them taken in, and one filter a channel.

use candle_core::Tensor;
use sluicegate_core::Result;
use sluicegate_text::files::refused;

use crate::ready;
use crate::weights::Weights;

/// A convolution with square filters.
pub(super) struct Convolution {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    padding: usize,
}

/// The sizes of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
}

impl Convolution {
    /// One that looks at each place once, or at what is left of it by the stride, without padding.
    pub(super) fn take(weights: &Weights, name: &str, sizes: Sizes) -> Result<Self> {
        let Sizes { from, to, kernel, stride } = sizes;
        let weight = weights.take(&format!("{name}.weight"), &[to, from, kernel, kernel])?;
        let bias = weights.take(&format!("{name}.bias"), &[to])?;
        Ok(Self { weight, bias: ready(bias.reshape((1, to, 1, 1)))?, stride, padding: 0 })
    }

    /// One without a bias, padded by half of its kernel, with the norm of its channels taken in.
    pub(super) fn take_with_norm(weights: &Weights, name: &str, sizes: Sizes, eps: f64) -> Result<Self> {
        let Sizes { from, to, kernel, stride } = sizes;
        let weight = weights.take(&format!("{name}.convolution.weight"), &[to, from, kernel, kernel])?;
        let of_norm = |what: &str| weights.take(&format!("{name}.normalization.{what}"), &[to]);
        let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
        let deviation = ready((variance + eps).and_then(|variance| variance.sqrt()))?;
        let scale = ready(of_norm("weight")? / deviation)?;
        let bias = of_norm("bias")?;
        let bias = ready((mean * &scale).and_then(|moved| bias - moved))?;
        let wide = |numbers: &Tensor, shape: (usize, usize, usize, usize)| ready(numbers.reshape(shape));
        let weight = ready(weight.broadcast_mul(&wide(&scale, (to, 1, 1, 1))?))?;
        Ok(Self { weight, bias: wide(&bias, (1, to, 1, 1))?, stride, padding: kernel / 2 })
    }

    pub(super) fn forward(&self, pictures: &Tensor) -> candle_core::Result<Tensor> {
        pictures.conv2d(&self.weight, self.padding, self.stride, 1, 1)?.broadcast_add(&self.bias)
    }
}

/// A convolution with one filter a channel, padded so that sizes stay.
pub(super) struct Depthwise {
    /// The weights of each place of the filters: [1, channels, 1, 1] each.
    places: Vec<Tensor>,
    bias: Tensor,
    kernel: usize,
}

impl Depthwise {
    pub(super) fn take(weights: &Weights, name: &str, channels: usize, kernel: usize) -> Result<Self> {
        let weight = weights.take(&format!("{name}.weight"), &[channels, 1, kernel, kernel])?;
        let bias = weights.take(&format!("{name}.bias"), &[channels])?;
        let places = ready(weight.reshape((channels, kernel * kernel)).and_then(|weight| weight.t()?.contiguous()))?;
        let place = |place: usize| ready(places.narrow(0, place, 1).and_then(|place| place.reshape((1, channels, 1, 1))));
        Ok(Self {
            places: (0..kernel * kernel).map(place).collect::<Result<_>>()?,
            bias: ready(bias.reshape((1, channels, 1, 1)))?,
            kernel,
        })
    }

    /// A sum of the picture moved to each place of the filter: one pass for all channels, where a convolution would take one for each.
    pub(super) fn forward(&self, pictures: &Tensor) -> candle_core::Result<Tensor> {
        let (_, _, height, width) = pictures.dims4()?;
        let around = self.kernel / 2;
        let padded = pictures.pad_with_zeros(2, around, around)?.pad_with_zeros(3, around, around)?;
        let mut sum = pictures.zeros_like()?.broadcast_add(&self.bias)?;
        for (place, weight) in self.places.iter().enumerate() {
            let moved = padded.narrow(2, place / self.kernel, height)?.narrow(3, place % self.kernel, width)?;
            sum = (sum + moved.broadcast_mul(weight)?)?;
        }
        Ok(sum)
    }
}

/// The mean of each channel.
pub(super) fn means(pictures: &Tensor) -> candle_core::Result<Tensor> {
    pictures.flatten_from(2)?.mean(2)
}

/// How many places a side has after a convolution or a pooling; a net in which there are none is refused.
pub(super) fn side(side: usize, kernel: usize, stride: usize, padding: usize) -> Result<usize> {
    match (side + 2 * padding).checked_sub(kernel).zip(stride.checked_sub(1)) {
        Some((left, _)) => Ok(left / stride + 1),
        None => Err(refused(format!(
            "a picture with {side} places on a side is too small for a filter of {kernel} with stride {stride}"
        ))),
    }
}
