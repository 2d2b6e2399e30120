//! Transformers that read text whole, as encoders of sentences, classifiers of texts and of tokens, and rankers.
//!
//! The tokens of all rows lie one after the other, and only attention looks at rows. On the processor it takes those of one length
//! together, and nothing is padded. A device is kept waiting by many small steps: there all rows of a run are filled up to the longest
//! for attention, and what fills them is hidden from it.
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

/// Tokens of padding that cost a device as much as another run does: a guess from the time of a launch, not measured.
const RUN: usize = 512;

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
        let run = (!weights.numbers().device.is_cpu()).then_some(RUN);
        let bound = Bound { tokens: options.max_tokens.get(), run };
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

/// Rows that lie beside each other and are of one length or filled up to it, with what attention needs to know for that length.
struct Group<T> {
    start: usize,
    /// Tokens that are the rows' own.
    tokens: usize,
    length: usize,
    known: T,
    filled: Option<Filled>,
}

/// How rows of several lengths become rows of one, and back.
struct Filled {
    /// For each place of the filled rows the token that goes there: one of the row's own, where it is there to fill.
    taken: Tensor,
    /// For each token its place there.
    places: Tensor,
    /// What hides from attention what only fills, of shape [rows, 1, 1, length].
    hidden: Tensor,
}

/// All rows of a run.
struct Groups<T>(Vec<Group<T>>);

/// Groups the rows as it is best where numbers like these lie.
fn grouped<T>(rows: &[&Tokens], like: &Tensor, know: impl Fn(usize) -> candle_core::Result<T>) -> candle_core::Result<Groups<T>> {
    let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
    if like.device().is_cpu() { each_length(&lengths, know) } else { filled(&lengths, like, know) }
}

fn each_length<T>(lengths: &[usize], know: impl Fn(usize) -> candle_core::Result<T>) -> candle_core::Result<Groups<T>> {
    let mut groups: Vec<Group<T>> = Vec::new();
    let mut start = 0;
    for &length in lengths {
        match groups.last_mut() {
            Some(last) if last.length == length => last.tokens += length,
            _ => groups.push(Group { start, tokens: length, length, known: know(length)?, filled: None }),
        }
        start += length;
    }
    Ok(Groups(groups))
}

fn filled<T>(lengths: &[usize], like: &Tensor, know: impl Fn(usize) -> candle_core::Result<T>) -> candle_core::Result<Groups<T>> {
    let length = lengths.iter().copied().max().unwrap_or(0);
    let tokens: usize = lengths.iter().sum();
    let (mut taken, mut places, mut hidden) = (Vec::new(), Vec::with_capacity(tokens), Vec::new());
    for &own in lengths {
        let first = places.len();
        places.extend((taken.len()..taken.len() + own).map(|place| place as u32));
        taken.extend((0..length).map(|place| (first + if place < own { place } else { 0 }) as u32));
        hidden.extend((0..length).map(|place| if place < own { 0.0 } else { f32::NEG_INFINITY }));
    }
    let filled = (tokens != taken.len()).then(|| {
        candle_core::Result::Ok(Filled {
            taken: Tensor::from_vec(taken, lengths.len() * length, like.device())?,
            places: Tensor::from_vec(places, tokens, like.device())?,
            hidden: Tensor::from_vec(hidden, (lengths.len(), 1, 1, length), like.device())?.to_dtype(like.dtype())?,
        })
    });
    Ok(Groups(vec![Group { start: 0, tokens, length, known: know(length)?, filled: filled.transpose()? }]))
}

impl<T> Groups<T> {
    /// Lets the tokens of each row look at each other: `one` does it for rows of one length, given what is to be hidden.
    fn attend(
        &self,
        asks: &Tensor,
        one: impl Fn(&Tensor, usize, &T, Option<&Tensor>) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<Tensor> {
        let group = |group: &Group<T>| {
            let asks = asks.narrow(0, group.start, group.tokens)?;
            match &group.filled {
                None => one(&asks, group.length, &group.known, None),
                Some(Filled { taken, places, hidden }) => {
                    one(&asks.index_select(taken, 0)?, group.length, &group.known, Some(hidden))?.index_select(places, 0)
                }
            }
        };
        let attended = self.0.iter().map(group).collect::<candle_core::Result<Vec<_>>>()?;
        match &*attended {
            [only] => Ok(only.clone()),
            many => Tensor::cat(many, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::layer::{Look, attend, parted};

    #[test]
    fn rows_that_are_filled_up_attend_as_rows_of_their_own_length_do() {
        let lengths = [1, 3, 3, 700];
        let numbers: Vec<f32> = (0..lengths.iter().sum::<usize>() * 3 * 4).map(|i| (i as f32 * 0.37).sin()).collect();
        let asks = Tensor::from_vec(numbers, (lengths.iter().sum::<usize>(), 12), &Device::Cpu).expect("fits");
        for reach in [None, Some(2), Some(900)] {
            let look = |_| Ok(reach.map_or(Look::All, Look::Near));
            let run = |groups: Groups<Look>| {
                let one = |asks: &Tensor, length: usize, look: &Look, hidden: Option<&Tensor>| {
                    attend(&parted(asks, length, 2)?, look, hidden)
                };
                let attended = groups.attend(&asks, one).expect("runs");
                attended.flatten_all().and_then(|all| all.to_vec1::<f32>()).expect("FP32")
            };
            let apart = run(each_length(&lengths, look).expect("groups"));
            let together = filled(&lengths, &asks, look).expect("groups");
            assert_eq!((together.0.len(), together.0[0].length), (1, 700));
            let off = apart.iter().zip(&run(together)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-5, "reach {reach:?}: off by {off}");
        }
    }
}
