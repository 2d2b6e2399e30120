//! BERT, RoBERTa, XLM-RoBERTa, DistilBERT and MPNet: positions are added to words, or to what words look at; norms come last.
//!
//! Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018; Song et al., "MPNet: Masked and Permuted
//! Pre-training for Language Understanding", 2020. The names of the weights are those of `transformers`.

use candle_core::{DType, Tensor};
use serde::Deserialize;
use sluicegate_core::Result;
use sluicegate_text::Tokens;
use sluicegate_text::files::{parse, refused};

use super::config::{Common, Family};
use super::{Body, grouped};
use crate::layer::{Activation, Linear, Look, Norm, attend, parted};
use crate::ready;
use crate::weights::Weights;

/// Distances that MPNet tells apart: exact ones up to half of them, then wider and wider, up to the farthest. `transformers` reads
/// no configuration for them.
const BUCKETS: usize = 32;
const FARTHEST: f32 = 128.0;

/// What of `config.json` is these families' own.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(alias = "activation")]
    hidden_act: Activation,
    #[serde(default)]
    type_vocab_size: usize,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    #[serde(default)]
    pad_token_id: Option<usize>,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    relative_attention_num_buckets: Option<usize>,
}

fn eps() -> f64 {
    1e-12
}

pub(super) struct Bert {
    words: Tensor,
    positions: Tensor,
    types: Option<Tensor>,
    /// What is added where a token looks at another, by head and kind of distance.
    distances: Option<Vec<Vec<f32>>>,
    first_position: usize,
    norm: Norm,
    layers: Vec<Layer>,
    heads: usize,
    activation: Activation,
}

impl Bert {
    /// Builds it; says for how many tokens there are positions.
    pub(super) fn load(
        config: &[u8],
        common: &Common,
        family: Family,
        weights: &Weights,
        prefix: &str,
    ) -> Result<(Box<dyn Body>, usize)> {
        let config: Config = parse("config.json", config)?;
        if config.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
            let message = "config.json: position_embedding_type other than `absolute` is not served; export the model to ONNX";
            return Err(refused(message));
        }
        let first_position = config.first_position(family);
        let room = common.max_position_embeddings.saturating_sub(first_position);
        if room < 3 {
            return Err(refused(format!("config.json: max_position_embeddings leave room for {room} tokens")));
        }
        let size = common.hidden_size;
        let word =
            |name: &str, count: usize| weights.take(&format!("{prefix}embeddings.{name}_embeddings.weight"), &[count, size]);
        let has_types = !matches!(family, Family::DistilBert | Family::MpNet);
        let layer = |place: usize| Layer::take(weights, prefix, place, family, &config, common);
        let body = Self {
            words: word("word", common.vocab_size)?,
            positions: word("position", common.max_position_embeddings)?,
            types: has_types.then(|| word("token_type", config.type_vocab_size)).transpose()?,
            distances: (family == Family::MpNet).then(|| config.distances(weights, prefix, common)).transpose()?,
            first_position,
            norm: Norm::take(weights, &format!("{prefix}embeddings.LayerNorm"), size, config.layer_norm_eps)?,
            layers: (0..common.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            heads: common.num_attention_heads,
            activation: config.hidden_act,
        };
        Ok((Box::new(body), room))
    }
}

impl Config {
    /// These count positions from behind the padding's.
    fn first_position(&self, family: Family) -> usize {
        match family {
            Family::Roberta => self.pad_token_id.unwrap_or(0).saturating_add(1),
            Family::MpNet => 2,
            Family::Bert | Family::DistilBert | Family::ModernBert => 0,
        }
    }

    fn distances(&self, weights: &Weights, prefix: &str, common: &Common) -> Result<Vec<Vec<f32>>> {
        if self.relative_attention_num_buckets.is_some_and(|buckets| buckets != BUCKETS) {
            return Err(refused(format!("config.json: relative_attention_num_buckets other than {BUCKETS} are not served")));
        }
        let name = format!("{prefix}encoder.relative_attention_bias.weight");
        let table = weights.take(&name, &[BUCKETS, common.num_attention_heads])?;
        ready(table.to_dtype(DType::F32).and_then(|table| table.t()?.to_vec2()))
    }
}

impl Body for Bert {
    fn states(&self, rows: &[&Tokens]) -> candle_core::Result<Tensor> {
        let ids: Vec<u32> = rows.iter().flat_map(|row| &row.ids).copied().collect();
        let count = ids.len();
        let place = |row: &&Tokens| self.first_position as u32..(self.first_position + row.ids.len()) as u32;
        let positions: Vec<u32> = rows.iter().flat_map(place).collect();
        let pick = |table: &Tensor, which: Vec<u32>| table.index_select(&Tensor::from_vec(which, count, table.device())?, 0);
        let mut states = (pick(&self.words, ids)? + pick(&self.positions, positions)?)?;
        if let Some(types) = &self.types {
            let highest = types.dim(0)?.saturating_sub(1) as u32;
            let which = rows.iter().flat_map(|row| &row.types).map(|kind| (*kind).min(highest)).collect();
            states = (states + pick(types, which)?)?;
        }
        let look = |length: usize| match &self.distances {
            None => Ok(Look::All),
            Some(distances) => biased(distances, length, &self.words).map(Look::Biased),
        };
        let mut states = self.norm.forward(&states)?;
        let looks = grouped(rows, &self.words, look)?;
        for layer in &self.layers {
            let asks = layer.asks.forward(&states)?;
            let attended =
                looks.attend(&asks, |asks, length, look, hidden| attend(&parted(asks, length, self.heads)?, look, hidden))?;
            states = layer.attended_norm.forward(&(states + layer.attended.forward(&attended)?)?)?;
            let wide = self.activation.forward(&layer.wide.forward(&states)?)?;
            states = layer.norm.forward(&(states + layer.narrow.forward(&wide)?)?)?;
        }
        Ok(states)
    }
}

/// What is added for each head and pair of tokens, in numbers like these.
fn biased(distances: &[Vec<f32>], length: usize, like: &Tensor) -> candle_core::Result<Tensor> {
    let kinds: Vec<usize> = (0..2 * length).map(|place| bucket(place as i64 - length as i64)).collect();
    let mut all = Vec::with_capacity(distances.len() * length * length);
    for head in distances {
        for token in 0..length {
            // The distance from this token to the first one, and so on.
            all.extend(kinds[length - token..2 * length - token].iter().map(|kind| head[*kind]));
        }
    }
    Tensor::from_vec(all, (distances.len(), length, length), like.device())?.to_dtype(like.dtype())
}

/// The kind of a distance, from the token that looks to the one that is looked at.
fn bucket(distance: i64) -> usize {
    let half = BUCKETS / 2;
    let exact = half / 2;
    let side = if distance > 0 { half } else { 0 };
    let far = distance.unsigned_abs() as usize;
    if far < exact {
        return side + far;
    }
    let wider = (far as f32 / exact as f32).ln() / (FARTHEST / exact as f32).ln() * (half - exact) as f32;
    side + (exact + wider as usize).min(half - 1)
}

struct Layer {
    asks: Linear,
    attended: Linear,
    attended_norm: Norm,
    wide: Linear,
    narrow: Linear,
    norm: Norm,
}

impl Layer {
    fn take(weights: &Weights, prefix: &str, place: usize, family: Family, config: &Config, common: &Common) -> Result<Self> {
        let names = Names::of(family);
        let (size, wide, eps) = (common.hidden_size, common.intermediate_size, config.layer_norm_eps);
        let prefix = format!("{prefix}{}.{place}.", names.layer);
        let linear = |name: &str, from: usize, to: usize| Linear::take(weights, &format!("{prefix}{name}"), from, to);
        let norm = |name: &str| Norm::take(weights, &format!("{prefix}{name}"), size, eps);
        let [query, key, value] = names.asks.map(|name| linear(name, size, size));
        Ok(Self {
            asks: Linear::asks([query?, key?, value?])?.scaled(size, common.width())?,
            attended: linear(names.attended, size, size)?,
            attended_norm: norm(names.attended_norm)?,
            wide: linear(names.wide, size, wide)?,
            narrow: linear(names.narrow, wide, size)?,
            norm: norm(names.norm)?,
        })
    }
}

/// How a family calls the weights of a layer.
struct Names {
    layer: &'static str,
    asks: [&'static str; 3],
    attended: &'static str,
    attended_norm: &'static str,
    wide: &'static str,
    narrow: &'static str,
    norm: &'static str,
}

impl Names {
    fn of(family: Family) -> Self {
        let bert = Self {
            layer: "encoder.layer",
            asks: ["attention.self.query", "attention.self.key", "attention.self.value"],
            attended: "attention.output.dense",
            attended_norm: "attention.output.LayerNorm",
            wide: "intermediate.dense",
            narrow: "output.dense",
            norm: "output.LayerNorm",
        };
        match family {
            Family::Bert | Family::Roberta | Family::ModernBert => bert,
            Family::MpNet => Self {
                asks: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
                attended: "attention.attn.o",
                attended_norm: "attention.LayerNorm",
                ..bert
            },
            Family::DistilBert => Self {
                layer: "transformer.layer",
                asks: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
                attended: "attention.out_lin",
                attended_norm: "sa_layer_norm",
                wide: "ffn.lin1",
                narrow: "ffn.lin2",
                norm: "output_layer_norm",
            },
        }
    }
}
