//! candle: safetensors in the layout of the Hugging Face hub, recognised by the `model_type` of `config.json`.
//!
//! In reading order: `weights` (the files), `net` (a declared feed-forward net), `encoder` (transformers that read text). A run uses
//! as many threads as the machine has, whatever threads were asked for.

mod encoder;
mod net;
mod weights;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Tensor as Computed};
use sluicegate_core::{Code, Error, Result, Shape, Tensor};

use crate::files::{failed, parse, refused};
use crate::sentence::sentence;
use crate::text::Signature;
use crate::{Device, Engine, EngineChoice, ModelFile, Opened, Options, TokenCount, caught};
use encoder::Encoder;
use net::Net;
use weights::Weights;

/// What the owner of an encoder is told.
const SLOWER: &str = "candle runs it; ONNX Runtime is several times faster at the same encoder on the processor: export it to ONNX where that counts";

/// A model with its weights, which the instances share.
trait Model: Send + Sync {
    /// What it takes, what it gives, and a record that is like those that will come, where it knows one.
    fn signature(&self) -> Signature;
    /// Runs it: the wanted outputs, by their places. One that reads text says what it read.
    fn run(&self, inputs: &[Tensor], wanted: &[usize], count: &mut Option<TokenCount>) -> Result<Vec<Tensor>>;
}

struct Instance {
    model: Arc<dyn Model>,
    count: Option<TokenCount>,
}

impl Engine for Instance {
    fn run(&mut self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>> {
        let Self { model, count } = self;
        caught(|| model.run(inputs, wanted, count)).unwrap_or_else(|panic| Err(failed(format!("candle panicked: {panic}"))))
    }

    fn tokens(&self) -> Option<TokenCount> {
        self.count
    }
}

/// What every model's configuration says.
#[derive(serde::Deserialize)]
struct Head {
    model_type: Option<String>,
}

/// Loads a model once; the instances share it.
pub(crate) fn open(model: &ModelFile<'_>, options: &Options) -> Result<Opened> {
    if let Device::Cuda(_) = options.device {
        let message = format!("this build of candle runs on the processor alone, and {} was asked for", options.device);
        return Err(Error::new(Code::NoEngine, message));
    }
    let loaded = caught(|| load(model, options));
    let loaded = loaded.unwrap_or_else(|panic| Err(refused(format!("candle panicked: {panic}"))))?;
    let (inputs, outputs, example) = loaded.signature();
    let instance = |_| -> Box<dyn Engine> { Box::new(Instance { model: loaded.clone(), count: None }) };
    let text = inputs.iter().any(|input| input.dtype == sluicegate_core::DType::Bytes);
    Ok(Opened {
        engine: EngineChoice::Candle,
        fallback: None,
        remark: text.then(|| SLOWER.to_owned()),
        device: "cpu".to_owned(),
        text,
        inputs,
        outputs,
        example,
        instances: (0..options.instances.get()).map(instance).collect(),
    })
}

fn load(model: &ModelFile<'_>, options: &Options) -> Result<Arc<dyn Model>> {
    let folder = model.path.parent().unwrap_or(Path::new("."));
    let head: Head = parse("config.json", model.bytes)?;
    let weights = Weights::open(folder)?;
    match head.model_type.as_deref() {
        Some(net::MODEL_TYPE) => Ok(Arc::new(Net::load(parse("config.json", model.bytes)?, &weights)?)),
        Some(kind) if encoder::MODEL_TYPES.contains(&kind) => {
            Ok(Arc::new(Encoder::load(folder, model.bytes, &weights, &options.text)?))
        }
        Some(other) => {
            let served = encoder::MODEL_TYPES.join(", ");
            let hint = "export the model to ONNX to serve it";
            Err(refused(format!("config.json: model_type `{other}` is not served; {}, {served} are; {hint}", net::MODEL_TYPE)))
        }
        None => Err(refused("config.json has no model_type")),
    }
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
    sentence(&error.to_string())
}

/// Rows of numbers as candle takes them.
fn floats(tensor: &Tensor) -> Result<Computed> {
    let values = tensor.values::<f32>().ok_or_else(|| failed("expected FP32"))?;
    Computed::from_slice(&values, tensor.shape().sizes(), &candle_core::Device::Cpu).map_err(|error| failed(said(&error)))
}

/// What was computed, as everyone else takes it.
fn given(computed: candle_core::Result<Computed>) -> Result<Tensor> {
    let taken = computed.and_then(|tensor| {
        let shape = Shape::new(tensor.dims());
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok((shape, values))
    });
    let (shape, values) = taken.map_err(|error| failed(said(&error)))?;
    Tensor::from_vec(shape, values).map_err(|error| failed(error.message()))
}
