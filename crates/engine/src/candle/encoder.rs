//! Transformers that read text whole: BERT, RoBERTa, XLM-RoBERTa and DistilBERT, as encoders of sentences, classifiers, and rankers.
//!
//! Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018; the names of the weights are those of `transformers`.
//!
//! Nothing is padded: the tokens of all rows lie one after the other, and only attention looks at rows, those of one length together.

use std::path::Path;

use candle_core::{D, Device, IndexOp, Tensor};
use candle_nn::ops;
use serde::Deserialize;
use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::{DType, Dim, Result, Shape};

use super::text::{Text, Tokens};
use super::weights::Weights;
use super::{Model, failed, given, parse, read, refused, said};

/// The `model_type`s that are served.
pub(super) const MODEL_TYPES: [&str; 4] = ["bert", "roberta", "xlm-roberta", "distilbert"];

/// Most tokens that are computed at once: with them grow the activations, 12 KB a token and layer in a small model.
const MAX_TOKENS: usize = 8192;

const MAX_LAYERS: usize = 256;

/// `config.json`; DistilBERT's keys are others' too.
#[derive(Debug, Deserialize)]
struct Config {
    model_type: String,
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: usize,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "activation")]
    hidden_act: Activation,
    max_position_embeddings: usize,
    #[serde(default)]
    type_vocab_size: usize,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    #[serde(default)]
    pad_token_id: usize,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    id2label: std::collections::BTreeMap<u32, String>,
}

fn eps() -> f64 {
    1e-12
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Activation {
    Gelu,
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Relu,
    #[serde(alias = "swish")]
    Silu,
}

/// How a family calls its weights.
struct Names {
    base: &'static str,
    layer: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    attended: &'static str,
    attended_norm: &'static str,
    wide: &'static str,
    narrow: &'static str,
    norm: &'static str,
}

const BERT: Names = Names {
    base: "bert.",
    layer: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attended: "attention.output.dense",
    attended_norm: "attention.output.LayerNorm",
    wide: "intermediate.dense",
    narrow: "output.dense",
    norm: "output.LayerNorm",
};

const ROBERTA: Names = Names { base: "roberta.", ..BERT };

const DISTILBERT: Names = Names {
    base: "distilbert.",
    layer: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attended: "attention.out_lin",
    attended_norm: "sa_layer_norm",
    wide: "ffn.lin1",
    narrow: "ffn.lin2",
    norm: "output_layer_norm",
};

/// Weights transposed, and a bias.
struct Linear(Tensor, Tensor);

impl Linear {
    fn take(weights: &Weights, name: &str, from: usize, to: usize) -> Result<Self> {
        let weight = weights.take(&format!("{name}.weight"), &[to, from])?;
        let bias = weights.take(&format!("{name}.bias"), &[to])?;
        Ok(Self(ready(weight.t().and_then(|weight| weight.contiguous()))?, bias))
    }

    fn forward(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        rows.matmul(&self.0)?.broadcast_add(&self.1)
    }
}

struct Norm(Tensor, Tensor, f32);

impl Norm {
    /// Files of old have TensorFlow's names.
    fn take(weights: &Weights, name: &str, size: usize, eps: f64) -> Result<Self> {
        let one = |name: String, old: String| weights.take(if weights.has(&name) { &name } else { &old }, &[size]);
        let scale = match weights.has(&format!("{name}.gamma")) {
            true => one(format!("{name}.gamma"), String::new())?,
            false => weights.take(&format!("{name}.weight"), &[size])?,
        };
        let shift = match weights.has(&format!("{name}.beta")) {
            true => one(format!("{name}.beta"), String::new())?,
            false => weights.take(&format!("{name}.bias"), &[size])?,
        };
        Ok(Self(scale, shift, eps as f32))
    }

    fn forward(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        ops::layer_norm(rows, &self.0, &self.1, self.2)
    }
}

struct Layer {
    /// Queries, keys and values in one; the queries scaled already.
    asks: Linear,
    attended: Linear,
    attended_norm: Norm,
    wide: Linear,
    narrow: Linear,
    norm: Norm,
}

/// How the states of a row's tokens become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Pooling {
    #[default]
    Mean,
    First,
    Max,
}

enum Head {
    /// A vector a text.
    Embed { pooling: Pooling, normalize: bool },
    /// Scores out of the first token's state: a layer, what follows it, and the last layer.
    Classify { dense: Linear, relu: bool, last: Linear, labels: Vec<String> },
}

/// The model.
pub(super) struct Encoder {
    text: Text,
    words: Tensor,
    positions: Tensor,
    types: Option<Tensor>,
    /// RoBERTa counts positions from behind the padding's.
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
    pub(super) fn load(folder: &Path, config: &[u8], weights: &Weights) -> Result<Self> {
        let config: Config = parse("config.json", config)?;
        let names = match &*config.model_type {
            "distilbert" => &DISTILBERT,
            "roberta" | "xlm-roberta" => &ROBERTA,
            _ => &BERT,
        };
        let (size, heads) = (config.hidden_size, config.num_attention_heads);
        if heads == 0 || size == 0 || size % heads != 0 || config.num_hidden_layers > MAX_LAYERS {
            let message =
                format!("config.json: {heads} heads do not share {size} columns, or there are more than {MAX_LAYERS} layers");
            return Err(refused(message));
        }
        if config.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
            return Err(refused(
                "config.json: position_embedding_type other than `absolute` is not served; export the model to ONNX",
            ));
        }
        let first_position = if names.base == ROBERTA.base { config.pad_token_id + 1 } else { 0 };
        let room = config.max_position_embeddings.saturating_sub(first_position);
        if room < 3 {
            return Err(refused(format!("config.json: max_position_embeddings leave room for {room} tokens")));
        }
        let prefix = if weights.has(&format!("{}embeddings.word_embeddings.weight", names.base)) { names.base } else { "" };
        let word =
            |name: &str, count: usize| weights.take(&format!("{prefix}embeddings.{name}_embeddings.weight"), &[count, size]);
        let types = match names.base == DISTILBERT.base {
            true => None,
            false => Some(word("token_type", config.type_vocab_size)?),
        };
        let eps = config.layer_norm_eps;
        let layer = |place: usize| Layer::take(weights, &format!("{prefix}{}.{place}.", names.layer), names, &config);
        let head = Head::take(folder, weights, prefix, names, &config)?;
        let encoder = Self {
            text: Text::load(folder, room, config.vocab_size)?,
            words: word("word", config.vocab_size)?,
            positions: word("position", config.max_position_embeddings)?,
            types,
            first_position,
            norm: Norm::take(weights, &format!("{prefix}embeddings.LayerNorm"), size, eps)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            heads,
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

    /// One row of numbers for each row of tokens.
    fn answer(&self, rows: &[&Tokens]) -> candle_core::Result<Tensor> {
        let states = self.states(rows)?;
        let pooling = match self.head {
            Head::Embed { pooling, .. } => pooling,
            Head::Classify { .. } => Pooling::First,
        };
        let one = |(start, count, length): (usize, usize, usize)| {
            let states = states.narrow(0, start, count * length)?.reshape((count, length, self.size))?;
            match pooling {
                Pooling::Mean => states.mean(1),
                Pooling::First => states.i((.., 0))?.contiguous(),
                Pooling::Max => states.max(1),
            }
        };
        let pooled = Tensor::cat(&groups(rows).into_iter().map(one).collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        match &self.head {
            Head::Embed { normalize: false, .. } => Ok(pooled),
            Head::Embed { .. } => {
                let length = pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
                pooled.broadcast_div(&length)
            }
            Head::Classify { dense, relu, last, labels } => {
                let dense = dense.forward(&pooled)?;
                let scores = last.forward(&if *relu { dense.relu()? } else { dense.tanh()? })?;
                if labels.len() == 1 { ops::sigmoid(&scores) } else { ops::softmax_last_dim(&scores) }
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
    fn inputs(&self) -> Vec<TensorSpec> {
        let text = |name: &str| TensorSpec::new(name, DType::Bytes, rows());
        match &self.head {
            Head::Classify { labels, .. } if labels.len() == 1 => vec![text("query"), text("text")],
            _ => vec![text("text")],
        }
    }

    fn outputs(&self) -> Vec<TensorSpec> {
        let columns = |count: usize| [rows(), vec![Dim::Fixed(count)]].concat();
        let first = match &self.head {
            Head::Embed { .. } => TensorSpec::new("embedding", DType::Fp32, columns(self.size)),
            Head::Classify { labels, .. } if labels.len() == 1 => TensorSpec::new("score", DType::Fp32, rows()),
            Head::Classify { labels, .. } => {
                let scores = TensorSpec::new("probabilities", DType::Fp32, columns(labels.len()));
                TensorSpec { kind: Kind::Probability, labels: labels.clone(), ..scores }
            }
        };
        let mut tokens = TensorSpec::new("tokens", DType::Int64, rows());
        tokens.about.description = Some("how many tokens were read, special ones included".into());
        vec![first, tokens]
    }

    fn example(&self) -> Option<serde_json::Value> {
        let texts = ["Which way does the water go?", "When the upper gate opens, the lock fills until both sides are level."];
        let inputs = self.inputs();
        let texts = &texts[texts.len() - inputs.len()..];
        let record = inputs.iter().zip(texts).map(|(input, &text)| (input.name.to_string(), text.into()));
        Some(serde_json::Value::Object(record.collect()))
    }

    fn run(&self, inputs: &[sluicegate_core::Tensor], wanted: &[usize]) -> Result<Vec<sluicegate_core::Tensor>> {
        let read = self.text.tokens(inputs)?;
        // Without special tokens a text may have none, and a mean of nothing is no number.
        if let Some(place) = read.iter().position(|tokens| tokens.ids.is_empty()) {
            return Err(failed(format!("row {place} has no tokens")));
        }
        let mut order: Vec<usize> = (0..read.len()).collect();
        order.sort_by_key(|&place| read[place].ids.len());
        let computed = if wanted.contains(&0) { Some(self.in_order(&read, &order)?) } else { None };
        let outputs = wanted.iter().map(|output| match (output, &computed) {
            (0, Some(computed)) => Ok(computed.clone()),
            _ => {
                let counts = read.iter().map(|tokens| tokens.ids.len() as i64).collect();
                sluicegate_core::Tensor::from_vec(Shape::new(&[read.len()]), counts)
            }
        });
        outputs.collect()
    }
}

impl Encoder {
    /// Computes rows shorter ones first, no more tokens at once than [`MAX_TOKENS`] but for one row, and gives them as they came.
    fn in_order(&self, read: &[Tokens], order: &[usize]) -> Result<sluicegate_core::Tensor> {
        let width = match &self.head {
            Head::Embed { .. } => self.size,
            Head::Classify { labels, .. } => labels.len(),
        };
        let mut all = vec![0_f32; read.len() * width];
        let mut rest = order;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |&&place: &&usize| {
                tokens += read[place].ids.len();
                tokens <= MAX_TOKENS
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            let rows: Vec<&Tokens> = now.iter().map(|&place| &read[place]).collect();
            let computed = given(self.answer(&rows))?;
            let values = computed.values::<f32>().ok_or_else(|| failed("expected FP32"))?;
            for (&place, row) in now.iter().zip(values.chunks_exact(width)) {
                all[place * width..][..width].copy_from_slice(row);
            }
            rest = later;
        }
        let ranks = matches!(&self.head, Head::Classify { labels, .. } if labels.len() == 1);
        let shape = if ranks { Shape::new(&[read.len()]) } else { Shape::new(&[read.len(), width]) };
        sluicegate_core::Tensor::from_vec(shape, all)
    }
}

fn rows() -> Vec<Dim> {
    vec![Dim::Free(Some("batch".into()))]
}

impl Layer {
    fn take(weights: &Weights, prefix: &str, names: &Names, config: &Config) -> Result<Self> {
        let (size, wide, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let linear = |name: &str, from: usize, to: usize| Linear::take(weights, &format!("{prefix}{name}"), from, to);
        let norm = |name: &str| Norm::take(weights, &format!("{prefix}{name}"), size, eps);
        let scale = 1.0 / ((size / config.num_attention_heads) as f64).sqrt();
        let Linear(query, query_bias) = linear(names.query, size, size)?;
        let (key, value) = (linear(names.key, size, size)?, linear(names.value, size, size)?);
        let scaled = |tensor: Tensor| ready(tensor * scale);
        let asks = Linear(
            ready(Tensor::cat(&[scaled(query)?, key.0, value.0], 1))?,
            ready(Tensor::cat(&[scaled(query_bias)?, key.1, value.1], 0))?,
        );
        Ok(Self {
            asks,
            attended: linear(names.attended, size, size)?,
            attended_norm: norm(names.attended_norm)?,
            wide: linear(names.wide, size, wide)?,
            narrow: linear(names.narrow, wide, size)?,
            norm: norm(names.norm)?,
        })
    }
}

impl Head {
    fn take(folder: &Path, weights: &Weights, prefix: &str, names: &Names, config: &Config) -> Result<Self> {
        let architecture = config.architectures.first().map_or("Model", String::as_str);
        if architecture.ends_with("ForSequenceClassification") {
            let size = config.hidden_size;
            let (dense, last) = match names.base {
                "distilbert." => ("pre_classifier".to_owned(), "classifier"),
                "roberta." => ("classifier.dense".to_owned(), "classifier.out_proj"),
                _ => (format!("{prefix}pooler.dense"), "classifier"),
            };
            let of_last = format!("{last}.weight");
            let count = weights.shape(&of_last)?.first().copied().unwrap_or(0);
            let labels: Vec<String> = (0..count as u32)
                .map(|place| config.id2label.get(&place).cloned().unwrap_or_else(|| format!("LABEL_{place}")))
                .collect();
            return Ok(Self::Classify {
                dense: Linear::take(weights, &dense, size, size)?,
                relu: names.base == DISTILBERT.base,
                last: Linear::take(weights, last, size, count)?,
                labels,
            });
        }
        let encodes = ["Model", "ForMaskedLM", "ForPreTraining"].iter().any(|kind| architecture.ends_with(kind));
        if !encodes
            || architecture.contains("For") && !architecture.ends_with("ForMaskedLM") && !architecture.ends_with("ForPreTraining")
        {
            return Err(refused(format!("config.json: architecture `{architecture}` is not served; export the model to ONNX")));
        }
        let (pooling, normalize) = pooling(folder, config.hidden_size)?;
        Ok(Self::Embed { pooling, normalize })
    }
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct PoolingConfig {
    word_embedding_dimension: Option<usize>,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
}

/// What `modules.json` of sentence-transformers says: how states become one vector, and whether that has the length 1. Where there is
/// none, the mean, as sentence-transformers has it.
fn pooling(folder: &Path, size: usize) -> Result<(Pooling, bool)> {
    const FILE: &str = "modules.json";
    if !folder.join(FILE).is_file() {
        return Ok((Pooling::Mean, false));
    }
    let (mut pooling, mut normalize) = (Pooling::Mean, false);
    for module in read::<Vec<Module>>(folder, FILE)? {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Normalize" => normalize = true,
            "Pooling" => {
                let inside = Path::new(&module.path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
                if !inside {
                    return Err(refused(format!("{FILE}: `{}` is not inside the version's directory", module.path)));
                }
                let name = format!("{}/config.json", module.path);
                let config: PoolingConfig = read(folder, &name)?;
                if config.word_embedding_dimension.is_some_and(|dimension| dimension != size) {
                    return Err(refused(format!("{name}: the model has {size} columns, it says another number")));
                }
                let known = [
                    (config.pooling_mode_mean_tokens, Some(Pooling::Mean)),
                    (config.pooling_mode_cls_token, Some(Pooling::First)),
                    (config.pooling_mode_max_tokens, Some(Pooling::Max)),
                    (config.pooling_mode_mean_sqrt_len_tokens, None),
                    (config.pooling_mode_weightedmean_tokens, None),
                    (config.pooling_mode_lasttoken, None),
                ];
                let chosen: Vec<_> = known.iter().filter(|(chosen, _)| *chosen).collect();
                pooling = match &*chosen {
                    [(_, Some(pooling))] => *pooling,
                    _ => {
                        return Err(refused(format!(
                            "{name}: one of mean, cls and max is served, and it asks for something else"
                        )));
                    }
                };
            }
            other => {
                return Err(refused(format!("{FILE}: module `{other}` is not served; Transformer, Pooling and Normalize are")));
            }
        }
    }
    Ok((pooling, normalize))
}

fn ready<T>(computed: candle_core::Result<T>) -> Result<T> {
    computed.map_err(|error| refused(said(&error)))
}
