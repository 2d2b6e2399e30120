//! Which models read text, and how the others are told; with what the tests of each format share.

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate_core::Shape;
use sluicegate_core::error::Loc;
use sluicegate_core::response::Output;

use super::*;
use crate::instances::tests::response;
use crate::{embeddings, rerank, tei};

fn rows() -> Vec<Dim> {
    vec![Dim::Free(None)]
}

fn columns(count: usize) -> Vec<Dim> {
    vec![Dim::Free(None), Dim::Fixed(count)]
}

fn signature(inputs: &[&str], outputs: Vec<TensorSpec>) -> Signature {
    let text = |name: &&str| TensorSpec::new(name, DType::Bytes, rows());
    Signature::new(inputs.iter().map(text).collect(), outputs, None).expect("a good signature")
}

fn tokens(longest: Option<f64>) -> TensorSpec {
    let mut tokens = TensorSpec::new("tokens", DType::Int64, rows());
    tokens.about.max = longest;
    tokens
}

/// Vectors of two numbers, of texts of at most 8 tokens.
pub(crate) fn embedder() -> Signature {
    signature(&["text"], vec![TensorSpec::new("embedding", DType::Fp32, columns(2)), tokens(Some(8.0))])
}

pub(crate) fn ranker(kind: Kind) -> Signature {
    let score = TensorSpec { kind, ..TensorSpec::new("score", DType::Fp32, rows()) };
    signature(&["text", "query"], vec![score, tokens(None)])
}

/// Labels `no` and `yes` of so many texts.
pub(crate) fn classifier(kind: Kind, texts: &[&str]) -> Signature {
    let labels = vec!["no".into(), "yes".into()];
    signature(texts, vec![TensorSpec { kind, labels, ..TensorSpec::new("probabilities", DType::Fp32, columns(2)) }])
}

/// The answer to a body by a model that gives these numbers, and that many tokens unless it counts none.
pub(crate) fn answered<Q: Question>(signature: &Signature, body: &Value, numbers: &[f32], counts: &[i64]) -> Result<Value> {
    let mut question = Q::read(body.to_string().as_bytes())?;
    let model = Q::TASK.of(signature)?;
    let request = question.request(&model)?;
    let rows = request.inputs[0].1.shape().rows();
    let sizes = [rows, numbers.len() / rows];
    let dims = model.output().dims.len();
    let numbers = Tensor::from_vec(Shape::new(&sizes[..dims]), numbers.to_vec()).expect("fits");
    let mut response = response(vec![(&*model.output().name, numbers)]);
    response.id = Some("7".into());
    if !counts.is_empty() {
        let tensor = Tensor::from_vec(Shape::new(&[rows]), counts.to_vec()).expect("fits");
        response.outputs.push(Output { name: TOKENS.into(), place: 1, tensor });
    }
    let written = question.write(&model, &response)?;
    Ok(serde_json::from_slice(&written).expect("JSON"))
}

/// The same where it is a good one.
pub(crate) fn run<Q: Question>(signature: &Signature, body: &Value, numbers: &[f32], counts: &[i64]) -> Value {
    answered::<Q>(signature, body, numbers, counts).unwrap_or_else(|error| panic!("{body}: {error}"))
}

/// The code of an error, and the key that it is about.
pub(crate) fn failed(error: &Error) -> (Code, &str) {
    let key = match error.problems().first().and_then(|problem| problem.loc.get(1)) {
        Some(Loc::Key(key)) => key,
        _ => "",
    };
    (error.code(), key)
}

pub(crate) fn strings(texts: &[Bytes]) -> Vec<String> {
    texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

#[test]
fn a_model_is_known_by_what_it_takes_and_gives() {
    let vector = |name: &str, size| TensorSpec::new(name, DType::Fp32, columns(size));
    let output = |task: Task, signature: &Signature| task.of(signature).map(|reader| reader.output().name.to_string()).ok();
    let two = signature(&["x"], vec![vector("states", 4), vector("sentence_embedding", 4), tokens(None)]);
    assert_eq!(output(Task::Embed, &two).as_deref(), Some("sentence_embedding"), "the name tells");
    assert_eq!(output(Task::Embed, &signature(&["x"], vec![vector("y", 4)])).as_deref(), Some("y"), "it is the only one");
    assert_eq!(output(Task::Embed, &signature(&["x"], vec![vector("y", 4), vector("z", 4)])), None);
    assert_eq!(output(Task::Embed, &signature(&["x"], vec![vector("y", 1)])), None, "one number is no vector");
    assert_eq!(output(Task::Embed, &signature(&["x", "z"], vec![vector("embedding", 4)])), None);
    assert_eq!(output(Task::Rank, &signature(&["a", "b"], vec![vector("logits", 1)])).as_deref(), Some("logits"));
    let cases = [embedder(), ranker(Kind::Value), classifier(Kind::Probability, &["text"]), classifier(Kind::Score, &["a", "b"])];
    let tasks = [Task::Embed, Task::Rank, Task::Classify, Task::Classify];
    for (signature, right) in cases.iter().zip(tasks) {
        for task in [Task::Embed, Task::Rank, Task::Classify] {
            assert_eq!(task.is_of(signature), task == right, "{task:?} {signature:?}");
        }
    }
}

#[test]
fn the_query_is_the_input_that_has_its_name_wherever_it_stands() {
    let ranker = ranker(Kind::Value);
    let reader = Task::Rank.of(&ranker).expect("it ranks");
    assert_eq!(reader.texts.iter().map(|spec| &*spec.name).collect::<Vec<_>>(), ["query", "text"]);
}

#[test]
fn another_model_is_told_what_it_is() {
    let numbers = TensorSpec::new("x", DType::Fp32, columns(8));
    let classes = TensorSpec::new("label", DType::Int64, rows());
    let fraud = Signature::new(vec![numbers], vec![classes], None).expect("a good signature");
    for (task, expected) in [(Task::Embed, "`embedding`"), (Task::Rank, "`query`"), (Task::Classify, "labels")] {
        let error = task.of(&fraud).expect_err("numbers are no text");
        assert_eq!(failed(&error), (Code::InvalidFields, "model"));
        for part in [expected, "this one takes `x` FP32 [-1, 8], and gives `label` INT64 [-1]"] {
            assert!(error.message().contains(part), "{error}");
        }
    }
    // One text at a time cannot be a list of them.
    let text = TensorSpec::new("text", DType::Bytes, vec![Dim::Fixed(1)]);
    let single = Signature::new(vec![text], vec![TensorSpec::new("embedding", DType::Fp32, columns(2))], None).expect("good");
    assert!(Task::Embed.of(&single).is_err());
}

#[test]
fn an_output_that_is_not_what_it_was_said_to_be_is_the_models_fault() {
    let embedder = embedder();
    let reader = Task::Embed.of(&embedder).expect("it embeds");
    let wrong = Tensor::from_vec(Shape::new(&[1]), vec![1_i64]).expect("fits");
    for outputs in [vec![], vec![("embedding", wrong)]] {
        assert_eq!(reader.answer(&response(outputs)).map(|_| ()).expect_err("no FP32").code(), Code::RunFailed);
    }
}

/// Values that are right somewhere, and some that are right nowhere.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        "[a-zA-Z\"ü ]{0,6}".prop_map(Value::from),
        prop_oneof![Just("float"), Just("base64"), Just("Right"), Just("text")].prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            inner.prop_map(|text| json!({ "text": text })),
        ]
    })
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(
        body in prop::collection::btree_map(prop_oneof![
            Just("model"), Just("input"), Just("encoding_format"), Just("dimensions"), Just("query"), Just("documents"),
            Just("top_n"), Just("inputs"), Just("texts"), Just("normalize"), Just("raw_scores"), Just("truncate"),
        ], value(), 0..5),
        bytes in prop::collection::vec(any::<u8>(), 0..32),
    ) {
        fn ask<Q: Question>(signature: &Signature, body: &Value, bytes: &[u8]) {
            let _ = Q::read(bytes);
            // As many numbers and tokens as there are texts is what a model gives.
            let rows = |mut question: Q| {
                let request = question.request(&Q::TASK.of(signature).ok()?).ok()?;
                Some(request.inputs[0].1.shape().rows())
            };
            if let Some(rows) = Q::read(body.to_string().as_bytes()).ok().and_then(rows) {
                let _ = answered::<Q>(signature, body, &vec![0.5; rows * 2], &vec![8; rows]);
            }
        }
        let body = json!(body);
        ask::<embeddings::Asked>(&embedder(), &body, &bytes);
        ask::<tei::Embed>(&embedder(), &body, &bytes);
        ask::<tei::Predict>(&classifier(Kind::Score, &["text"]), &body, &bytes);
    }

    #[test]
    fn no_query_makes_it_panic(query in value(), texts in value(), top in value(), more in any::<bool>()) {
        let cohere = json!({ "query": query, "documents": texts, "top_n": top, "return_documents": more });
        let plain = json!({ "query": query, "texts": texts, "return_text": more });
        let rows = texts.as_array().map_or(1, Vec::len).max(1);
        let _ = answered::<rerank::Asked>(&ranker(Kind::Score), &cohere, &vec![0.5; rows], &vec![8; rows]);
        let _ = answered::<tei::Rerank>(&ranker(Kind::Value), &plain, &vec![0.5; rows], &vec![8; rows]);
    }
}
