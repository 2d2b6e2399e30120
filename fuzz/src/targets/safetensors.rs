//! A version in safetensors of which one file is mutated: it is served or it has a reason, and takes no memory that it has no use for.
//!
//! The first line of an input says which file of which version: `bert tokenizer.json`, `net model.safetensors`. Where weights begin
//! with `*`, the length of their head is its true one.

use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use sluicegate_core::{Code, Error, Shape, Tensor};
use sluicegate_engine::{Engines, ModelFile, Options};
use sluicegate_testkit::{encoder, safetensors};

use super::accepted;
use crate::Memory;

pub(super) const WORDS: &[&str] = &[
    "bert ",
    "net ",
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    INDEX,
    "*",
    "dtype",
    "shape",
    "data_offsets",
    "__metadata__",
    "F32",
    "BF16",
    "F8_E4M3",
    "I64",
    "a.weight",
    "model_type",
    "feed_forward",
    "layers",
    "type",
    "linear",
    "conv2d",
    "batch_norm",
    "group_norm",
    "max_pool2d",
    "flatten",
    "softmax",
    "kernel",
    "groups",
    "padding",
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "max_position_embeddings",
    "vocab_size",
    "id2label",
    "architectures",
    "BertForSequenceClassification",
    "added_tokens",
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "Sequence",
    "Split",
    "Regex",
    "(a+)+$",
    "Precompiled",
    "BPE",
    "Unigram",
    "WordPiece",
    "WordLevel",
    "merges",
    "vocab",
    "truncation",
    "max_length",
    "stride",
    "max_seq_length",
    "pooling_mode_max_tokens",
    "weight_map",
    "../",
];

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const MODULES: &str = "modules.json";
const POOLING: &str = "1_Pooling/config.json";
const SENTENCES: &str = "sentence_bert_config.json";

/// Longest reason.
const REASON: usize = 2048;

pub(super) fn check(input: &[u8], memory: &mut Memory) -> Result<String, String> {
    let at = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let content = input.get(at + 1..).unwrap_or_default();
    let line = std::str::from_utf8(&input[..at]).unwrap_or_default();
    let Some((version, name)) = line.split_once(' ') else { return Ok("no version".into()) };
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let texts = match (version, name) {
        ("bert", CONFIG | TOKENIZER | WEIGHTS | INDEX | MODULES | POOLING | SENTENCES) => bert(folder.path()),
        ("net", CONFIG | WEIGHTS | INDEX) => net(folder.path()),
        _ => return Ok("no file of a version".into()),
    };
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).map_err(|error| error.to_string());
    if name == INDEX {
        let whole = folder.path().join(WEIGHTS);
        std::fs::rename(whole, folder.path().join("one.safetensors")).map_err(|error| error.to_string())?;
    }
    match content {
        [b'*', rest @ ..] if name == WEIGHTS => write(name, &[&head_length(rest).to_le_bytes()[..], rest].concat())?,
        _ => write(name, content)?,
    }
    let path = folder.path().join(CONFIG);
    let config = std::fs::read(&path).map_err(|error| error.to_string())?;
    let opened = memory.of(|| Engines::tract_only().open(&ModelFile { path: &path, bytes: &config }, &Options::default()));
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(error) => return refused(&error, Code::LoadFailed),
    };
    if !opened.text || opened.inputs.len() > texts.len() {
        return Ok(accepted("it is loaded"));
    }
    match memory.of(|| opened.instances[0].run(&texts[..opened.inputs.len()], &[0])) {
        Ok(outputs) if outputs[0].shape().rows() == texts[0].elements() => Ok(accepted("it answers")),
        Ok(outputs) => Err(format!("an answer of shape {}", outputs[0].shape())),
        // Its files fit together, and not its computation: a token of a template, say, that there is no word for.
        Err(error) => refused(&error, Code::RunFailed),
    }
}

/// What a reason has to be.
fn refused(error: &Error, code: Code) -> Result<String, String> {
    let said = error.message();
    if error.code() != code || said.is_empty() || said.len() > REASON || said.contains('\n') {
        return Err(format!("{} bytes of {:?}: {said}", said.len(), error.code()));
    }
    Ok(said.to_owned())
}

/// The length of the JSON that the head of a file is.
fn head_length(head: &[u8]) -> u64 {
    let mut values = serde_json::Deserializer::from_slice(head).into_iter::<serde::de::IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => values.byte_offset() as u64,
        _ => head.len() as u64,
    }
}

/// A small BERT, with all the files that there may be, and texts for it.
fn bert(folder: &Path) -> Vec<Tensor> {
    encoder::write(folder, &encoder::config("BertModel"), &encoder::weights(""));
    let module = |kind: &str, path: &str| json!({ "path": path, "type": format!("sentence_transformers.models.{kind}") });
    let put = |name: &str, value: Value| {
        std::fs::create_dir_all(folder.join(name).parent().unwrap_or(folder)).expect("a directory can be made");
        std::fs::write(folder.join(name), value.to_string()).expect("a file can be written");
    };
    put(MODULES, json!([module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")]));
    put(POOLING, json!({ "word_embedding_dimension": encoder::SIZE, "pooling_mode_mean_tokens": true }));
    put(SENTENCES, json!({ "max_seq_length": 8 }));
    let texts = |texts: [&'static str; 3]| {
        Tensor::text(Shape::new(&[3]), texts.map(|text| Bytes::from_static(text.as_bytes())).to_vec())
            .expect("three texts fill the shape")
    };
    vec![texts(["", "the gates", "\u{1f427} aaaaaaaaaaaaaaaaaaaaaaaaaaaa!"]), texts(["water", "lock", ""])]
}

/// A net of one layer.
fn net(folder: &Path) -> Vec<Tensor> {
    let config =
        json!({ "model_type": "feed_forward", "input": { "shape": [2] }, "layers": [{ "type": "linear", "name": "a" }] });
    safetensors::version(folder, &config, &[("a.weight", &[1, 2], vec![1.0, 2.0]), ("a.bias", &[1], vec![3.0])]);
    Vec::new()
}
