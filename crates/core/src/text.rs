//! How a text is read, and how much of it was.

use std::num::NonZeroUsize;

/// How a model that reads text reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// Whether an ONNX model with a tokenizer beside it takes texts, and not the tokens that its graph takes.
    pub tokenize: bool,
    /// Most tokens of one text, if not what its files say; never more than the model has positions for.
    pub max_length: Option<NonZeroUsize>,
    /// Whether a longer text is cut; if not, it is refused.
    pub truncate: bool,
    /// Most tokens that are computed at once, padding included. One text alone may have more.
    pub max_tokens: NonZeroUsize,
}

impl TextOptions {
    /// With them grow the activations: 12 KB a token and layer in a small model.
    pub const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(8192).expect("8192 is not zero");
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { tokenize: true, max_length: None, truncate: true, max_tokens: Self::MAX_TOKENS }
    }
}

/// The tokens of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCount {
    /// Those of the texts, special ones included.
    pub read: u64,
    /// Those that filled rows up to one length.
    pub padding: u64,
}
