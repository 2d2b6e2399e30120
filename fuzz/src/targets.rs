//! What is looked at. A new target is a file in `targets/`, a row here, and inputs in `fuzz/corpus/<name>/`.

mod binary;
mod json;
mod pbtxt;
mod protobuf;
mod record;
mod safetensors;

use sluicegate_core::{DType, Error, Fault, ModelName, Request, Response};

use crate::Target;
use crate::drive::ACCEPTED;

/// All of them. What memory each may ask for: a parser's tree takes some dozen bytes for a byte of JSON, a string that grows
/// is asked for twice, an error quotes what it is about, and so many
/// inputs of a protobuf message may be empty as fields of it are read.
pub const TARGETS: &[Target] = &[
    Target { name: "json", check: json::check, words: &[json::WORDS, JSON], memory: (64, 8 << 10) },
    Target { name: "binary", check: binary::check, words: &[json::WORDS, JSON], memory: (64, 8 << 10) },
    Target { name: "protobuf", check: protobuf::check, words: &[protobuf::WORDS], memory: (128, 3 << 20) },
    Target { name: "record", check: record::check, words: &[record::WORDS, JSON], memory: (512, 64 << 10) },
    Target { name: "safetensors", check: safetensors::check, words: &[safetensors::WORDS, JSON], memory: (1024, 16 << 20) },
    Target { name: "pbtxt", check: pbtxt::check, words: &[pbtxt::WORDS], memory: (512, 64 << 10) },
];

/// The words of JSON itself.
const JSON: &[&str] =
    &["true", "false", "null", "[", "]", "{", "}", ":", ",", "\\u0000", "\\ud800", "\\\"", "\u{feff}", "\u{1f427}"];

/// The outcome of an input that was taken.
fn accepted(how: impl std::fmt::Display) -> String {
    format!("{ACCEPTED}: {how}")
}

/// The outcome of a refusal: it is the caller's fault, it has places inside of the body, and its text is bounded.
fn refused(input: &[u8], error: &Error) -> Result<String, String> {
    if error.fault() != Fault::Caller {
        return Err(format!("an input is no fault of {:?}: {error}", error.fault()));
    }
    if error.message().is_empty() || error.message().len() > 8 * input.len() + 1024 {
        return Err(format!("a message of {} bytes for {} bytes", error.message().len(), input.len()));
    }
    for problem in error.problems() {
        if problem.loc.first() != Some(&"body".into()) {
            return Err(format!("a problem outside of the body: {problem:?}"));
        }
        serde_json::to_string(problem).map_err(|error| format!("a problem that cannot be told: {error}"))?;
    }
    Ok(format!("{}: {error}", error.code().name()))
}

/// An answer that has a request's tensors, in the place of a model that gives back what it gets.
fn echo(request: &Request) -> Response {
    let output = |(place, (name, tensor)): (usize, &(std::sync::Arc<str>, _))| sluicegate_core::response::Output {
        name: name.clone(),
        place,
        tensor: sluicegate_core::Tensor::clone(tensor),
    };
    Response {
        model: "m".parse::<ModelName>().expect("a name"),
        version: 1,
        digest: sluicegate_core::Digest::sha256(&[0; 32]),
        id: None,
        cached: None,
        outputs: request.inputs.iter().enumerate().map(output).collect(),
    }
}

/// Types and ranks of a request: the way that it went.
fn kinds(request: &Request) -> String {
    let kind = |(_, tensor): &(_, sluicegate_core::Tensor)| {
        let letter = if tensor.dtype() == DType::Bytes { "text".into() } else { tensor.dtype().name().to_lowercase() };
        format!("{letter} of rank {}", ["none", "one", "two", "three"].get(tensor.shape().sizes().len()).unwrap_or(&"many"))
    };
    let mut kinds: Vec<String> = request.inputs.iter().take(2).map(kind).collect();
    kinds.push(if request.outputs.is_empty() { "all".into() } else { "some".into() });
    kinds.join(", ")
}
