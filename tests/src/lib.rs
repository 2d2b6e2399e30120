//! What the tests of the whole process share: models, requests that fit them, and what an answer must say.

pub mod grpc;
pub mod rollout;

use std::time::Instant;

use serde_json::{Value, json};
use sluicegate_core::{DType, Dim};
use sluicegate_testkit::client::{Client, Request, Response};
use sluicegate_testkit::onnx::{Model, rows};
use sluicegate_testkit::process::Gateway;

/// `sum = a + b` on FP32 rows of two columns.
pub fn pair() -> Vec<u8> {
    let dims = [rows(), Dim::Fixed(2)];
    Model::new(17)
        .input("a", DType::Fp32, &dims)
        .input("b", DType::Fp32, &dims)
        .output("sum", DType::Fp32, &dims)
        .node("Add", &["a", "b"], &["sum"], &[])
        .build()
}

/// The V2 path of a model.
pub fn infer_path(model: &str) -> String {
    format!("/v2/models/{model}/infer")
}

/// One tensor of a V2 request.
pub fn tensor(name: &str, datatype: &str, shape: &[usize], data: &[f32]) -> Value {
    json!({ "name": name, "datatype": datatype, "shape": shape, "data": data })
}

/// A V2 request of one FP32 tensor `x`.
pub fn infer(shape: &[usize], data: &[f32]) -> Value {
    json!({ "inputs": [tensor("x", "FP32", shape, data)] })
}

/// The elements of the first output of a V2 answer in JSON.
pub fn numbers(answer: &Value) -> Vec<f32> {
    let data = answer["outputs"][0]["data"].as_array().cloned().unwrap_or_default();
    data.iter().filter_map(Value::as_f64).map(|number| number as f32).collect()
}

/// Little-endian bytes.
pub fn raw(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Asks, and expects 200.
///
/// # Panics
/// With the answer, where it is another one.
pub fn ask(client: &mut Client, request: &Request) -> Response {
    let response = client.request(request).expect("an answer");
    assert_eq!(response.status, 200, "{} {}: {}", request.method, request.path, response.text());
    response
}

/// What one V2 request in JSON gives.
///
/// # Panics
/// Where that is not 200.
pub fn infer_once(gateway: &Gateway, model: &str, shape: &[usize], data: &[f32]) -> Value {
    ask(&mut gateway.client(), &Request::post(&infer_path(model), infer(shape, data).to_string())).json()
}

/// The width of the rows of [`slow`].
pub const SLOW_WIDTH: usize = 128;

/// A model whose run takes some milliseconds a row. Served with `max_rows: 1`, a request takes as long as it has rows.
pub fn slow() -> Vec<u8> {
    sluicegate_testkit::onnx::slow(SLOW_WIDTH, 100)
}

/// How many requests [`slow_rows`] makes.
pub const TIMED: usize = 6;

/// How many rows each of them has: the model's time counts, and not that of a request.
pub const EACH: usize = 40;

/// So many rows that [`slow`] takes no less than `seconds` over them, one by one: by the fastest of some requests, as it would have the
/// machine to itself. One that was measured while the machine was busy may take a fraction of that later.
///
/// # Panics
/// Where the model does not answer.
pub fn slow_rows(gateway: &Gateway, model: &str, seconds: f64) -> usize {
    let (mut client, request) = (gateway.client(), slow_request(model, EACH));
    let mut one = || {
        let since = Instant::now();
        ask(&mut client, &request);
        since.elapsed()
    };
    let fastest = (0..TIMED).map(|_| one()).min().expect("there are some");
    ((seconds * EACH as f64 / fastest.as_secs_f64()) as usize).clamp(1, 100_000)
}

/// A request of so many rows to [`slow`], in the binary extension. Each row has its own number in every column.
pub fn slow_request(model: &str, count: usize) -> Request {
    let data: Vec<f32> = (0..count).flat_map(|row| std::iter::repeat_n(row as f32, SLOW_WIDTH)).collect();
    let head = json!({
        "parameters": { "binary_data_output": true },
        "inputs": [{
            "name": "x", "datatype": "FP32", "shape": [count, SLOW_WIDTH], "parameters": { "binary_data_size": 4 * data.len() },
        }],
    });
    Request::binary(&infer_path(model), &head, &raw(&data))
}

/// A list of problems as FastAPI has it, as one text: `type body.a: msg`.
///
/// # Errors
/// Where it is none.
pub fn problems(detail: &Value) -> Result<String, String> {
    let problem = |problem: &Value| {
        let (kind, msg) = (problem["type"].as_str()?, problem["msg"].as_str()?);
        let loc = problem["loc"].as_array().filter(|loc| loc.first().is_some_and(|first| first == "body"))?;
        let steps: Vec<String> = loc.iter().map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned)).collect();
        Some(format!("{kind} {}: {msg}", steps.join(".")))
    };
    let all = detail.as_array().filter(|all| !all.is_empty());
    let all: Option<Vec<String>> = all.and_then(|all| all.iter().map(problem).collect());
    all.map(|all| all.join("; ")).ok_or_else(|| format!("no list of problems: {detail}"))
}
