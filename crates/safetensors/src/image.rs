//! Nets that say what is on a picture: vision transformers, ResNets and ConvNeXts.
//!
//! Pictures come as they are computed: [rows, channels, height, width], rescaled and normalised. In reading order: `input` (of which
//! size they are), `convolution` (what the nets are made of), `vit`, `resnet`, `convnext`.

mod convnext;
mod convolution;
mod input;
mod resnet;
mod vit;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use serde::Deserialize;
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{DType, Dim, Result, Tensor as Rows, TokenCount};
use sluicegate_text::files::{failed, has_outputs, parse, refused};
use sluicegate_text::{Problem, Signature, Task, labels};

use crate::layer::Linear;
use crate::weights::{Numbers, Weights};
use crate::{Model, floats, listed, said};
use input::Input;

/// The `model_type`s that are served, with what their architecture is called.
pub(crate) const MODEL_TYPES: [(&str, &str); 4] =
    [("vit", "ViT"), ("resnet", "ResNet"), ("convnext", "ConvNext"), ("convnextv2", "ConvNextV2")];

/// What these families have in common.
#[derive(Debug, Deserialize)]
struct Common {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    id2label: BTreeMap<u32, String>,
    #[serde(default)]
    problem_type: Option<Problem>,
}

/// What makes a vector of a picture.
trait Body: Send + Sync {
    /// One row each.
    fn vectors(&self, pictures: &Tensor) -> candle_core::Result<Tensor>;
}

/// A body, and the numbers of a vector.
type Built = (Box<dyn Body>, usize);

/// The model.
pub(crate) struct Classifier {
    input: Input,
    body: Box<dyn Body>,
    last: Linear,
    task: Task,
    numbers: Numbers,
}

/// Pictures that a device computes at once. The processor takes one: between two layers a picture has many more numbers than it came
/// with, and what fits its caches is faster.
const AT_ONCE: usize = 32;

impl Classifier {
    /// Builds it; `None` where the `model_type` is none of these.
    ///
    /// # Errors
    /// What of the configuration is not served; the weight that is missing, superfluous or of another shape.
    pub(crate) fn load(folder: &Path, model_type: &str, config: &[u8], weights: &Weights) -> Result<Option<Self>> {
        let Some((kind, family)) = MODEL_TYPES.iter().find(|(kind, _)| *kind == model_type) else { return Ok(None) };
        let common: Common = parse("config.json", config)?;
        let architecture = common.architectures.iter().flatten().next().map_or("", String::as_str);
        if architecture != format!("{family}ForImageClassification") {
            let message = format!("config.json: architecture `{architecture}` is not served, {family}ForImageClassification is");
            return Err(refused(format!("{message}; export the model to ONNX")));
        }
        let input = Input::load(folder, config)?;
        let ((body, size), last) = match *kind {
            "vit" => (vit::load(config, &input, weights)?, "classifier"),
            "resnet" => (resnet::load(config, &input, weights)?, "classifier.1"),
            _ => (convnext::load(kind, config, &input, weights)?, "classifier"),
        };
        let [count @ 1..=usize::MAX, _] = *weights.shape(&format!("{last}.weight"))? else {
            return Err(refused(format!("tensor `{last}.weight` has no row for any label")));
        };
        let last = Linear::take(weights, last, size, count)?;
        // What training keeps, and what it alone has a use for.
        let of_training = ["vit.pooler.", "vit.embeddings.mask_token"];
        weights
            .all_taken(|name| name.ends_with(".num_batches_tracked") || of_training.iter().any(|left| name.starts_with(left)))?;
        let task = match Task::of_labels(&common.id2label, common.problem_type, count)? {
            Task::Rank => Task::Classify { labels: labels(&common.id2label, 1)?, several: true },
            task => task,
        };
        Ok(Some(Self { input, body, last, task, numbers: weights.numbers() }))
    }
}

impl Model for Classifier {
    fn signature(&self) -> Signature {
        let Input { channels, height, width, .. } = self.input;
        let dims = vec![Dim::Free(Some("batch".into())), Dim::Fixed(channels), Dim::Fixed(height), Dim::Fixed(width)];
        let mut input = TensorSpec::new("pixel_values", DType::Fp32, dims);
        input.about.description = Some(self.input.about.clone());
        (vec![input], vec![self.task.output()], None)
    }

    fn run(&self, inputs: &[Rows], wanted: &[usize], _: &mut Option<TokenCount>) -> Result<Vec<Rows>> {
        let [pictures] = inputs else { return Err(failed(format!("the model has one input, not {}", inputs.len()))) };
        has_outputs(1, wanted)?;
        let Input { channels, height, width, .. } = self.input;
        let expected = [pictures.shape().rows(), channels, height, width];
        if pictures.shape().sizes() != expected {
            return Err(failed(format!("pixel_values have the shape {}, expected {expected:?}", pictures.shape())));
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let pictures = floats(pictures, &self.numbers)?;
        let at_once = if self.numbers.device.is_cpu() { 1 } else { AT_ONCE };
        let scores = |row: usize| {
            let vectors = self.body.vectors(&pictures.narrow(0, row, at_once.min(expected[0] - row))?)?;
            listed(&self.last.forward(&vectors)?)
        };
        let mut given = Vec::new();
        for row in (0..expected[0]).step_by(at_once) {
            let scores = scores(row).map_err(|error| failed(said(&error)))?;
            for row in scores.chunks(self.task.width()) {
                let mut row = row.to_vec();
                self.task.finish(&mut row);
                given.extend(row);
            }
        }
        Ok(vec![self.task.tensor(given, expected[0])?])
    }

    fn is_faster_as_onnx(&self) -> bool {
        true
    }
}
