//! Transformers that read text whole: BERT, RoBERTa, XLM-RoBERTa and DistilBERT, as encoders of sentences, classifiers, and rankers.
//!
//! Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018; the names of the weights are those of `transformers`.
//!
//! Nothing is padded: the tokens of all rows lie one after the other, and only attention looks at rows, those of one length together.

mod config;
mod layer;

use std::path::Path;

use candle_core::{Device, IndexOp, Tensor};
use candle_nn::ops;
use sluicegate_core::{Result, Tensor as Rows, TextOptions, TokenCount};
use sluicegate_text::files::{failed, parse, refused};
use sluicegate_text::{Bound, Pooling, Reader, Room, Signature, Task, Text, Tokens, pooling};

use crate::weights::Weights;
use crate::{Model, said};
use config::{Activation, Config, DISTILBERT, Names, ROBERTA};
use layer::{Layer, Linear, Norm};

/// The `model_type`s that are served.
pub(crate) const MODEL_TYPES: [&str; 4] = ["bert", "roberta", "xlm-roberta", "distilbert"];

/// What is made of a row's states.
enum Head {
    /// One vector.
    Pool(Pooling),
    /// Scores out of the first one: a layer, what follows it, and the last layer.
    Classify { dense: Linear, relu: bool, last: Linear },
}

/// The model.
pub(crate) struct Encoder {
    reader: Reader,
    words: Tensor,
    positions: Tensor,
    types: Option<Tensor>,
    first_position: usize,
    norm: Norm,
    layers: Vec<Layer>,
    heads: usize,
    size: usize,
    activation: Activation,
    head: Head,
}

impl Encoder {
    /// Builds it.
    ///
    /// # Errors
    /// What of the configuration is not served; the weight that is missing, superfluous or of another shape.
    pub(crate) fn load(folder: &Path, config: &[u8], weights: &Weights, options: &TextOptions) -> Result<Self> {
        let config: Config = parse("config.json", config)?;
        config.check()?;
        let names = config.names();
        let size = config.hidden_size;
        let prefix = if weights.has(&format!("{}embeddings.word_embeddings.weight", names.base)) { names.base } else { "" };
        let word =
            |name: &str, count: usize| weights.take(&format!("{prefix}embeddings.{name}_embeddings.weight"), &[count, size]);
        let types = match names.base == DISTILBERT.base {
            true => None,
            false => Some(word("token_type", config.type_vocab_size)?),
        };
        let layer = |place: usize| Layer::take(weights, &format!("{prefix}{}.{place}.", names.layer), names, &config);
        let (head, task) = head(folder, weights, prefix, names, &config)?;
        let room = Room { positions: Some(config.room()), vocabulary: Some(config.vocab_size) };
        let text = Text::load(folder, room, options)?;
        let encoder = Self {
            reader: Reader { text, task, bound: Bound { tokens: options.max_tokens.get(), run: None }, length: None },
            words: word("word", config.vocab_size)?,
            positions: word("position", config.max_position_embeddings)?,
            types,
            first_position: config.first_position(),
            norm: Norm::take(weights, &format!("{prefix}embeddings.LayerNorm"), size, config.layer_norm_eps)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            heads: config.num_attention_heads,
            size,
            activation: config.hidden_act,
            head,
        };
        // Heads of pre-training, and the pooler where it has no use.
        let left = ["cls.", "lm_head.", "vocab_", "pooler.", "bert.pooler.", "roberta.pooler."];
        weights.all_taken(|name| name.ends_with("position_ids") || left.iter().any(|left| name.starts_with(left)))?;
        Ok(encoder)
    }

    /// The states of all tokens, one row each, of rows that come shorter ones first.
    fn states(&self, rows: &[&Tokens]) -> candle_core::Result<Tensor> {
        let ids: Vec<u32> = rows.iter().flat_map(|row| &row.ids).copied().collect();
        let count = ids.len();
        let place = |row: &&Tokens| self.first_position as u32..(self.first_position + row.ids.len()) as u32;
        let positions: Vec<u32> = rows.iter().flat_map(place).collect();
        let pick = |table: &Tensor, which: Vec<u32>| table.index_select(&Tensor::from_vec(which, count, &Device::Cpu)?, 0);
        let mut states = (pick(&self.words, ids)? + pick(&self.positions, positions)?)?;
        if let Some(types) = &self.types {
            let highest = types.dim(0)?.saturating_sub(1) as u32;
            let which = rows.iter().flat_map(|row| &row.types).map(|kind| (*kind).min(highest)).collect();
            states = (states + pick(types, which)?)?;
        }
        let mut states = self.norm.forward(&states)?;
        for layer in &self.layers {
            let asks = layer.asks.forward(&states)?;
            let attended = layer.attended.forward(&self.attend(&asks, rows)?)?;
            states = layer.attended_norm.forward(&(states + attended)?)?;
            let wide = layer.wide.forward(&states)?;
            let wide = match self.activation {
                Activation::Gelu => wide.gelu_erf(),
                Activation::GeluNew => wide.gelu(),
                Activation::Relu => wide.relu(),
                Activation::Silu => wide.silu(),
            }?;
            states = layer.norm.forward(&(states + layer.narrow.forward(&wide)?)?)?;
        }
        Ok(states)
    }

    /// Lets the tokens of each row look at each other.
    fn attend(&self, asks: &Tensor, rows: &[&Tokens]) -> candle_core::Result<Tensor> {
        let (heads, width) = (self.heads, self.size / self.heads);
        let one = |(start, count, length): (usize, usize, usize)| {
            let asks = asks.narrow(0, start, count * length)?.reshape((count, length, 3, heads, width))?;
            let part = |which: usize| asks.i((.., .., which))?.transpose(1, 2)?.contiguous();
            let (query, key, value) = (part(0)?, part(1)?, part(2)?);
            let weights = ops::softmax_last_dim(&query.matmul(&key.t()?)?)?;
            weights.matmul(&value)?.transpose(1, 2)?.reshape((count * length, self.size))
        };
        let attended = groups(rows).into_iter().map(one).collect::<candle_core::Result<Vec<_>>>()?;
        match &*attended {
            [only] => Ok(only.clone()),
            many => Tensor::cat(many, 0),
        }
    }

    /// The numbers of each row, one row after the other.
    fn answer(&self, rows: &[&Tokens]) -> candle_core::Result<Vec<f32>> {
        let states = self.states(rows)?;
        let starts = rows.iter().scan(0, |next, row| {
            let start = *next;
            *next += row.ids.len();
            Some(start)
        });
        match &self.head {
            Head::Pool(pooling) => {
                let states: Vec<f32> = states.flatten_all()?.to_vec1()?;
                let mut pooled = Vec::with_capacity(rows.len() * self.size);
                for (start, row) in starts.zip(rows) {
                    pooling.pool(&states[start * self.size..][..row.ids.len() * self.size], self.size, &mut pooled);
                }
                Ok(pooled)
            }
            Head::Classify { dense, relu, last } => {
                let firsts: Vec<u32> = starts.map(|start| start as u32).collect();
                let first = states.index_select(&Tensor::from_vec(firsts, rows.len(), &Device::Cpu)?, 0)?;
                let dense = dense.forward(&first)?;
                last.forward(&if *relu { dense.relu()? } else { dense.tanh()? })?.flatten_all()?.to_vec1()
            }
        }
    }
}

/// Rows of one length that lie beside each other: the first token's place, how many rows, how long each.
fn groups(rows: &[&Tokens]) -> Vec<(usize, usize, usize)> {
    let mut groups: Vec<(usize, usize, usize)> = Vec::new();
    let mut start = 0;
    for row in rows {
        match groups.last_mut() {
            Some((_, count, length)) if *length == row.ids.len() => *count += 1,
            _ => groups.push((start, 1, row.ids.len())),
        }
        start += row.ids.len();
    }
    groups
}

impl Model for Encoder {
    fn signature(&self) -> Signature {
        self.reader.signature()
    }

    fn run(&self, inputs: &[Rows], wanted: &[usize], count: &mut Option<TokenCount>) -> Result<Vec<Rows>> {
        let answer = |rows: &[&Tokens]| self.answer(rows).map_err(|error| failed(said(&error)));
        self.reader.run(inputs, wanted, count.get_or_insert_default(), answer)
    }
}

/// The last layers, as the architecture has them, and what they make of a text.
fn head(folder: &Path, weights: &Weights, prefix: &str, names: &Names, config: &Config) -> Result<(Head, Task)> {
    let (architecture, size) = (config.architectures.first().map_or("Model", String::as_str), config.hidden_size);
    if architecture.ends_with("ForSequenceClassification") {
        let (dense, last) = match names.base {
            base if base == DISTILBERT.base => ("pre_classifier".to_owned(), "classifier"),
            base if base == ROBERTA.base => ("classifier.dense".to_owned(), "classifier.out_proj"),
            _ => (format!("{prefix}pooler.dense"), "classifier"),
        };
        let [count @ 1..=usize::MAX, _] = *weights.shape(&format!("{last}.weight"))? else {
            return Err(refused(format!("tensor `{last}.weight` has no row for any label")));
        };
        let head = Head::Classify {
            dense: Linear::take(weights, &dense, size, size)?,
            relu: names.base == DISTILBERT.base,
            last: Linear::take(weights, last, size, count)?,
        };
        return Ok((head, Task::of_labels(&config.id2label, config.problem_type, count)?));
    }
    let encodes = match architecture.split_once("For") {
        None => architecture.ends_with("Model"),
        Some((_, what)) => matches!(what, "MaskedLM" | "PreTraining"),
    };
    if !encodes {
        return Err(refused(format!("config.json: architecture `{architecture}` is not served; export the model to ONNX")));
    }
    let (pooling, normalize) = pooling(folder, size)?;
    Ok((Head::Pool(pooling), Task::Embed { size, normalize }))
}
