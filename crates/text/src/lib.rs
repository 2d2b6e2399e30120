//! Models that read text, whatever computes them: what they take and give, and how their rows become batches of tokens.
//!
//! In reading order: `tokens` (text to tokens), `batches` (which rows together; pure), `pooling` (states to one vector), `modules` (the
//! files of sentence-transformers, over `dense`), `task` (what is answered, over `entities`), [`Reader`] (texts in, answers out),
//! [`files`] (what lies beside a model). Names no runtime.

mod batches;
mod dense;
mod entities;
pub mod files;
mod modules;
mod pooling;
mod task;
mod tokens;

use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{DType, Result, Shape, Tensor, TokenCount};

use files::{failed, has_outputs};
use task::{Answers, rows};

pub use batches::{Bound, batches};
pub use dense::Dense;
pub use modules::{Step, modules};
pub use pooling::Pooling;
pub use task::{Problem, Task, labels};
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
        let inputs = texts.iter().map(|(name, _)| TensorSpec::new(name, DType::Bytes, vec![rows()])).collect();
        let example = texts.iter().map(|&(name, text)| (name.to_owned(), text.into())).collect();
        let mut tokens = TensorSpec::new("tokens", DType::Int64, vec![rows()]);
        tokens.about.description = Some("how many tokens were read, special ones included".into());
        tokens.about.max = Some(self.text.max_length as f64);
        (inputs, vec![self.task.output(), tokens], Some(serde_json::Value::Object(example)))
    }

    /// Answers: the wanted outputs, by their places, and what was computed for them. `compute` takes rows shorter ones first, and
    /// gives as many numbers for each as the task has, one row after the other: those of each token where it is tokens that are told of.
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
        let read = self.text.tokens(inputs, matches!(self.task, Task::Tag(_)))?;
        let asked = wanted.contains(&0);
        let mut answers = Answers::new(&self.task, if asked { read.len() } else { 0 });
        let lengths: Vec<usize> = read.iter().map(|row| self.length.unwrap_or(row.ids.len())).collect();
        for batch in if asked { batches(&lengths, self.bound) } else { Vec::new() } {
            let rows: Vec<&Tokens> = batch.iter().map(|&place| &read[place]).collect();
            let computed = compute(&rows)?;
            let expected: usize = rows.iter().map(|row| self.task.computed(row.ids.len())).sum();
            if computed.len() != expected {
                return Err(failed(format!("{} rows came back as {} numbers, expected {expected}", rows.len(), computed.len())));
            }
            let mut rest = &computed[..];
            for (&place, row) in batch.iter().zip(&rows) {
                let (own, others) = rest.split_at(self.task.computed(row.ids.len()));
                answers.put(place, &self.task, row, own);
                rest = others;
            }
            let tokens = rows.iter().map(|row| row.ids.len()).sum::<usize>();
            let longest = batch.iter().map(|&place| lengths[place]).max().unwrap_or(0);
            count.read += tokens as u64;
            count.padding += if self.bound.run.is_some() { (longest * rows.len() - tokens) as u64 } else { 0 };
        }
        let mut answers = Some(answers);
        let outputs = wanted.iter().map(|&output| match answers.take_if(|_| output == 0) {
            Some(answers) => answers.tensor(&self.task, read.len()),
            None => Tensor::from_vec(Shape::new(&[read.len()]), read.iter().map(|row| row.ids.len() as i64).collect()),
        });
        outputs.collect()
    }
}
