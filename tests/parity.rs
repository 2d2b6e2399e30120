//! The same request over JSON, binary tensors and gRPC is the same request: the same numbers, or an error of the same kind.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use sluicegate_core::{DType, Dim};
use sluicegate_proto::inference::infer_parameter::ParameterChoice;
use sluicegate_proto::inference::model_infer_request::InferRequestedOutputTensor;
use sluicegate_proto::inference::{InferParameter, ModelInferRequest};
use sluicegate_testkit::client::{Client, Request, Response};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx::{identity, rows};
use sluicegate_testkit::process::{Gateway, engine};
use sluicegate_tests::grpc::{Caller, code, input, runtime};

/// Columns of every model here.
const WIDTH: usize = 2;

/// Requests that are tried.
const CASES: u32 = 400;

/// The element types that have a JSON form and that the engine under test loads.
fn served() -> Vec<DType> {
    let all = [DType::Bool, DType::Uint8, DType::Int32, DType::Int64, DType::Fp32, DType::Fp64, DType::Bytes];
    all.into_iter().filter(|dtype| *dtype != DType::Bytes || engine() != "tract").collect()
}

fn model(dtype: DType) -> String {
    format!("same-{}", dtype.name().to_lowercase())
}

/// A request, right or wrong in one or several ways.
#[derive(Clone, Debug)]
struct Case {
    model: String,
    version: Option<&'static str>,
    id: String,
    inputs: Vec<Tensor>,
    outputs: Vec<&'static str>,
    parameters: Vec<(&'static str, i64)>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: &'static str,
    dtype: DType,
    shape: Vec<usize>,
    /// As JSON has it; each one has its raw form.
    elements: Vec<Value>,
}

fn element(dtype: DType) -> BoxedStrategy<Value> {
    match dtype {
        DType::Bool => any::<bool>().prop_map(Value::from).boxed(),
        DType::Uint8 => any::<u8>().prop_map(Value::from).boxed(),
        DType::Int32 => any::<i32>().prop_map(Value::from).boxed(),
        DType::Int64 => any::<i64>().prop_map(Value::from).boxed(),
        DType::Fp32 => any::<f32>().prop_filter("JSON has no NaN", |x| x.is_finite()).prop_map(|x| json!(f64::from(x))).boxed(),
        DType::Fp64 => any::<f64>().prop_filter("JSON has no NaN", |x| x.is_finite()).prop_map(Value::from).boxed(),
        _ => "[a-zé€]{0,6}".prop_map(Value::from).boxed(),
    }
}

fn raw(dtype: DType, elements: &[Value]) -> Vec<u8> {
    let one = |element: &Value| match dtype {
        DType::Bool => vec![u8::from(element.as_bool().expect("a bool"))],
        DType::Uint8 => vec![element.as_u64().expect("a number") as u8],
        DType::Int32 => (element.as_i64().expect("a number") as i32).to_le_bytes().to_vec(),
        DType::Int64 => element.as_i64().expect("a number").to_le_bytes().to_vec(),
        DType::Fp32 => (element.as_f64().expect("a number") as f32).to_le_bytes().to_vec(),
        DType::Fp64 => element.as_f64().expect("a number").to_le_bytes().to_vec(),
        _ => {
            let text = element.as_str().expect("a text").as_bytes();
            [&(text.len() as u32).to_le_bytes(), text].concat()
        }
    };
    elements.iter().flat_map(one).collect()
}

/// Mostly right, so that what is wrong is seldom more than one thing.
fn mostly<T: Clone + std::fmt::Debug + 'static>(right: T, wrong: Vec<T>) -> BoxedStrategy<T> {
    prop_oneof![9 => Just(right), 1 => prop::sample::select(wrong)].boxed()
}

fn tensor(dtype: DType) -> impl Strategy<Value = Tensor> {
    let name = mostly("x", vec!["X", "other"]);
    let sent = mostly(dtype, served());
    let shape =
        (0..4usize).prop_flat_map(|rows| mostly(vec![rows, WIDTH], vec![vec![rows], vec![rows, 3], vec![rows, WIDTH, 1]]));
    let off = mostly(0i64, vec![-1, 1]);
    (name, sent, shape, off).prop_flat_map(|(name, dtype, shape, off)| {
        let count = usize::try_from((shape.iter().product::<usize>() as i64 + off).max(0)).expect("not negative");
        let elements = prop::collection::vec(element(dtype), count);
        elements.prop_map(move |elements| Tensor { name, dtype, shape: shape.clone(), elements })
    })
}

fn case() -> impl Strategy<Value = Case> {
    prop::sample::select(served()).prop_flat_map(|dtype| {
        let inputs = mostly(1usize, vec![0, 2]).prop_flat_map(move |count| prop::collection::vec(tensor(dtype), count));
        let parameters = prop::collection::vec(
            prop_oneof![
                Just(("priority", 1)),
                Just(("timeout", 60_000_000)),
                Just(("sticky", 7)),
                Just(("sequence_id", 0)),
                Just(("sequence_id", 5))
            ],
            0..2,
        );
        let outputs = prop_oneof![6 => Just(vec![]), 3 => Just(vec!["y"]), 1 => Just(vec!["z"])];
        let version = mostly(None, vec![Some("1"), Some("77"), Some("stable"), Some("no such")]);
        (mostly(model(dtype), vec!["nobody".to_owned()]), version, "[a-z0-9]{1,8}", inputs, outputs, parameters).prop_map(
            |(model, version, id, inputs, outputs, parameters)| Case { model, version, id, inputs, outputs, parameters },
        )
    })
}

impl Case {
    fn path(&self) -> String {
        let version = self.version.map_or_else(String::new, |version| format!("/versions/{}", version.replace(' ', "%20")));
        format!("/v2/models/{}{version}/infer", self.model)
    }

    fn json(&self, binary: bool) -> Value {
        let input = |tensor: &Tensor| {
            let mut input = json!({ "name": tensor.name, "datatype": tensor.dtype, "shape": tensor.shape });
            if binary {
                input["parameters"] = json!({ "binary_data_size": raw(tensor.dtype, &tensor.elements).len() });
            } else {
                input["data"] = tensor.elements.clone().into();
            }
            input
        };
        let output = |name: &&str| json!({ "name": name });
        let mut parameters: serde_json::Map<String, Value> =
            self.parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        parameters.insert("binary_data_output".into(), binary.into());
        json!({
            "id": self.id,
            "parameters": parameters,
            "inputs": self.inputs.iter().map(input).collect::<Vec<_>>(),
            "outputs": self.outputs.iter().map(output).collect::<Vec<_>>(),
        })
    }

    fn message(&self) -> ModelInferRequest {
        let int = |value: i64| InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(value)) };
        ModelInferRequest {
            model_name: self.model.clone(),
            model_version: self.version.unwrap_or_default().to_owned(),
            id: self.id.clone(),
            parameters: self.parameters.iter().map(|(key, value)| ((*key).to_owned(), int(*value))).collect(),
            inputs: self.inputs.iter().map(|tensor| input(tensor.name, tensor.dtype.name(), &tensor.shape)).collect(),
            outputs: self
                .outputs
                .iter()
                .map(|&name| InferRequestedOutputTensor { name: name.to_owned(), ..Default::default() })
                .collect(),
            raw_input_contents: self.inputs.iter().map(|tensor| raw(tensor.dtype, &tensor.elements).into()).collect(),
        }
    }
}

/// What came of a request: who answered and with what raw outputs, or the kind of the error.
type Outcome = Result<(String, String, Vec<(String, String, Vec<u64>, Vec<u8>)>), String>;

/// The same thing under two names: elements that do not fill the shape, and bytes that do not.
fn kind(code: &str) -> String {
    code.replace("wrong_byte_count", "wrong_element_count")
}

fn outputs(answer: &Value, mut element: impl FnMut(&Value) -> Vec<u8>) -> Outcome {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let shape = |output: &Value| output["shape"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let output = |output: &Value| (text(&output["name"]), text(&output["datatype"]), shape(output), element(output));
    let outputs = answer["outputs"].as_array().into_iter().flatten().map(output).collect();
    Ok((text(&answer["model_version"]), text(&answer["id"]), outputs))
}

fn over_json(client: &mut Client, case: &Case) -> (u16, Outcome) {
    let response = client.request(&Request::post(&case.path(), case.json(false).to_string())).expect("an answer");
    refused(&response).unwrap_or_else(|| {
        let dtype = |output: &Value| DType::from_name(output["datatype"].as_str().unwrap_or_default()).expect("a type");
        let elements = |output: &Value| raw(dtype(output), output["data"].as_array().expect("elements"));
        (200, outputs(&response.json(), elements))
    })
}

fn over_binary(client: &mut Client, case: &Case) -> (u16, Outcome) {
    let bytes: Vec<u8> = case.inputs.iter().flat_map(|tensor| raw(tensor.dtype, &tensor.elements)).collect();
    let response = client.request(&Request::binary(&case.path(), &case.json(true), &bytes)).expect("an answer");
    refused(&response).unwrap_or_else(|| {
        let (head, mut rest) = response.binary().expect("binary outputs");
        let take = |output: &Value| {
            let size = usize::try_from(output["parameters"]["binary_data_size"].as_u64().expect("a size")).expect("small");
            let (bytes, left) = rest.split_at(size);
            rest = left;
            bytes.to_vec()
        };
        (200, outputs(&head, take))
    })
}

fn refused(response: &Response) -> Option<(u16, Outcome)> {
    let code = || kind(response.json()["code"].as_str().unwrap_or_else(|| panic!("no code: {}", response.text())));
    (response.status != 200).then(|| (response.status, Err(code())))
}

async fn over_grpc(caller: &Caller, case: &Case) -> (i32, Outcome) {
    match caller.infer(case.message()).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let shape = |shape: &[i64]| shape.iter().map(|&size| u64::try_from(size).expect("a size")).collect();
            let output =
                |(output, raw): (&sluicegate_proto::inference::model_infer_response::InferOutputTensor, &bytes::Bytes)| {
                    (output.name.clone(), output.datatype.clone(), shape(&output.shape), raw.to_vec())
                };
            let outputs = answer.outputs.iter().zip(&answer.raw_output_contents).map(output).collect();
            (0, Ok((answer.model_version, answer.id, outputs)))
        }
        Err(status) => (i32::from(status.code()), Err(kind(code(&status)))),
    }
}

/// The gRPC code that stands beside an HTTP status in the one table.
fn beside(http: u16) -> i32 {
    match http {
        200 => 0,
        400 => 3,
        404 => 5,
        501 => 12,
        500 => 13,
        other => panic!("none of these requests is answered with {other}"),
    }
}

#[test]
fn a_request_is_the_same_over_every_transport() {
    let folder = Folder::default();
    for dtype in served() {
        folder.publish(&model(dtype), 1, &identity(dtype, &[rows(), Dim::Fixed(WIDTH)]));
    }
    let gateway = Gateway::start(&folder, "");
    let runtime = runtime();
    let caller = runtime.block_on(async { Caller::new(gateway.grpc()) });
    let (mut answered, mut refused) = (0, 0);
    let mut runner = TestRunner::new_with_rng(
        Config { cases: CASES, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let cell = std::cell::RefCell::new((gateway.client(), &mut answered, &mut refused));
    let held = runner.run(&case(), |case| {
        let mut shared = cell.borrow_mut();
        let (status, json) = over_json(&mut shared.0, &case);
        let (same, binary) = over_binary(&mut shared.0, &case);
        let (code, grpc) = runtime.block_on(over_grpc(&caller, &case));
        prop_assert_eq!(&json, &binary, "JSON and binary");
        prop_assert_eq!(&binary, &grpc, "binary and gRPC");
        prop_assert_eq!((status, beside(status)), (same, code));
        *(if json.is_ok() { &mut *shared.1 } else { &mut *shared.2 }) += 1;
        Ok(())
    });
    held.unwrap_or_else(|error| panic!("{error}"));
    drop(cell);
    assert!(answered > CASES / 5 && refused > CASES / 5, "both kinds were tried: {answered} and {refused}");
}
