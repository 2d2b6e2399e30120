//! What is decoded is what the Open Inference Protocol's form of the same rows is; and the forms of the answers.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate_core::shape::Dim;
use sluicegate_core::signature::{About, Feature};
use sluicegate_core::{DType, Digest, Shape, Tensor};

use sluicegate_core::Response;
use sluicegate_core::response::Output;
use sluicegate_core::signature::{Kind, TensorSpec};

use super::*;

fn rows_of(rest: &[Dim]) -> Vec<Dim> {
    [&[Dim::Free(Some("N".into()))], rest].concat()
}

fn spec(name: &str, dtype: DType, rest: &[Dim]) -> TensorSpec {
    TensorSpec::new(name, dtype, rows_of(rest))
}

/// `X` of the columns `amount` and `hour`.
pub(crate) fn fraud() -> Signature {
    let mut x = spec("X", DType::Fp32, &[Dim::Fixed(2)]);
    x.features = ["amount", "hour"].map(|name| Feature { name: name.into(), about: About::default() }).into();
    let mut scores = TensorSpec { kind: Kind::Probability, ..spec("scores", DType::Fp32, &[Dim::Fixed(2)]) };
    scores.labels = vec!["no".into(), "yes".into()];
    Signature::new(vec![x], vec![spec("label", DType::Int64, &[]), scores], None).expect("a good signature")
}

/// `word` and `count`, one a row, as sklearn's exporter has them.
pub(crate) fn words() -> Signature {
    let (word, count) = (spec("word", DType::Bytes, &[Dim::Fixed(1)]), spec("count", DType::Int64, &[Dim::Fixed(1)]));
    Signature::new(vec![word, count], vec![spec("y", DType::Fp32, &[])], None).expect("a good signature")
}

/// `image` of 2 rows by as many columns as there are.
fn image() -> Signature {
    let image = spec("image", DType::Fp64, &[Dim::Fixed(2), Dim::Free(None)]);
    Signature::new(vec![image.clone()], vec![image], None).expect("a good signature")
}

pub(crate) fn floats(sizes: &[usize], values: Vec<f32>) -> Tensor {
    Tensor::from_vec(Shape::new(sizes), values).expect("fits")
}

fn text(sizes: &[usize], values: &[&str]) -> Tensor {
    Tensor::text(Shape::new(sizes), values.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()).expect("fits")
}

fn asked(signature: &Signature, body: &Value) -> Result<Asked> {
    read(signature, body.to_string().as_bytes())
}

/// The inputs of a good request.
fn inputs(signature: &Signature, body: &Value) -> Vec<Tensor> {
    let asked = asked(signature, body).unwrap_or_else(|error| panic!("{body}: {error}"));
    asked.inputs.into_iter().map(|(_, tensor)| tensor).collect()
}

fn refused(signature: &Signature, body: &Value) -> String {
    let error = asked(signature, body).expect_err(&body.to_string());
    assert_eq!(error.code(), Code::Malformed);
    error.message().to_owned()
}

#[test]
fn every_form_of_the_same_rows_is_the_same_tensor() {
    let expected = [floats(&[2, 2], vec![1.0, 2.0, 3.0, 4.0])];
    for body in [
        json!({ "instances": [[1, 2], [3.0, 4]] }),
        json!({ "signature_name": "serving_default", "instances": [{ "X": [1, 2] }, { "X": [3, 4] }] }),
        json!({ "instances": [{ "amount": 1, "hour": 2 }, { "hour": 4, "amount": [3] }] }),
        json!({ "instances": [{ "amount": 1, "hour": 2 }, [3, 4]], "signature_name": "" }),
        json!({ "inputs": [[1, 2], [3, 4]] }),
        json!({ "inputs": { "X": [[1, 2], [3, 4]] } }),
        json!({ "inputs": { "hour": [2, 4], "amount": [[1], [3]] } }),
        json!({ "inputs": [{ "hour": 2, "amount": 1 }, { "X": [3, 4] }] }),
    ] {
        assert_eq!(inputs(&fraud(), &body), expected, "{body}");
    }
    let expected = [text(&[2, 1], &["a", "b"]), Tensor::from_vec(Shape::new(&[2, 1]), vec![1i64, 2]).expect("fits")];
    for body in [
        json!({ "instances": [{ "word": "a", "count": 1 }, { "count": [2], "word": ["b"] }] }),
        json!({ "instances": [["a", 1], [[["b"]], 2]] }),
        json!({ "inputs": { "word": ["a", "b"], "count": [[1], [2]] } }),
        json!({ "inputs": { "word": [{ "b64": "YQ==" }, "b"], "count": [1, 2] } }),
    ] {
        assert_eq!(inputs(&words(), &body), expected, "{body}");
    }
}

#[test]
fn the_form_of_the_request_is_that_of_its_answer() {
    let form = |body: Value| asked(&fraud(), &body).expect("a good request").form;
    assert_eq!(form(json!({ "instances": [[1, 2]] })), Form::Rows);
    assert_eq!(form(json!({ "inputs": [[1, 2]] })), Form::Columns);
    assert_eq!(form(json!({ "inputs": [{ "amount": 1, "hour": 2 }] })), Form::Rows);
}

#[test]
fn an_instance_has_a_row_to_itself_whatever_its_dimensions_are() {
    let one = inputs(&image(), &json!({ "instances": [[[1, 2, 3], [4, 5, 6]]] }));
    assert_eq!(one[0].shape(), &Shape::new(&[1, 2, 3]));
    assert_eq!(inputs(&image(), &json!({ "instances": [] }))[0].shape(), &Shape::new(&[0, 2, 0]));
    let scalar = Signature::new(vec![spec("x", DType::Fp32, &[])], vec![spec("y", DType::Fp32, &[])], None).expect("good");
    assert_eq!(inputs(&scalar, &json!({ "instances": [1.0, 2.0, 5.0] })), [floats(&[3], vec![1.0, 2.0, 5.0])]);
    // A model without rows: its first axis is that of the instances.
    let pair = TensorSpec::new("x", DType::Fp32, vec![Dim::Fixed(2)]);
    let pair = Signature::new(vec![pair.clone()], vec![pair], None).expect("good");
    assert_eq!(inputs(&pair, &json!({ "instances": [1, 2] })), [floats(&[2], vec![1.0, 2.0])]);
}

#[test]
fn numbers_have_words_where_json_has_none() {
    let body = br#"{"instances": [[NaN, -Infinity], ["Infinity", null]], "signature_name": "serving_default"}"#;
    let read = read(&fraud(), body).expect("a good request");
    let values = read.inputs[0].1.values::<f32>().expect("floats").into_owned();
    assert!(values[0].is_nan() && values[3].is_nan());
    assert_eq!(values[1..3], [f32::NEG_INFINITY, f32::INFINITY]);
    assert_eq!(nest::quoted(r#"["NaN \" NaN", "Prüfung"]"#), None);
    assert_eq!(nest::quoted(r#"["ü\\", -Infinity, NaN]"#).as_deref(), Some(r#"["ü\\", "-Infinity", "NaN"]"#));
    let int = Signature::new(vec![spec("x", DType::Int32, &[])], vec![spec("y", DType::Fp32, &[])], None).expect("good");
    assert!(refused(&int, &json!({ "instances": [null] })).contains("null is no INT32"));
}

#[test]
fn what_is_wrong_is_named() {
    for (body, why) in [
        (json!({}), "expected `instances`"),
        (json!({ "instances": [], "inputs": [] }), "got two"),
        (json!({ "instances": [], "parameters": {} }), "unknown key `parameters`"),
        (json!({ "instances": [[1, 2]], "signature_name": "other" }), "signature `serving_default`, got `other`"),
        (json!({ "instances": { "X": [1, 2] } }), "expected a list of rows"),
        (json!({ "instances": [[1, 2], [3]] }), "row 1: `X`: a list of 1 where others have 2"),
        (json!({ "instances": [[1, [2]]] }), "a list where others have a value"),
        (json!({ "instances": [[[1], 2]] }), "a value where others have a list"),
        (json!({ "instances": [[1, "x"]] }), "\"x\" is no FP32"),
        (json!({ "instances": [{ "amount": 1 }] }), "row 0: `hour` is missing"),
        (json!({ "instances": [{}] }), "`amount`, `hour` are missing"),
        (json!({ "instances": [{ "amount": 1, "hour": 2, "X": [1, 2] }] }), "`X` is there twice"),
        (json!({ "instances": [{ "amount": 1, "day": 2 }] }), "`day` is unknown: the model has `amount`, `hour`"),
        (json!({ "instances": [{ "amount": [1, 2] }] }), "a list of several"),
        (json!({ "inputs": { "amount": [1, 2], "hour": [1] } }), "`hour` has 1 rows, `amount` has 2"),
        (json!({ "inputs": { "amount": [1] } }), "`hour` is missing"),
        (json!({ "inputs": { "X": [[1, 2]], "amount": [1] } }), "`amount` is there twice"),
        (json!({ "inputs": { "amount": [[1, 2]] } }), "expected a list of values"),
    ] {
        let message = refused(&fraud(), &body);
        assert!(message.contains(why), "{body}: {message}");
    }
    assert!(refused(&words(), &json!({ "inputs": [["a"]] })).contains("2 inputs"));
    assert!(refused(&words(), &json!({ "instances": ["a"] })).contains("several inputs"));
    assert!(refused(&words(), &json!({ "instances": [["a", 1, 2]] })).contains("expected 2 values, got 3"));
    assert!(refused(&words(), &json!({ "instances": [{ "word": { "b64": "?" }, "count": 1 }] })).contains("b64"));
    let deep = format!("{{\"instances\": [{}1{}]}}", "[".repeat(90), "]".repeat(90));
    assert!(read(&image(), deep.as_bytes()).expect_err("deep").message().contains("16 lists"));
}

#[test]
fn examples_share_a_context() {
    let body = json!({ "examples": [{ "amount": 1 }, { "amount": [2] }], "context": { "hour": 7 } }).to_string();
    let inputs = read_examples(&fraud(), body.as_bytes(), Verb::Classify).expect("good examples");
    assert_eq!(inputs[0].1, floats(&[2, 2], vec![1.0, 7.0, 2.0, 7.0]));
    for (body, why) in [
        (json!({ "examples": [{ "amount": 1, "hour": 1 }], "context": { "hour": 7 } }), "`hour` is there twice"),
        (json!({ "examples": [], "context": [7] }), "`context` is an object"),
        (json!({ "examples": [[1, 2]] }), "expected an object"),
        (json!({ "instances": [[1, 2]] }), "unknown field `instances`"),
        (json!({ "examples": [], "signature_name": "tensorflow/serving/regress" }), "signature_name"),
    ] {
        let error = read_examples(&fraud(), body.to_string().as_bytes(), Verb::Classify).expect_err(why);
        assert!(error.message().contains(why), "{error}");
    }
    let good = json!({ "examples": [], "signature_name": "tensorflow/serving/classify" }).to_string();
    assert!(read_examples(&fraud(), good.as_bytes(), Verb::Classify).is_ok());
    let wide =
        format!("{{\"context\": {{\"hour\": 1{}}}, \"examples\": [{}{{}}]}}", " ".repeat(1 << 20), "{\"amount\":1},".repeat(99));
    let error = read_examples(&fraud(), wide.as_bytes(), Verb::Classify).expect_err("too much");
    assert!(error.message().contains("repeated for each example"), "{error}");
}

pub(crate) fn response(outputs: Vec<(&str, Tensor)>) -> Response {
    let output = |(place, (name, tensor)): (usize, (&str, Tensor))| Output { name: name.into(), place, tensor };
    Response {
        model: "m".parse().expect("a name"),
        version: 1,
        digest: Digest::sha256(&[0; 32]),
        id: None,
        cached: None,
        outputs: outputs.into_iter().enumerate().map(output).collect(),
    }
}

fn written(response: &Response, form: Form) -> Value {
    serde_json::from_slice(&write(response, form).expect("writes")).expect("JSON")
}

#[test]
fn one_output_is_answered_without_its_name() {
    let one = response(vec![("y", floats(&[2, 2], vec![1.0, f32::NAN, 3.0, 4.5]))]);
    assert_eq!(written(&one, Form::Rows), json!({ "predictions": [[1.0, null], [3.0, 4.5]] }));
    assert_eq!(written(&one, Form::Columns), json!({ "outputs": [[1.0, null], [3.0, 4.5]] }));
    let two = response(vec![("a", floats(&[2], vec![1.0, 2.0])), ("b_bytes", text(&[2, 1], &["x", "y"]))]);
    assert_eq!(
        written(&two, Form::Rows),
        json!({ "predictions": [{ "a": 1.0, "b_bytes": [{ "b64": "eA==" }] }, { "a": 2.0, "b_bytes": [{ "b64": "eQ==" }] }] })
    );
    assert_eq!(
        written(&two, Form::Columns),
        json!({ "outputs": { "a": [1.0, 2.0], "b_bytes": [[{ "b64": "eA==" }], [{ "b64": "eQ==" }]] } })
    );
    let odd = response(vec![("a", floats(&[2], vec![1.0, 2.0])), ("b", floats(&[1], vec![1.0]))]);
    assert_eq!(write(&odd, Form::Rows).expect_err("no rows").code(), Code::WrongShape);
    let none = response(vec![("a", floats(&[], vec![1.0]))]);
    assert_eq!(write(&none, Form::Rows).expect_err("no rows").code(), Code::WrongShape);
    assert_eq!(written(&none, Form::Columns), json!({ "outputs": 1.0 }));
}

#[test]
fn classes_have_labels_and_scores() {
    let signature = fraud();
    assert_eq!(&*output(&signature, Verb::Classify).expect("scores").name, "scores");
    assert_eq!(output(&signature, Verb::Regress).expect_err("no number").code(), Code::UnknownOutput);
    assert_eq!(&*output(&words(), Verb::Regress).expect("a number").name, "y");
    let mut scores =
        response(vec![("label", floats(&[2], vec![0.0, 0.0])), ("scores", floats(&[2, 2], vec![0.5, 0.5, 1.0, 0.0]))]);
    scores.outputs.remove(0);
    let written: Value =
        serde_json::from_slice(&write_results(&signature, &scores, Verb::Classify).expect("writes")).expect("JSON");
    assert_eq!(written, json!({ "results": [[["no", 0.5], ["yes", 0.5]], [["no", 1.0], ["yes", 0.0]]] }));
    let number = response(vec![("y", floats(&[3], vec![3.5, 4.0, 5.5]))]);
    let written: Value = serde_json::from_slice(&write_results(&words(), &number, Verb::Regress).expect("writes")).expect("JSON");
    assert_eq!(written, json!({ "results": [3.5, 4.0, 5.5] }));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), json in "[\\[\\]{}:,\"a0-9NnIb64 .-]{0,64}") {
        for signature in [fraud(), words(), image()] {
            let _ = read(&signature, &bytes);
            let _ = read_examples(&signature, &bytes, Verb::Classify);
            for key in ["instances", "inputs"] {
                let _ = read(&signature, format!("{{\"{key}\": {json}}}").as_bytes());
                let _ = read(&signature, format!("{{\"{key}\": [{json}]}}").as_bytes());
            }
            let _ = read_examples(&signature, format!("{{\"examples\": [{json}], \"context\": {json}}}").as_bytes(), Verb::Regress);
        }
    }

    /// The rows as instances, as inputs and as a tensor of the Open Inference Protocol are one tensor; and an answer of it is read as it.
    #[test]
    fn rows_are_those_of_the_open_inference_protocol(rows in 0..5usize, width in 1..4usize, seed in prop::collection::vec(-1e9f64..1e9, 40)) {
        let row = |row: usize| json!([seed[row * 8..][..width], seed[row * 8 + 4..][..width]]);
        let list: Vec<Value> = (0..rows).map(row).collect();
        let flat: Vec<f64> = (0..rows).flat_map(|row| [&seed[row * 8..][..width], &seed[row * 8 + 4..][..width]].concat()).collect();
        let shape = [rows, 2, if rows == 0 { 0 } else { width }];
        let v2 = json!({ "inputs": [{ "name": "image", "datatype": "FP64", "shape": shape, "data": flat }] });
        let (v2, _) = sluicegate_codec::json::read(&v2.to_string().into(), None).expect("a good request");
        let v1 = asked(&image(), &json!({ "instances": list })).expect("a good request");
        prop_assert_eq!(&v1.inputs, &v2.inputs);
        let named: Vec<Value> = list.iter().map(|row| json!({ "image": row })).collect();
        prop_assert_eq!(asked(&image(), &json!({ "instances": named })).expect("good").inputs, v2.inputs.clone());
        let answered = written(&response(vec![("image", v2.inputs[0].1.clone())]), Form::Rows);
        let again = asked(&image(), &json!({ "instances": answered["predictions"] })).expect("our own");
        prop_assert_eq!(&again.inputs, &v2.inputs);
    }
}
