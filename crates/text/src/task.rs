//! What is made of a text: a vector, a probability for each label, a score, or a number.

use std::collections::BTreeMap;

use serde::Deserialize;
use sluicegate_core::Result;

use crate::files::refused;

/// What is made of a text.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// A vector of so many numbers, its length made 1 where it is to be.
    Embed {
        /// Numbers of a vector.
        size: usize,
        /// Whether its length is made 1.
        normalize: bool,
    },
    /// A probability for each label.
    Classify {
        /// Their names.
        labels: Vec<String>,
        /// Whether several may hold of one text, so that each probability stands for itself.
        several: bool,
    },
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
        let name = |place| names.get(&place).cloned().unwrap_or_else(|| format!("LABEL_{place}"));
        Ok(Self::Classify { labels: (0..count as u32).map(name).collect(), several })
    }

    /// Numbers a text.
    pub fn width(&self) -> usize {
        match self {
            Self::Embed { size, .. } => *size,
            Self::Classify { labels, .. } => labels.len(),
            Self::Rank | Self::Value => 1,
        }
    }

    /// Makes what was computed of one text what is answered.
    pub(crate) fn finish(&self, row: &mut [f32]) {
        match self {
            Self::Value | Self::Embed { normalize: false, .. } => {}
            Self::Embed { .. } => {
                let length = row.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
                row.iter_mut().for_each(|value| *value /= length);
            }
            Self::Classify { several: false, .. } => {
                let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter_mut().for_each(|score| *score = (*score - highest).exp());
                let total: f32 = row.iter().sum();
                row.iter_mut().for_each(|score| *score /= total);
            }
            Self::Rank | Self::Classify { .. } => row.iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-*score).exp())),
        }
    }
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
}
