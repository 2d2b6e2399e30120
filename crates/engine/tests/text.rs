//! Graphs of ONNX with a tokenizer beside them, on every engine, beside a plain computation of the same.

#![cfg(feature = "text")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};
use sluicegate_core::signature::Kind;
use sluicegate_core::{Code, DType, Dim, Shape, Tensor};
use sluicegate_engine::{EngineChoice, Engines, ModelFile, Opened, Options, Search, TextOptions, TokenCount};
use sluicegate_testkit::encoder::{Given, SIZE, WORDS, graph, tokenizer, weight};
use sluicegate_testkit::onnx::{Model, rows};

#[allow(clippy::disallowed_methods, reason = "a test's switch; the product reads no environment here")]
fn engines() -> Engines {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let environment = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    Engines::find(&Search { explicit: None, environment, fetched: root.join(".onnxruntime") }).expect("an engine")
}

/// Every engine that is on this machine.
fn each() -> Vec<EngineChoice> {
    let found = engines().onnxruntime().map(|_| EngineChoice::OnnxRuntime);
    found.into_iter().chain([EngineChoice::Tract]).collect()
}

/// A version's directory.
struct Version(tempfile::TempDir);

impl Version {
    /// A graph with its tokenizer.
    fn new(onnx: &[u8]) -> Self {
        let version = Self(tempfile::tempdir().expect("a directory"));
        std::fs::write(version.0.path().join("model.onnx"), onnx).expect("written");
        version.with("tokenizer.json", &tokenizer())
    }

    fn with(self, name: &str, value: &Value) -> Self {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("inside")).expect("made");
        std::fs::write(path, value.to_string()).expect("written");
        self
    }

    fn open(&self, engine: EngineChoice, text: TextOptions) -> sluicegate_core::Result<Opened> {
        let path = self.0.path().join("model.onnx");
        let bytes = std::fs::read(&path).expect("a graph");
        engines().open(&ModelFile { path: &path, bytes: &bytes }, &Options { engine, text, ..Options::default() })
    }

    fn opened(&self, engine: EngineChoice) -> Opened {
        self.open(engine, TextOptions::default()).unwrap_or_else(|error| panic!("{engine:?}: {error}"))
    }
}

fn texts(texts: &[&str]) -> Tensor {
    let elements = texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    Tensor::text(Shape::new(&[texts.len()]), elements).expect("fits")
}

/// The sum of the rows of a text's words and kinds.
fn vector(tokens: &[(usize, usize)]) -> Vec<f32> {
    let at = |column: usize| tokens.iter().map(|&(id, kind)| weight(id, column) + weight(WORDS.len() + kind, column)).sum();
    (0..SIZE).map(at).collect()
}

/// A token's state is its own row and the sum: their mean is the sum, and the mean of the rows.
fn mean(ids: &[usize]) -> Vec<f32> {
    let tokens: Vec<_> = ids.iter().map(|&id| (id, 0)).collect();
    vector(&tokens).into_iter().map(|sum| sum + sum / ids.len() as f32).collect()
}

fn close(got: &[f32], expected: &[f32], what: &str) {
    let far = got.iter().zip(expected).any(|(got, expected)| (got - expected).abs() > 1e-4);
    assert!(!far && got.len() == expected.len(), "{what}: {got:?} is not {expected:?}");
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.values::<f32>().expect("FP32").into_owned()
}

fn length(most: usize, truncate: bool) -> TextOptions {
    TextOptions { max_length: NonZeroUsize::new(most), truncate, ..TextOptions::default() }
}

/// Texts and their tokens, long ones and short ones mixed.
const READ: [(&str, &[usize]); 6] = [
    ("the lock fills slowly", &[2, 8, 9, 10, 11, 3]),
    ("", &[2, 3]),
    ("water", &[2, 4, 3]),
    ("the the the the the the the the the the the the", &[2, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 3]),
    ("the gates", &[2, 8, 5, 6, 3]),
    ("schleuse", &[2, 1, 3]),
];

#[test]
fn texts_have_the_vectors_of_their_own_tokens_whatever_shares_their_run() {
    let left = {
        let mut tokenizer = tokenizer();
        tokenizer["padding"]["direction"] = json!("Left");
        tokenizer["padding"]["pad_id"] = json!(7);
        tokenizer["padding"]["pad_type_id"] = json!(1);
        tokenizer
    };
    for (engine, side) in each().into_iter().flat_map(|engine| [(engine, tokenizer()), (engine, left.clone())]) {
        let version = Version::new(&graph(Given::States, None)).with("tokenizer.json", &side);
        for max_tokens in [1, 7, 20, 8192] {
            let max_tokens = NonZeroUsize::new(max_tokens).expect("not zero");
            let mut opened = version.open(engine, TextOptions { max_tokens, ..TextOptions::default() }).expect("opens");
            assert!(opened.text && opened.remark.is_none() && opened.engine == engine);
            let instance = &mut opened.instances[0];
            let got = instance.run(&[texts(&READ.map(|(text, _)| text))], &[1, 0]).expect("runs");
            assert_eq!(&*got[0].values::<i64>().expect("INT64"), READ.map(|(_, tokens)| tokens.len() as i64));
            assert_eq!(got[1].shape(), &Shape::new(&[READ.len(), SIZE]));
            for ((text, tokens), got) in READ.iter().zip(numbers(&got[1]).chunks(SIZE)) {
                close(got, &mean(tokens), &format!("{engine:?}, {max_tokens} tokens: {text}"));
            }
            let TokenCount { read, padding } = instance.tokens().expect("it reads text");
            assert_eq!(read, 33);
            assert!(padding <= 32, "{padding} tokens of padding");
            assert_eq!(padding == 0, max_tokens.get() == 1, "{padding} tokens of padding in runs of {max_tokens}");
        }
    }
}

#[test]
fn its_signature_is_that_of_a_model_of_text() {
    for engine in each() {
        let opened = Version::new(&graph(Given::States, None)).opened(engine);
        let names = |specs: &[sluicegate_core::signature::TensorSpec]| -> Vec<(String, DType, usize)> {
            specs.iter().map(|spec| (spec.name.to_string(), spec.dtype, spec.dims.len())).collect()
        };
        assert_eq!(names(&opened.inputs), [("text".into(), DType::Bytes, 1)]);
        assert_eq!(names(&opened.outputs), [("embedding".into(), DType::Fp32, 2), ("tokens".into(), DType::Int64, 1)]);
        assert_eq!(opened.outputs[0].dims[1], Dim::Fixed(SIZE));
        assert!(opened.example.is_some());
    }
}

#[test]
fn vectors_are_pooled_and_normalised_as_sentence_transformers_says_and_its_own_are_passed_on() {
    let module = |kind: &str, path: &str| json!({ "path": path, "type": format!("sentence_transformers.models.{kind}") });
    let modules = json!([module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")]);
    let first = json!({ "word_embedding_dimension": SIZE, "pooling_mode_cls_token": true });
    let own = |ids: &[(usize, usize)]| -> Vec<f32> { vector(&ids[..1]).iter().zip(vector(ids)).map(|(a, b)| a + b).collect() };
    for engine in each() {
        let version =
            Version::new(&graph(Given::States, None)).with("modules.json", &modules).with("1_Pooling/config.json", &first);
        let got = version.opened(engine).instances[0].run(&[texts(&["water", ""])], &[0]).expect("runs");
        for (got, ids) in numbers(&got[0]).chunks(SIZE).zip([&[(2, 0), (4, 0), (3, 0)][..], &[(2, 0), (3, 0)]]) {
            let expected = own(ids);
            let norm = expected.iter().map(|value| value * value).sum::<f32>().sqrt();
            close(got, &expected.iter().map(|value| value / norm).collect::<Vec<_>>(), "the first state");
        }
        let vectors = Version::new(&graph(Given::Vectors, None)).opened(engine).instances[0].run(&[texts(&["water"])], &[0]);
        close(&numbers(&vectors.expect("runs")[0]), &vector(&[(2, 0), (4, 0), (3, 0)]), "the graph's own");
    }
}

#[test]
fn logits_become_probabilities_with_labels_or_a_score_for_each_pair() {
    let logits = |tokens: &[(usize, usize)], count: usize| -> Vec<f32> {
        let sum = vector(tokens);
        (0..count).map(|label| sum.iter().enumerate().map(|(column, value)| value * weight(label, column)).sum()).collect()
    };
    for engine in each() {
        let labels = json!({ "id2label": { "0": "calm", "2": "drought" }, "vocab_size": WORDS.len(), "pad_token_id": null });
        let mut opened = Version::new(&graph(Given::Logits(3), None)).with("config.json", &labels).opened(engine);
        assert_eq!((opened.outputs[0].kind, &*opened.outputs[0].name), (Kind::Probability, "probabilities"));
        assert_eq!(opened.outputs[0].labels, ["calm", "LABEL_1", "drought"]);
        let got = opened.instances[0].run(&[texts(&["the gates", "water"])], &[0]).expect("runs");
        let scores = logits(&[(2, 0), (4, 0), (3, 0)], 3);
        let total: f32 = scores.iter().map(|score| score.exp()).sum();
        close(&numbers(&got[0])[3..], &scores.iter().map(|score| score.exp() / total).collect::<Vec<_>>(), "probabilities");

        let mut opened = Version::new(&graph(Given::Logits(1), None)).opened(engine);
        let names: Vec<&str> = opened.inputs.iter().map(|input| &*input.name).collect();
        assert_eq!((names, &*opened.outputs[0].name), (vec!["query", "text"], "score"));
        let pairs = [texts(&["water", "the lock"]), texts(&["gates", "opens"])];
        let got = opened.instances[0].run(&pairs, &[0]).expect("runs");
        let pair = logits(&[(2, 0), (8, 0), (9, 0), (3, 0), (7, 1), (3, 1)], 1)[0];
        close(&numbers(&got[0])[1..], &[1.0 / (1.0 + (-pair).exp())], "a score");
        assert_eq!(got[0].shape(), &Shape::new(&[2]));
    }
}

#[test]
fn a_graph_of_one_length_gets_that_length() {
    for engine in each() {
        let mut opened = Version::new(&graph(Given::States, Some(8))).opened(engine);
        let asked = READ.map(|(text, _)| text);
        let got = opened.instances[0].run(&[texts(&asked)], &[0, 1]).expect("runs");
        assert_eq!(&*got[1].values::<i64>().expect("INT64"), [6, 2, 3, 8, 5, 3]);
        for ((text, tokens), got) in READ.iter().zip(numbers(&got[0]).chunks(SIZE)) {
            if tokens.len() <= 8 {
                close(got, &mean(tokens), text);
            }
        }
        let count = opened.instances[0].tokens().expect("it reads text");
        assert_eq!((count.read, count.padding), (27, 6 * 8 - 27));
    }
}

#[test]
fn a_long_text_is_cut_or_refused_as_the_setting_says() {
    for engine in each() {
        let version = Version::new(&graph(Given::States, None));
        let mut opened = version.open(engine, length(4, true)).expect("opens");
        let got = opened.instances[0].run(&[texts(&["the lock fills slowly"])], &[0]).expect("runs");
        close(&numbers(&got[0]), &mean(&[2, 8, 9, 3]), "what is left of it");

        let mut opened = version.open(engine, length(4, false)).expect("opens");
        let error = opened.instances[0].run(&[texts(&["water", "the lock fills slowly"])], &[0]).expect_err("too long");
        assert_eq!(error.code(), Code::InvalidTensor, "{error}");
        assert!(
            error.message().contains("row 1 has 6 tokens, at most 4") && error.message().contains("text.truncate"),
            "{error}"
        );
        assert!(opened.instances[0].run(&[texts(&["water"])], &[0]).is_ok());
    }
}

/// A token, and where it begins and ends in its text.
type Placed = (usize, usize, usize);

/// Texts and their tokens but for the special ones.
const TOLD: [(&str, &[Placed]); 4] = [
    ("the gates", &[(8, 0, 3), (5, 4, 8), (6, 8, 9)]),
    ("", &[]),
    ("water water the lock", &[(4, 0, 5), (4, 6, 11), (8, 12, 15), (9, 16, 20)]),
    ("the lock fills slowly", &[(8, 0, 3), (9, 4, 8), (10, 9, 14), (11, 15, 21)]),
];

#[test]
fn logits_a_token_become_entities_where_the_architecture_says_that_tokens_are_told_of() {
    let entities = |tokens: &[Placed]| {
        let all: Vec<_> = [2].into_iter().chain(tokens.iter().map(|token| token.0)).chain([3]).map(|id| (id, 0)).collect();
        let sum = vector(&all);
        let mut found: Vec<(String, usize, usize)> = Vec::new();
        for &(id, start, end) in tokens {
            let score = |column: &usize| vector(&[(id, 0)])[*column] + sum[*column];
            let best = (0..SIZE).max_by(|one, other| score(one).total_cmp(&score(other))).expect("some");
            match found.last_mut().filter(|last| last.0 == format!("LABEL_{best}")) {
                Some(last) => last.2 = end,
                None => found.push((format!("LABEL_{best}"), start, end)),
            }
        }
        found
    };
    let mut left = tokenizer();
    left["padding"]["direction"] = json!("Left");
    let config = json!({ "architectures": ["BertForTokenClassification"] });
    for (engine, side) in each().into_iter().flat_map(|engine| [(engine, tokenizer()), (engine, left.clone())]) {
        let version = Version::new(&graph(Given::Tags, None)).with("tokenizer.json", &side).with("config.json", &config);
        let mut opened = version.opened(engine);
        assert_eq!((&*opened.outputs[0].name, opened.outputs[0].dtype), ("entities", DType::Bytes));
        let got = opened.instances[0].run(&[texts(&TOLD.map(|(text, _)| text))], &[0]).expect("runs");
        for ((text, tokens), got) in TOLD.iter().zip(got[0].strings().expect("strings")) {
            let got: Vec<Value> = serde_json::from_slice(got).expect("JSON");
            let place = |entity: &Value, key: &str| entity[key].as_u64().expect("a place") as usize;
            let got = got.iter().map(|entity| {
                let (kind, start, end) = (&entity["entity_group"], place(entity, "start"), place(entity, "end"));
                assert_eq!(entity["word"], text[start..end], "{entity}");
                (kind.as_str().expect("a label").to_owned(), start, end)
            });
            assert_eq!(got.collect::<Vec<_>>(), entities(tokens), "{engine:?}: {text}");
        }
    }
}

#[test]
fn what_files_beside_a_graph_get_wrong_fails_the_version() {
    let engine = EngineChoice::Tract;
    let version = || Version::new(&graph(Given::States, None));
    for (version, options, told) in [
        (version().with("tokenizer.json", &json!({})), TextOptions::default(), "tokenizer.json"),
        (version().with("config.json", &json!({ "id2label": 7 })), TextOptions::default(), "config.json"),
        (version().with("config.json", &json!({ "vocab_size": 11 })), TextOptions::default(), "tokens up to 11"),
        (version().with("modules.json", &json!([{ "path": "", "type": "LSTM" }])), TextOptions::default(), "module `LSTM`"),
        (version(), length(3, true), "adds 3 tokens to a text, and at most 3 are read"),
        (version().with("sentence_bert_config.json", &json!({ "max_seq_length": 0 })), TextOptions::default(), "at most 0"),
    ] {
        let error = version.open(engine, options).err().unwrap_or_else(|| panic!("{told}"));
        assert!(error.code() == Code::LoadFailed && error.message().contains(told), "{told}: {error}");
    }
}

#[test]
fn a_graph_that_is_none_for_text_is_served_as_it_is_and_it_is_remarked_why() {
    let free = |count: usize| -> Vec<Dim> { (0..count).map(|place| Dim::Free(Some(format!("d{place}").into()))).collect() };
    let tokens = |names: &[&str], output: (&str, &[Dim])| {
        let model = names.iter().fold(Model::new(17), |model, name| model.input(name, DType::Int64, &free(2)));
        let model = model.output(output.0, DType::Fp32, output.1);
        let cast = [sluicegate_testkit::onnx::Attr::Int("to", 1)];
        let wide = [sluicegate_testkit::onnx::Attr::Int("axis", 2)];
        match output.1.len() {
            2 => model.node("Cast", &[names[0]], &[output.0], &cast),
            _ => model
                .constant("two", DType::Int64, &[1], &2_i64.to_le_bytes())
                .node("Cast", &[names[0]], &["cast"], &cast)
                .node("Unsqueeze", &["cast", "two"], &["one"], &[])
                .node("Concat", &["one", "one"], &[output.0], &wide),
        }
        .build()
    };
    let both = ["input_ids", "attention_mask"];
    let of_tokens = [free(2), vec![Dim::Fixed(2)]].concat();
    for engine in each() {
        for (onnx, told) in [
            (tokens(&["input_ids", "position_ids", "attention_mask"], ("y", &of_tokens)), "takes `position_ids`"),
            (tokens(&["input_ids"], ("y", &of_tokens)), "does not take `attention_mask`"),
            (tokens(&both, ("logits", &of_tokens)), "`logits` is FP32"),
            (tokens(&both, ("y", &free(2))), "`y` is FP32"),
            (sluicegate_testkit::onnx::identity(DType::Fp32, &[rows(), Dim::Fixed(2)]), "takes `x`"),
        ] {
            let opened = Version::new(&onnx).opened(engine);
            let remark = opened.remark.unwrap_or_else(|| panic!("{told}"));
            assert!(remark.starts_with("tokenizer.json has no effect: ") && remark.contains(told), "{told}: {remark}");
            assert!(!opened.text && opened.inputs.iter().all(|input| input.dtype != DType::Bytes));
        }
        let raw = TextOptions { tokenize: false, ..TextOptions::default() };
        let opened = Version::new(&graph(Given::States, None)).open(engine, raw).expect("opens");
        assert_eq!((opened.inputs.len(), opened.text, opened.remark), (3, false, None));
    }
}
