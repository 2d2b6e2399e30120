//! One tabular row by gRPC, beside an empty tonic handler that takes the same message, in one run.

use std::path::Path;
use std::process::Command;

use prost::Message;
use sluicegate_loadtests::{Figure, both, child, machine, publish, table};
use sluicegate_proto::inference::ModelInferRequest;
use sluicegate_proto::inference::model_infer_request::InferInputTensor;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::process::{Gateway, repository};

const ROUNDS: usize = 7;
const SECONDS: u64 = 3;
const MODEL: &str = "breast-cancer";
const PATH: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Connections, and calls in flight on each.
const SHAPES: [(usize, usize); 4] = [(1, 16), (4, 4), (16, 1), (1, 1)];

fn main() {
    let scratch = Folder::default();
    let config = format!("registries: {{ local: {{ type: directory, path: '{}' }} }}", repository().join("models").display());
    let gateway = Gateway::start(&scratch, &config);
    let (_empty, empty) = child("empty_grpc");
    let frame = scratch.path().join("frame");
    std::fs::write(&frame, framed(&row())).expect("a scratch directory can be written");

    let mut rows = Vec::new();
    for (connections, each) in SHAPES {
        let mut figures: [Figure; 3] = Default::default();
        let [ours, bare, ratio] = &mut figures;
        for round in 0..ROUNDS {
            let load = |address: &str| h2load(&format!("http://{address}{PATH}"), &frame, connections, each);
            let (one, other) = both(round, || load(&gateway.grpc().to_string()), || load(&empty));
            ours.add(one);
            bare.add(other);
            ratio.add(100.0 * one / other);
        }
        rows.push(vec![format!("{connections} x {each}"), ours.show(0), bare.show(0), ratio.show(0)]);
    }
    let failed = gateway.metric("sluicegate_requests_total", &[])
        - gateway.metric("sluicegate_requests_total", &[("code", "ok")])
        // h2load leaves in the middle of a call when its time is up.
        - gateway.metric("sluicegate_requests_total", &[("code", "cancelled")]);
    let page = format!(
        "# One tabular row over gRPC\n\n{}. h2load with one thread on the same machine, {ROUNDS} rounds of {SECONDS} s each, interleaved; medians \
         with the smallest and the largest. `{MODEL}`: 30 numbers in raw contents, gradient boosting, ONNX Runtime. The empty handler is \
         tonic's own server on tokio's default runtime: it decodes the same message and encodes one as long as the gateway's answer.\n\n{}\n\
         Calls that failed: {failed}.\n",
        machine(),
        table(
            &["connections x calls in flight", "gateway, answers/s", "empty tonic handler, answers/s", "gateway, % of it"],
            &rows
        ),
    );
    publish("grpc", &page);
}

/// A row of 30 numbers.
fn row() -> ModelInferRequest {
    let numbers: Vec<u8> = (0..30u8).flat_map(|number| (f32::from(number) + 0.5).to_le_bytes()).collect();
    ModelInferRequest {
        model_name: MODEL.to_owned(),
        inputs: vec![InferInputTensor {
            name: "X".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 30],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![numbers.into()],
        ..ModelInferRequest::default()
    }
}

/// A message as gRPC frames it: not compressed, and its length.
fn framed(message: &ModelInferRequest) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).expect("a short message").to_be_bytes();
    [&[0], &length[..], &bytes].concat()
}

/// Answers a second.
fn h2load(url: &str, frame: &Path, connections: usize, each: usize) -> f64 {
    let out = Command::new("h2load")
        .args(["-t", "1", "-c", &connections.to_string(), "-m", &each.to_string(), "-D", &SECONDS.to_string()])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"])
        .arg(frame)
        .arg(url)
        .output()
        .expect("h2load is installed (apt-get install nghttp2-client)");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("finished in")).unwrap_or_else(|| panic!("h2load said: {text}"));
    let rate = line.split(", ").find_map(|part| part.strip_suffix(" req/s")).and_then(|rate| rate.parse().ok());
    rate.unwrap_or_else(|| panic!("h2load said: {text}"))
}
