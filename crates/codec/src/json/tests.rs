//! What the JSON of the protocol promises.

use std::time::Duration;

use proptest::prelude::*;
use sluicegate_core::response::Output;

use super::*;

fn parse(text: &str) -> Result<(Request, Outputs)> {
    read(&Bytes::copy_from_slice(text.as_bytes()), None)
}

#[test]
fn data_may_come_before_its_type_flat_or_nested() {
    for text in [
        r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,2,3,4]}]}"#,
        r#"{"inputs":[{"data":[[1,2],[3,4.0]],"shape":[2,2],"name":"x","datatype":"FP32"}],"model_name":"ignored"}"#,
    ] {
        let (request, _) = parse(text).expect("a good request");
        assert_eq!(&*request.inputs[0].1.values::<f32>().expect("floats"), [1.0, 2.0, 3.0, 4.0]);
    }
}

#[test]
fn parameters_are_read_and_reserved_ones_refused() {
    let with = |parameters: &str| {
        parse(&format!(
            r#"{{"id":"7","parameters":{parameters},"inputs":[{{"name":"x","datatype":"INT8","shape":[1],"data":[1]}}]}}"#
        ))
    };
    let (request, asked) = with(r#"{"priority":1,"timeout":5000,"binary_data_output":true,"mine":"x"}"#).expect("good");
    assert_eq!((request.priority, request.timeout), (1, Some(Duration::from_millis(5))));
    assert!(asked.is_binary("y"));
    assert_eq!(with(r#"{"triton_x":1}"#).expect_err("reserved").code(), Code::Malformed);
    assert_eq!(with(r#"{"sequence_id":7}"#).expect_err("not served").code(), Code::Unsupported);
    assert!(with(r#"{"sequence_id":0,"sequence_start":false}"#).is_ok());
    assert_eq!(with(r#"{"mine":[1]}"#).expect_err("a list").code(), Code::Malformed);
}

#[test]
fn an_output_says_how_it_travels() {
    let text = r#"{"inputs":[],"parameters":{"binary_data_output":true},"outputs":[
        {"name":"a"},{"name":"b","parameters":{"binary_data":false,"classification":3}},{"name":"c","parameters":{"classification":2}}]}"#;
    let (request, asked) = parse(text).expect("good");
    assert_eq!(request.outputs, ["a", "b", "c"]);
    let each = ["a", "b", "c"].map(|name| (asked.is_binary(name), asked.classes(name)));
    assert_eq!(each, [(true, 0), (false, 3), (true, 2)]);
    let bad = r#"{"inputs":[],"outputs":[{"name":"a","parameters":{"classification":-1}}]}"#;
    assert_eq!(parse(bad).expect_err("fewer than none").code(), Code::Malformed);
}

#[test]
fn a_shape_that_overflows_is_refused_before_memory_is_taken() {
    for (shape, code) in [
        ("[9223372036854775807,9223372036854775807]", Code::InvalidShape),
        ("[-1]", Code::InvalidShape),
        ("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", Code::InvalidShape),
        ("[1.5]", Code::Malformed),
        ("\"x\"", Code::Malformed),
    ] {
        let text = format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":{shape},"data":[]}}]}}"#);
        assert_eq!(parse(&text).expect_err(shape).code(), code, "{shape}");
    }
    let large = r#"{"inputs":[{"name":"x","datatype":"FP64","shape":[4611686018427387904],"data":[]}]}"#;
    assert_eq!(parse(large).expect_err("no elements").code(), Code::InvalidShape);
}

#[test]
fn a_key_that_is_there_twice_is_refused_whichever_a_reader_would_go_by() {
    let input = r#""name":"x","datatype":"FP32","shape":[1],"data":[1]"#;
    for twice in [
        format!(r#"{{"inputs":[{{{input},"datatype":"INT64"}}]}}"#),
        format!(r#"{{"inputs":[{{{input},"data":[2]}}]}}"#),
        format!(r#"{{"inputs":[{{"data":[2],{input}}}]}}"#),
        format!(r#"{{"inputs":[{{{input}}}],"inputs":[]}}"#),
        format!(r#"{{"id":"1","id":null,"inputs":[{{{input}}}]}}"#),
        format!(r#"{{"parameters":{{"priority":1,"priority":0}},"inputs":[{{{input}}}]}}"#),
    ] {
        let error = parse(&twice).expect_err(&twice);
        assert!(error.code() == Code::Malformed && error.message().contains("is there twice"), "{twice}: {error}");
    }
}

#[test]
fn room_is_made_for_what_the_text_can_have_and_not_on_the_word_of_a_shape() {
    let room = Cell::new(100);
    let shape = Ok(Shape::new(&[60]));
    assert_eq!([0; 3].map(|_| InputSeed(&room).room(Some(&shape))), [60, 40, 0]);
}

#[test]
fn a_fault_is_told_with_its_byte() {
    let error = parse("{\n  \"inputs\": [x]}").expect_err("malformed");
    assert_eq!(error.problems()[0].loc, ["body".into(), 15usize.into()]);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), json in ".{0,64}") {
        let _ = read(&bytes.into(), None);
        let _ = parse(&format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1],"data":{json}}}]}}"#));
    }

    /// A response read as a request gives the same tensors: JSON and binary are each other's inverse.
    #[test]
    fn what_is_answered_can_be_asked(values in prop::collection::vec(-1e6f32..1e6, 0..20), words in prop::collection::vec(".*", 1..4), raw: bool) {
        let tensors = [
            ("x", Tensor::from_vec(Shape::new(&[values.len()]), values).expect("fits")),
            ("w", Tensor::text(Shape::new(&[words.len()]), words.into_iter().map(Bytes::from).collect()).expect("fits")),
        ];
        let response = Response {
            model: "m".parse().expect("a name"),
            version: 1,
            digest: sluicegate_core::Digest::sha256(&[0; 32]),
            id: None,
            cached: None,
            outputs: tensors.iter().enumerate().map(|(place, (name, tensor))| Output { name: (*name).into(), place, tensor: tensor.clone() }).collect(),
        };
        let Encoded { body, json } = write(&response, "1", &Outputs::new(raw)).expect("writes");
        let text = String::from_utf8_lossy(&body[..json.unwrap_or(body.len())]).replacen("\"outputs\"", "\"inputs\"", 1);
        let rest = json.map(|json| Bytes::copy_from_slice(&body[json..]));
        let length = rest.as_ref().map(|_| text.len().to_string());
        let whole = [text.as_bytes(), rest.as_deref().unwrap_or_default()].concat();
        let (head, raw) = binary::split(length.as_deref(), whole.into()).expect("splits");
        let (request, _) = read(&head, raw).expect("reads");
        for ((_, sent), (_, got)) in tensors.iter().zip(&request.inputs) {
            prop_assert_eq!(sent, got);
        }
    }
}
