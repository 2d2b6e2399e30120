//! text-embeddings-inference: `/embed`, `/predict` and `/rerank`. They name no model.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use sluicegate_core::signature::Kind;
use sluicegate_core::{Request, Response, Result};

use crate::embeddings::has_size;
use crate::rerank::{ranked, take_unless};
use crate::text::{Answer, Fields, Listed, Question, Reader, Task, Text, Texts, list, wrong};

/// Vectors whose length differs by less than this from 1 were made so.
const UNIT: f64 = 1e-5;

/// What the three have in common: whether, and where, texts may be cut.
#[derive(Debug)]
struct Cut {
    allowed: bool,
}

impl Cut {
    fn read(fields: &Fields<'_>) -> Result<Self> {
        match fields.get::<String>("truncation_direction")?.as_deref() {
            None | Some("Right" | "right") => Ok(Self { allowed: fields.get("truncate")?.unwrap_or(true) }),
            Some(other) => {
                let why = format!("texts are cut at their end, `Right`, got `{other}`");
                Err(wrong("truncation_direction", why))
            }
        }
    }

    fn known(&self, model: &Reader<'_>) -> Result<()> {
        if self.allowed || model.longest().is_some() {
            return Ok(());
        }
        let why = "the model cuts what is too long and does not say how long that is; leave it out";
        Err(wrong("truncate", why))
    }

    /// Refuses an answer where a text has as many tokens as the model reads: whether it had more is no longer known.
    fn held(&self, model: &Reader<'_>, answer: &Answer<'_>) -> Result<()> {
        let Some(longest) = model.longest().filter(|_| !self.allowed) else { return Ok(()) };
        match answer.tokens().unwrap_or_default().iter().position(|&count| count as f64 >= longest) {
            Some(place) => {
                let why = format!("text {place} has {longest} tokens or more, as many as the model reads; shorten it");
                Err(wrong("truncate", why))
            }
            None => Ok(()),
        }
    }
}

/// A request to `/embed`.
#[derive(Debug)]
pub struct Embed {
    texts: Vec<Bytes>,
    normalize: bool,
    dimensions: Option<usize>,
    cut: Cut,
}

impl Question for Embed {
    const TASK: Task = Task::Embed;

    fn read(content: &[u8]) -> Result<Self> {
        let keys = ["inputs", "normalize", "dimensions", "prompt_name", "truncate", "truncation_direction"];
        let fields = Fields::read(content, "request to embed", &keys)?;
        if let Some(name) = fields.get::<String>("prompt_name")? {
            let why = format!("no prompts are kept, and none is called `{name}`; put it before each text");
            return Err(wrong("prompt_name", why));
        }
        let Texts(texts) = fields.need("inputs")?;
        let (normalize, dimensions) = (fields.get("normalize")?.unwrap_or(true), fields.get("dimensions")?);
        Ok(Self { texts, normalize, dimensions, cut: Cut::read(&fields)? })
    }

    fn request(&mut self, model: &Reader<'_>) -> Result<Request> {
        self.cut.known(model)?;
        if let Some(width) = model.width() {
            has_size(self.dimensions, width)?;
        }
        model.request(vec![std::mem::take(&mut self.texts)])
    }

    fn write(self, model: &Reader<'_>, response: &Response) -> Result<Vec<u8>> {
        let answer = model.answer(response)?;
        self.cut.held(model, &answer)?;
        has_size(self.dimensions, answer.width())?;
        let length = |row: &[f32]| row.iter().map(|&number| f64::from(number).powi(2)).sum::<f64>().sqrt();
        let is_unit = |row: &[f32]| (length(row) - 1.0).abs() < UNIT;
        if !self.normalize && answer.rows().all(is_unit) {
            let why = "the model itself makes vectors of length 1, and has no others; leave it out";
            return Err(wrong("normalize", why));
        }
        let vector = |row: &[f32]| match length(row) {
            length if !self.normalize || is_unit(row) || length == 0.0 => row.to_vec(),
            length => row.iter().map(|&number| (f64::from(number) / length) as f32).collect(),
        };
        Ok(json_of(&answer.rows().map(vector).collect::<Vec<_>>()))
    }
}

/// A request to `/predict`.
#[derive(Debug)]
pub struct Predict {
    inputs: Inputs,
    raw_scores: bool,
    cut: Cut,
}

#[derive(Serialize)]
struct Prediction<'a> {
    score: f32,
    label: &'a str,
}

impl Question for Predict {
    const TASK: Task = Task::Classify;

    fn read(content: &[u8]) -> Result<Self> {
        let fields = Fields::read(content, "request to predict", &["inputs", "raw_scores", "truncate", "truncation_direction"])?;
        let raw_scores = fields.get("raw_scores")?.unwrap_or(false);
        Ok(Self { inputs: fields.need("inputs")?, raw_scores, cut: Cut::read(&fields)? })
    }

    fn request(&mut self, model: &Reader<'_>) -> Result<Request> {
        self.cut.known(model)?;
        may_be_raw(self.raw_scores, model)?;
        let count = model.texts();
        let mut columns = vec![Vec::with_capacity(self.inputs.rows.len()); count];
        for (place, row) in std::mem::take(&mut self.inputs.rows).into_iter().enumerate() {
            if row.len() != count {
                let (got, takes) = (row.len(), if count == 1 { "one text" } else { "a pair of texts" });
                let why = format!("the model takes {takes}, row {place} has {got}; several rows are a list of lists");
                return Err(wrong("inputs", why));
            }
            columns.iter_mut().zip(row).for_each(|(column, text)| column.push(text));
        }
        model.request(columns)
    }

    fn write(self, model: &Reader<'_>, response: &Response) -> Result<Vec<u8>> {
        let answer = model.answer(response)?;
        self.cut.held(model, &answer)?;
        let share = model.output().kind == Kind::Score && !self.raw_scores;
        let row = |row: &[f32]| {
            let scores = if share { softmax(row) } else { row.to_vec() };
            let named = scores.into_iter().zip(&model.output().labels).map(|(score, label)| Prediction { score, label });
            let mut named: Vec<Prediction<'_>> = named.collect();
            named.sort_by(|a, b| b.score.total_cmp(&a.score));
            named
        };
        let mut rows: Vec<Vec<Prediction<'_>>> = answer.rows().map(row).collect();
        match rows.pop() {
            Some(only) if self.inputs.single => Ok(json_of(&only)),
            last => {
                rows.extend(last);
                Ok(json_of(&rows))
            }
        }
    }
}

/// A request to `/rerank`.
#[derive(Debug)]
pub struct Rerank {
    query: Bytes,
    texts: Vec<Bytes>,
    raw_scores: bool,
    return_text: bool,
    cut: Cut,
}

#[derive(Serialize)]
struct Rank<'a> {
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
}

impl Question for Rerank {
    const TASK: Task = Task::Rank;

    fn read(content: &[u8]) -> Result<Self> {
        let keys = ["query", "texts", "raw_scores", "return_text", "truncate", "truncation_direction"];
        let fields = Fields::read(content, "request to rerank", &keys)?;
        let (Text(query), Listed::<Text>(texts)) = (fields.need("query")?, fields.need("texts")?);
        Ok(Self {
            query,
            texts: texts.into_iter().map(|Text(text)| text).collect(),
            raw_scores: fields.get("raw_scores")?.unwrap_or(false),
            return_text: fields.get("return_text")?.unwrap_or(false),
            cut: Cut::read(&fields)?,
        })
    }

    fn request(&mut self, model: &Reader<'_>) -> Result<Request> {
        self.cut.known(model)?;
        may_be_raw(self.raw_scores, model)?;
        model.rank(&self.query, take_unless(self.return_text, &mut self.texts))
    }

    fn write(self, model: &Reader<'_>, response: &Response) -> Result<Vec<u8>> {
        let answer = model.answer(response)?;
        self.cut.held(model, &answer)?;
        let text = |index: usize| self.texts.get(index).map(|text| String::from_utf8_lossy(text));
        let ranks = ranked(model, &answer, self.raw_scores).into_iter();
        Ok(json_of(&ranks.map(|(index, score)| Rank { index, score, text: text(index) }).collect::<Vec<_>>()))
    }
}

/// Scores before they became probabilities are there only where the model gives them.
fn may_be_raw(raw: bool, model: &Reader<'_>) -> Result<()> {
    if !raw || model.output().kind == Kind::Score {
        return Ok(());
    }
    let name = &model.output().name;
    let why = format!("`{name}` is all that the model gives, and is not of kind `score`; leave it out");
    Err(wrong("raw_scores", why))
}

fn softmax(row: &[f32]) -> Vec<f32> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = row.iter().map(|score| (score - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

fn json_of(said: &impl Serialize) -> Vec<u8> {
    // Numbers and strings always have a form in JSON.
    serde_json::to_vec(said).unwrap_or_default()
}

/// What is classified: a text, or a list of one or two that belong together; or a list of such lists.
#[derive(Debug)]
struct Inputs {
    single: bool,
    rows: Vec<Vec<Bytes>>,
}

/// A text, or a list of them.
enum Part {
    One(Bytes),
    Row(Vec<Bytes>),
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or a list of one or two strings")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Part, E> {
                Ok(Part::One(Bytes::copy_from_slice(text.as_bytes())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Part, A::Error> {
                Ok(Part::Row(list(items)?.into_iter().map(|Text(text)| text).collect()))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Inputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a list of one or two strings, or a list of such lists")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Inputs, E> {
                Ok(Inputs { single: true, rows: vec![vec![Bytes::copy_from_slice(text.as_bytes())]] })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Inputs, A::Error> {
                let (mut ones, mut rows) = (Vec::new(), Vec::new());
                for part in list::<A, Part>(items)? {
                    match part {
                        Part::One(text) => ones.push(text),
                        Part::Row(row) => rows.push(row),
                    }
                }
                match (ones.len(), rows.is_empty()) {
                    (0, _) => Ok(Inputs { single: false, rows }),
                    (1 | 2, true) => Ok(Inputs { single: true, rows: vec![ones] }),
                    (several, true) => Err(A::Error::custom(format!(
                        "a list of {several} strings is neither one text nor a pair; several texts are a list of lists"
                    ))),
                    (_, false) => Err(A::Error::custom("strings and lists are mixed; several texts are a list of lists")),
                }
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

#[cfg(test)]
mod tests;
