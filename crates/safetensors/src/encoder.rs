//! Transformers that read text whole, as encoders of sentences, classifiers of texts and of tokens, and rankers.
//!
//! Nothing is padded: the tokens of all rows lie one after the other, and only attention looks at rows, those of one length together.
//! In reading order: `config` (families, and what they have in common), `bert` and `modernbert` (tokens to states), `head` (states to
//! numbers).

mod bert;
mod config;
mod head;
mod modernbert;

use std::path::Path;

use candle_core::Tensor;
use sluicegate_core::{Result, Tensor as Rows, TextOptions, TokenCount};
use sluicegate_text::files::{failed, parse};
use sluicegate_text::{Bound, Reader, Room, Signature, Text, Tokens};

use crate::weights::Weights;
use crate::{Model, said};
use bert::Bert;
use config::{Common, Family};
use head::Head;
use modernbert::ModernBert;

pub(crate) use config::model_types;

/// What makes states of tokens.
trait Body: Send + Sync {
    /// The states of all tokens, one row each, of rows that come shorter ones first.
    fn states(&self, rows: &[&Tokens]) -> candle_core::Result<Tensor>;
}

/// The model.
pub(crate) struct Encoder {
    reader: Reader,
    body: Box<dyn Body>,
    head: Head,
}

impl Encoder {
    /// Builds it; `None` where the `model_type` is none of these.
    ///
    /// # Errors
    /// What of the configuration is not served; the weight that is missing, superfluous or of another shape.
    pub(crate) fn load(
        folder: &Path,
        model_type: &str,
        config: &[u8],
        weights: &Weights,
        options: &TextOptions,
    ) -> Result<Option<Self>> {
        let Some(family) = Family::of(model_type) else { return Ok(None) };
        let common: Common = parse("config.json", config)?;
        common.check()?;
        let words = if family == Family::ModernBert { "tok_embeddings" } else { "word_embeddings" };
        let prefix = if weights.has(&format!("{}embeddings.{words}.weight", family.base())) { family.base() } else { "" };
        let (body, positions) = match family {
            Family::ModernBert => (ModernBert::load(config, &common, weights, prefix)?, common.max_position_embeddings),
            _ => Bert::load(config, &common, family, weights, prefix)?,
        };
        let (head, task) = Head::load(folder, config, &common, family, weights, prefix)?;
        // Heads of pre-training, and the pooler where it has no use.
        let of_training: &[&str] = match family {
            Family::ModernBert => &["head.", "decoder."],
            _ => &["cls.", "lm_head.", "vocab_", "pooler.", "bert.pooler.", "roberta.pooler.", "mpnet.pooler."],
        };
        weights.all_taken(|name| name.ends_with("position_ids") || of_training.iter().any(|left| name.starts_with(left)))?;
        let room = Room { positions: Some(positions), vocabulary: Some(common.vocab_size) };
        let text = Text::load(folder, room, options)?;
        let bound = Bound { tokens: options.max_tokens.get(), run: None };
        Ok(Some(Self { reader: Reader { text, task, bound, length: None }, body, head }))
    }
}

impl Model for Encoder {
    fn signature(&self) -> Signature {
        self.reader.signature()
    }

    fn run(&self, inputs: &[Rows], wanted: &[usize], count: &mut Option<TokenCount>) -> Result<Vec<Rows>> {
        let answer = |rows: &[&Tokens]| {
            let answer = self.body.states(rows).and_then(|states| self.head.answer(&states, rows));
            answer.map_err(|error| failed(said(&error)))
        };
        self.reader.run(inputs, wanted, count.get_or_insert_default(), answer)
    }

    fn is_faster_as_onnx(&self) -> bool {
        true
    }
}

/// Rows of one length that lie beside each other, with what attention needs to know for that length.
struct Group<T> {
    start: usize,
    rows: usize,
    length: usize,
    known: T,
}

/// All rows of a run.
struct Groups<T>(Vec<Group<T>>);

fn each_length<T>(rows: &[&Tokens], know: impl Fn(usize) -> candle_core::Result<T>) -> candle_core::Result<Groups<T>> {
    let mut groups: Vec<Group<T>> = Vec::new();
    let mut start = 0;
    for row in rows {
        let length = row.ids.len();
        match groups.last_mut() {
            Some(last) if last.length == length => last.rows += 1,
            _ => groups.push(Group { start, rows: 1, length, known: know(length)? }),
        }
        start += length;
    }
    Ok(Groups(groups))
}

impl<T> Groups<T> {
    /// Lets the tokens of each row look at each other: `one` does it for rows of one length.
    fn attend(
        &self,
        asks: &Tensor,
        one: impl Fn(&Tensor, usize, &T) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<Tensor> {
        let group = |group: &Group<T>| one(&asks.narrow(0, group.start, group.rows * group.length)?, group.length, &group.known);
        let attended = self.0.iter().map(group).collect::<candle_core::Result<Vec<_>>>()?;
        match &*attended {
            [only] => Ok(only.clone()),
            many => Tensor::cat(many, 0),
        }
    }
}
