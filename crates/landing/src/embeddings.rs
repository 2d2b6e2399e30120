//! OpenAI's embeddings: a text or a list of them in, a vector of each out, as numbers or as base64 of little-endian FP32.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;
use sluicegate_core::{Request, Response, Result};

use crate::text::{Fields, Question, Reader, Task, Texts, wrong};

/// The keys of a request. `user` is for those who count, and changes nothing.
const KEYS: [&str; 5] = ["model", "input", "encoding_format", "dimensions", "user"];

/// A request.
#[derive(Debug)]
pub struct Asked {
    model: Option<String>,
    texts: Vec<Bytes>,
    base64: bool,
    dimensions: Option<usize>,
}

impl Question for Asked {
    const TASK: Task = Task::Embed;

    fn read(content: &[u8]) -> Result<Self> {
        let fields = Fields::read(content, "embeddings request", &KEYS)?;
        let base64 = match fields.get::<String>("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                return Err(wrong("encoding_format", format!("expected `float` or `base64`, got `{other}`")));
            }
        };
        fields.get::<String>("user")?;
        let Texts(texts) = fields.need("input")?;
        Ok(Self { model: fields.get("model")?, texts, base64, dimensions: fields.get("dimensions")? })
    }

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn request(&mut self, model: &Reader<'_>) -> Result<Request> {
        if let Some(width) = model.width() {
            has_size(self.dimensions, width)?;
        }
        model.request(vec![std::mem::take(&mut self.texts)])
    }

    fn write(self, model: &Reader<'_>, response: &Response) -> Result<Vec<u8>> {
        let answer = model.answer(response)?;
        has_size(self.dimensions, answer.width())?;
        let mut out = Vec::with_capacity(128 + 4 * response.payload());
        out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
        for (index, row) in answer.rows().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            // Writing to memory does not fail.
            let _ = write!(out, "{{\"object\":\"embedding\",\"index\":{index},\"embedding\":");
            if self.base64 {
                let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
                let _ = write!(out, "\"{}\"", STANDARD.encode(bytes));
            } else {
                let _ = serde_json::to_writer(&mut out, row);
            }
            out.push(b'}');
        }
        let tokens = answer.all_tokens();
        let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
        let _ = write!(out, "],\"model\":\"{}\",\"usage\":{usage}}}", response.model);
        Ok(out)
    }
}

/// Vectors are not cut: a model that was not trained for it would give worse ones.
pub(crate) fn has_size(asked: Option<usize>, size: usize) -> Result<()> {
    match asked {
        Some(asked) if asked != size => {
            let why = format!("the model's vectors have {size} numbers and are not cut, got {asked}; leave it out");
            Err(wrong("dimensions", why))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_core::Code;

    use super::*;
    use crate::text::tests::{embedder, failed, run, strings};

    fn asked(body: &serde_json::Value) -> Result<Asked> {
        Asked::read(body.to_string().as_bytes())
    }

    #[test]
    fn a_text_or_a_list_of_them_is_answered_with_a_vector_each_and_all_tokens() {
        for (input, texts) in [(json!("a"), 1), (json!(["a"]), 1), (json!(["a", "ü"]), 2)] {
            let mut question = asked(&json!({ "model": "m@2", "input": input, "user": "someone" })).expect("a good request");
            assert_eq!(question.model(), Some("m@2"));
            let model = embedder();
            let model = Task::Embed.of(&model).expect("it embeds");
            let request = question.request(&model).expect("it fits");
            assert_eq!(request.inputs[0].1.shape().sizes(), [texts]);
            assert_eq!(request.outputs, ["embedding", "tokens"]);
        }
        let said = run::<Asked>(&embedder(), &json!({ "input": ["a", "b"] }), &[1.0, 0.0, 0.5, f32::NAN], &[3, 4]);
        let vector = |index, numbers| json!({ "object": "embedding", "index": index, "embedding": numbers });
        let data = [vector(0, json!([1.0, 0.0])), vector(1, json!([0.5, null]))];
        let usage = json!({ "prompt_tokens": 7, "total_tokens": 7 });
        assert_eq!(said, json!({ "object": "list", "data": data, "model": "m", "usage": usage }));
    }

    #[test]
    fn base64_is_of_the_bytes_of_the_same_numbers() {
        let body = json!({ "input": "a", "encoding_format": "base64", "dimensions": 2 });
        let said = run::<Asked>(&embedder(), &body, &[1.0, -2.0], &[3]);
        assert_eq!(said["data"][0]["embedding"], "AACAPwAAAMA=");
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_key() {
        let many = vec!["a"; crate::text::MAX_TEXTS + 1];
        for (body, key, why) in [
            (json!({ "model": "m" }), "input", "missing"),
            (json!({ "input": [] }), "input", "empty"),
            (json!({ "input": [1, 2] }), "input", "item 0: invalid type: integer `1`, expected a string (ids of tokens"),
            (json!({ "input": [[1, 2]] }), "input", "ids of tokens are not taken"),
            (json!({ "input": 5 }), "input", "expected a string or a list of strings"),
            (json!({ "input": many }), "input", "more than 2048"),
            (json!({ "input": "a", "encoding_format": "int8" }), "encoding_format", "got `int8`"),
            (json!({ "input": "a", "dimensions": 0.5 }), "dimensions", "0.5"),
            (json!({ "input": "a", "model": 1 }), "model", "expected a string"),
            (json!({ "input": "a", "user": 1 }), "user", "expected a string"),
        ] {
            let error = asked(&body).expect_err(key);
            assert_eq!(failed(&error), (Code::InvalidFields, key), "{error}");
            assert!(error.message().contains(why), "{error}");
        }
        for (body, why) in
            [("{", "EOF"), ("[]", "an object"), (r#"{"input":"a","input":"b"}"#, "twice"), (r#"{"task":1}"#, "`task`")]
        {
            let error = Asked::read(body.as_bytes()).expect_err(body);
            assert!(error.code() == Code::Malformed && error.message().contains(why), "{error}");
        }
        assert_eq!(Asked::read(b"{\"input\":\"\xff\"}").expect_err("no UTF-8").code(), Code::Malformed);

        let mut question = asked(&json!({ "input": "a", "dimensions": 3 })).expect("read");
        let embedder = embedder();
        let error = question.request(&Task::Embed.of(&embedder).expect("it embeds")).expect_err("another size");
        assert_eq!(failed(&error), (Code::InvalidFields, "dimensions"), "{error}");
        assert!(error.message().contains("have 2 numbers") && error.message().contains("got 3"), "{error}");
    }

    #[test]
    fn nulls_are_as_if_left_out_and_texts_may_be_empty() {
        let body = json!({ "input": "", "encoding_format": null, "dimensions": null, "model": null, "user": null });
        let question = asked(&body).expect("a good request");
        assert_eq!((question.model(), strings(&question.texts)), (None, vec![String::new()]));
    }
}
