//! ModernBERT: positions turn what words look for, most layers look at what is near, norms come first, and gates take a part.
//!
//! Warner et al., "Smarter, Better, Faster, Longer", 2024. The names of the weights are those of `transformers`.

use candle_core::{D, Tensor};
use candle_nn::rotary_emb::rope;
use serde::Deserialize;
use sluicegate_core::Result;
use sluicegate_text::Tokens;
use sluicegate_text::files::{parse, refused};

use super::config::Common;
use super::{Body, grouped};
use crate::layer::{Activation, Linear, Look, Norm, attend, parted};
use crate::weights::Weights;

/// What of `config.json` is its own: as it is written now, with `layer_types` and `rope_parameters`, and as it was.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    hidden_activation: Activation,
    #[serde(default = "eps")]
    pub(super) norm_eps: f64,
    #[serde(default)]
    pub(super) norm_bias: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "local_attention")]
    local_attention: usize,
    #[serde(default = "every")]
    global_attn_every_n_layers: usize,
    #[serde(default)]
    layer_types: Option<Vec<Kind>>,
    #[serde(default)]
    global_rope_theta: Option<f64>,
    #[serde(default)]
    local_rope_theta: Option<f64>,
    #[serde(default)]
    rope_parameters: Option<Ropes>,
    #[serde(default)]
    pub(super) classifier_pooling: ClassifierPooling,
    #[serde(default)]
    pub(super) classifier_bias: bool,
    #[serde(default)]
    pub(super) classifier_activation: Activation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    FullAttention,
    SlidingAttention,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ropes {
    full_attention: Option<Rope>,
    sliding_attention: Option<Rope>,
}

#[derive(Debug, Deserialize)]
struct Rope {
    #[serde(default)]
    rope_type: Option<String>,
    #[serde(default)]
    rope_theta: Option<f64>,
}

/// What a classifier reads of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClassifierPooling {
    #[default]
    Cls,
    Mean,
}

fn eps() -> f64 {
    1e-5
}

fn local_attention() -> usize {
    128
}

fn every() -> usize {
    3
}

impl Config {
    fn kinds(&self, layers: usize) -> Result<Vec<Kind>> {
        match &self.layer_types {
            Some(kinds) if kinds.len() == layers => Ok(kinds.clone()),
            Some(kinds) => Err(refused(format!("config.json has {} layer_types for {layers} layers", kinds.len()))),
            None => {
                let every = self.global_attn_every_n_layers.max(1);
                let kind = |place: usize| if place.is_multiple_of(every) { Kind::FullAttention } else { Kind::SlidingAttention };
                Ok((0..layers).map(kind).collect())
            }
        }
    }

    /// How far positions turn: the base of each kind of layer.
    fn theta(&self, kind: Kind) -> Result<f64> {
        let (new, old, unsaid) = match kind {
            Kind::FullAttention => {
                (self.rope_parameters.as_ref().and_then(|ropes| ropes.full_attention.as_ref()), self.global_rope_theta, 160_000.0)
            }
            Kind::SlidingAttention => (
                self.rope_parameters.as_ref().and_then(|ropes| ropes.sliding_attention.as_ref()),
                self.local_rope_theta,
                10_000.0,
            ),
        };
        if let Some(kind) = new.and_then(|rope| rope.rope_type.as_deref()).filter(|kind| *kind != "default") {
            return Err(refused(format!("config.json: rope_type `{kind}` is not served; export the model to ONNX")));
        }
        let theta = new.and_then(|rope| rope.rope_theta).or(old).unwrap_or(unsaid);
        match theta.is_finite() && theta > 0.0 {
            true => Ok(theta),
            false => Err(refused(format!("config.json: rope_theta is {theta}, expected a number above 0"))),
        }
    }
}

pub(super) struct ModernBert {
    words: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    last: Norm,
    heads: usize,
    activation: Activation,
    /// How fast each pair of columns turns from token to token: in layers that look at all, and in those that look at what is near.
    speeds: [Vec<f32>; 2],
    near: Look,
}

struct Layer {
    kind: Kind,
    /// The first layer has none.
    norm: Option<Norm>,
    asks: Linear,
    attended: Linear,
    wide_norm: Norm,
    wide: Linear,
    narrow: Linear,
}

/// The cosines and sines of each position, for both kinds of layers.
type Turns = [(Tensor, Tensor); 2];

impl ModernBert {
    pub(super) fn load(config: &[u8], common: &Common, weights: &Weights, prefix: &str) -> Result<Box<dyn Body>> {
        let config: Config = parse("config.json", config)?;
        let (size, wide, width) = (common.hidden_size, common.intermediate_size, common.width());
        let gated = wide.checked_mul(2).ok_or_else(|| refused("config.json: intermediate_size is too large"))?;
        if !width.is_multiple_of(2) {
            return Err(refused(format!("config.json: a head has {width} columns, expected an even number: they turn in pairs")));
        }
        let norm = |name: &str| Norm::take_with(weights, &format!("{prefix}{name}"), size, config.norm_eps, config.norm_bias);
        let speeds = |kind| -> Result<Vec<f32>> {
            let theta = config.theta(kind)?;
            Ok((0..width / 2).map(|pair| (1.0 / theta.powf((2 * pair) as f64 / width as f64)) as f32).collect())
        };
        let layer = |(place, kind): (usize, Kind)| {
            let name = |part: &str| format!("{prefix}layers.{place}.{part}");
            let linear = |part: &str, from, to, bias| Linear::take_with(weights, &name(part), from, to, bias);
            let norm = |part: &str| norm(&format!("layers.{place}.{part}"));
            Ok(Layer {
                kind,
                norm: (place > 0).then(|| norm("attn_norm")).transpose()?,
                asks: linear("attn.Wqkv", size, 3 * size, config.attention_bias)?.scaled(size, width)?,
                attended: linear("attn.Wo", size, size, config.attention_bias)?,
                wide_norm: norm("mlp_norm")?,
                wide: linear("mlp.Wi", size, gated, config.mlp_bias)?,
                narrow: linear("mlp.Wo", wide, size, config.mlp_bias)?,
            })
        };
        let kinds = config.kinds(common.num_hidden_layers)?;
        Ok(Box::new(Self {
            words: weights.take(&format!("{prefix}embeddings.tok_embeddings.weight"), &[common.vocab_size, size])?,
            norm: norm("embeddings.norm")?,
            layers: kinds.into_iter().enumerate().map(layer).collect::<Result<_>>()?,
            last: norm("final_norm")?,
            heads: common.num_attention_heads,
            activation: config.hidden_activation,
            speeds: [speeds(Kind::FullAttention)?, speeds(Kind::SlidingAttention)?],
            near: Look::Near(config.local_attention / 2),
        }))
    }

    fn turns(&self, length: usize) -> candle_core::Result<Turns> {
        let turns = |speeds: &Vec<f32>| -> candle_core::Result<_> {
            let angles: Vec<f32> = (0..length).flat_map(|place| speeds.iter().map(move |speed| place as f32 * speed)).collect();
            let angles = Tensor::from_vec(angles, (length, speeds.len()), self.words.device())?;
            let dtype = self.words.dtype();
            Ok((angles.cos()?.to_dtype(dtype)?, angles.sin()?.to_dtype(dtype)?))
        };
        let [all, near] = &self.speeds;
        Ok([turns(all)?, turns(near)?])
    }
}

impl Body for ModernBert {
    fn states(&self, rows: &[&Tokens]) -> candle_core::Result<Tensor> {
        let ids: Vec<u32> = rows.iter().flat_map(|row| &row.ids).copied().collect();
        let count = ids.len();
        let words = self.words.index_select(&Tensor::from_vec(ids, count, self.words.device())?, 0)?;
        let mut states = self.norm.forward(&words)?;
        let turns = grouped(rows, &self.words, |length| self.turns(length))?;
        for layer in &self.layers {
            let asks = match &layer.norm {
                Some(norm) => layer.asks.forward(&norm.forward(&states)?)?,
                None => layer.asks.forward(&states)?,
            };
            let (place, look) = match layer.kind {
                Kind::FullAttention => (0, &Look::All),
                Kind::SlidingAttention => (1, &self.near),
            };
            let attended = turns.attend(&asks, |asks, length, turns: &Turns, hidden| {
                let [query, key, value] = parted(asks, length, self.heads)?;
                let (cos, sin) = &turns[place];
                attend(&[rope(&query, cos, sin)?, rope(&key, cos, sin)?, value], look, hidden)
            })?;
            states = (states + layer.attended.forward(&attended)?)?;
            let wide = layer.wide.forward(&layer.wide_norm.forward(&states)?)?;
            let [taken, gate] = <[Tensor; 2]>::try_from(wide.chunk(2, D::Minus1)?)
                .map_err(|parts| candle_core::Error::Msg(format!("{} parts of a gated layer", parts.len())))?;
            let wide = (self.activation.forward(&taken.contiguous()?)? * gate)?;
            states = (states + layer.narrow.forward(&wide)?)?;
        }
        self.last.forward(&states)
    }
}

/// The layers before a classifier's last one.
pub(super) struct Head {
    pub(super) dense: Linear,
    pub(super) activation: Activation,
    pub(super) norm: Norm,
    pub(super) pooling: ClassifierPooling,
}

impl Head {
    pub(super) fn take(config: &[u8], weights: &Weights, size: usize) -> Result<Self> {
        let config: Config = parse("config.json", config)?;
        Ok(Self {
            dense: Linear::take_with(weights, "head.dense", size, size, config.classifier_bias)?,
            activation: config.classifier_activation,
            norm: Norm::take_with(weights, "head.norm", size, config.norm_eps, config.norm_bias)?,
            pooling: config.classifier_pooling,
        })
    }
}
