//! What `config.json` says of every transformer that reads text, and which families there are.

use std::collections::BTreeMap;

use serde::Deserialize;
use sluicegate_core::Result;
use sluicegate_text::Problem;
use sluicegate_text::files::refused;

const MAX_LAYERS: usize = 256;

/// What families have in common; DistilBERT's keys are others' too.
#[derive(Debug, Deserialize)]
pub(super) struct Common {
    #[serde(default)]
    pub(super) architectures: Option<Vec<String>>,
    pub(super) vocab_size: usize,
    #[serde(alias = "dim")]
    pub(super) hidden_size: usize,
    #[serde(alias = "n_layers")]
    pub(super) num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    pub(super) num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    pub(super) intermediate_size: usize,
    pub(super) max_position_embeddings: usize,
    #[serde(default)]
    pub(super) id2label: BTreeMap<u32, String>,
    #[serde(default)]
    pub(super) problem_type: Option<Problem>,
}

impl Common {
    /// That its parts fit together.
    pub(super) fn check(&self) -> Result<()> {
        let (size, heads) = (self.hidden_size, self.num_attention_heads);
        if heads == 0 || size == 0 || !size.is_multiple_of(heads) || self.num_hidden_layers > MAX_LAYERS {
            let message =
                format!("config.json: {heads} heads do not share {size} columns, or there are more than {MAX_LAYERS} layers");
            return Err(refused(message));
        }
        Ok(())
    }

    /// Columns of a head.
    pub(super) fn width(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    pub(super) fn architecture(&self) -> &str {
        self.architectures.iter().flatten().next().map_or("Model", String::as_str)
    }
}

/// What is built and named alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Bert,
    Roberta,
    DistilBert,
    MpNet,
    ModernBert,
}

/// The `model_type`s that are served.
const FAMILIES: [(&str, Family); 6] = [
    ("bert", Family::Bert),
    ("roberta", Family::Roberta),
    ("xlm-roberta", Family::Roberta),
    ("distilbert", Family::DistilBert),
    ("mpnet", Family::MpNet),
    ("modernbert", Family::ModernBert),
];

impl Family {
    pub(super) fn of(model_type: &str) -> Option<Self> {
        FAMILIES.iter().find(|(name, _)| *name == model_type).map(|(_, family)| *family)
    }

    /// What stands before the names of the weights where there is a head.
    pub(super) fn base(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Roberta => "roberta.",
            Self::DistilBert => "distilbert.",
            Self::MpNet => "mpnet.",
            Self::ModernBert => "model.",
        }
    }
}

/// The `model_type`s that are served.
pub(crate) fn model_types() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(name, _)| *name)
}
