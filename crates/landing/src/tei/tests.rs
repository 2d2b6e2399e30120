//! What text-embeddings-inference answers is answered, and what cannot be is named.

use serde_json::{Value, json};
use sluicegate_core::{Code, Error};

use super::*;
use crate::text::tests::{answered, classifier, embedder, failed, ranker, run};

fn refused<Q: Question>(body: &Value) -> Error {
    Q::read(body.to_string().as_bytes()).map(|_| ()).expect_err("refused")
}

fn assert_refused(error: &Error, key: &str, why: &str) {
    assert_eq!(failed(error), (Code::InvalidFields, key), "{error}");
    assert!(error.message().contains(why), "{error}");
}

#[test]
fn vectors_come_as_lists_of_length_1_unless_asked_otherwise() {
    let said = run::<Embed>(&embedder(), &json!({ "inputs": "a" }), &[3.0, 4.0], &[3]);
    assert_eq!(said, json!([[0.6, 0.8]]));
    let body = json!({ "inputs": ["a", "b"], "normalize": false, "truncate": true, "truncation_direction": "Right" });
    assert_eq!(run::<Embed>(&embedder(), &body, &[3.0, 4.0, 0.0, 0.0], &[3, 3]), json!([[3.0, 4.0], [0.0, 0.0]]));
    let zero = run::<Embed>(&embedder(), &json!({ "inputs": ["a"] }), &[0.0, 0.0], &[3]);
    assert_eq!(zero, json!([[0.0, 0.0]]), "nothing has no direction");
}

#[test]
fn a_model_that_normalises_cannot_be_asked_not_to() {
    let body = json!({ "inputs": ["a", "b"], "normalize": false });
    let error = answered::<Embed>(&embedder(), &body, &[0.6, 0.8, 0.0, 1.0], &[3, 3]).expect_err("all have length 1");
    assert_refused(&error, "normalize", "length 1");
}

#[test]
fn a_text_that_may_have_been_cut_is_refused_where_none_may_be() {
    let body = json!({ "inputs": ["a", "b"], "truncate": false });
    assert_eq!(run::<Embed>(&embedder(), &body, &[1.0, 0.0, 1.0, 0.0], &[3, 7])[0], json!([1.0, 0.0]));
    let error = answered::<Embed>(&embedder(), &body, &[1.0, 0.0, 1.0, 0.0], &[3, 8]).expect_err("8 are all that it reads");
    assert_refused(&error, "truncate", "text 1 has 8 tokens or more");
    let body = json!({ "query": "q", "texts": ["a"], "truncate": false });
    let error = answered::<Rerank>(&ranker(Kind::Value), &body, &[0.5], &[3]).expect_err("the longest is not known");
    assert_refused(&error, "truncate", "leave it out");
}

#[test]
fn predictions_come_with_their_labels_the_likeliest_first() {
    let one = classifier(Kind::Probability, &["text"]);
    let (no, yes) = (json!({ "score": 0.25, "label": "no" }), json!({ "score": 0.75, "label": "yes" }));
    for inputs in [json!("a"), json!(["a"])] {
        assert_eq!(run::<Predict>(&one, &json!({ "inputs": inputs }), &[0.25, 0.75], &[]), json!([yes, no]), "{inputs}");
    }
    let body = json!({ "inputs": [["a"], ["b"]] });
    let said = run::<Predict>(&one, &body, &[0.25, 0.75, 0.75, 0.25], &[]);
    assert_eq!(said, json!([[yes, no], [{ "score": 0.75, "label": "no" }, { "score": 0.25, "label": "yes" }]]));
    assert_eq!(run::<Predict>(&one, &json!({ "inputs": [["a"]] }), &[0.25, 0.75], &[]), json!([[yes, no]]), "a list of one");

    let two = classifier(Kind::Probability, &["premise", "hypothesis"]);
    for (inputs, rows) in [(json!(["a", "b"]), 1), (json!([["a", "b"], ["c", "d"]]), 2)] {
        let mut question = Predict::read(json!({ "inputs": inputs }).to_string().as_bytes()).expect("a good request");
        let request = question.request(&Task::Classify.of(&two).expect("it classifies")).expect("it fits");
        assert_eq!(request.inputs.iter().map(|(_, tensor)| tensor.shape().rows()).collect::<Vec<_>>(), [rows, rows]);
        assert_eq!(request.inputs[1].1.strings().expect("text")[0], "b");
    }
}

#[test]
fn scores_become_shares_unless_they_are_wanted_raw() {
    let scores = classifier(Kind::Score, &["text"]);
    let body = |raw: bool| json!({ "inputs": "a", "raw_scores": raw });
    let half = |label: &str| json!({ "score": 0.5, "label": label });
    assert_eq!(run::<Predict>(&scores, &body(false), &[2.0, 2.0], &[]), json!([half("no"), half("yes")]));
    assert_eq!(run::<Predict>(&scores, &body(true), &[2.0, 3.0], &[])[0], json!({ "score": 3.0, "label": "yes" }));
    let error = answered::<Predict>(&classifier(Kind::Probability, &["text"]), &body(true), &[0.5, 0.5], &[]);
    assert_refused(&error.expect_err("probabilities are not raw"), "raw_scores", "`probabilities`");
    let body = json!({ "query": "q", "texts": ["a", "b"], "raw_scores": true });
    assert_eq!(run::<Rerank>(&ranker(Kind::Score), &body, &[0.5, 2.5], &[1, 1])[0], json!({ "index": 1, "score": 2.5 }));
    let error = answered::<Rerank>(&ranker(Kind::Value), &body, &[0.5, 2.5], &[1, 1]).expect_err("they are not raw");
    assert_refused(&error, "raw_scores", "leave it out");
}

#[test]
fn texts_are_ranked_and_come_back_where_asked() {
    let body = |text: bool| json!({ "query": "q", "texts": ["a", "b"], "return_text": text });
    let said = run::<Rerank>(&ranker(Kind::Value), &body(false), &[0.25, 0.5], &[4, 4]);
    assert_eq!(said, json!([{ "index": 1, "score": 0.5 }, { "index": 0, "score": 0.25 }]));
    let said = run::<Rerank>(&ranker(Kind::Value), &body(true), &[0.25, 0.5], &[4, 4]);
    assert_eq!(said[0], json!({ "index": 1, "score": 0.5, "text": "b" }));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_key() {
    assert_refused(&refused::<Embed>(&json!({})), "inputs", "missing");
    assert_refused(&refused::<Embed>(&json!({ "inputs": [[1, 2]] })), "inputs", "ids of tokens");
    assert_refused(&refused::<Embed>(&json!({ "inputs": "a", "prompt_name": "query" })), "prompt_name", "`query`");
    let left = json!({ "inputs": "a", "truncation_direction": "Left" });
    assert_refused(&refused::<Embed>(&left), "truncation_direction", "got `Left`");
    assert_refused(&refused::<Predict>(&json!({ "inputs": ["a", "b", "c"] })), "inputs", "neither one text nor a pair");
    assert_refused(&refused::<Predict>(&json!({ "inputs": ["a", ["b"]] })), "inputs", "mixed");
    assert_refused(&refused::<Predict>(&json!({ "inputs": [] })), "inputs", "empty");
    assert_refused(&refused::<Predict>(&json!({ "inputs": [[]] })), "inputs", "empty");
    assert_refused(&refused::<Rerank>(&json!({ "query": "q", "texts": [] })), "texts", "empty");
    assert_refused(&refused::<Rerank>(&json!({ "texts": ["a"] })), "query", "missing");
    assert_eq!(refused::<Rerank>(&json!({ "query": "q", "documents": ["a"] })).code(), Code::Malformed);
    let one = classifier(Kind::Probability, &["text"]);
    for inputs in [json!(["a", "b"]), json!([["a"], ["b", "c"]])] {
        let error = answered::<Predict>(&one, &json!({ "inputs": inputs }), &[], &[]).expect_err("a pair");
        assert_refused(&error, "inputs", "the model takes one text");
    }
    let error = answered::<Embed>(&embedder(), &json!({ "inputs": "a", "dimensions": 3 }), &[], &[]).expect_err("another size");
    assert_refused(&error, "dimensions", "have 2 numbers");
}
