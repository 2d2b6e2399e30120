//! Models that read text, told by their signatures, and what is asked of them: the part that is the same for every format.
//!
//! A request is read before its model is known, because some bodies name it: [`Question::read`], then [`Task::of`] the model that was
//! found, then [`Question::request`] and [`Question::write`].

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sluicegate_codec::elements::Name;
use sluicegate_codec::json::malformed;
use sluicegate_core::error::Problem;
use sluicegate_core::shape::Dims;
use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::{Code, DType, Dim, Error, Request, Response, Result, Signature, Tensor};

/// Most texts of a request. OpenAI has the same bound.
pub const MAX_TEXTS: usize = 2048;

/// Most bytes of a query for all of its texts together: it is read once with each.
const MAX_QUERIES: usize = 64 * 1024 * 1024;

/// Most tensors of a model that are named to a caller who asks the wrong one.
const MAX_NAMED: usize = 4;

/// The output that counts the tokens of each text.
const TOKENS: &str = "tokens";

/// What a model makes of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A vector of each text.
    Embed,
    /// A score of each text for a query.
    Rank,
    /// A score for each of its labels, of each text or pair of texts.
    Classify,
}

/// A request about texts, in the format of a server that it was meant for.
pub trait Question: Sized + Send + 'static {
    /// What its model has to do.
    const TASK: Task;

    /// Reads a body.
    ///
    /// # Errors
    /// [`Code::Malformed`] where it is no JSON, [`Code::InvalidFields`] with the key of what is wrong.
    fn read(content: &[u8]) -> Result<Self>;

    /// The model that the body names.
    fn model(&self) -> Option<&str> {
        None
    }

    /// What the model is asked. Takes the texts out.
    ///
    /// # Errors
    /// [`Code::InvalidFields`] where the model cannot do what is asked.
    fn request(&mut self, model: &Reader<'_>) -> Result<Request>;

    /// Writes the answer.
    ///
    /// # Errors
    /// [`Code::InvalidFields`] where the model did what it was not to do.
    fn write(self, model: &Reader<'_>, response: &Response) -> Result<Vec<u8>>;
}

/// A model that reads text.
#[derive(Debug)]
pub struct Reader<'a> {
    /// Its inputs, the query first.
    texts: Vec<&'a TensorSpec>,
    output: &'a TensorSpec,
    tokens: Option<&'a TensorSpec>,
}

impl Task {
    /// The parts of a model that does it.
    ///
    /// # Errors
    /// [`Code::InvalidFields`] with what the model is instead.
    pub fn of(self, signature: &Signature) -> Result<Reader<'_>> {
        self.find(signature).ok_or_else(|| {
            let list = |specs: &[TensorSpec]| {
                let each = |spec: &TensorSpec| format!("`{}` {} {}", spec.name, spec.dtype, Dims(&spec.dims));
                let more = if specs.len() > MAX_NAMED { ", …" } else { "" };
                let named: Vec<String> = specs.iter().take(MAX_NAMED).map(each).collect();
                format!("{}{more}", named.join(", "))
            };
            let (takes, gives) = (list(signature.inputs()), list(signature.outputs()));
            let expected = match self {
                Self::Embed => "a model that embeds takes one text a row, BYTES [-1], and gives FP32 [-1, size], called `embedding` or `sentence_embedding` where it is not the only one",
                Self::Rank => "a model that ranks takes a `query` and a text a row, BYTES [-1] both, and gives one FP32 a row, called `score` where it is not the only one",
                Self::Classify => "a model that classifies takes one or two texts a row, BYTES [-1], and gives an FP32 probability or score for each of its labels",
            };
            wrong("model", format!("{expected}; this one takes {takes}, and gives {gives}"))
        })
    }

    /// Whether a model does it.
    pub fn is_of(self, signature: &Signature) -> bool {
        self.find(signature).is_some()
    }

    fn find(self, signature: &Signature) -> Option<Reader<'_>> {
        let is_one = |spec: &TensorSpec| spec.dims.iter().skip(1).all(|dim| dim.fixed() == Some(1));
        let mut texts: Vec<&TensorSpec> = signature.inputs().iter().collect();
        let all_texts = texts.iter().all(|spec| spec.dtype == DType::Bytes && is_one(spec));
        if !signature.is_batched() || !all_texts {
            return None;
        }
        texts.sort_by_key(|spec| &*spec.name != "query");
        let is_vector = |spec: &TensorSpec| spec.labels.is_empty() && spec.dims.len() == 2 && !is_one(spec);
        let is_score = |spec: &TensorSpec| spec.labels.is_empty() && is_one(spec);
        let is_labelled = |spec: &TensorSpec| {
            !spec.labels.is_empty() && spec.dims.len() == 2 && matches!(spec.kind, Kind::Probability | Kind::Score)
        };
        let output = match (self, texts.len()) {
            (Self::Embed, 1) => one_of(signature, &["embedding", "sentence_embedding"], is_vector),
            (Self::Rank, 2) => one_of(signature, &["score"], is_score),
            (Self::Classify, 1 | 2) => one_of(signature, &["probabilities"], is_labelled),
            _ => None,
        };
        let counts = |spec: &&TensorSpec| &*spec.name == TOKENS && spec.dtype == DType::Int64 && is_one(spec);
        Some(Reader { texts, output: output?, tokens: signature.outputs().iter().find(counts) })
    }
}

/// The output of numbers that is like this and has one of the names, or the only one that is.
fn one_of<'a>(signature: &'a Signature, names: &[&str], like: impl Fn(&TensorSpec) -> bool) -> Option<&'a TensorSpec> {
    let all: Vec<&TensorSpec> = signature.outputs().iter().filter(|spec| spec.dtype == DType::Fp32 && like(spec)).collect();
    let named = names.iter().find_map(|name| all.iter().find(|spec| &*spec.name == *name));
    match (named, &all[..]) {
        (Some(spec), _) | (None, [spec]) => Some(spec),
        (None, _) => None,
    }
}

impl<'a> Reader<'a> {
    /// How many texts make a row.
    pub(crate) fn texts(&self) -> usize {
        self.texts.len()
    }

    /// The output that answers.
    pub(crate) fn output(&self) -> &'a TensorSpec {
        self.output
    }

    /// How many numbers a row has, where that is always the same.
    pub(crate) fn width(&self) -> Option<usize> {
        self.output.dims.get(1).and_then(Dim::fixed)
    }

    /// Asks for the output and the count of tokens. The texts come by input, the query first.
    pub(crate) fn request(&self, columns: Vec<Vec<Bytes>>) -> Result<Request> {
        let column = |(spec, texts): (&&TensorSpec, Vec<Bytes>)| {
            let shape = std::iter::once(texts.len()).chain(spec.dims.iter().skip(1).map(|_| 1)).collect();
            Ok((spec.name.clone(), Tensor::text(shape, texts)?))
        };
        let inputs = self.texts.iter().zip(columns).map(column).collect::<Result<_>>()?;
        let outputs = std::iter::once(self.output).chain(self.tokens).map(|spec| spec.name.to_string()).collect();
        Ok(Request { inputs, outputs, ..Request::default() })
    }

    /// The same for texts that are each asked about with one query.
    pub(crate) fn rank(&self, query: &Bytes, texts: Vec<Bytes>) -> Result<Request> {
        if query.len().saturating_mul(texts.len()) > MAX_QUERIES {
            let why = format!("{} bytes, read with each of {} texts, are more than {MAX_QUERIES}", query.len(), texts.len());
            return Err(wrong("query", format!("{why}; send the texts in several requests")));
        }
        self.request(vec![vec![query.clone(); texts.len()], texts])
    }

    /// What was answered.
    pub(crate) fn answer<'r>(&self, response: &'r Response) -> Result<Answer<'r>> {
        let find = |name: &str| response.outputs.iter().find(|output| &*output.name == name).map(|output| &output.tensor);
        let tensor = find(&self.output.name);
        let values = tensor.and_then(Tensor::values::<f32>);
        let (Some(tensor), Some(values)) = (tensor, values) else {
            return Err(Error::new(Code::RunFailed, format!("the model gave no output `{}` of FP32", self.output.name)));
        };
        let tokens = self.tokens.and_then(|spec| find(&spec.name)?.values::<i64>());
        Ok(Answer { width: values.len() / tensor.shape().rows().max(1), values, tokens })
    }

    /// The most tokens that the model reads of a text, where it says so.
    pub(crate) fn longest(&self) -> Option<f64> {
        self.tokens.and_then(|spec| spec.about.max)
    }
}

/// What a model said of each row.
pub(crate) struct Answer<'r> {
    values: Cow<'r, [f32]>,
    width: usize,
    tokens: Option<Cow<'r, [i64]>>,
}

impl Answer<'_> {
    /// How many numbers a row has.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The numbers of each row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks(self.width.max(1))
    }

    /// How many tokens each text had, where the model counts them.
    pub(crate) fn tokens(&self) -> Option<&[i64]> {
        self.tokens.as_deref()
    }

    /// How many tokens all texts had; 0 where the model does not count them.
    pub(crate) fn all_tokens(&self) -> u64 {
        self.tokens().unwrap_or_default().iter().map(|&count| u64::try_from(count).unwrap_or(0)).sum()
    }
}

/// An error at a key of the body.
pub(crate) fn wrong(key: &str, why: impl fmt::Display) -> Error {
    let (loc, msg) = (vec!["body".into(), key.into()], format!("`{key}`: {why}"));
    let problem = Problem { kind: "value_error", loc, msg, input: None, ctx: None };
    Error::invalid(vec![problem])
}

/// The keys of a body, their values unread.
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Reads an object that has none but the known keys, none of them twice.
    pub(crate) fn read(content: &'a [u8], what: &str, known: &[&str]) -> Result<Self> {
        let text = std::str::from_utf8(content)
            .map_err(|error| Error::new(Code::Malformed, format!("the body is no {what}: {error}")))?;
        crate::instances::whole(text, Keys(known)).map_err(|error| malformed(content, &error, what))
    }

    /// The value of a key; `None` where it is not there or null.
    pub(crate) fn get<T: Deserialize<'a>>(&self, key: &str) -> Result<Option<T>> {
        let found = self.0.iter().find(|(name, value)| name == key && value.get() != "null");
        let read = |(_, value): &(Cow<'_, str>, &'a RawValue)| serde_json::from_str(value.get());
        found.map(read).transpose().map_err(|error| wrong(key, error))
    }

    /// The value of a key that has to be there.
    pub(crate) fn need<T: Deserialize<'a>>(&self, key: &str) -> Result<T> {
        self.get(key)?.ok_or_else(|| wrong(key, "it is missing"))
    }
}

struct Keys<'k>(&'k [&'k str]);

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields(Vec::with_capacity(self.0.len()));
        while let Some(Name(key)) = map.next_key()? {
            if !self.0.contains(&&*key) {
                return Err(A::Error::custom(format!("`{key}` is not known here; known are {}", self.0.join(", "))));
            }
            if fields.0.iter().any(|(name, _)| *name == key) {
                return Err(A::Error::custom(format!("`{key}` is there twice")));
            }
            fields.0.push((key, map.next_value()?));
        }
        Ok(fields)
    }
}

/// A text; nothing else is taken for one.
pub(crate) struct Text(pub(crate) Bytes);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string (ids of tokens are not taken: send the text)")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Bytes::copy_from_slice(text.as_bytes())))
            }
        }
        deserializer.deserialize_str(Seen)
    }
}

/// A text, or a list of them.
pub(crate) struct Texts(pub(crate) Vec<Bytes>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![Bytes::copy_from_slice(text.as_bytes())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Texts, A::Error> {
                Ok(Texts(list(items)?.into_iter().map(|Text(text)| text).collect()))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

/// A list of at least one item and at most [`MAX_TEXTS`].
pub(crate) struct Listed<T>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Seen<T> {
            type Value = Listed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Listed<T>, A::Error> {
                list(items).map(Listed)
            }
        }
        deserializer.deserialize_seq(Seen(std::marker::PhantomData))
    }
}

pub(crate) fn list<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(mut items: A) -> Result<Vec<T>, A::Error> {
    let mut all = Vec::new();
    loop {
        let item = items.next_element().map_err(|error| A::Error::custom(format!("item {}: {error}", all.len())))?;
        match item {
            Some(_) if all.len() == MAX_TEXTS => {
                return Err(A::Error::custom(format!("more than {MAX_TEXTS} items; send them in several requests")));
            }
            Some(item) => all.push(item),
            None if all.is_empty() => return Err(A::Error::custom("the list is empty")),
            None => return Ok(all),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
