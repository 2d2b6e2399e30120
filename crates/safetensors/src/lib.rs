//! Models in safetensors, in the layout of the Hugging Face hub, computed by candle. Knows no instance, no queue and no wire.
//!
//! In reading order: [`place`] (processor or CUDA), `weights` (the files), `net` (a declared feed-forward net), `layer` (what others are made of), `encoder`
//! (transformers that read text), `image` (nets that say what is on a picture). `config.json` says by its `model_type` what a model is. A
//! run uses as many threads as the machine has.

mod encoder;
mod image;
mod layer;
mod net;
pub mod place;
mod weights;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Tensor as Computed};
use sluicegate_core::{Result, Shape, Tensor, TextOptions, TokenCount};
use sluicegate_text::Signature;
use sluicegate_text::files::{failed, parse, refused};

use encoder::Encoder;
use image::Classifier;
use net::Net;
pub use place::Place;
use weights::{Numbers, Weights};

/// Longest sentence of candle's that is passed on.
const LONGEST: usize = 400;

/// A model with its weights, which instances share.
pub trait Model: Send + Sync {
    /// What it takes, what it gives, and a record that is like those that will come, where it knows one.
    fn signature(&self) -> Signature;

    /// Runs it: the wanted outputs, by their places. One that reads text says what it read.
    ///
    /// # Errors
    /// [`Code::RunFailed`](sluicegate_core::Code::RunFailed), and [`Code::InvalidTensor`](sluicegate_core::Code::InvalidTensor) where a
    /// text is too long and is not to be cut.
    fn run(&self, inputs: &[Tensor], wanted: &[usize], count: &mut Option<TokenCount>) -> Result<Vec<Tensor>>;

    /// Whether ONNX Runtime is known to be several times faster at it on the processor.
    fn is_faster_as_onnx(&self) -> bool;
}

/// What every model's configuration says.
#[derive(serde::Deserialize)]
struct Head {
    model_type: Option<String>,
}

/// Loads the model whose `config.json` this is to where it will be computed, with the weights that lie beside it.
///
/// # Errors
/// [`Code::LoadFailed`](sluicegate_core::Code::LoadFailed), with what was expected of which file.
pub fn load(folder: &Path, config: &[u8], options: &TextOptions, place: &Place) -> Result<Arc<dyn Model>> {
    let head: Head = parse("config.json", config)?;
    let Some(kind) = head.model_type else { return Err(refused("config.json has no model_type")) };
    let weights = Weights::open(folder, place)?;
    if kind == net::MODEL_TYPE {
        return Ok(Arc::new(Net::load(parse("config.json", config)?, &weights)?));
    }
    if let Some(encoder) = Encoder::load(folder, &kind, config, &weights, options)? {
        return Ok(Arc::new(encoder));
    }
    if let Some(classifier) = Classifier::load(folder, &kind, config, &weights)? {
        return Ok(Arc::new(classifier));
    }
    let of_images = image::MODEL_TYPES.iter().map(|(kind, _)| *kind);
    let served: Vec<&str> = [net::MODEL_TYPE].into_iter().chain(encoder::model_types()).chain(of_images).collect();
    let hint = "export the model to ONNX to serve it";
    Err(refused(format!("config.json: model_type `{kind}` is not served; {} are; {hint}", served.join(", "))))
}

fn ready<T>(computed: candle_core::Result<T>) -> Result<T> {
    computed.map_err(|error| refused(said(&error)))
}

/// candle's error in one sentence, without its backtrace.
fn said(error: &candle_core::Error) -> String {
    let mut error = error;
    while let candle_core::Error::WithBacktrace { inner, .. } | candle_core::Error::WithPath { inner, .. } = error {
        error = inner;
    }
    let words = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let end = words.floor_char_boundary(LONGEST);
    words[..end].trim_end_matches(['.', ':']).to_owned()
}

/// Rows of numbers as the model's weights are: where they lie, and with as many bits.
fn floats(tensor: &Tensor, like: &Numbers) -> Result<Computed> {
    let values = tensor.values::<f32>().ok_or_else(|| failed("expected FP32"))?;
    let rows = Computed::from_slice(&values, tensor.shape().sizes(), &like.device).and_then(|rows| rows.to_dtype(like.dtype));
    rows.map_err(|error| failed(said(&error)))
}

/// What was computed, brought to the processor as 32 bits each.
fn listed(tensor: &Computed) -> candle_core::Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// What was computed, as everyone else takes it.
fn given(computed: candle_core::Result<Computed>) -> Result<Tensor> {
    let taken = computed.and_then(|tensor| {
        let shape = Shape::new(tensor.dims());
        Ok((shape, listed(&tensor)?))
    });
    let (shape, values) = taken.map_err(|error| failed(said(&error)))?;
    Tensor::from_vec(shape, values).map_err(|error| failed(error.message()))
}
