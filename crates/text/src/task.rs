//! What is made of a text, or of a picture: a vector, a probability for each label, entities, a score, or a number.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::{DType, Dim, Result, Shape, Tensor};

use crate::dense::sigmoid;
use crate::entities::entities;
use crate::files::refused;
use crate::{Step, Tokens};

/// Longest name of a label; answers repeat them.
const LONGEST_LABEL: usize = 1_000;

/// What is made of a row.
#[derive(Debug, PartialEq)]
pub enum Task {
    /// A vector: one of so many numbers, and what becomes of that.
    Embed {
        /// Numbers of the vector that is computed.
        size: usize,
        /// What becomes of it, in order.
        steps: Vec<Step>,
    },
    /// A probability for each label.
    Classify {
        /// Their names.
        labels: Vec<String>,
        /// Whether several may hold of one row, so that each probability stands for itself.
        several: bool,
    },
    /// What each token is, by the best of these labels, and neighbours of one kind as one entity.
    Tag(Vec<String>),
    /// A score from 0 to 1 of how a text answers a query.
    Rank,
    /// A number, as the model gives it.
    Value,
}

/// `problem_type` of `config.json`: what a model's numbers, one a label, were trained to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// One number of any size.
    Regression,
    /// Scores, of which one label has the best.
    SingleLabelClassification,
    /// Scores, each for itself.
    MultiLabelClassification,
}

/// The names of so many labels.
///
/// # Errors
/// Where one is too long.
pub fn labels(names: &BTreeMap<u32, String>, count: usize) -> Result<Vec<String>> {
    let name = |place| names.get(&place).cloned().unwrap_or_else(|| format!("LABEL_{place}"));
    let labels: Vec<String> = (0..count as u32).map(name).collect();
    match labels.iter().position(|label| label.len() > LONGEST_LABEL) {
        Some(place) => Err(refused(format!("config.json: id2label: name {place} has more than {LONGEST_LABEL} bytes"))),
        None => Ok(labels),
    }
}

impl Task {
    /// What a model does that gives so many numbers a text, one a label.
    ///
    /// # Errors
    /// Where it was trained on several numbers a text that are no scores.
    pub fn of_labels(names: &BTreeMap<u32, String>, problem: Option<Problem>, count: usize) -> Result<Self> {
        let several = match (problem, count) {
            (Some(Problem::Regression), 1) => return Ok(Self::Value),
            (Some(Problem::Regression), _) => {
                let message = format!("config.json: problem_type is `regression` with {count} labels, and one is served");
                return Err(refused(message));
            }
            (Some(Problem::MultiLabelClassification), _) => true,
            (_, 1) => return Ok(Self::Rank),
            _ => false,
        };
        Ok(Self::Classify { labels: labels(names, count)?, several })
    }

    /// What it gives.
    pub fn output(&self) -> TensorSpec {
        let columns = |count: usize| vec![rows(), Dim::Fixed(count)];
        match self {
            Self::Embed { .. } => TensorSpec::new("embedding", DType::Fp32, columns(self.width())),
            Self::Classify { labels, .. } => TensorSpec {
                kind: Kind::Probability,
                labels: labels.clone(),
                ..TensorSpec::new("probabilities", DType::Fp32, columns(self.width()))
            },
            Self::Tag(_) => {
                let mut entities = TensorSpec::new("entities", DType::Bytes, vec![rows()]);
                let says = "a list in JSON: entity_group, score, word, and the places of its characters, start and end";
                entities.about.description = Some(says.into());
                entities
            }
            Self::Rank => TensorSpec::new("score", DType::Fp32, vec![rows()]),
            Self::Value => TensorSpec::new("value", DType::Fp32, vec![rows()]),
        }
    }

    /// Numbers of a row that it gives.
    pub fn width(&self) -> usize {
        match self {
            Self::Embed { size, steps } => steps.iter().rev().find_map(Step::width).unwrap_or(*size),
            Self::Classify { labels, .. } => labels.len(),
            Self::Tag(_) | Self::Rank | Self::Value => 1,
        }
    }

    /// Numbers that are computed for a row.
    pub(crate) fn computed(&self, tokens: usize) -> usize {
        match self {
            Self::Embed { size, .. } => *size,
            Self::Tag(labels) => labels.len() * tokens,
            _ => self.width(),
        }
    }

    /// Makes what was computed of one row what is answered, where that is numbers.
    pub fn finish(&self, row: &mut Vec<f32>) {
        match self {
            Self::Value | Self::Tag(_) => {}
            Self::Embed { steps, .. } => steps.iter().for_each(|step| step.apply(row)),
            Self::Classify { several: false, .. } => softmax(row),
            Self::Rank | Self::Classify { .. } => row.iter_mut().for_each(|score| *score = sigmoid(*score)),
        }
    }

    /// The finished numbers of all rows, as they go out.
    ///
    /// # Errors
    /// Where they are not as many as that.
    pub fn tensor(&self, numbers: Vec<f32>, rows: usize) -> Result<Tensor> {
        let sizes = [rows, self.width()];
        Tensor::from_vec(Shape::new(if matches!(self, Self::Rank | Self::Value) { &sizes[..1] } else { &sizes }), numbers)
    }
}

/// Makes scores shares of a whole.
pub(crate) fn softmax(scores: &mut [f32]) {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - highest).exp());
    let total: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= total);
}

/// The answers of a batch, put in row by row in any order.
pub(crate) enum Answers {
    Numbers(Vec<f32>),
    Entities(Vec<Bytes>),
}

impl Answers {
    pub(crate) fn new(task: &Task, rows: usize) -> Self {
        match task {
            Task::Tag(_) => Self::Entities(vec![Bytes::new(); rows]),
            _ => Self::Numbers(vec![0.0; rows * task.width()]),
        }
    }

    /// Puts in what was computed for a row.
    pub(crate) fn put(&mut self, place: usize, task: &Task, tokens: &Tokens, computed: &[f32]) {
        match (self, task) {
            (Self::Entities(all), Task::Tag(labels)) => all[place] = entities(labels, computed, tokens).into(),
            (Self::Numbers(all), _) => {
                let mut row = computed.to_vec();
                task.finish(&mut row);
                all[place * row.len()..][..row.len()].copy_from_slice(&row);
            }
            (Self::Entities(_), _) => {}
        }
    }

    pub(crate) fn tensor(self, task: &Task, rows: usize) -> Result<Tensor> {
        match self {
            Self::Entities(all) => Tensor::text(Shape::new(&[rows]), all),
            Self::Numbers(all) => task.tensor(all, rows),
        }
    }
}

/// The first axis.
pub(crate) fn rows() -> Dim {
    Dim::Free(Some("batch".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(problem: Option<Problem>, scores: &[f32]) -> Vec<f32> {
        let mut row = scores.to_vec();
        Task::of_labels(&BTreeMap::new(), problem, row.len()).expect("served").finish(&mut row);
        row
    }

    #[test]
    fn one_label_of_several_shares_a_whole_and_several_at_once_stand_for_themselves() {
        let half = 1.0 / (1.0 + 1_f32.exp());
        let one = [None, Some(Problem::SingleLabelClassification)];
        assert!(one.iter().all(|problem| finished(*problem, &[3.0, 3.0]) == [0.5, 0.5]));
        assert_eq!(finished(Some(Problem::MultiLabelClassification), &[0.0, -1.0, 0.0]), [0.5, half, 0.5]);
        assert_eq!(finished(Some(Problem::MultiLabelClassification), &[-1.0]), [half]);
        assert_eq!(finished(None, &[-1.0]), [half]);
    }

    #[test]
    fn a_regression_gives_its_number_and_of_several_it_is_refused() {
        assert_eq!(finished(Some(Problem::Regression), &[-7.5]), [-7.5]);
        let error = Task::of_labels(&BTreeMap::new(), Some(Problem::Regression), 2).expect_err("two numbers");
        assert!(error.message().contains("`regression` with 2 labels"), "{error}");
    }

    #[test]
    fn a_name_that_every_answer_would_repeat_has_an_end() {
        let names = BTreeMap::from([(1, "x".repeat(100_000))]);
        let error = Task::of_labels(&names, None, 2).expect_err("too long");
        assert!(error.message().contains("name 1 has more than 1000 bytes"), "{error}");
    }
}
