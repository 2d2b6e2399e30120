//! The last layers of a transformer, as its architecture has them, and what they make of a text.

use std::path::Path;

use candle_core::Tensor;
use sluicegate_core::Result;
use sluicegate_text::files::refused;
use sluicegate_text::{Pooling, Task, Tokens, labels, modules};

use super::config::{Common, Family};
use super::modernbert::{ClassifierPooling, Head as Modern};
use crate::layer::{Activation, Linear, Norm};
use crate::listed;
use crate::weights::Weights;

enum Step {
    Dense(Linear),
    Activate(Activation),
    Norm(Norm),
}

/// What is made of a row's states: of one vector, or of each token's.
pub(super) struct Head {
    pooling: Option<Pooling>,
    steps: Vec<Step>,
}

impl Head {
    /// # Errors
    /// Where the architecture is not served, or a weight does not fit.
    pub(super) fn load(
        folder: &Path,
        config: &[u8],
        common: &Common,
        family: Family,
        weights: &Weights,
        prefix: &str,
    ) -> Result<(Self, Task)> {
        let (architecture, size) = (common.architecture(), common.hidden_size);
        let dense = |name: &str| Linear::take(weights, name, size, size).map(Step::Dense);
        let (mut pooling, mut steps) = (Some(Pooling::First), Vec::new());
        let of_tokens = match architecture.split_once("For").map(|(_, what)| what) {
            Some("SequenceClassification") => false,
            Some("TokenClassification") => true,
            None | Some("MaskedLM" | "PreTraining") if architecture.ends_with("Model") || architecture.contains("For") => {
                let (pooling, steps) = modules(folder, size)?;
                return Ok((Self { pooling: Some(pooling), steps: Vec::new() }, Task::Embed { size, steps }));
            }
            _ => {
                let message = format!("config.json: architecture `{architecture}` is not served; export the model to ONNX");
                return Err(refused(message));
            }
        };
        let mut last = "classifier";
        match family {
            Family::ModernBert => {
                let Modern { dense, activation, norm, pooling: of } = Modern::take(config, weights, size)?;
                steps.extend([Step::Dense(dense), Step::Activate(activation), Step::Norm(norm)]);
                pooling = Some(if of == ClassifierPooling::Mean { Pooling::Mean } else { Pooling::First });
            }
            _ if of_tokens => {}
            Family::Bert => steps.extend([dense(&format!("{prefix}pooler.dense"))?, Step::Activate(Activation::Tanh)]),
            Family::DistilBert => steps.extend([dense("pre_classifier")?, Step::Activate(Activation::Relu)]),
            Family::Roberta | Family::MpNet => {
                steps.extend([dense("classifier.dense")?, Step::Activate(Activation::Tanh)]);
                last = "classifier.out_proj";
            }
        }
        let [count @ 1..=usize::MAX, _] = *weights.shape(&format!("{last}.weight"))? else {
            return Err(refused(format!("tensor `{last}.weight` has no row for any label")));
        };
        steps.push(Step::Dense(Linear::take(weights, last, size, count)?));
        let task = match of_tokens {
            true => Task::Tag(labels(&common.id2label, count)?),
            false => Task::of_labels(&common.id2label, common.problem_type, count)?,
        };
        Ok((Self { pooling: pooling.filter(|_| !of_tokens), steps }, task))
    }

    /// The numbers of each row, one row after the other.
    pub(super) fn answer(&self, states: &Tensor, rows: &[&Tokens]) -> candle_core::Result<Vec<f32>> {
        let taken = match self.pooling {
            None => states.clone(),
            Some(pooling) => pooled(pooling, states, rows)?,
        };
        let step = |taken: Tensor, step: &Step| match step {
            Step::Dense(dense) => dense.forward(&taken),
            Step::Activate(activation) => activation.forward(&taken),
            Step::Norm(norm) => norm.forward(&taken),
        };
        listed(&self.steps.iter().try_fold(taken, step)?)
    }
}

/// One vector of each row's states.
fn pooled(pooling: Pooling, states: &Tensor, rows: &[&Tokens]) -> candle_core::Result<Tensor> {
    let size = states.dim(1)?;
    let like = states;
    let states = listed(states)?;
    let mut pooled = Vec::with_capacity(rows.len() * size);
    let mut rest = &states[..];
    for row in rows {
        let (own, others) = rest.split_at(row.ids.len() * size);
        pooling.pool(own, size, &mut pooled);
        rest = others;
    }
    Tensor::from_vec(pooled, (rows.len(), size), like.device())?.to_dtype(like.dtype())
}
