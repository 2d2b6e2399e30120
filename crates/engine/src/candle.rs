//! candle: safetensors in the layout of the Hugging Face hub, recognised by the `model_type` of `config.json`.

use std::path::Path;
use std::sync::Arc;

use sluicegate_core::{DType, Result, Tensor};
use sluicegate_safetensors::{Model, Place, load};
use sluicegate_text::files::{failed, refused};

use crate::{Device, Engine, EngineChoice, Gpus, ModelFile, Opened, Options, TokenCount, caught};

/// What the owner of such a model on the processor is told.
const SLOWER: &str = "candle runs it; ONNX Runtime is several times faster at the same model on the processor: export it to ONNX where that counts";

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

/// Loads a model once; the instances share it.
pub(crate) fn open(model: &ModelFile<'_>, options: &Options) -> Result<Opened> {
    let why = match options.device {
        Device::Cuda(gpus) => return on_devices(model, options, gpus),
        Device::Auto if Place::HAS_CUDA => match on_devices(model, options, Gpus::FIRST) {
            Ok(opened) => return Ok(opened),
            Err(error) => Some(error),
        },
        Device::Auto | Device::Cpu => None,
    };
    let loaded = load_at(model, options, &Place::processor())?;
    let remark = loaded.is_faster_as_onnx().then(|| SLOWER.to_owned());
    let models = vec![loaded; options.instances.get()];
    let fallback = why.map(|error| format!("runs on the processor: {}", error.message()));
    Ok(Opened { remark, fallback, ..opened(models, "cpu") })
}

/// Loads it for each instance: what is computed at the same time has streams of its own, which share no weights.
fn on_devices(model: &ModelFile<'_>, options: &Options, gpus: Gpus) -> Result<Opened> {
    let models = options.on(gpus).map(|number| load_at(model, options, &Place::cuda(number)?)).collect::<Result<Vec<_>>>()?;
    Ok(opened(models, &Device::Cuda(gpus).to_string()))
}

fn load_at(model: &ModelFile<'_>, options: &Options, place: &Place) -> Result<Arc<dyn Model>> {
    let folder = model.path.parent().unwrap_or(Path::new("."));
    let loaded = caught(|| load(folder, model.bytes, &options.text, place));
    loaded.unwrap_or_else(|panic| Err(refused(format!("candle panicked: {panic}"))))
}

/// What there is to say of the first model is to say of all.
fn opened(models: Vec<Arc<dyn Model>>, device: &str) -> Opened {
    let (inputs, outputs, example) = models.first().map(|model| model.signature()).unwrap_or_default();
    let text = inputs.iter().any(|input| input.dtype == DType::Bytes);
    let instance = |model| -> Box<dyn Engine> { Box::new(Instance { model, count: None }) };
    Opened {
        engine: EngineChoice::Candle,
        fallback: None,
        remark: None,
        device: device.to_owned(),
        text,
        inputs,
        outputs,
        example,
        instances: models.into_iter().map(instance).collect(),
    }
}
