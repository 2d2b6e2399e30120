//! What `config.json` says of a transformer, and how its family calls the weights.

use std::collections::BTreeMap;

use serde::Deserialize;
use sluicegate_core::Result;
use sluicegate_text::Problem;
use sluicegate_text::files::refused;

const MAX_LAYERS: usize = 256;

/// `config.json`; DistilBERT's keys are others' too.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub(super) model_type: String,
    #[serde(default)]
    pub(super) architectures: Vec<String>,
    pub(super) vocab_size: usize,
    #[serde(alias = "dim")]
    pub(super) hidden_size: usize,
    #[serde(alias = "n_layers")]
    pub(super) num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    pub(super) num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    pub(super) intermediate_size: usize,
    #[serde(alias = "activation")]
    pub(super) hidden_act: Activation,
    pub(super) max_position_embeddings: usize,
    #[serde(default)]
    pub(super) type_vocab_size: usize,
    #[serde(default = "eps")]
    pub(super) layer_norm_eps: f64,
    #[serde(default)]
    pub(super) pad_token_id: usize,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    pub(super) id2label: BTreeMap<u32, String>,
    #[serde(default)]
    pub(super) problem_type: Option<Problem>,
}

fn eps() -> f64 {
    1e-12
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Activation {
    Gelu,
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Relu,
    #[serde(alias = "swish")]
    Silu,
}

impl Config {
    /// That its parts fit together, and that what it asks for is served.
    pub(super) fn check(&self) -> Result<()> {
        let (size, heads) = (self.hidden_size, self.num_attention_heads);
        if heads == 0 || size == 0 || !size.is_multiple_of(heads) || self.num_hidden_layers > MAX_LAYERS {
            let message =
                format!("config.json: {heads} heads do not share {size} columns, or there are more than {MAX_LAYERS} layers");
            return Err(refused(message));
        }
        if self.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
            let message = "config.json: position_embedding_type other than `absolute` is not served; export the model to ONNX";
            return Err(refused(message));
        }
        if self.room() < 3 {
            return Err(refused(format!("config.json: max_position_embeddings leave room for {} tokens", self.room())));
        }
        Ok(())
    }

    pub(super) fn names(&self) -> &'static Names {
        match &*self.model_type {
            "distilbert" => &DISTILBERT,
            "roberta" | "xlm-roberta" => &ROBERTA,
            _ => &BERT,
        }
    }

    /// RoBERTa counts positions from behind the padding's.
    pub(super) fn first_position(&self) -> usize {
        if self.names().base == ROBERTA.base { self.pad_token_id.saturating_add(1) } else { 0 }
    }

    /// Most tokens of a text.
    pub(super) fn room(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.first_position())
    }
}

/// How a family calls its weights.
pub(super) struct Names {
    pub(super) base: &'static str,
    pub(super) layer: &'static str,
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) attended: &'static str,
    pub(super) attended_norm: &'static str,
    pub(super) wide: &'static str,
    pub(super) narrow: &'static str,
    pub(super) norm: &'static str,
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

pub(super) const ROBERTA: Names = Names { base: "roberta.", ..BERT };

pub(super) const DISTILBERT: Names = Names {
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
