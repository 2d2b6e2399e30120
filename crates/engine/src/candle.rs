//! candle: safetensors in the layout of the Hugging Face hub, recognised by the `model_type` of `config.json`.

use std::path::Path;
use std::sync::Arc;

use sluicegate_core::{Code, DType, Error, Result, Tensor};
use sluicegate_safetensors::{Model, load};
use sluicegate_text::files::{failed, refused};

use crate::{Device, Engine, EngineChoice, ModelFile, Opened, Options, TokenCount, caught};

/// What the owner of such a model is told.
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
    if let Device::Cuda(_) = options.device {
        let message = format!("this build of candle runs on the processor alone, and {} was asked for", options.device);
        return Err(Error::new(Code::NoEngine, message));
    }
    let folder = model.path.parent().unwrap_or(Path::new("."));
    let loaded = caught(|| load(folder, model.bytes, &options.text));
    let loaded = loaded.unwrap_or_else(|panic| Err(refused(format!("candle panicked: {panic}"))))?;
    let (inputs, outputs, example) = loaded.signature();
    let instance = |_| -> Box<dyn Engine> { Box::new(Instance { model: loaded.clone(), count: None }) };
    let text = inputs.iter().any(|input| input.dtype == DType::Bytes);
    Ok(Opened {
        engine: EngineChoice::Candle,
        fallback: None,
        remark: loaded.is_faster_as_onnx().then(|| SLOWER.to_owned()),
        device: "cpu".to_owned(),
        text,
        inputs,
        outputs,
        example,
        instances: (0..options.instances.get()).map(instance).collect(),
    })
}
