//! A small BERT with made-up weights and a smaller graph over the same words, for those that read text.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sluicegate_core::{DType, Dim};

use crate::onnx::{Attr, Model, rows};
use crate::safetensors;

/// The words that it knows, by their ids.
pub const WORDS: [&str; 12] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "water", "gate", "##s", "opens", "the", "lock", "fills", "slowly"];
/// Columns of a state.
pub const SIZE: usize = 8;
/// Heads of attention.
pub const HEADS: usize = 2;
/// Layers.
pub const LAYERS: usize = 2;
/// Columns between a layer's two dense steps.
pub const WIDE: usize = 16;
/// Most tokens of a text.
pub const POSITIONS: usize = 12;
/// What a norm adds to a variance.
pub const EPS: f64 = 1e-12;

/// Weights by name: their sizes and elements.
pub type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The weights of a small BERT, all of them different.
pub fn weights(prefix: &str) -> Weights {
    let mut all = Weights::new();
    let mut state = 7_u64;
    let mut add = |name: String, shape: &[usize]| {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let values = (0..shape.iter().product()).map(|_| next()).collect();
        all.insert(name, (shape.to_vec(), values));
    };
    add(format!("{prefix}embeddings.word_embeddings.weight"), &[WORDS.len(), SIZE]);
    add(format!("{prefix}embeddings.position_embeddings.weight"), &[POSITIONS, SIZE]);
    add(format!("{prefix}embeddings.token_type_embeddings.weight"), &[2, SIZE]);
    let mut norms = vec![format!("{prefix}embeddings.LayerNorm")];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("{prefix}encoder.layer.{layer}.{part}");
        for (part, to, from) in [
            ("attention.self.query", SIZE, SIZE),
            ("attention.self.key", SIZE, SIZE),
            ("attention.self.value", SIZE, SIZE),
            ("attention.output.dense", SIZE, SIZE),
            ("intermediate.dense", WIDE, SIZE),
            ("output.dense", SIZE, WIDE),
        ] {
            add(name(&format!("{part}.weight")), &[to, from]);
            add(name(&format!("{part}.bias")), &[to]);
        }
        norms.extend([name("attention.output.LayerNorm"), name("output.LayerNorm")]);
    }
    for norm in norms {
        add(format!("{norm}.weight"), &[SIZE]);
        add(format!("{norm}.bias"), &[SIZE]);
    }
    add(format!("{prefix}pooler.dense.weight"), &[SIZE, SIZE]);
    add(format!("{prefix}pooler.dense.bias"), &[SIZE]);
    all
}

/// The same with a last layer for so many labels.
pub fn with_classifier(mut weights: Weights, labels: usize) -> Weights {
    let values = |count: usize| (0..count).map(|place| (place as f32 * 0.7).sin()).collect();
    weights.insert("classifier.weight".into(), (vec![labels, SIZE], values(labels * SIZE)));
    weights.insert("classifier.bias".into(), (vec![labels], values(labels)));
    weights
}

/// Its `config.json`.
pub fn config(architecture: &str) -> Value {
    json!({
        "model_type": "bert", "architectures": [architecture], "vocab_size": WORDS.len(), "hidden_size": SIZE,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": WIDE, "hidden_act": "gelu",
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": EPS, "pad_token_id": 0,
    })
}

/// Its `tokenizer.json`; the padding that it asks for is not wanted.
pub fn tokenizer() -> Value {
    let vocabulary: serde_json::Map<_, _> = WORDS.iter().zip(0..).map(|(word, id)| ((*word).to_owned(), json!(id))).collect();
    let special = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let text = |name: &str, which: u32| json!({ "Sequence": { "id": name, "type_id": which } });
    let end = json!({ "SpecialToken": { "id": "[SEP]", "type_id": 1 } });
    json!({
        "version": "1.0", "truncation": null, "padding": { "strategy": { "Fixed": 12 }, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]" },
        "added_tokens": [],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]"), text("A", 0), special("[SEP]")],
            "pair": [special("[CLS]"), text("A", 0), special("[SEP]"), text("B", 1), end],
            "special_tokens": {
                "[CLS]": { "id": "[CLS]", "ids": [2], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [3], "tokens": ["[SEP]"] },
            },
        },
        "decoder": null,
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary },
    })
}

/// What a graph of tokens gives.
#[derive(Clone, Copy, Debug)]
pub enum Given {
    /// `last_hidden_state`: a vector a token.
    States,
    /// `sentence_embedding`: a vector a text.
    Vectors,
    /// `logits`: so many numbers a text.
    Logits(usize),
    /// `logits`: the vector a token, under that name.
    Tags,
}

/// A number of the graph: a column of a word's row, of a kind's behind the words, or of a label's.
pub fn weight(row: usize, column: usize) -> f32 {
    ((row * SIZE + column) as f32 * 0.7).sin()
}

/// A graph in ONNX over the same words, of texts of any length or of this one. A text's vector is the sum of its words' rows and of
/// those of their kinds, a token's state is its own row and that sum; a logit is the sum's product with the label's row.
pub fn graph(given: Given, length: Option<usize>) -> Vec<u8> {
    let table = |count: usize, from: usize| -> Vec<u8> {
        let numbers = (from..from + count).flat_map(|row| (0..SIZE).map(move |column| weight(row, column)));
        numbers.flat_map(f32::to_le_bytes).collect()
    };
    let size = length.map_or(Dim::Free(Some("T".into())), Dim::Fixed);
    let tokens = [rows(), size.clone()];
    let (name, dims) = match given {
        Given::States => ("last_hidden_state", vec![rows(), size, Dim::Fixed(SIZE)]),
        Given::Vectors => ("sentence_embedding", vec![rows(), Dim::Fixed(SIZE)]),
        Given::Logits(count) => ("logits", vec![rows(), Dim::Fixed(count)]),
        Given::Tags => ("logits", vec![rows(), size, Dim::Fixed(SIZE)]),
    };
    let model = Model::new(17)
        .input("input_ids", DType::Int64, &tokens)
        .input("token_type_ids", DType::Int64, &tokens)
        .input("attention_mask", DType::Int64, &tokens)
        .output(name, DType::Fp32, &dims)
        .constant("words", DType::Fp32, &[WORDS.len(), SIZE], &table(WORDS.len(), 0))
        .constant("kinds", DType::Fp32, &[2, SIZE], &table(2, WORDS.len()))
        .constant("one", DType::Int64, &[1], &1_i64.to_le_bytes())
        .constant("two", DType::Int64, &[1], &2_i64.to_le_bytes())
        .node("Gather", &["words", "input_ids"], &["word"], &[])
        .node("Gather", &["kinds", "token_type_ids"], &["kind"], &[])
        .node("Add", &["word", "kind"], &["own"], &[])
        .node("Cast", &["attention_mask"], &["mask"], &[Attr::Int("to", 1)])
        .node("Unsqueeze", &["mask", "two"], &["there"], &[])
        .node("Mul", &["own", "there"], &["masked"], &[]);
    let sum = |keep: i64, name: &str, model: Model| {
        model.node("ReduceSum", &["masked", "one"], &[name], &[Attr::Int("keepdims", keep)])
    };
    match given {
        Given::States | Given::Tags => sum(1, "sum", model).node("Add", &["own", "sum"], &[name], &[]),
        Given::Vectors => sum(0, name, model),
        Given::Logits(count) => {
            let labels: Vec<u8> =
                (0..SIZE * count).flat_map(|place| weight(place % count, place / count).to_le_bytes()).collect();
            sum(0, "sum", model).constant("labels", DType::Fp32, &[SIZE, count], &labels).node(
                "MatMul",
                &["sum", "labels"],
                &[name],
                &[],
            )
        }
    }
    .build()
}

/// Writes a version with it.
///
/// # Panics
/// Where the directory cannot be written.
pub fn write(folder: &Path, config: &Value, weights: &Weights) {
    let tensors: Vec<safetensors::Named<'_>> =
        weights.iter().map(|(name, (shape, values))| (name.as_str(), shape.as_slice(), values.clone())).collect();
    safetensors::version(folder, config, &tensors);
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).expect("written");
}
