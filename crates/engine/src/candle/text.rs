//! Text to tokens, by the `tokenizer.json` beside the weights.

use std::path::Path;

use serde::Deserialize;
use sluicegate_core::{Result, Tensor};
use tokenizers::{EncodeInput, Tokenizer, TruncationParams, TruncationStrategy};

use super::{bytes, failed, read, refused};

const FILE: &str = "tokenizer.json";

/// What sentence-transformers says of its encoders: the most tokens that they were trained on.
const SENTENCES: &str = "sentence_bert_config.json";

#[derive(Deserialize)]
struct Sentences {
    max_seq_length: Option<usize>,
}

/// A tokenizer that cuts at so many tokens, special ones included, and never pads.
pub(super) struct Text {
    tokenizer: Tokenizer,
}

impl Text {
    /// Reads a version's tokenizer. `positions` and `vocabulary` are what the model has embeddings for.
    ///
    /// # Errors
    /// Where there is none, it cannot be read, or it gives tokens that the model does not have.
    pub(super) fn load(folder: &Path, positions: usize, vocabulary: usize) -> Result<Self> {
        let wrong = |error: tokenizers::Error| refused(format!("{FILE}: {error}"));
        let mut tokenizer = Tokenizer::from_bytes(bytes(folder, FILE)?).map_err(wrong)?;
        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        if highest >= vocabulary {
            return Err(refused(format!("{FILE} gives tokens up to {highest}, the model has embeddings for {vocabulary}")));
        }
        let said: Option<Sentences> = match folder.join(SENTENCES).is_file() {
            true => Some(read(folder, SENTENCES)?),
            false => None,
        };
        let own = tokenizer.get_truncation().map(|truncation| truncation.max_length);
        let max_length = said.and_then(|said| said.max_seq_length).or(own).unwrap_or(positions).min(positions);
        let strategy = TruncationStrategy::LongestFirst;
        tokenizer.with_truncation(Some(TruncationParams { max_length, strategy, ..Default::default() })).map_err(wrong)?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer })
    }

    /// The tokens of each row's text, or of each row's pair of texts. What is no UTF-8 is read as far as it is.
    pub(super) fn tokens(&self, inputs: &[Tensor]) -> Result<Vec<Tokens>> {
        let texts = |input: &Tensor| -> Result<Vec<String>> {
            let strings = input.strings().ok_or_else(|| failed("expected BYTES"))?;
            Ok(strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
        };
        let first = texts(&inputs[0])?;
        let asked: Vec<EncodeInput<'_>> = match inputs.get(1) {
            None => first.into_iter().map(EncodeInput::from).collect(),
            Some(second) => first.into_iter().zip(texts(second)?).map(EncodeInput::from).collect(),
        };
        let each = asked.into_iter().map(|text| {
            let read = self.tokenizer.encode_fast(text, true).map_err(|error| failed(format!("{FILE}: {error}")))?;
            Ok(Tokens { ids: read.get_ids().to_vec(), types: read.get_type_ids().to_vec() })
        });
        each.collect()
    }
}

/// One row's tokens.
pub(super) struct Tokens {
    pub(super) ids: Vec<u32>,
    /// Which of a pair's texts each belongs to.
    pub(super) types: Vec<u32>,
}
