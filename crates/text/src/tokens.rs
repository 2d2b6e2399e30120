//! Text to tokens, by the `tokenizer.json` beside a model.

use std::path::Path;

use serde::Deserialize;
use sluicegate_core::{Code, Error, Result, Tensor, TextOptions};
use tokenizers::{EncodeInput, Encoding, PaddingDirection, PostProcessor, Tokenizer, TruncationParams, TruncationStrategy};

use crate::files::{bytes, failed, read_if_any, refused};

/// Where a tokenizer lies.
pub const FILE: &str = "tokenizer.json";

/// What sentence-transformers says of its encoders: the most tokens that they were trained on.
const SENTENCES: &str = "sentence_bert_config.json";

/// Most tokens of a text where nothing beside the model says how many it takes.
const UNSAID: usize = 512;

#[derive(Deserialize)]
struct Sentences {
    max_seq_length: Option<usize>,
}

/// What a model has embeddings for, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// Most tokens of a text.
    pub positions: Option<usize>,
    /// Tokens that there are.
    pub vocabulary: Option<usize>,
}

/// How rows are filled up to one length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filler {
    /// The token.
    pub id: u32,
    /// Its type.
    pub kind: u32,
    /// In front of a row's tokens, and not behind them.
    pub left: bool,
}

/// A tokenizer that holds to a length, special tokens included, and never fills up itself.
pub struct Text {
    tokenizer: Tokenizer,
    /// What the file says of padding.
    pub filler: Option<Filler>,
    /// Most tokens of a text.
    pub max_length: usize,
    truncate: bool,
}

/// One row's tokens.
pub struct Tokens {
    /// One a token.
    pub ids: Vec<u32>,
    /// Which of a pair's texts each belongs to.
    pub types: Vec<u32>,
    /// The text, where its places are told.
    pub text: String,
    /// The bytes of the text that each token is made of, where its places are told; special tokens have none.
    pub spans: Vec<Option<(usize, usize)>>,
}

impl Text {
    /// Reads a version's tokenizer.
    ///
    /// # Errors
    /// Where there is none, it cannot be read, or it gives tokens that the model does not have.
    pub fn load(folder: &Path, room: Room, options: &TextOptions) -> Result<Self> {
        let wrong = |error: tokenizers::Error| refused(format!("{FILE}: {error}"));
        let mut tokenizer = Tokenizer::from_bytes(bytes(folder, FILE)?).map_err(wrong)?;
        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        if let Some(vocabulary) = room.vocabulary.filter(|vocabulary| highest >= *vocabulary) {
            return Err(refused(format!("{FILE} gives tokens up to {highest}, the model has embeddings for {vocabulary}")));
        }
        let said = read_if_any::<Sentences>(folder, SENTENCES)?.and_then(|said| said.max_seq_length);
        let own = tokenizer.get_truncation().map(|truncation| truncation.max_length);
        let asked = options.max_length.map(std::num::NonZeroUsize::get);
        let max_length = asked.or(said).or(own).or(room.positions).unwrap_or(UNSAID);
        let max_length = max_length.min(room.positions.unwrap_or(usize::MAX));
        let special = tokenizer.get_post_processor().map_or(0, |post| post.added_tokens(false).max(post.added_tokens(true)));
        if max_length <= special {
            let message = format!("{FILE} adds {special} tokens to a text, and at most {max_length} are read, those included");
            return Err(refused(message));
        }
        let (strategy, truncate) = (TruncationStrategy::LongestFirst, options.truncate);
        let truncation = TruncationParams { max_length, strategy, ..Default::default() };
        tokenizer.with_truncation(truncate.then_some(truncation)).map_err(wrong)?;
        let filler = tokenizer.get_padding().map(|padding| Filler {
            id: padding.pad_id,
            kind: padding.pad_type_id,
            left: matches!(padding.direction, PaddingDirection::Left),
        });
        tokenizer.with_padding(None);
        Ok(Self { tokenizer, filler, max_length, truncate })
    }

    /// The tokens of each row's text, or of each row's pair of texts; with their places in it, where those are asked for. What is no UTF-8
    /// is read as far as it is.
    ///
    /// # Errors
    /// [`Code::InvalidTensor`] where a text is too long and is not to be cut.
    pub fn tokens(&self, inputs: &[Tensor], places: bool) -> Result<Vec<Tokens>> {
        let texts = |input: &Tensor| -> Result<Vec<String>> {
            let strings = input.strings().ok_or_else(|| failed("expected BYTES"))?;
            Ok(strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
        };
        let [first, rest @ ..] = inputs else { return Err(failed("expected a text")) };
        let first = texts(first)?;
        if places {
            return first.into_iter().enumerate().map(|(row, text)| self.row_with_places(row, text)).collect();
        }
        let asked: Vec<EncodeInput<'_>> = match rest.first() {
            None => first.into_iter().map(EncodeInput::from).collect(),
            Some(second) => first.into_iter().zip(texts(second)?).map(EncodeInput::from).collect(),
        };
        asked.into_iter().enumerate().map(|(row, text)| self.row(row, text)).collect()
    }

    fn row(&self, row: usize, text: EncodeInput<'_>) -> Result<Tokens> {
        self.checked(row, self.tokenizer.encode_fast(text, true))
    }

    fn row_with_places(&self, row: usize, text: String) -> Result<Tokens> {
        let read = self.tokenizer.encode(text.as_str(), true);
        let spans = read.as_ref().map_or_else(
            |_| Vec::new(),
            |read| {
                let specials = read.get_special_tokens_mask();
                read.get_offsets().iter().zip(specials).map(|(span, special)| (*special == 0).then_some(*span)).collect()
            },
        );
        Ok(Tokens { text, spans, ..self.checked(row, read)? })
    }

    fn checked(&self, row: usize, read: tokenizers::Result<Encoding>) -> Result<Tokens> {
        let read = read.map_err(|error| failed(format!("{FILE}: {error}")))?;
        let (count, most) = (read.get_ids().len(), self.max_length);
        match count {
            // Without special tokens a text may have none, and a mean of nothing is no number.
            0 => Err(Error::new(Code::InvalidTensor, format!("the text of row {row} has no tokens, and a model needs one"))),
            _ if count <= most => Ok(Tokens {
                ids: read.get_ids().to_vec(),
                types: read.get_type_ids().to_vec(),
                text: String::new(),
                spans: Vec::new(),
            }),
            _ if self.truncate => Err(failed(format!("{FILE}: {count} tokens came of row {row}, which was cut to {most}"))),
            _ => {
                let hint = "`text.max_length` and `text.truncate` of the model say so";
                let message = format!("the text of row {row} has {count} tokens, at most {most} are read: {hint}");
                Err(Error::new(Code::InvalidTensor, message))
            }
        }
    }
}
