//! Records to answers: what callers see of a signature.

use serde_json::{Value, json};
use sluicegate_core::response::Output;
use sluicegate_core::shape::Dim;
use sluicegate_core::signature::{About, Feature};
use sluicegate_core::{Digest, Shape};

use super::*;
use crate::record::read;

fn free() -> Dim {
    Dim::Free(Some("N".into()))
}

fn feature(name: &str, min: f64, max: f64) -> Feature {
    Feature { name: name.into(), about: About { min: Some(min), max: Some(max), ..About::default() } }
}

fn fraud() -> Signature {
    let mut x = TensorSpec::new("X", DType::Fp32, vec![free(), Dim::Fixed(2)]);
    x.features = vec![feature("amount", 0.0, 100.0), feature("hour", 0.0, 23.0)];
    let mut label = TensorSpec::new("label", DType::Int64, vec![free()]);
    let mut probabilities = TensorSpec::new("probabilities", DType::Fp32, vec![free(), Dim::Fixed(2)]);
    label.labels = vec!["legitimate".into(), "fraud".into()];
    probabilities.labels.clone_from(&label.labels);
    Signature::new(vec![x], vec![label, probabilities], None).expect("a good signature")
}

fn image() -> Signature {
    let image = TensorSpec::new("image", DType::Uint8, vec![free(), Dim::Fixed(2), Dim::Free(None)]);
    let mut word = TensorSpec::new("word", DType::Bytes, vec![free(), Dim::Fixed(1)]);
    word.about.categories = vec!["a".into(), "b".into()];
    Signature::new(vec![image.clone(), word], vec![image], None).expect("a good signature")
}

#[test]
fn fields_go_to_their_columns_in_any_order() {
    let signature = fraud();
    for (text, form) in [(r#"{"hour":3,"amount":1.5}"#, Form::One), (r#"[{"amount":1.5,"hour":3}]"#, Form::List(1))] {
        let records = read(&signature, text.as_bytes()).expect("good records");
        assert_eq!((&*records.inputs[0].0, records.form), ("X", form));
        assert_eq!(&*records.inputs[0].1.values::<f32>().expect("floats"), [1.5, 3.0]);
    }
    let none = read(&signature, b"[]").expect("no records");
    assert_eq!((none.form, none.inputs[0].1.shape()), (Form::List(0), &Shape::new(&[0, 2])));
}

#[test]
fn nested_fields_take_their_free_sizes_from_the_records() {
    let records =
        read(&image(), br#"[{"word":"a","image":[[1,2,3],[4,5,6]]},{"word":"b","image":[[1,2,3],[4,5,6]]}]"#).expect("good");
    assert_eq!(records.inputs[0].1.shape(), &Shape::new(&[2, 2, 3]));
    assert_eq!(records.inputs[1].1.shape(), &Shape::new(&[2, 1]));
}

#[test]
fn every_problem_of_every_record_is_told_as_fastapi_tells_it() {
    let problems = |signature: &Signature, text: &str| -> Vec<(String, Value)> {
        let error = read(signature, text.as_bytes()).expect_err(text);
        error.problems().iter().map(|p| (p.kind.to_owned(), json!(p.loc))).collect()
    };
    let one = |kind: &str, loc: Value| (kind.to_owned(), loc);
    assert_eq!(
        problems(&fraud(), r#"[{"amount":"x","day":1},{"amount":-1,"hour":99},7]"#),
        [
            one("float_parsing", json!(["body", 0, "amount"])),
            one("missing", json!(["body", 0, "hour"])),
            one("extra_forbidden", json!(["body", 0, "day"])),
            one("greater_than_equal", json!(["body", 1, "amount"])),
            one("less_than_equal", json!(["body", 1, "hour"])),
            one("model_attributes_type", json!(["body", 2])),
        ]
    );
    assert_eq!(problems(&fraud(), "{\"amount\": 1,"), [one("json_invalid", json!(["body", 12]))]);
    assert_eq!(
        problems(&image(), r#"{"word":"c","image":[[1,300],[1]]}"#),
        [one("int_parsing_size", json!(["body", "image", 0, 1])), one("literal_error", json!(["body", "word"]))]
    );
    assert_eq!(problems(&image(), r#"{"word":"a","image":[[1,2],[1]]}"#), [one("value_error", json!(["body"]))]);
    assert_eq!(
        problems(&image(), r#"{"word":1,"image":[[1,2]]}"#),
        [one("too_short", json!(["body", "image"])), one("literal_error", json!(["body", "word"])),]
    );
    assert_eq!(problems(&fraud(), r#"{"amount":1,"amount":2,"hour":3}"#).len(), 1);
}

#[test]
fn answers_have_labels_and_named_probabilities() {
    let signature = fraud();
    let outputs = vec![
        Output { name: "label".into(), place: 0, tensor: Tensor::from_vec(Shape::new(&[2]), vec![1i64, 7]).expect("fits") },
        Output {
            name: "probabilities".into(),
            place: 1,
            tensor: Tensor::from_vec(Shape::new(&[2, 2]), vec![0.25f32, 0.75, f32::NAN, 1.0]).expect("fits"),
        },
    ];
    let response = Response {
        model: "fraud".parse().expect("a name"),
        version: 1,
        digest: Digest::sha256(&[0; 32]),
        id: None,
        outputs,
        cached: None,
    };
    let written: Value = serde_json::from_slice(&write(&signature, &response, Form::List(2))).expect("JSON");
    assert_eq!(
        written,
        json!([
            { "label": "fraud", "probabilities": { "legitimate": 0.25, "fraud": 0.75 } },
            { "label": 7, "probabilities": { "legitimate": null, "fraud": 1.0 } },
        ])
    );
}
