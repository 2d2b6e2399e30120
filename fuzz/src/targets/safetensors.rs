//! A version in safetensors of which one file is mutated: it is served or it has a reason, and takes no memory that it has no use for.
//!
//! The first line of an input says which file of which version: `bert tokenizer.json`, `net model.safetensors`; versions other than
//! these two are those of `tests/goldens/hub`. Where weights begin with `*`, the length of their head is its true one.

use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use sluicegate_core::{Code, Dim, Error, Shape, Tensor};
use sluicegate_engine::{Engines, ModelFile, Opened, Options};
use sluicegate_testkit::process::repository;
use sluicegate_testkit::{encoder, safetensors};

use super::accepted;
use crate::Memory;

/// Versions of `tests/goldens/hub`, of which each does something that the others do not.
const HUB: [&str; 8] = ["mpnet", "modernbert", "modernbert-classifier", "bert-tags", "vit", "resnet", "convnext", "convnextv2"];

/// Most numbers of a picture that is computed.
const PICTURE: usize = 3 * 64 * 64;

pub(super) const WORDS: &[&str] = &[
    "bert ",
    "net ",
    "mpnet ",
    "modernbert ",
    "modernbert-classifier ",
    "bert-tags ",
    "vit ",
    "resnet ",
    "convnext ",
    "convnextv2 ",
    DENSE,
    DENSE_WEIGHTS,
    PREPROCESSOR,
    "linear.weight",
    "linear.bias",
    "in_features",
    "out_features",
    "use_residual",
    "pooling_mode",
    "weightedmean",
    "layer_types",
    "sliding_attention",
    "local_attention",
    "rope_parameters",
    "rope_theta",
    "problem_type",
    "multi_label_classification",
    "regression",
    "image_size",
    "patch_size",
    "num_channels",
    "hidden_sizes",
    "depths",
    "layer_type",
    "bottleneck",
    "shortest_edge",
    "crop_size",
    "relative_attention_num_buckets",
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
const DENSE: &str = "2_Dense/config.json";
const DENSE_WEIGHTS: &str = "2_Dense/model.safetensors";
const PREPROCESSOR: &str = "preprocessor_config.json";

/// Longest reason.
const REASON: usize = 2048;

pub(super) fn check(input: &[u8], memory: &mut Memory) -> Result<String, String> {
    let at = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let content = input.get(at + 1..).unwrap_or_default();
    let line = std::str::from_utf8(&input[..at]).unwrap_or_default();
    let Some((version, name)) = line.split_once(' ') else { return Ok("no version".into()) };
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    match (version, name) {
        ("bert", CONFIG | TOKENIZER | WEIGHTS | INDEX | MODULES | POOLING | SENTENCES) => bert(folder.path()),
        ("net", CONFIG | WEIGHTS | INDEX) => net(folder.path()),
        ("mpnet", DENSE | DENSE_WEIGHTS | POOLING) => of_the_hub(version, folder.path())?,
        ("vit" | "resnet" | "convnext" | "convnextv2", PREPROCESSOR) => of_the_hub(version, folder.path())?,
        (_, CONFIG | WEIGHTS) if HUB.contains(&version) => of_the_hub(version, folder.path())?,
        _ => return Ok("no file of a version".into()),
    }
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).map_err(|error| error.to_string());
    if name == INDEX {
        let whole = folder.path().join(WEIGHTS);
        std::fs::rename(whole, folder.path().join("one.safetensors")).map_err(|error| error.to_string())?;
    }
    match content {
        [b'*', rest @ ..] if name == WEIGHTS || name == DENSE_WEIGHTS => {
            write(name, &[&head_length(rest).to_le_bytes()[..], rest].concat())?;
        }
        _ => write(name, content)?,
    }
    let path = folder.path().join(CONFIG);
    let config = std::fs::read(&path).map_err(|error| error.to_string())?;
    let opened = memory.of(|| Engines::tract_only().open(&ModelFile { path: &path, bytes: &config }, &Options::default()));
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(error) => return refused(&error, Code::LoadFailed),
    };
    let Some(rows) = rows(&opened) else { return Ok(accepted("it is loaded")) };
    match memory.of(|| opened.instances[0].run(&rows, &[0])) {
        Ok(outputs) if outputs[0].shape().rows() == rows[0].shape().rows() => Ok(accepted("it answers")),
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

/// What it is asked, where it is asked something.
fn rows(opened: &Opened) -> Option<Vec<Tensor>> {
    let texts = |texts: [&'static str; 3]| {
        Tensor::text(Shape::new(&[3]), texts.map(|text| Bytes::from_static(text.as_bytes())).to_vec())
            .expect("three texts fill the shape")
    };
    let all = [texts(["", "the gates", "\u{1f427} aaaaaaaaaaaaaaaaaaaaaaaaaaaa!"]), texts(["water", "lock", ""])];
    if opened.text && opened.inputs.len() <= all.len() {
        return Some(all[..opened.inputs.len()].to_vec());
    }
    let [picture] = &opened.inputs[..] else { return None };
    let sizes = picture.dims.iter().skip(1).map(Dim::fixed).collect::<Option<Vec<_>>>()?;
    let count = sizes.iter().product::<usize>();
    let shape = [vec![1], sizes].concat();
    (shape.len() == 4 && count <= PICTURE)
        .then(|| vec![Tensor::from_vec(Shape::new(&shape), vec![0.5_f32; count]).expect("as many numbers as the shape has")])
}

/// A copy of a version that is kept.
fn of_the_hub(version: &str, folder: &Path) -> Result<(), String> {
    let from = repository().join("tests/goldens/hub").join(version).join("1");
    let copied = [CONFIG, TOKENIZER, WEIGHTS, MODULES, POOLING, SENTENCES, DENSE, DENSE_WEIGHTS, PREPROCESSOR];
    for name in copied.into_iter().filter(|name| from.join(name).is_file()) {
        let to = folder.join(name);
        std::fs::create_dir_all(to.parent().unwrap_or(folder)).map_err(|error| error.to_string())?;
        std::fs::copy(from.join(name), to).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A small BERT, with all the files that there may be.
fn bert(folder: &Path) {
    encoder::write(folder, &encoder::config("BertModel"), &encoder::weights(""));
    let module = |kind: &str, path: &str| json!({ "path": path, "type": format!("sentence_transformers.models.{kind}") });
    let put = |name: &str, value: Value| {
        std::fs::create_dir_all(folder.join(name).parent().unwrap_or(folder)).expect("a directory can be made");
        std::fs::write(folder.join(name), value.to_string()).expect("a file can be written");
    };
    put(MODULES, json!([module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")]));
    put(POOLING, json!({ "word_embedding_dimension": encoder::SIZE, "pooling_mode_mean_tokens": true }));
    put(SENTENCES, json!({ "max_seq_length": 8 }));
}

/// A net of one layer.
fn net(folder: &Path) {
    let config =
        json!({ "model_type": "feed_forward", "input": { "shape": [2] }, "layers": [{ "type": "linear", "name": "a" }] });
    safetensors::version(folder, &config, &[("a.weight", &[1, 2], vec![1.0, 2.0]), ("a.bias", &[1], vec![3.0])]);
}
