//! candle: safetensors in the layout of the Hugging Face hub, recognised by the `model_type` of `config.json`.
//!
//! In reading order: `weights` (the files), `net` (a declared feed-forward net), `text` (tokens), `encoder` (transformers that read
//! text). A run uses as many threads as the machine has, whatever threads were asked for.

mod encoder;
mod net;
mod text;
mod weights;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Tensor as Computed};
use serde::de::DeserializeOwned;
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{Code, Error, Result, Shape, Tensor};

use crate::sentence::sentence;
use crate::{Device, Engine, EngineChoice, ModelFile, Opened, Options, caught};
use encoder::Encoder;
use net::Net;
use weights::Weights;

/// Largest file of JSON beside the weights that is read; a tokenizer of a quarter of a million words has 17 MB.
const MAX_JSON: u64 = 64 << 20;

/// A model with its weights, which the instances share.
trait Model: Send + Sync {
    /// What it takes.
    fn inputs(&self) -> Vec<TensorSpec>;
    /// What it gives.
    fn outputs(&self) -> Vec<TensorSpec>;
    /// A record that is like those that will come.
    fn example(&self) -> Option<serde_json::Value> {
        None
    }
    /// Runs it: the wanted outputs, by their places.
    fn run(&self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>>;
}

struct Instance(Arc<dyn Model>);

impl Engine for Instance {
    fn run(&mut self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>> {
        caught(|| self.0.run(inputs, wanted))
            .unwrap_or_else(|panic| Err(failed(format!("candle panicked: {panic}"))))
            .map_err(|error| failed(error.message()))
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
    let loaded = caught(|| load(model)).unwrap_or_else(|panic| Err(refused(format!("candle panicked: {panic}"))))?;
    let (inputs, outputs, example) = (loaded.inputs(), loaded.outputs(), loaded.example());
    let instance = |_| -> Box<dyn Engine> { Box::new(Instance(loaded.clone())) };
    let instances = (0..options.instances.get()).map(instance).collect();
    Ok(Opened { engine: EngineChoice::Candle, fallback: None, device: "cpu".to_owned(), inputs, outputs, example, instances })
}

fn load(model: &ModelFile<'_>) -> Result<Arc<dyn Model>> {
    let folder = model.path.parent().unwrap_or(Path::new("."));
    let head: Head = parse("config.json", model.bytes)?;
    let weights = Weights::open(folder)?;
    match head.model_type.as_deref() {
        Some(net::MODEL_TYPE) => Ok(Arc::new(Net::load(parse("config.json", model.bytes)?, &weights)?)),
        Some(kind) if encoder::MODEL_TYPES.contains(&kind) => Ok(Arc::new(Encoder::load(folder, model.bytes, &weights)?)),
        Some(other) => {
            let served = encoder::MODEL_TYPES.join(", ");
            let hint = "export the model to ONNX to serve it";
            Err(refused(format!("config.json: model_type `{other}` is not served; {}, {served} are; {hint}", net::MODEL_TYPE)))
        }
        None => Err(refused("config.json has no model_type")),
    }
}

/// Reads a file of JSON in a version's directory.
fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    parse(name, &bytes(folder, name)?)
}

fn bytes(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    let failed = |error: std::io::Error| refused(format!("{name}: {error}"));
    let size = std::fs::metadata(&path).map_err(failed)?.len();
    if size > MAX_JSON {
        return Err(refused(format!("{name} has {size} bytes, at most {MAX_JSON} are read")));
    }
    std::fs::read(&path).map_err(failed)
}

fn parse<T: DeserializeOwned>(name: &str, content: &[u8]) -> Result<T> {
    serde_json::from_slice(content).map_err(|error| refused(format!("{name}: {error}")))
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Code::LoadFailed, message)
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(Code::RunFailed, message)
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
    Tensor::from_vec(shape, values)
}
