//! Cohere's and Jina's ranking: a query and documents in, the documents' places with their scores out, the best first.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Value, json};
use sluicegate_codec::elements::Name;
use sluicegate_core::signature::Kind;
use sluicegate_core::{Request, Response, Result};

use crate::text::{Answer, Fields, Listed, Question, Reader, Task, Text, wrong};

/// The keys of a request, in the first and the second version of Cohere's and in Jina's.
const KEYS: [&str; 9] = [
    "model",
    "query",
    "documents",
    "top_n",
    "return_documents",
    "rank_fields",
    "max_chunks_per_doc",
    "max_tokens_per_doc",
    "truncation",
];

/// A request.
#[derive(Debug)]
pub struct Asked {
    model: Option<String>,
    query: Bytes,
    documents: Vec<Bytes>,
    top_n: Option<usize>,
    return_documents: bool,
}

#[derive(Serialize)]
struct Said<'a> {
    id: Option<&'a str>,
    model: &'a str,
    results: Vec<Ranked>,
    /// As Jina has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
    /// As Cohere has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Value>,
}

#[derive(Serialize)]
struct Ranked {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Value>,
}

impl Question for Asked {
    const TASK: Task = Task::Rank;

    fn read(content: &[u8]) -> Result<Self> {
        let fields = Fields::read(content, "rerank request", &KEYS)?;
        for key in ["max_chunks_per_doc", "max_tokens_per_doc"] {
            if fields.get::<Value>(key)?.is_some() {
                return Err(wrong(key, "documents are read as far as the model reads a text; leave it out"));
            }
        }
        if fields.get::<bool>("truncation")? == Some(false) {
            return Err(wrong("truncation", "what is too long for the model is cut; leave it out"));
        }
        if fields.get::<Vec<String>>("rank_fields")?.is_some_and(|fields| fields != ["text"]) {
            return Err(wrong("rank_fields", "documents are ranked by their `text` alone; leave it out"));
        }
        let top_n = fields.get("top_n")?;
        if top_n == Some(0) {
            return Err(wrong("top_n", "expected 1 or more, got 0"));
        }
        let (Text(query), Listed::<Document>(documents)) = (fields.need("query")?, fields.need("documents")?);
        Ok(Self {
            model: fields.get("model")?,
            query,
            documents: documents.into_iter().map(|Document(text)| text).collect(),
            top_n,
            return_documents: fields.get("return_documents")?.unwrap_or(false),
        })
    }

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn request(&mut self, model: &Reader<'_>) -> Result<Request> {
        model.rank(&self.query, take_unless(self.return_documents, &mut self.documents))
    }

    fn write(self, model: &Reader<'_>, response: &Response) -> Result<Vec<u8>> {
        let answer = model.answer(response)?;
        let text = |index: usize| self.documents.get(index).map(|text| json!({ "text": String::from_utf8_lossy(text) }));
        let result = |(index, relevance_score)| Ranked { index, relevance_score, document: text(index) };
        let best = ranked(model, &answer, false).into_iter().take(self.top_n.unwrap_or(usize::MAX));
        let tokens = answer.tokens().map(|_| answer.all_tokens());
        let said = Said {
            id: response.id.as_deref(),
            model: response.model.as_str(),
            results: best.map(result).collect(),
            usage: tokens.map(|tokens| json!({ "prompt_tokens": tokens, "total_tokens": tokens })),
            meta: tokens.map(|tokens| json!({ "tokens": { "input_tokens": tokens } })),
        };
        // Numbers and strings always have a form in JSON.
        Ok(serde_json::to_vec(&said).unwrap_or_default())
    }
}

/// Texts that are asked about; they stay where the answer is to have them.
pub(crate) fn take_unless(keep: bool, texts: &mut Vec<Bytes>) -> Vec<Bytes> {
    if keep { texts.clone() } else { std::mem::take(texts) }
}

/// Places and scores, the best first; those that are no numbers last. Scores of no fixed scale become what lies between 0 and 1,
/// unless they are wanted raw.
pub(crate) fn ranked(model: &Reader<'_>, answer: &Answer<'_>, raw: bool) -> Vec<(usize, f32)> {
    let squash = model.output().kind == Kind::Score && !raw;
    let score = |row: &[f32]| row.first().map_or(f32::NAN, |&score| if squash { 1.0 / (1.0 + (-score).exp()) } else { score });
    let mut ranked: Vec<(usize, f32)> = answer.rows().map(score).enumerate().collect();
    let order = |score: f32| if score.is_nan() { f32::NEG_INFINITY } else { score };
    ranked.sort_by(|(_, a), (_, b)| order(*b).total_cmp(&order(*a)));
    ranked
}

/// A document: a text, or an object with one.
struct Document(Bytes);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object with `text`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Document, E> {
                Ok(Document(Bytes::copy_from_slice(text.as_bytes())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut found = None;
                while let Some(Name(key)) = map.next_key()? {
                    if key != "text" {
                        return Err(A::Error::custom(format!("`{key}` is not known in a document: it has `text` alone")));
                    }
                    let Text(text) = map.next_value()?;
                    found = Some(text);
                }
                found.map(Document).ok_or_else(|| A::Error::custom("a document has no `text`"))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_core::Code;

    use super::*;
    use crate::text::tests::{failed, ranker, run, strings};

    fn asked(body: &Value) -> Result<Asked> {
        Asked::read(body.to_string().as_bytes())
    }

    #[test]
    fn documents_are_answered_by_their_places_the_best_first() {
        let body = json!({ "model": "m", "query": "q", "documents": ["a", { "text": "b" }, "c", "d"], "top_n": 3 });
        let said = run::<Asked>(&ranker(Kind::Value), &body, &[0.25, f32::NAN, 0.5, 0.25], &[4, 4, 5, 4]);
        let result = |index, score| json!({ "index": index, "relevance_score": score });
        assert_eq!(said["results"], json!([result(2, 0.5), result(0, 0.25), result(3, 0.25)]));
        assert_eq!((&said["model"], &said["id"]), (&json!("m"), &json!("7")));
        assert_eq!(said["usage"], json!({ "prompt_tokens": 17, "total_tokens": 17 }));
        assert_eq!(said["meta"]["tokens"]["input_tokens"], 17);
        let body = json!({ "query": "q", "documents": [{ "text": "b" }], "top_n": 9, "return_documents": true });
        let said = run::<Asked>(&ranker(Kind::Value), &body, &[0.25], &[]);
        assert_eq!(said["results"], json!([{ "index": 0, "relevance_score": 0.25, "document": { "text": "b" } }]));
        assert_eq!(said["usage"], Value::Null, "the model counts no tokens");
    }

    #[test]
    fn each_text_goes_with_the_query_which_is_its_own_input() {
        let mut question = asked(&json!({ "query": "q", "documents": ["a", "b"] })).expect("a good request");
        let ranker = ranker(Kind::Value);
        let request = question.request(&Task::Rank.of(&ranker).expect("it ranks")).expect("it fits");
        let inputs: Vec<(&str, Vec<String>)> =
            request.inputs.iter().map(|(name, tensor)| (&**name, strings(tensor.strings().expect("text")))).collect();
        let owned = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        assert_eq!(inputs, [("query", owned(["q", "q"])), ("text", owned(["a", "b"]))]);
        assert!(question.documents.is_empty(), "what is not answered is not kept");

        let long = json!({ "query": "q".repeat(1 << 20), "documents": vec!["a"; 65] });
        let error = asked(&long).expect("read").request(&Task::Rank.of(&ranker).expect("it ranks")).expect_err("too much");
        assert!(failed(&error).1 == "query" && error.message().contains("several requests"), "{error}");
    }

    #[test]
    fn scores_of_no_fixed_scale_become_ones_between_0_and_1() {
        let body = json!({ "query": "q", "documents": ["a", "b"] });
        let said = run::<Asked>(&ranker(Kind::Score), &body, &[0.0, 100.0], &[1, 1]);
        assert_eq!(said["results"][1], json!({ "index": 0, "relevance_score": 0.5 }));
        assert_eq!(said["results"][0]["relevance_score"], 1.0);
    }

    #[test]
    fn what_would_change_the_answer_and_cannot_is_refused_with_its_key() {
        let with = |key: &str, value: Value| {
            let mut body = json!({ "query": "q", "documents": ["a"] });
            body[key] = value;
            body
        };
        for (body, key, why) in [
            (with("query", Value::Null), "query", "missing"),
            (with("query", json!(["q"])), "query", "expected a string"),
            (with("documents", json!([])), "documents", "empty"),
            (with("documents", json!("a")), "documents", "expected a list"),
            (with("documents", json!(["a", { "title": "t" }])), "documents", "item 1: `title`"),
            (with("documents", json!([{}])), "documents", "no `text`"),
            (with("top_n", json!(0)), "top_n", "1 or more"),
            (with("top_n", json!(-1)), "top_n", "-1"),
            (with("rank_fields", json!(["title"])), "rank_fields", "`text` alone"),
            (with("max_tokens_per_doc", json!(100)), "max_tokens_per_doc", "leave it out"),
            (with("max_chunks_per_doc", json!(1)), "max_chunks_per_doc", "leave it out"),
            (with("truncation", json!(false)), "truncation", "leave it out"),
        ] {
            let error = asked(&body).expect_err(key);
            assert_eq!(failed(&error), (Code::InvalidFields, key), "{error}");
            assert!(error.message().contains(why), "{error}");
        }
        let nothing =
            json!({ "query": "q", "documents": ["a"], "rank_fields": ["text"], "max_tokens_per_doc": null, "truncation": true });
        assert!(asked(&nothing).is_ok());
    }
}
