//! What sentence-transformers writes beside a model in `modules.json`: how states become one vector, and what becomes of that.

use std::path::Path;

use serde::Deserialize;
use sluicegate_core::Result;

use crate::Pooling;
use crate::dense::Dense;
use crate::files::{inside, read, read_if_any, refused};

const FILE: &str = "modules.json";

/// Most modules that are read.
const MOST: usize = 100;

/// What becomes of a vector, in order.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// A dense layer.
    Dense(Dense),
    /// Its length is made 1.
    Normalize,
}

impl Step {
    /// Numbers of a vector that it gives, where it changes them.
    pub(crate) fn width(&self) -> Option<usize> {
        match self {
            Self::Dense(dense) => Some(dense.width()),
            Self::Normalize => None,
        }
    }

    pub(crate) fn apply(&self, vector: &mut Vec<f32>) {
        match self {
            Self::Dense(dense) => *vector = dense.forward(vector),
            Self::Normalize => {
                let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
                vector.iter_mut().for_each(|value| *value /= length);
            }
        }
    }
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Modes {
    One(String),
    Several(Vec<String>),
}

/// As it is written now, with `pooling_mode`, and as it was.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    #[serde(alias = "word_embedding_dimension")]
    embedding_dimension: Option<usize>,
    pooling_mode: Option<Modes>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

/// What `modules.json` says of states with `size` numbers each: how they become one vector, and what becomes of that. Where there is
/// none, the mean, as sentence-transformers has it.
///
/// # Errors
/// Naming the module, or what of it, is not served.
pub fn modules(folder: &Path, size: usize) -> Result<(Pooling, Vec<Step>)> {
    let (mut pooling, mut steps) = (None, Vec::new());
    let modules = read_if_any::<Vec<Module>>(folder, FILE)?.unwrap_or_default();
    if modules.len() > MOST {
        return Err(refused(format!("{FILE} has {} modules, at most {MOST} are read", modules.len())));
    }
    let mut width = size;
    for (place, Module { path, kind }) in modules.into_iter().enumerate() {
        match kind.rsplit('.').next().unwrap_or_default() {
            // Its files are those that are read anyway.
            "Transformer" if place == 0 && path.is_empty() => {}
            "Transformer" => {
                let expected = "expected as the first one, with an empty path: its files lie in the version's directory";
                return Err(refused(format!("{FILE}: module {place} is a Transformer with the path `{path}`, {expected}")));
            }
            "Pooling" if pooling.is_some() || !steps.is_empty() => {
                return Err(refused(format!("{FILE}: module {place} is a Pooling, behind what reads one vector a text")));
            }
            "Pooling" => pooling = Some(of_module(folder, inside(FILE, &path)?, size)?),
            "Normalize" => {
                inside(FILE, &path)?;
                steps.push(Step::Normalize);
            }
            "Dense" => {
                let dense = Dense::load(folder, inside(FILE, &path)?, width)?;
                width = dense.width();
                steps.push(Step::Dense(dense));
            }
            other => {
                let served = "Transformer, Pooling, Dense and Normalize are";
                return Err(refused(format!("{FILE}: module `{other}` is not served; {served}")));
            }
        }
    }
    Ok((pooling.unwrap_or_default(), steps))
}

fn of_module(folder: &Path, path: &str, size: usize) -> Result<Pooling> {
    let name = format!("{path}/config.json");
    let config: Config = read(folder, &name)?;
    if config.embedding_dimension.is_some_and(|dimension| dimension != size) {
        return Err(refused(format!("{name}: the model has {size} columns, it says another number")));
    }
    let modes = match config.pooling_mode {
        Some(Modes::One(mode)) => vec![mode],
        Some(Modes::Several(modes)) => modes,
        None => [
            (config.pooling_mode_mean_tokens, "mean"),
            (config.pooling_mode_cls_token, "cls"),
            (config.pooling_mode_max_tokens, "max"),
            (config.pooling_mode_mean_sqrt_len_tokens, "mean_sqrt_len_tokens"),
            (config.pooling_mode_weightedmean_tokens, "weightedmean"),
            (config.pooling_mode_lasttoken, "lasttoken"),
        ]
        .into_iter()
        .filter(|(chosen, _)| *chosen)
        .map(|(_, mode)| mode.to_owned())
        .collect(),
    };
    let [mode] = &modes[..] else {
        return Err(refused(format!("{name}: one way of pooling is served, and it asks for {}", modes.len())));
    };
    Pooling::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(mode))
        .map_err(|error| refused(format!("{name}: pooling_mode: {error}")))
}
