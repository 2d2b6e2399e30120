//! Encoders of text beside a plain computation of the same model, row by row in doubles.

#![cfg(feature = "candle")]

use std::num::NonZeroUsize;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use sluicegate_core::{Code, Shape, Tensor};
use sluicegate_engine::{Engines, ModelFile, Opened, Options, TextOptions, TokenCount};
use sluicegate_testkit::encoder::{EPS, HEADS, LAYERS, SIZE, Weights, config, weights, with_classifier, write};

fn open(folder: &Path) -> sluicegate_core::Result<Opened> {
    open_with(folder, TextOptions::default())
}

fn open_with(folder: &Path, text: TextOptions) -> sluicegate_core::Result<Opened> {
    let path = folder.join("config.json");
    let bytes = std::fs::read(&path).expect("a configuration");
    Engines::tract_only().open(&ModelFile { path: &path, bytes: &bytes }, &Options { text, ..Options::default() })
}

fn texts(texts: &[&str]) -> Tensor {
    let elements = texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    Tensor::text(Shape::new(&[texts.len()]), elements).expect("fits")
}

/// The plain computation.
struct Plain<'a>(&'a Weights, &'a str);

impl Plain<'_> {
    fn get(&self, name: &str) -> &[f32] {
        let (prefixed, plain) = (format!("{}{name}", self.1), name.to_owned());
        &self.0.get(&prefixed).or_else(|| self.0.get(&plain)).unwrap_or_else(|| panic!("{name}")).1
    }

    fn linear(&self, name: &str, row: &[f64]) -> Vec<f64> {
        let (weight, bias) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let one = |(weights, bias): (&[f32], &f32)| {
            row.iter().zip(weights).map(|(value, weight)| value * f64::from(*weight)).sum::<f64>() + f64::from(*bias)
        };
        weight.chunks(row.len()).zip(bias).map(one).collect()
    }

    fn norm(&self, name: &str, row: &[f64]) -> Vec<f64> {
        let (scale, shift) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let one = |(value, (scale, shift)): (&f64, (&f32, &f32))| {
            (value - mean) / (variance + EPS).sqrt() * f64::from(*scale) + f64::from(*shift)
        };
        row.iter().zip(scale.iter().zip(shift)).map(one).collect()
    }

    fn states(&self, ids: &[usize], types: &[usize]) -> Vec<Vec<f64>> {
        let row = |table: &str, place: usize| {
            self.get(&format!("embeddings.{table}_embeddings.weight"))[place * SIZE..][..SIZE].to_vec()
        };
        let embed = |(position, (&id, &kind)): (usize, (&usize, &usize))| {
            let (word, place, kind) = (row("word", id), row("position", position), row("token_type", kind));
            let sum: Vec<f64> = (0..SIZE).map(|i| f64::from(word[i]) + f64::from(place[i]) + f64::from(kind[i])).collect();
            self.norm("embeddings.LayerNorm", &sum)
        };
        let mut states: Vec<Vec<f64>> = ids.iter().zip(types).enumerate().map(embed).collect();
        for layer in 0..LAYERS {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let each = |part: &str| states.iter().map(|state| self.linear(&name(part), state)).collect::<Vec<_>>();
            let (queries, keys, values) =
                (each("attention.self.query"), each("attention.self.key"), each("attention.self.value"));
            let width = SIZE / HEADS;
            let attend = |query: &Vec<f64>| {
                let mut out = vec![0.0; SIZE];
                for head in 0..HEADS {
                    let columns = head * width..(head + 1) * width;
                    let score = |key: &Vec<f64>| columns.clone().map(|i| query[i] * key[i]).sum::<f64>() / (width as f64).sqrt();
                    let weights: Vec<f64> = keys.iter().map(|key| score(key).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for i in columns.clone() {
                        out[i] = weights.iter().zip(&values).map(|(weight, value)| weight / total * value[i]).sum();
                    }
                }
                out
            };
            let attended: Vec<Vec<f64>> = queries.iter().map(attend).collect();
            let add = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(a, b)| a + b).collect::<Vec<f64>>();
            let step = |(state, attended): (&Vec<f64>, &Vec<f64>)| {
                let mixed = self.linear(&name("attention.output.dense"), attended);
                let state = self.norm(&name("attention.output.LayerNorm"), &add(state, &mixed));
                let wide: Vec<f64> = self.linear(&name("intermediate.dense"), &state).into_iter().map(gelu).collect();
                self.norm(&name("output.LayerNorm"), &add(&state, &self.linear(&name("output.dense"), &wide)))
            };
            states = states.iter().zip(&attended).map(step).collect();
        }
        states
    }
}

/// x Φ(x), the normal distribution by Simpson's rule: nothing of the library that is tested.
fn gelu(x: f64) -> f64 {
    let density = |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let (steps, width) = (400, x / 400.0);
    let inner = |i: i32| density(f64::from(i) * width) * if i % 2 == 0 { 2.0 } else { 4.0 };
    let area = (density(0.0) + density(x) + (1..steps).map(inner).sum::<f64>()) * width / 3.0;
    x * (0.5 + area)
}

fn mean(states: &[Vec<f64>]) -> Vec<f64> {
    (0..SIZE).map(|i| states.iter().map(|state| state[i]).sum::<f64>() / states.len() as f64).collect()
}

fn close(got: &[f32], expected: &[f64], what: &str) {
    let far = got.iter().zip(expected).any(|(got, expected)| (f64::from(*got) - expected).abs() > 1e-4);
    assert!(!far && got.len() == expected.len(), "{what}: {got:?} is not {expected:?}");
}

/// Texts and their tokens. The last one is cut at the most tokens that there are positions for.
const READ: [(&str, &[usize]); 6] = [
    ("the gates", &[2, 8, 5, 6, 3]),
    ("", &[2, 3]),
    ("Water", &[2, 4, 3]),
    ("the lock fills slowly", &[2, 8, 9, 10, 11, 3]),
    ("schleuse", &[2, 1, 3]),
    ("the the the the the the the the the the the the the", &[2, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 3]),
];

#[test]
fn a_batch_of_texts_has_the_vectors_that_each_has_alone() {
    let folder = tempfile::tempdir().expect("a directory");
    for prefix in ["", "bert."] {
        let weights = weights(prefix);
        write(folder.path(), &config("BertModel"), &weights);
        let mut opened = open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        let got = opened.instances[0].run(&[texts(&READ.map(|(text, _)| text))], &[0, 1]).expect("runs");
        assert_eq!(got[0].shape(), &Shape::new(&[READ.len(), SIZE]));
        assert_eq!(&*got[1].values::<i64>().expect("INT64"), READ.map(|(_, tokens)| tokens.len() as i64));
        for ((text, tokens), vector) in READ.iter().zip(got[0].values::<f32>().expect("FP32").chunks(SIZE)) {
            let states = Plain(&weights, prefix).states(tokens, &vec![0; tokens.len()]);
            close(vector, &mean(&states), text);
        }
        let none = opened.instances[0].run(&[texts(&[])], &[0]).expect("runs");
        assert_eq!(none[0].shape(), &Shape::new(&[0, SIZE]));
    }
}

#[test]
fn a_run_in_parts_answers_as_one_and_pads_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    write(folder.path(), &config("BertModel"), &weights(""));
    let asked = texts(&READ.map(|(text, _)| text));
    let mut whole = None;
    for max_tokens in [8192, 10, 1] {
        let max_tokens = NonZeroUsize::new(max_tokens).expect("not zero");
        let mut opened = open_with(folder.path(), TextOptions { max_tokens, ..TextOptions::default() }).expect("opens");
        let got = opened.instances[0].run(std::slice::from_ref(&asked), &[0]).expect("runs").remove(0);
        let got = got.values::<f32>().expect("FP32").into_owned();
        assert_eq!(opened.instances[0].tokens(), Some(TokenCount { read: 31, padding: 0 }));
        let whole = whole.get_or_insert_with(|| got.iter().map(|value| f64::from(*value)).collect::<Vec<_>>());
        close(&got, whole, "in parts");
    }
}

#[test]
fn exactly_the_wanted_outputs_come_back_in_the_order_wanted() {
    let folder = tempfile::tempdir().expect("a directory");
    write(folder.path(), &config("BertModel"), &weights(""));
    let mut opened = open(folder.path()).expect("opens");
    let instance = &mut opened.instances[0];
    let asked = texts(&["water", "the gates"]);
    let both = instance.run(std::slice::from_ref(&asked), &[0, 1]).expect("runs");
    let (vectors, tokens) = (both[0].clone(), both[1].clone());
    let choices: [(&[usize], Vec<&Tensor>); 4] =
        [(&[1, 0], vec![&tokens, &vectors]), (&[1], vec![&tokens]), (&[0], vec![&vectors]), (&[], vec![])];
    for (wanted, expected) in &choices {
        let got = instance.run(std::slice::from_ref(&asked), wanted).expect("runs");
        assert_eq!(&got.iter().collect::<Vec<_>>(), expected, "{wanted:?}");
    }
    let error = instance.run(&[asked], &[2]).expect_err("there is no third output");
    assert_eq!(error.code(), Code::RunFailed, "{error}");
}

#[test]
fn a_text_that_is_too_long_and_not_to_be_cut_is_the_callers_error() {
    let folder = tempfile::tempdir().expect("a directory");
    write(folder.path(), &config("BertModel"), &weights(""));
    let mut opened = open_with(folder.path(), TextOptions { truncate: false, ..TextOptions::default() }).expect("opens");
    let error = opened.instances[0].run(&[texts(&READ.map(|(text, _)| text))], &[0]).expect_err("the last one is too long");
    assert_eq!(error.code(), Code::InvalidTensor, "{error}");
    assert!(error.message().contains("row 5 has 15 tokens, at most 12"), "{error}");
    assert!(opened.instances[0].run(&[texts(&["water"])], &[0]).is_ok());
}

#[test]
fn vectors_are_pooled_and_normalised_as_sentence_transformers_says() {
    let folder = tempfile::tempdir().expect("a directory");
    let weights = weights("");
    write(folder.path(), &config("BertModel"), &weights);
    let put = |name: &str, value: Value| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("inside")).expect("made");
        std::fs::write(path, value.to_string()).expect("written");
    };
    let module = |kind: &str, path: &str| json!({ "path": path, "type": format!("sentence_transformers.models.{kind}") });
    put("modules.json", json!([module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")]));
    put("1_Pooling/config.json", json!({ "word_embedding_dimension": SIZE, "pooling_mode_cls_token": true }));
    put("sentence_bert_config.json", json!({ "max_seq_length": 4 }));
    let mut opened = open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    let got = opened.instances[0].run(&[texts(&["the lock fills slowly"])], &[1, 0]).expect("runs");
    assert_eq!(&*got[0].values::<i64>().expect("INT64"), [4]);
    let first = &Plain(&weights, "").states(&[2, 8, 9, 3], &[0; 4])[0];
    let length = first.iter().map(|value| value * value).sum::<f64>().sqrt();
    close(&got[1].values::<f32>().expect("FP32"), &first.iter().map(|value| value / length).collect::<Vec<_>>(), "normalised");

    for (name, value, told) in [
        ("1_Pooling/config.json", json!({ "pooling_mode_lasttoken": true, "pooling_mode_max_tokens": true }), "asks for 2"),
        ("1_Pooling/config.json", json!({ "word_embedding_dimension": 7, "pooling_mode_mean_tokens": true }), "8 columns"),
        ("modules.json", json!([module("Dense", "2_Dense")]), "2_Dense/config.json: No such file"),
        ("modules.json", json!([module("LSTM", "2_LSTM")]), "module `LSTM` is not served"),
        ("modules.json", json!([module("Transformer", ""), module("Pooling", "../outside")]), "not inside"),
        ("modules.json", json!([module("Transformer", ""), module("Pooling", "/etc")]), "not inside"),
        ("modules.json", json!([module("Transformer", ""), module("Pooling", "")]), "names ``, which is not inside"),
        ("modules.json", json!([module("Transformer", ""), module("Normalize", "..")]), "not inside"),
        ("modules.json", json!([module("Transformer", "/")]), "expected as the first one, with an empty path"),
        ("modules.json", json!([module("Pooling", "1_Pooling"), module("Transformer", "")]), "expected as the first one"),
        ("modules.json", json!([module(&"x".repeat(100_000), "")]), "…"),
    ] {
        put("modules.json", json!([module("Transformer", ""), module("Pooling", "1_Pooling")]));
        put("1_Pooling/config.json", json!({ "pooling_mode_mean_tokens": true }));
        put(name, value);
        let error = open(folder.path()).err().expect("refused");
        assert!(error.code() == Code::LoadFailed && error.message().contains(told), "{error}");
    }
}

#[test]
fn a_classifier_gives_probabilities_and_a_ranker_a_score_for_each_pair() {
    let folder = tempfile::tempdir().expect("a directory");
    let classify = |weights: &Weights, tokens: &[usize], types: &[usize]| {
        let plain = Plain(weights, "bert.");
        let first = plain.states(tokens, types).swap_remove(0);
        let pooled: Vec<f64> = plain.linear("pooler.dense", &first).into_iter().map(f64::tanh).collect();
        plain.linear("classifier", &pooled)
    };
    let three = with_classifier(weights("bert."), 3);
    let mut said = config("BertForSequenceClassification");
    said["id2label"] = json!({ "0": "calm", "1": "flood", "2": "drought" });
    write(folder.path(), &said, &three);
    let mut opened = open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(opened.outputs[0].labels, ["calm", "flood", "drought"]);
    let got = opened.instances[0].run(&[texts(&["the gates", "water"])], &[0]).expect("runs");
    let scores = classify(&three, &[2, 4, 3], &[0; 3]);
    let total: f64 = scores.iter().map(|score| score.exp()).sum();
    let expected: Vec<f64> = scores.iter().map(|score| score.exp() / total).collect();
    close(&got[0].values::<f32>().expect("FP32")[3..], &expected, "probabilities");
    said["problem_type"] = json!("multi_label_classification");
    write(folder.path(), &said, &three);
    let mut opened = open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    let got = opened.instances[0].run(&[texts(&["the gates", "water"])], &[0]).expect("runs");
    let expected: Vec<f64> = scores.iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect();
    close(&got[0].values::<f32>().expect("FP32")[3..], &expected, "each for itself");
    said["problem_type"] = json!("regression");
    write(folder.path(), &said, &three);
    let error = open(folder.path()).err().expect("three numbers");
    assert!(error.code() == Code::LoadFailed && error.message().contains("`regression` with 3 labels"), "{error}");

    let one = with_classifier(weights("bert."), 1);
    write(folder.path(), &config("BertForSequenceClassification"), &one);
    let mut opened = open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<&str> = opened.inputs.iter().map(|input| &*input.name).collect();
    assert_eq!(names, ["query", "text"]);
    let got = opened.instances[0].run(&[texts(&["water", "the lock"]), texts(&["gates", "opens"])], &[0]).expect("runs");
    let pair = classify(&one, &[2, 8, 9, 3, 7, 3], &[0, 0, 0, 0, 1, 1])[0];
    close(&got[0].values::<f32>().expect("FP32")[1..], &[1.0 / (1.0 + (-pair).exp())], "a score");

    let mut said = config("BertForSequenceClassification");
    said["problem_type"] = json!("regression");
    write(folder.path(), &said, &one);
    let mut opened = open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((&*opened.inputs[0].name, &*opened.outputs[0].name, opened.inputs.len()), ("text", "value", 1));
    let got = opened.instances[0].run(&[texts(&["water"])], &[0]).expect("runs");
    assert_eq!(got[0].shape(), &Shape::new(&[1]));
    close(&got[0].values::<f32>().expect("FP32"), &classify(&one, &[2, 4, 3], &[0; 3]), "a number");
}

#[test]
fn what_is_not_served_is_named_at_load() {
    let change = |key: &str, value: Value| {
        let mut config = config("BertModel");
        config[key] = value;
        config
    };
    let huge = u64::from(u32::MAX);
    for (config, told) in [
        (change("architectures", json!(["BertForQuestionAnswering"])), "`BertForQuestionAnswering` is not served"),
        (change("position_embedding_type", json!("relative_key")), "position_embedding_type"),
        (change("hidden_act", json!("mish")), "unknown variant `mish`"),
        (change("num_attention_heads", json!(3)), "3 heads"),
        (change("num_attention_heads", json!(0)), "0 heads"),
        (change("num_hidden_layers", json!(huge)), "layers"),
        (change("num_hidden_layers", json!(3)), "no tensor `encoder.layer.2"),
        (change("num_hidden_layers", json!(1)), "no use for"),
        (change("hidden_size", json!(16)), "expected [12, 16]"),
        (change("vocab_size", json!(11)), "expected [11, 8]"),
        (change("max_position_embeddings", json!(2)), "room for 2 tokens"),
        (change("vocab_size", json!(-1)), "config.json"),
    ] {
        let folder = tempfile::tempdir().expect("a directory");
        write(folder.path(), &config, &weights(""));
        let error = open(folder.path()).err().unwrap_or_else(|| panic!("{told}"));
        assert!(error.code() == Code::LoadFailed && error.message().contains(told), "{told}: {error}");
    }
    for broken in ["", "{}", "[", r#"{"model":{"type":"WordPiece","vocab":{"a":99}}}"#, &"[".repeat(100_000)] {
        let folder = tempfile::tempdir().expect("a directory");
        write(folder.path(), &config("BertModel"), &weights(""));
        std::fs::write(folder.path().join("tokenizer.json"), broken).expect("written");
        let error = open(folder.path()).err().expect("refused");
        assert!(error.code() == Code::LoadFailed && error.message().contains("tokenizer.json"), "{error}");
    }
}
