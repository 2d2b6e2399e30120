//! A model's configuration, as protobuf text and as JSON: what is read and written as JSON is read again the same.

use sluicegate_proto::config::{from_json, from_text, to_json};
use sluicegate_proto::inference::ModelConfig;

use super::accepted;
use crate::Memory;

pub(super) const WORDS: &[&str] = &[
    "name: ",
    "backend: ",
    "platform: ",
    "max_batch_size: ",
    "input ",
    "output ",
    "data_type: ",
    "TYPE_FP32",
    "TYPE_STRING",
    "dims: ",
    "reshape ",
    "shape: ",
    "dynamic_batching ",
    "preferred_batch_size: ",
    "max_queue_delay_microseconds: ",
    "instance_group ",
    "count: ",
    "kind: ",
    "KIND_CPU",
    "version_policy ",
    "specific ",
    "versions: ",
    "parameters ",
    "key: ",
    "value ",
    "string_value: ",
    "ensemble_scheduling ",
    "step ",
    "model_name: ",
    "input_map ",
    "optimization ",
    "graph ",
    "[inference.ModelConfig] ",
    "[a/inference.ModelConfig] { ",
    "[a/google.protobuf.Any] { ",
    "{",
    "}",
    "[",
    "]",
    "<",
    ">",
    ":",
    ",",
    ";",
    "\"",
    "'",
    "\\x00",
    "\\777",
    "\\ud800",
    "\\",
    "#",
    "\n",
    "inf",
    "-nan",
    "1e400",
    "0x7f",
    "017",
    "- 1",
    "1f",
    "\u{feff}",
    "\u{1f427}",
    "null",
    "true",
];

pub(super) fn check(input: &[u8], memory: &mut Memory) -> Result<String, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok("no text".into()) };
    // The descriptors are made once.
    from_text("")?;
    match memory.of(|| from_text(text)) {
        Ok(config) => again(&config).map(|()| accepted("as text")),
        Err(as_text) => match memory.of(|| from_json(text)) {
            Ok(config) => again(&config).map(|()| accepted("as JSON")),
            Err(as_json) => {
                let longest = as_text.len().max(as_json.len());
                if longest > 8 * input.len() + 1024 {
                    return Err(format!("a message of {longest} bytes for {} bytes", input.len()));
                }
                Ok(format!("{as_text}; {as_json}"))
            }
        },
    }
}

fn again(config: &ModelConfig) -> Result<(), String> {
    let json = to_json(config).map_err(|error| format!("cannot be written: {error}"))?;
    let second = from_json(&json.to_string()).map_err(|error| format!("{error} in what was written: {json}"))?;
    // NaN is no number that equals itself.
    let third = to_json(&second).map_err(|error| format!("cannot be written again: {error}"))?;
    if *config == second || json == third {
        Ok(())
    } else {
        Err(format!("{config:?} is written as {json} and read as {second:?}"))
    }
}
