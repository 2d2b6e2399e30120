//! How the states of a text's tokens become one vector, as sentence-transformers writes it beside a model.

use std::path::Path;

use serde::Deserialize;
use sluicegate_core::Result;

use crate::files::{inside, read, read_if_any, refused};

const FILE: &str = "modules.json";

/// How the states of a row's tokens become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all.
    #[default]
    Mean,
    /// The first token's.
    First,
    /// The maximum of each number.
    Max,
}

impl Pooling {
    /// Adds the vector of one row's states, of which each has `size` numbers.
    pub fn pool(self, states: &[f32], size: usize, out: &mut Vec<f32>) {
        let (first, others) = states.split_at(size);
        let start = out.len();
        out.extend_from_slice(first);
        let vector = &mut out[start..];
        let mut each = |join: fn(f32, f32) -> f32| {
            for state in others.chunks_exact(size) {
                vector.iter_mut().zip(state).for_each(|(all, one)| *all = join(*all, *one));
            }
        };
        match self {
            Self::First => {}
            Self::Max => each(f32::max),
            Self::Mean => {
                each(|all, one| all + one);
                let count = (states.len() / size) as f32;
                vector.iter_mut().for_each(|sum| *sum /= count);
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

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    word_embedding_dimension: Option<usize>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

/// What `modules.json` says: how states become one vector, and whether that has the length 1. Where there is none, the mean, as
/// sentence-transformers has it.
///
/// # Errors
/// Naming the module, or what of it, is not served.
pub fn pooling(folder: &Path, size: usize) -> Result<(Pooling, bool)> {
    let (mut pooling, mut normalize) = (Pooling::Mean, false);
    for (place, module) in read_if_any::<Vec<Module>>(folder, FILE)?.unwrap_or_default().into_iter().enumerate() {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            // Its files are those that are read anyway.
            "Transformer" if place == 0 && module.path.is_empty() => {}
            "Transformer" => {
                let expected = "expected as the first one, with an empty path: its files lie in the version's directory";
                return Err(refused(format!(
                    "{FILE}: module {place} is a Transformer with the path `{}`, {expected}",
                    module.path
                )));
            }
            "Normalize" => {
                inside(FILE, &module.path)?;
                normalize = true;
            }
            "Pooling" => pooling = of_module(folder, &module.path, size)?,
            other => {
                return Err(refused(format!("{FILE}: module `{other}` is not served; Transformer, Pooling and Normalize are")));
            }
        }
    }
    Ok((pooling, normalize))
}

fn of_module(folder: &Path, path: &str, size: usize) -> Result<Pooling> {
    let name = format!("{}/config.json", inside(FILE, path)?);
    let config: Config = read(folder, &name)?;
    if config.word_embedding_dimension.is_some_and(|dimension| dimension != size) {
        return Err(refused(format!("{name}: the model has {size} columns, it says another number")));
    }
    let known = [
        (config.pooling_mode_mean_tokens, Some(Pooling::Mean)),
        (config.pooling_mode_cls_token, Some(Pooling::First)),
        (config.pooling_mode_max_tokens, Some(Pooling::Max)),
        (config.pooling_mode_mean_sqrt_len_tokens, None),
        (config.pooling_mode_weightedmean_tokens, None),
        (config.pooling_mode_lasttoken, None),
    ];
    let mut chosen = known.iter().filter(|(chosen, _)| *chosen);
    match (chosen.next(), chosen.next()) {
        (Some((_, Some(pooling))), None) => Ok(*pooling),
        _ => Err(refused(format!("{name}: one of mean, cls and max is served, and it asks for something else"))),
    }
}
