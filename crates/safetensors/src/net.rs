//! A feed-forward net as its `config.json` declares it: layers in order, weights by the names of PyTorch's state dict.
//!
//! Rows come as one FP32 tensor and leave as one. Sizes are worked out from the input's on, so that every weight is checked before
//! any row is computed.

use candle_core::{D, Tensor};
use candle_nn::ops;
use serde::Deserialize;
use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::{DType, Dim, Result, Tensor as Rows, TokenCount};
use sluicegate_text::Signature;
use sluicegate_text::files::{failed, has_outputs, refused};

use crate::weights::{Numbers, Weights};
use crate::{Model, floats, given, ready};

/// The `model_type` of such a net.
pub(crate) const MODEL_TYPE: &str = "feed_forward";

const MAX_LAYERS: usize = 1_000;

/// Most elements of one row between two layers: a gigabyte.
const MAX_ELEMENTS: usize = 1 << 28;

/// `config.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(rename = "model_type")]
    _model_type: String,
    input: Input,
    #[serde(default)]
    output: Output,
    layers: Vec<Layer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[serde(default = "input_name")]
    name: String,
    /// The sizes of one row: columns, or channels and then positions.
    shape: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Output {
    name: String,
    labels: Vec<String>,
    kind: Option<Kind>,
}

impl Default for Output {
    fn default() -> Self {
        Self { name: "output".into(), labels: Vec::new(), kind: None }
    }
}

fn input_name() -> String {
    "input".into()
}

/// One layer. Those with weights name them as PyTorch does: `name.weight`, `name.bias`.
#[allow(clippy::enum_variant_names, reason = "a norm of layers is called so")]
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Layer {
    Linear {
        name: String,
    },
    Conv1d(Convolution),
    Conv2d(Convolution),
    BatchNorm(Norm),
    LayerNorm(Norm),
    GroupNorm {
        name: String,
        groups: usize,
        #[serde(default = "eps")]
        eps: f64,
    },
    Relu,
    LeakyRelu {
        #[serde(default = "slope")]
        slope: f64,
    },
    Elu {
        #[serde(default = "one_float")]
        alpha: f64,
    },
    Gelu,
    GeluTanh,
    Silu,
    Sigmoid,
    Tanh,
    Softmax,
    MaxPool2d(Pool),
    AvgPool2d(Pool),
    GlobalAvgPool,
    Flatten,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Convolution {
    name: String,
    #[serde(default = "one")]
    stride: usize,
    #[serde(default)]
    padding: usize,
    #[serde(default = "one")]
    dilation: usize,
    #[serde(default = "one")]
    groups: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Norm {
    name: String,
    #[serde(default = "eps")]
    eps: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    kernel: usize,
    /// As PyTorch has it: the kernel's size where it is not said.
    stride: Option<usize>,
}

fn one() -> usize {
    1
}

fn one_float() -> f64 {
    1.0
}

fn slope() -> f64 {
    0.01
}

fn eps() -> f64 {
    1e-5
}

/// A layer with its weights.
enum Op {
    /// Transposed weights, and a bias.
    Linear(Tensor, Option<Tensor>),
    Convolve {
        weight: Tensor,
        bias: Option<Tensor>,
        how: Convolution,
        two: bool,
    },
    /// What a normalisation by fixed figures comes to.
    Affine {
        scale: Tensor,
        shift: Tensor,
    },
    LayerNorm {
        weight: Tensor,
        bias: Tensor,
        eps: f32,
    },
    GroupNorm(candle_nn::GroupNorm),
    /// One without weights.
    Plain(Layer),
}

/// The net.
pub(crate) struct Net {
    input: TensorSpec,
    output: TensorSpec,
    numbers: Numbers,
    ops: Vec<Op>,
}

impl Net {
    /// Builds it.
    ///
    /// # Errors
    /// Naming the layer that does not fit what comes before it, or the weight that is missing, superfluous or of another shape.
    pub(crate) fn load(config: Config, weights: &Weights) -> Result<Self> {
        if config.layers.is_empty() || config.layers.len() > MAX_LAYERS {
            return Err(refused(format!("config.json has {} layers, expected 1 to {MAX_LAYERS}", config.layers.len())));
        }
        let mut shape = config.input.shape.clone();
        if !(1..=3).contains(&shape.len()) {
            return Err(refused(format!("the input has the shape {shape:?}, expected one to three sizes: those of one row")));
        }
        bounded(&shape)?;
        let mut ops = Vec::with_capacity(config.layers.len());
        for (place, layer) in config.layers.into_iter().enumerate() {
            let op = Op::build(&layer, &mut shape, weights).and_then(|op| bounded(&shape).map(|()| op));
            ops.push(op.map_err(|error| error.at(format!("layer {place}")))?);
        }
        // A count of batches that training keeps and nothing here reads.
        weights.all_taken(|name| name.ends_with(".num_batches_tracked"))?;
        let dims = |sizes: &[usize]| {
            std::iter::once(Dim::Free(Some("batch".into()))).chain(sizes.iter().map(|&size| Dim::Fixed(size))).collect()
        };
        let input = TensorSpec::new(&config.input.name, DType::Fp32, dims(&config.input.shape));
        let Output { name, labels, kind } = config.output;
        let mut output = TensorSpec::new(&name, DType::Fp32, dims(&shape));
        if !labels.is_empty() && shape.last() != Some(&labels.len()) {
            return Err(refused(format!("there are {} labels, and a row of the output has the shape {shape:?}", labels.len())));
        }
        let of_labels = match (labels.is_empty(), ops.last()) {
            (true, _) => Kind::Value,
            (false, Some(Op::Plain(Layer::Softmax))) => Kind::Probability,
            (false, _) => Kind::Score,
        };
        output.kind = kind.unwrap_or(of_labels);
        output.labels = labels;
        Ok(Self { input, output, numbers: weights.numbers(), ops })
    }
}

impl Model for Net {
    fn signature(&self) -> Signature {
        (vec![self.input.clone()], vec![self.output.clone()], None)
    }

    fn run(&self, inputs: &[Rows], wanted: &[usize], _: &mut Option<TokenCount>) -> Result<Vec<Rows>> {
        let [rows] = inputs else { return Err(failed(format!("the net has one input, not {}", inputs.len()))) };
        has_outputs(1, wanted)?;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let computed = self.ops.iter().try_fold(floats(rows, &self.numbers)?, |rows, op| op.forward(&rows));
        Ok(vec![given(computed)?])
    }

    fn is_faster_as_onnx(&self) -> bool {
        false
    }
}

fn bounded(shape: &[usize]) -> Result<()> {
    let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    match elements {
        Some(1..=MAX_ELEMENTS) => Ok(()),
        _ => Err(refused(format!("a row of shape {shape:?} has no elements, or more than {MAX_ELEMENTS}"))),
    }
}

impl Op {
    /// Takes a layer's weights; `shape` is that of a row before it, and then that after it.
    fn build(layer: &Layer, shape: &mut Vec<usize>, weights: &Weights) -> Result<Self> {
        let fits = |ranks: std::ops::RangeInclusive<usize>, what: &str| match ranks.contains(&shape.len()) {
            true => Ok(()),
            false => Err(refused(format!("it takes {what}, and gets rows of shape {shape:?}"))),
        };
        let bias = |name: &str, size: usize| {
            let name = format!("{name}.bias");
            weights.has(&name).then(|| weights.take(&name, &[size])).transpose()
        };
        Ok(match layer {
            Layer::Linear { name } => {
                let (weight, last) = (format!("{name}.weight"), shape.len() - 1);
                let out = out_of(&weight, weights.shape(&weight)?, &[shape[last]])?;
                let taken = weights.take(&weight, &[out, shape[last]])?;
                shape[last] = out;
                Self::Linear(ready(taken.t().and_then(|weight| weight.contiguous()))?, bias(name, out)?)
            }
            Layer::Conv1d(how) | Layer::Conv2d(how) => {
                let two = matches!(layer, Layer::Conv2d(_));
                let rank = if two { 3 } else { 2 };
                fits(rank..=rank, if two { "channels, height and width" } else { "channels and length" })?;
                let Convolution { name, stride, padding, dilation, groups } = how;
                if *stride == 0 || *dilation == 0 || *groups == 0 || !shape[0].is_multiple_of(*groups) {
                    return Err(refused(format!(
                        "stride, dilation and groups are 1 or more, and groups divide the {} channels that it gets",
                        shape[0]
                    )));
                }
                let weight = format!("{name}.weight");
                let sizes = weights.shape(&weight)?.to_vec();
                if sizes.len() != rank + 1 || sizes[1] != shape[0] / groups || !sizes[0].is_multiple_of(*groups) {
                    return Err(refused(format!(
                        "tensor `{weight}` has the shape {sizes:?}, expected {} sizes, of which the second is {}",
                        rank + 1,
                        shape[0] / groups
                    )));
                }
                for (size, kernel) in shape[1..].iter_mut().zip(&sizes[2..]) {
                    let reach = kernel.checked_sub(1).and_then(|more| more.checked_mul(*dilation)).map(|reach| reach + 1);
                    let padded = padding.checked_mul(2).and_then(|padding| padding.checked_add(*size));
                    let steps = padded.zip(reach).and_then(|(padded, reach)| padded.checked_sub(reach));
                    let steps = steps.ok_or_else(|| {
                        refused(format!("its kernel of {kernel} does not fit into {size} with a padding of {padding}"))
                    })?;
                    *size = steps / stride + 1;
                }
                shape[0] = sizes[0];
                let bias = bias(name, sizes[0])?;
                let ones: &[usize] = if two { &[1, 1] } else { &[1] };
                let wide = |bias: Tensor| ready(bias.reshape([&[1, sizes[0]], ones].concat()));
                let bias = bias.map(wide).transpose()?;
                Self::Convolve { weight: weights.take(&weight, &sizes)?, bias, how: how.clone(), two }
            }
            Layer::BatchNorm(Norm { name, eps }) => {
                let channels = [shape[0]];
                let take = |what: &str| weights.take(&format!("{name}.{what}"), &channels);
                let (mean, var) = (take("running_mean")?, take("running_var")?);
                let deviation = ready((var + *eps).and_then(|var| var.sqrt()))?;
                let (scale, shift) = match weights.has(&format!("{name}.weight")) {
                    true => (ready(take("weight")? / &deviation)?, take("bias")?),
                    false => (ready(deviation.recip())?, ready(mean.zeros_like())?),
                };
                let shift = ready((&mean * &scale).and_then(|moved| shift - moved))?;
                let wide: Vec<usize> = [1, channels[0]].into_iter().chain(shape[1..].iter().map(|_| 1)).collect();
                Self::Affine { scale: ready(scale.reshape(&*wide))?, shift: ready(shift.reshape(&*wide))? }
            }
            Layer::LayerNorm(Norm { name, eps }) => {
                let columns = [shape[shape.len() - 1]];
                let take = |what: &str| weights.take(&format!("{name}.{what}"), &columns);
                Self::LayerNorm { weight: take("weight")?, bias: take("bias")?, eps: *eps as f32 }
            }
            Layer::GroupNorm { name, groups, eps } => {
                fits(2..=3, "channels and positions")?;
                let channels = shape[0];
                let take = |what: &str| weights.take(&format!("{name}.{what}"), &[channels]);
                let norm = candle_nn::GroupNorm::new(take("weight")?, take("bias")?, channels, *groups, *eps);
                Self::GroupNorm(ready(norm)?)
            }
            Layer::MaxPool2d(pool) | Layer::AvgPool2d(pool) => {
                fits(3..=3, "channels, height and width")?;
                let stride = pool.stride.unwrap_or(pool.kernel);
                for size in &mut shape[1..] {
                    if pool.kernel == 0 || stride == 0 || *size < pool.kernel {
                        return Err(refused(format!(
                            "a kernel of {} with a stride of {stride} does not fit into {size}",
                            pool.kernel
                        )));
                    }
                    *size = (*size - pool.kernel) / stride + 1;
                }
                Self::Plain(layer.clone())
            }
            Layer::GlobalAvgPool => {
                fits(2..=3, "channels and positions")?;
                shape.truncate(1);
                Self::Plain(Layer::GlobalAvgPool)
            }
            Layer::Flatten => {
                *shape = vec![shape.iter().product()];
                Self::Plain(Layer::Flatten)
            }
            plain => Self::Plain(plain.clone()),
        })
    }

    fn forward(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        let plus = |computed: Tensor, bias: &Option<Tensor>| match bias {
            Some(bias) => computed.broadcast_add(bias),
            None => Ok(computed),
        };
        match self {
            Self::Linear(weight, bias) => plus(rows.broadcast_matmul(weight)?, bias),
            Self::Convolve { weight, bias, how: Convolution { stride, padding, dilation, groups, .. }, two: true } => {
                plus(rows.conv2d(weight, *padding, *stride, *dilation, *groups)?, bias)
            }
            Self::Convolve { weight, bias, how: Convolution { stride, padding, dilation, groups, .. }, two: false } => {
                plus(rows.conv1d(weight, *padding, *stride, *dilation, *groups)?, bias)
            }
            Self::Affine { scale, shift } => rows.broadcast_mul(scale)?.broadcast_add(shift),
            Self::LayerNorm { weight, bias, eps } => ops::layer_norm(&rows.contiguous()?, weight, bias, *eps),
            Self::GroupNorm(norm) => candle_nn::Module::forward(norm, rows),
            Self::Plain(layer) => match layer {
                Layer::Relu => rows.relu(),
                Layer::LeakyRelu { slope } => ops::leaky_relu(rows, *slope),
                Layer::Elu { alpha } => rows.elu(*alpha),
                Layer::Gelu => rows.gelu_erf(),
                Layer::GeluTanh => rows.gelu(),
                Layer::Silu => rows.silu(),
                Layer::Sigmoid => ops::sigmoid(rows),
                Layer::Tanh => rows.tanh(),
                Layer::Softmax => ops::softmax(rows, D::Minus1),
                Layer::MaxPool2d(Pool { kernel, stride }) => rows.max_pool2d_with_stride(*kernel, stride.unwrap_or(*kernel)),
                Layer::AvgPool2d(Pool { kernel, stride }) => rows.avg_pool2d_with_stride(*kernel, stride.unwrap_or(*kernel)),
                Layer::GlobalAvgPool => rows.flatten_from(2)?.mean(2),
                _ => rows.flatten_from(1),
            },
        }
    }
}

/// The first size of a weight whose other ones are known.
fn out_of(name: &str, shape: &[usize], rest: &[usize]) -> Result<usize> {
    match shape.split_first() {
        Some((&out, others)) if others == rest && out > 0 => Ok(out),
        _ => Err(refused(format!("tensor `{name}` has the shape {shape:?}, expected one size and then {rest:?}"))),
    }
}
