//! Models that read text, whatever computes them: what they take and give, and how their rows become batches of tokens.
//!
//! In reading order: `tokens` (text to tokens), `batches` (which rows together; pure), `pooling` (states to one vector), `task` (what
//! becomes of those), [`Reader`] (texts in, numbers out), [`files`] (what lies beside a model). Names no runtime.

mod batches;
pub mod files;
mod pooling;
mod task;
mod tokens;

use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::{DType, Dim, Result, Shape, Tensor, TokenCount};

use files::{failed, has_outputs};

pub use batches::{Bound, batches};
pub use pooling::{Pooling, pooling};
pub use task::{Problem, Task};
pub use tokens::{FILE, Filler, Room, Text, Tokens};

/// Inputs, outputs and an example of a record.
pub type Signature = (Vec<TensorSpec>, Vec<TensorSpec>, Option<serde_json::Value>);

/// A model's end towards its callers: texts come in, tokens go to what computes them, and its numbers go out.
pub struct Reader {
    /// Texts to tokens.
    pub text: Text,
    /// What is made of a text.
    pub task: Task,
    /// What is computed at once.
    pub bound: Bound,
    /// The one length that all rows are filled up to, where there is one.
    pub length: Option<usize>,
}

impl Reader {
    /// What it takes, what it gives, and a record that is like those that will come.
    pub fn signature(&self) -> Signature {
        let texts = [
            ("query", "Which way does the water go?"),
            ("text", "When the upper gate opens, the lock fills until both sides are level."),
        ];
        let texts = if matches!(self.task, Task::Rank) { &texts[..] } else { &texts[1..] };
        let inputs = texts.iter().map(|(name, _)| TensorSpec::new(name, DType::Bytes, rows())).collect();
        let example = texts.iter().map(|&(name, text)| (name.to_owned(), text.into())).collect();
        let columns = [rows(), vec![Dim::Fixed(self.task.width())]].concat();
        let first = match &self.task {
            Task::Embed { .. } => TensorSpec::new("embedding", DType::Fp32, columns),
            Task::Classify { labels, .. } => TensorSpec {
                kind: Kind::Probability,
                labels: labels.clone(),
                ..TensorSpec::new("probabilities", DType::Fp32, columns)
            },
            Task::Rank => TensorSpec::new("score", DType::Fp32, rows()),
            Task::Value => TensorSpec::new("value", DType::Fp32, rows()),
        };
        let mut tokens = TensorSpec::new("tokens", DType::Int64, rows());
        tokens.about.description = Some("how many tokens were read, special ones included".into());
        tokens.about.max = Some(self.text.max_length as f64);
        (inputs, vec![first, tokens], Some(serde_json::Value::Object(example)))
    }

    /// Answers: the wanted outputs, by their places, and what was computed for them. `compute` takes rows shorter ones first, and
    /// gives as many numbers for each as the task has.
    ///
    /// # Errors
    /// [`Code::InvalidTensor`](sluicegate_core::Code::InvalidTensor) where a text is too long and is not to be cut; those of `compute`.
    pub fn run(
        &self,
        inputs: &[Tensor],
        wanted: &[usize],
        count: &mut TokenCount,
        mut compute: impl FnMut(&[&Tokens]) -> Result<Vec<f32>>,
    ) -> Result<Vec<Tensor>> {
        *count = TokenCount::default();
        has_outputs(2, wanted)?;
        let read = self.text.tokens(inputs)?;
        let width = self.task.width();
        let mut all = vec![0_f32; if wanted.contains(&0) { read.len() * width } else { 0 }];
        let lengths: Vec<usize> = read.iter().map(|row| self.length.unwrap_or(row.ids.len())).collect();
        for batch in if all.is_empty() { Vec::new() } else { batches(&lengths, self.bound) } {
            let rows: Vec<&Tokens> = batch.iter().map(|&place| &read[place]).collect();
            let mut computed = compute(&rows)?;
            if computed.len() != batch.len() * width {
                return Err(failed(format!("{} rows of {width} numbers came back as {} of them", batch.len(), computed.len())));
            }
            for (&place, row) in batch.iter().zip(computed.chunks_exact_mut(width)) {
                self.task.finish(row);
                all[place * width..][..width].copy_from_slice(row);
            }
            let tokens = rows.iter().map(|row| row.ids.len()).sum::<usize>();
            let longest = batch.iter().map(|&place| lengths[place]).max().unwrap_or(0);
            count.read += tokens as u64;
            count.padding += if self.bound.run.is_some() { (longest * rows.len() - tokens) as u64 } else { 0 };
        }
        let shape = if matches!(self.task, Task::Rank | Task::Value) { vec![read.len()] } else { vec![read.len(), width] };
        let outputs = wanted.iter().map(|&output| match output {
            0 => Tensor::from_vec(Shape::new(&shape), std::mem::take(&mut all)),
            _ => Tensor::from_vec(Shape::new(&[read.len()]), read.iter().map(|row| row.ids.len() as i64).collect()),
        });
        outputs.collect()
    }
}

fn rows() -> Vec<Dim> {
    vec![Dim::Free(Some("batch".into()))]
}
