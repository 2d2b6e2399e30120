//! Small models of the families of the hub say what transformers and sentence-transformers say: `tests/goldens/hub.py` made them.

#![cfg(feature = "candle")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};
use sluicegate_core::signature::Kind;
use sluicegate_core::{Code, DType, Dim, Shape, Tensor};
use sluicegate_engine::{Device, Engines, ModelFile, Opened, Options};
use sluicegate_testkit::process::repository;

/// The device that was asked for.
#[allow(clippy::disallowed_methods, reason = "a test's switch; the product reads no environment here")]
fn device() -> Device {
    let asked = std::env::var("SLUICEGATE_TEST_DEVICE").ok().filter(|_| cfg!(feature = "cuda"));
    asked.map_or(Device::Cpu, |device| device.parse().expect("a device"))
}

/// What a number may be off by there.
fn tolerance() -> f32 {
    if device() == Device::Cpu { 3e-6 } else { 1e-3 }
}

fn version(model: &str) -> PathBuf {
    repository().join("tests/goldens/hub").join(model).join("1")
}

fn told(model: &str) -> Value {
    let path = repository().join("tests/goldens/hub").join(format!("{model}.json"));
    serde_json::from_slice(&std::fs::read(path).expect("what was said")).expect("JSON")
}

fn open(folder: &Path) -> sluicegate_core::Result<Opened> {
    let path = folder.join("config.json");
    let bytes = std::fs::read(&path).expect("a configuration");
    Engines::tract_only().open(&ModelFile { path: &path, bytes: &bytes }, &Options { device: device(), ..Options::default() })
}

fn opened(model: &str) -> Opened {
    open(&version(model)).unwrap_or_else(|error| panic!("{model}: {error}"))
}

fn texts(told: &Value) -> Tensor {
    let texts: Vec<Bytes> = strings(&told["texts"]).map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    Tensor::text(Shape::new(&[texts.len()]), texts).expect("fits")
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn numbers(rows: &Value) -> Vec<f32> {
    let all = rows.as_array().into_iter().flatten().flat_map(|row| row.as_array().into_iter().flatten());
    all.filter_map(Value::as_f64).map(|number| number as f32).collect()
}

fn close(model: &str, got: &Tensor, expected: &Value) {
    let (expected, got) = (numbers(expected), got.values::<f32>().expect("FP32"));
    assert_eq!(got.len(), expected.len(), "{model}");
    let off = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max);
    assert!(off <= tolerance(), "{model}: off by {off}: {got:?} in place of {expected:?}");
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    for (model, size) in [("bert", 16), ("mpnet", 8), ("modernbert", 16)] {
        let (told, mut opened) = (told(model), opened(model));
        assert_eq!((&*opened.outputs[0].name, &opened.outputs[0].dims[1]), ("embedding", &Dim::Fixed(size)), "{model}");
        close(model, &opened.instances[0].run(&[texts(&told)], &[0]).expect("runs")[0], &told["embedding"]);
    }
}

#[test]
fn classes_of_texts_are_those_of_transformers() {
    for model in ["mpnet-classifier", "modernbert-classifier", "roberta-classifier"] {
        let (told, mut opened) = (told(model), opened(model));
        assert_eq!((opened.outputs[0].kind, opened.outputs[0].labels.len()), (Kind::Probability, 3), "{model}");
        close(model, &opened.instances[0].run(&[texts(&told)], &[0]).expect("runs")[0], &told["probabilities"]);
    }
}

#[test]
fn entities_are_those_of_the_pipeline_of_transformers() {
    for model in ["bert-tags", "distilbert-tags", "modernbert-tags"] {
        let (told, mut opened) = (told(model), opened(model));
        assert_eq!((&*opened.outputs[0].name, opened.outputs[0].dtype), ("entities", DType::Bytes), "{model}");
        let got = opened.instances[0].run(&[texts(&told)], &[0, 1]).expect("runs");
        let got = got[0].strings().expect("strings");
        let expected = told["entities"].as_array().expect("a list a text");
        assert_eq!(got.len(), expected.len());
        assert!(expected.iter().any(|row| row.as_array().is_some_and(|row| row.len() > 1)), "some have several");
        for ((text, got), expected) in strings(&told["texts"]).zip(got).zip(expected) {
            let mut got: Vec<Value> = serde_json::from_slice(got).expect("JSON");
            let mut expected = expected.as_array().cloned().unwrap_or_default();
            for (got, expected) in got.iter_mut().zip(&mut expected) {
                let score = |entity: &mut Value| entity["score"].take().as_f64().expect("a number");
                let scores = (score(got), score(expected));
                assert!((scores.0 - scores.1).abs() < f64::from(tolerance()), "{model}: {text:?}: {scores:?}");
                let place = |key: &str| expected[key].as_u64().expect("a place") as usize;
                let word: String = text.chars().skip(place("start")).take(place("end") - place("start")).collect();
                expected["word"] = word.into();
            }
            assert_eq!(json!(got), json!(expected), "{model}: {text:?}");
        }
    }
}

#[test]
fn classes_of_pictures_are_those_of_transformers() {
    for (model, side) in [("vit", 16), ("resnet", 30), ("resnet-basic", 30), ("convnext", 28), ("convnextv2", 28)] {
        let (told, mut opened) = (told(model), opened(model));
        let batch = Dim::Free(Some("batch".into()));
        assert_eq!(opened.inputs[0].dims, [batch, Dim::Fixed(3), Dim::Fixed(side), Dim::Fixed(side)], "{model}");
        assert_eq!(opened.outputs[0].labels, ["calm", "flood", "drought"], "{model}");
        assert!(opened.remark.as_deref().is_some_and(|remark| remark.contains("export it to ONNX")), "{model}");
        let rows = told["rows"].as_u64().expect("a count") as usize;
        let number = |place: usize, row: usize| (place as f64 * 0.37 + row as f64).sin() as f32;
        let pixels = (0..rows).flat_map(|row| (0..3 * side * side).map(move |place| number(place, row))).collect();
        let pictures = Tensor::from_vec(Shape::new(&[rows, 3, side, side]), pixels).expect("fits");
        let instance = &mut opened.instances[0];
        close(model, &instance.run(std::slice::from_ref(&pictures), &[0]).expect("runs")[0], &told["probabilities"]);
        assert_eq!(instance.run(&[pictures], &[]).expect("runs"), []);
        let none = Tensor::from_vec(Shape::new(&[0, 3, side, side]), Vec::<f32>::new()).expect("fits");
        assert_eq!(instance.run(&[none], &[0]).expect("runs")[0].shape(), &Shape::new(&[0, 3]));
        let other = Tensor::from_vec(Shape::new(&[1, 3, side, 1]), vec![0_f32; 3 * side]).expect("fits");
        let error = instance.run(&[other], &[0]).expect_err("another size");
        assert!(error.code() == Code::RunFailed && error.message().contains("pixel_values have the shape"), "{error}");
    }
}

/// A copy of a version with some of the keys of a file set, or taken out where they are null.
fn changed(model: &str, file: &str, change: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    copy(&version(model), folder.path());
    let path = folder.path().join(file);
    let mut all: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    for (key, value) in change.as_object().expect("keys") {
        let all = all.as_object_mut().expect("an object");
        match value {
            Value::Null => all.remove(key),
            value => all.insert(key.clone(), value.clone()),
        };
    }
    std::fs::write(path, all.to_string()).expect("written");
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a directory").flatten() {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("copied")),
        }
    }
}

#[test]
fn what_older_and_newer_files_say_in_other_words_is_the_same() {
    let modern = json!({
        "layer_types": null, "rope_parameters": null, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
    });
    let unsaid = json!({ "layer_types": null, "rope_parameters": null });
    let old = json!({
        "pooling_mode": null, "embedding_dimension": null, "word_embedding_dimension": 16, "pooling_mode_mean_tokens": false,
        "pooling_mode_cls_token": true, "pooling_mode_lasttoken": false,
    });
    let list = json!({ "pooling_mode": ["cls"] });
    for (file, change) in
        [("config.json", modern), ("config.json", unsaid), ("1_Pooling/config.json", old), ("1_Pooling/config.json", list)]
    {
        let folder = changed("modernbert", file, &change);
        let told = told("modernbert");
        let mut opened = open(folder.path()).unwrap_or_else(|error| panic!("{change}: {error}"));
        close(&change.to_string(), &opened.instances[0].run(&[texts(&told)], &[0]).expect("runs")[0], &told["embedding"]);
    }
}

#[test]
fn what_is_not_served_is_named_at_load() {
    for (model, file, change, expected) in [
        ("mpnet", "config.json", json!({ "relative_attention_num_buckets": 64 }), "relative_attention_num_buckets"),
        ("mpnet", "config.json", json!({ "max_position_embeddings": 171 }), "expected [171, 16]"),
        ("mpnet", "2_Dense/config.json", json!({ "in_features": 8 }), "makes 8 numbers of 8, and gets vectors of 16"),
        ("mpnet", "2_Dense/config.json", json!({ "out_features": 9 }), "expected [9, 16]"),
        ("mpnet", "2_Dense/config.json", json!({ "bias": false }), "no use for: `linear.bias`"),
        ("mpnet", "2_Dense/config.json", json!({ "use_residual": true }), "use_residual"),
        ("mpnet", "2_Dense/config.json", json!({ "activation_function": "os.system" }), "unknown variant `os.system`"),
        ("mpnet", "1_Pooling/config.json", json!({ "pooling_mode": ["cls", "max"] }), "asks for 2"),
        ("mpnet", "1_Pooling/config.json", json!({ "pooling_mode": "best" }), "unknown variant `best`"),
        ("mpnet", "1_Pooling/config.json", json!({ "embedding_dimension": 17 }), "16 columns"),
        ("modernbert", "config.json", json!({ "layer_types": ["full_attention"] }), "1 layer_types for 3 layers"),
        ("modernbert", "config.json", json!({ "num_attention_heads": 16 }), "an even number"),
        ("modernbert", "config.json", json!({ "rope_parameters": { "full_attention": { "rope_type": "yarn" } } }), "`yarn`"),
        ("modernbert", "config.json", json!({ "rope_parameters": null, "local_rope_theta": -1 }), "rope_theta is -1"),
        ("modernbert", "config.json", json!({ "intermediate_size": u64::MAX }), "intermediate_size is too large"),
        ("bert-tags", "config.json", json!({ "id2label": { "0": "x".repeat(2000) } }), "id2label: name 0"),
        (
            "vit",
            "config.json",
            json!({ "architectures": ["ViTModel"] }),
            "`ViTModel` is not served, ViTForImageClassification is",
        ),
        (
            "vit",
            "config.json",
            json!({ "image_size": 24 }),
            "image_size is 24 by 24, and preprocessor_config.json makes 16 by 16",
        ),
        ("vit", "config.json", json!({ "patch_size": 0 }), "patches of 0"),
        ("vit", "config.json", json!({ "patch_size": [8, 4] }), "not square"),
        ("vit", "config.json", json!({ "num_channels": 4 }), "expected [16, 4, 8, 8]"),
        ("vit", "config.json", json!({ "num_hidden_layers": 1 }), "no use for"),
        ("vit", "preprocessor_config.json", json!({ "size": { "height": 0, "width": 16 } }), "0 by 16"),
        ("resnet", "preprocessor_config.json", json!({ "size": 1_u64 << 40 }), "expected sides of 1 to 2048"),
        ("resnet", "config.json", json!({ "depths": [1, u64::MAX] }), "more than 1000 layers"),
        ("resnet", "config.json", json!({ "depths": [1] }), "2 hidden_sizes for 1 depths"),
        ("resnet", "config.json", json!({ "layer_type": "basic" }), "resnet.encoder.stages.0.layers.0.layer.0"),
        ("convnext", "config.json", json!({ "patch_size": 0 }), "too small for a filter of 0"),
        ("convnext", "preprocessor_config.json", json!({ "size": 4 }), "too small for a filter of 2"),
        ("convnext", "config.json", json!({ "hidden_sizes": [], "depths": [] }), "hidden_sizes are empty"),
        ("convnextv2", "config.json", json!({ "model_type": "convnext" }), "ConvNextForImageClassification is"),
    ] {
        let folder = changed(model, file, &change);
        let error = open(folder.path()).err().unwrap_or_else(|| panic!("{model}: {change}"));
        assert!(error.code() == Code::LoadFailed && error.message().contains(expected), "{model}: {change}: {error}");
    }
}
