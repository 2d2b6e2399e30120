//! What the messages of the protocol promise: raw and typed contents, parameters, and what is refused.

use proptest::prelude::*;
use std::time::Duration;

use prost::Message;
use sluicegate_core::response::Output;
use sluicegate_core::{Digest, ModelName};
use sluicegate_proto::inference::model_infer_request::InferRequestedOutputTensor;

use super::*;

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let bytes = prop::collection::vec(any::<u8>(), 0..96);
    (bytes, prop::sample::select(DType::ALL.to_vec())).prop_map(|(mut bytes, dtype)| match dtype.size() {
        Some(size) => {
            bytes.truncate(bytes.len() / size * size);
            if dtype == DType::Bool {
                bytes.iter_mut().for_each(|byte| *byte &= 1);
            }
            Tensor::fixed(dtype, Shape::new(&[bytes.len() / size]), bytes.into()).expect("fits")
        }
        None => {
            let words: Vec<Bytes> = bytes.split(|&b| b < 30).map(Bytes::copy_from_slice).collect();
            Tensor::text(Shape::new(&[words.len()]), words).expect("fits")
        }
    })
}

/// A message over the wire and back, as a transport would carry it.
fn sent(message: &ModelInferRequest) -> ModelInferRequest {
    ModelInferRequest::decode(Bytes::from(message.encode_to_vec())).expect("our own message")
}

fn input(tensor: &Tensor, contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: "x".into(),
        datatype: tensor.dtype().name().into(),
        shape: tensor.shape().sizes().iter().map(|&size| size as i64).collect(),
        parameters: BTreeMap::new(),
        contents,
    }
}

fn as_raw(tensor: &Tensor) -> ModelInferRequest {
    ModelInferRequest { inputs: vec![input(tensor, None)], raw_input_contents: vec![raw(tensor)], ..Default::default() }
}

fn as_typed(tensor: &Tensor) -> ModelInferRequest {
    ModelInferRequest { inputs: vec![input(tensor, Some(spread(tensor)))], ..Default::default() }
}

fn choice(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

/// Bits and not values: a NaN is equal to itself here.
fn same(one: &Tensor, other: &Tensor) -> bool {
    one.dtype() == other.dtype() && one.shape() == other.shape() && raw(one) == raw(other)
}

#[test]
fn a_message_of_a_million_empty_inputs_is_refused_before_it_is_read() {
    let inputs = |count| ModelInferRequest { inputs: vec![InferInputTensor::default(); count], ..Default::default() };
    assert!(few_fields(&inputs(MAX_FIELDS).encode_to_vec()).is_ok());
    assert_eq!(few_fields(&inputs(MAX_FIELDS + 1).encode_to_vec()).expect_err("too many").code(), Code::Malformed);
    assert!(few_fields(&[0xff; 64]).is_ok());
}

proptest! {
    #[test]
    fn raw_and_typed_contents_are_the_same_tensor(tensor in any_tensor()) {
        let (request, _) = read(sent(&as_raw(&tensor))).expect("raw contents");
        prop_assert!(same(&request.inputs[0].1, &tensor));
        match read(sent(&as_typed(&tensor))) {
            Ok((request, _)) => prop_assert!(same(&request.inputs[0].1, &tensor)),
            Err(error) => {
                prop_assert!(matches!(tensor.dtype(), DType::Fp16 | DType::Bf16), "{error}");
                prop_assert_eq!(error.code(), Code::InvalidTensor);
            }
        }
    }

    #[test]
    fn what_is_answered_can_be_sent_back(tensor in any_tensor(), typed in any::<bool>()) {
        let model: ModelName = "m".parse().expect("a name");
        let output = Output { name: "y".into(), place: 0, tensor: tensor.clone() };
        let response =
            Response { model, version: 3, digest: Digest::sha256(&[0; 32]), id: None, outputs: vec![output], cached: None };
        let Ok(answer) = write(response, "1".into(), &Form { typed, ..Form::default() }) else {
            prop_assert!(typed && matches!(tensor.dtype(), DType::Fp16 | DType::Bf16));
            return Ok(());
        };
        prop_assert_eq!((&*answer.model_version, &*answer.id), ("3", "1"));
        let InferOutputTensor { datatype, shape, contents, .. } = answer.outputs[0].clone();
        prop_assert_eq!(contents.is_some(), typed);
        let inputs = vec![InferInputTensor { name: "x".into(), datatype, shape, contents, ..Default::default() }];
        let back = ModelInferRequest { inputs, raw_input_contents: answer.raw_output_contents, ..Default::default() };
        prop_assert!(same(&read(back).expect("our own answer").0.inputs[0].1, &tensor));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        if let Ok(message) = ModelInferRequest::decode(Bytes::from(bytes)) {
            let _ = read(message);
        }
    }
}

#[test]
fn raw_contents_are_views_into_the_message() {
    let tensor = Tensor::from_vec(Shape::new(&[4]), vec![1f32, 2.0, 3.0, 4.0]).expect("fits");
    let wire = Bytes::from(as_raw(&tensor).encode_to_vec());
    let (begin, end) = (wire.as_ptr() as usize, wire.as_ptr() as usize + wire.len());
    let (request, _) = read(ModelInferRequest::decode(wire).expect("our own message")).expect("raw contents");
    let at = request.inputs[0].1.bytes().expect("fixed width").as_ptr() as usize;
    assert!((begin..end).contains(&at));
}

#[test]
fn contents_that_contradict_each_other_are_named() {
    let tensor = Tensor::from_vec(Shape::new(&[2]), vec![1i32, 2]).expect("fits");
    let both = ModelInferRequest { raw_input_contents: vec![raw(&tensor)], ..as_typed(&tensor) };
    let missing = ModelInferRequest { raw_input_contents: vec![raw(&tensor); 2], ..as_raw(&tensor) };
    let mut wrong = as_typed(&tensor);
    wrong.inputs[0].datatype = "FP32".into();
    let mut far = as_typed(&Tensor::from_vec(Shape::new(&[1]), vec![300i32]).expect("fits"));
    far.inputs[0].datatype = "INT8".into();
    let mut odd = as_raw(&tensor);
    odd.inputs[0].datatype = "INT33".into();
    let mut negative = as_raw(&tensor);
    negative.inputs[0].shape = vec![-1];
    let mut short = as_raw(&tensor);
    short.inputs[0].shape = vec![3];
    for (request, code, part) in [
        (both, Code::Malformed, "input `x`: has both"),
        (missing, Code::Malformed, "2 entries for 1 inputs"),
        (wrong, Code::Malformed, "expected the elements of FP32 in fp32_contents, got int_contents"),
        (far, Code::InvalidTensor, "300 is not a value of INT8"),
        (odd, Code::Malformed, "datatype `INT33`"),
        (negative, Code::InvalidShape, "-1"),
        (short, Code::WrongByteCount, "takes 12 bytes, got 8"),
    ] {
        let error = read(sent(&request)).expect_err(part);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(part), "{error}");
    }
}

#[test]
fn parameters_are_read_in_either_kind_of_integer() {
    let set = |key: &str, value| ModelInferRequest { parameters: [(key.to_owned(), choice(value))].into(), ..Default::default() };
    let request = |key, value| read(set(key, value)).map(|(request, _)| (request.priority, request.timeout));
    let second = Some(Duration::from_secs(1));
    assert_eq!(request("priority", ParameterChoice::Uint64Param(2)).expect("unsigned"), (2, None));
    assert_eq!(request("priority", ParameterChoice::Int64Param(2)).expect("signed"), (2, None));
    assert_eq!(request("timeout", ParameterChoice::Int64Param(1_000_000)).expect("signed"), (0, second));
    assert_eq!(request("sequence_id", ParameterChoice::Int64Param(0)).expect("asks for nothing"), (0, None));
    assert_eq!(request("sticky", ParameterChoice::StringParam("u1".into())).expect("passes"), (0, None));
    for (key, value, code) in [
        ("timeout", ParameterChoice::Int64Param(-1), Code::Malformed),
        ("priority", ParameterChoice::StringParam("1".into()), Code::Malformed),
        ("sequence_id", ParameterChoice::Int64Param(7), Code::Unsupported),
        ("triton_x", ParameterChoice::BoolParam(true), Code::Malformed),
    ] {
        assert_eq!(request(key, value).expect_err(key).code(), code, "{key}");
    }
}

#[test]
fn outputs_are_typed_only_where_that_is_asked_for_in_a_typed_request() {
    let tensor = Tensor::from_vec(Shape::new(&[1]), vec![1f32]).expect("fits");
    let ask = |mut request: ModelInferRequest| {
        request.parameters.insert("typed_output".into(), choice(ParameterChoice::BoolParam(true)));
        request.outputs.push(InferRequestedOutputTensor { name: "y".into(), ..Default::default() });
        read(request).expect("a good request")
    };
    assert!(ask(as_typed(&tensor)).1.typed);
    assert!(!ask(as_raw(&tensor)).1.typed);
    assert_eq!(ask(as_raw(&tensor)).0.outputs, ["y"]);
}
