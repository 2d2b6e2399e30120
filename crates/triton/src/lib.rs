//! `config.pbtxt`: a model's configuration as Triton's repositories have it. What it says is honoured, or named.
//!
//! In reading order: [`fields`] (pure: which fields are served), [`settings`] (pure: batches, instances and versions), [`tensors`] (what it says of inputs and outputs, against the model), [`warmup`] (its samples), [`ensemble`] (its steps).

pub mod ensemble;
pub mod fields;
pub mod settings;
pub mod tensors;
pub mod warmup;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use sluicegate_core::{Code, Digest, Error, ModelName, Result};
use sluicegate_proto::config::from_text;
use sluicegate_proto::inference::ModelConfig;
use sluicegate_proto::inference::model_config::SchedulingChoice;

use ensemble::Ensemble;

/// Its name in a model's directory.
pub const FILE: &str = "config.pbtxt";

/// The directory beside it with the data of its warm-up.
pub const WARMUP: &str = "warmup";

/// The largest one that is read, and the largest file of labels.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// What names the runtime of ONNX models, as `backend` or as `platform`.
const ONNX: [&str; 3] = ["", "onnxruntime", "onnxruntime_onnx"];

/// The platform of ensembles.
pub const ENSEMBLE: &str = "ensemble";

/// A configuration that can be honoured.
#[derive(Debug)]
pub struct Config {
    /// All that it says.
    pub model: Arc<ModelConfig>,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The steps, where the model is an ensemble.
    pub ensemble: Option<Arc<Ensemble>>,
    /// What it says that has no effect, one sentence each.
    pub remarks: Vec<String>,
}

impl Config {
    /// Reads the configuration of a model.
    ///
    /// # Errors
    /// [`Code::BadManifest`] with line and column where it is none, and by its name for each field that changes what a model
    /// means and is not served.
    pub fn parse(name: &ModelName, bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|error| bad(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
        let model = from_text(text).map_err(|error| Error::new(Code::BadManifest, format!("{FILE}:{error}")))?;
        Self::accept(name, model, Digest::sha256(&Sha256::digest(bytes)))
    }

    /// Takes a configuration as that of a model.
    ///
    /// # Errors
    /// [`Code::BadManifest`] naming what contradicts itself or is not served.
    pub fn accept(name: &ModelName, model: ModelConfig, digest: Digest) -> Result<Self> {
        if !model.name.is_empty() && model.name != name.as_str() {
            return Err(bad(format!("name: expected `{name}`, the name of its directory, or none; got `{}`", model.name)));
        }
        let is_ensemble = matches!(model.scheduling_choice, Some(SchedulingChoice::EnsembleScheduling(_)));
        if is_ensemble != (model.platform == ENSEMBLE) {
            return Err(bad(format!(
                "an ensemble has platform `{ENSEMBLE}` and ensemble_scheduling, got platform `{}`",
                model.platform
            )));
        }
        let served = if is_ensemble { &ONNX[..1] } else { &ONNX[..] };
        for (field, value) in [("backend", &model.backend), ("platform", &model.platform)] {
            let is_served = served.contains(&value.as_str()) || (is_ensemble && field == "platform");
            if !is_served {
                let expected = "expected onnxruntime or onnxruntime_onnx, or the platform `ensemble` without a backend";
                return Err(bad(format!("{field}: `{value}` is not served; {expected}")));
            }
        }
        let fields::Found { fails, mut remarks } = fields::look(&model)?;
        if !fails.is_empty() {
            return Err(bad(fails.join("; ")));
        }
        settings::check(&model, &mut remarks)?;
        let ensemble = Ensemble::of(&model)?.map(Arc::new);
        if ensemble.is_some() {
            remarks.extend(ensemble::without_effect(&model));
        }
        Ok(Self { model: Arc::new(model), digest, ensemble, remarks })
    }

    /// The file that is to be loaded from a version's directory, where it says one.
    pub fn model_file(&self) -> Option<&str> {
        Some(self.model.default_model_filename.as_str()).filter(|name| !name.is_empty())
    }
}

/// An error of a configuration.
fn bad(message: impl std::fmt::Display) -> Error {
    Error::new(Code::BadManifest, format!("{FILE}: {message}"))
}

/// Reads a file that must not be larger than this.
///
/// # Errors
/// [`Code::Io`] where it cannot be read, [`Code::BadManifest`] where it is larger.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let io = |error: std::io::Error| Error::new(Code::Io, format!("{name}: {error}"));
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(Error::new(Code::BadManifest, format!("{name} has more than {most} bytes, the most that are read")));
    }
    Ok(bytes)
}

/// A file beside the versions, by a name that must not lead elsewhere.
fn inside(directory: &Path, field: &str, name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    let inside = !name.is_empty() && path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if inside { Ok(directory.join(path)) } else { Err(bad(format!("{field}: `{name}` is not inside the model's directory"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(&"m".parse().expect("a name"), text.as_bytes())
    }

    #[test]
    fn what_is_not_served_fails_by_its_name() {
        for (text, words) in [
            ("name: \"other\"", "expected `m`"),
            ("backend: \"python\"", "backend: `python`"),
            ("platform: \"tensorrt_plan\"", "platform: `tensorrt_plan`"),
            ("platform: \"ensemble\"", "ensemble_scheduling"),
            ("sequence_batching { }", "sequence_batching"),
            ("model_transaction_policy { decoupled: true }", "model_transaction_policy.decoupled"),
            ("input [ { name: \"x\" reshape { shape: [ 1 ] } } ]", "input[0].reshape"),
            ("input [ { name: \"x\" }, { name: \"y\" allow_ragged_batch: true } ]", "input[1].allow_ragged_batch"),
            ("output [ { name: \"x\" is_shape_tensor: true } ]", "output[0].is_shape_tensor"),
            ("batch_input [ { kind: BATCH_ITEM_SHAPE } ]", "batch_input"),
            ("max_batch_size: -1", "max_batch_size"),
            ("max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 8 ] }", "preferred_batch_size"),
            ("dynamic_batching { priority_levels: 2 default_priority_level: 3 }", "default_priority_level"),
            ("\nmax_batch_size: many", "config.pbtxt:2:17"),
        ] {
            let error = parse(text).expect_err(words);
            assert!(error.code() == Code::BadManifest && error.message().contains(words), "{error}");
        }
    }

    #[test]
    fn what_only_tunes_is_remarked_upon_and_the_rest_says_nothing() {
        let quiet = r#"
            name: "m" platform: "onnxruntime_onnx" max_batch_size: 8 model_transaction_policy { decoupled: false }
            input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ] output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
            dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
            instance_group [ { count: 2 kind: KIND_CPU } ] version_policy { all { } } response_cache { enable: true }
            parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
        "#;
        assert_eq!(parse(quiet).expect("all honoured").remarks, Vec::<String>::new());
        let loud = r#"
            optimization { graph { level: 1 } } metric_tags { key: "a" value: "b" }
            parameters { key: "execution_mode" value: { string_value: "1" } }
            instance_group [ { count: 1 rate_limiter { priority: 1 } } ]
            dynamic_batching { preserve_ordering: true priority_queue_policy { key: 1 value: { max_queue_size: 1 } } }
        "#;
        let remarks = parse(loud).expect("nothing that matters").remarks;
        for words in [
            "optimization",
            "metric_tags",
            "parameters[execution_mode]",
            "instance_group[0].rate_limiter",
            "dynamic_batching.preserve_ordering",
            "dynamic_batching.priority_queue_policy",
        ] {
            assert!(remarks.iter().any(|remark| remark.starts_with(words)), "{words}: {remarks:?}");
        }
        assert_eq!(remarks.len(), 6, "{remarks:?}");
    }
}
