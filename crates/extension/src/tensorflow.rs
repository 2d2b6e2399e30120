//! What TensorFlow Serving tells of a model: its versions (`GetModelStatus`) and a version's signature (`GetModelMetadata`).

use serde_json::{Map, Value, json};
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{DType, Dim};
use sluicegate_registry::{Live, State as Step, Status};

/// What a version takes and gives.
pub fn describe(live: &Live) -> Value {
    let tensors = |specs: &[TensorSpec]| specs.iter().map(|spec| (spec.name.to_string(), tensor(spec))).collect::<Map<_, _>>();
    let signature = json!({
        "inputs": tensors(live.signature.inputs()),
        "outputs": tensors(live.signature.outputs()),
        "method_name": "tensorflow/serving/predict",
    });
    json!({
        "model_spec": { "name": live.model, "signature_name": "", "version": live.version.to_string() },
        "metadata": { "signature_def": { "signature_def": { "serving_default": signature } } },
    })
}

/// How far each version of a model came, or one of them, the newest first.
pub fn versions(status: &Status, model: &str, only: Option<u64>) -> Vec<Value> {
    let known = status.of(model);
    let wanted = known.iter().rev().filter(|(version, _)| only.is_none_or(|only| **version == only));
    let each = wanted.map(|(version, entry)| {
        let (state, error) = match entry.state {
            Step::Found => ("START", "OK"),
            Step::Verified | Step::Loaded | Step::Warm => ("LOADING", "OK"),
            Step::Live => ("AVAILABLE", "OK"),
            Step::Draining => ("UNLOADING", "OK"),
            Step::Gone => ("END", "OK"),
            Step::Failed => ("END", "FAILED_PRECONDITION"),
        };
        let message = entry.reason.as_deref().filter(|_| error != "OK").unwrap_or_default();
        json!({ "version": version.to_string(), "state": state, "status": { "error_code": error, "error_message": message } })
    });
    each.collect()
}

fn tensor(spec: &TensorSpec) -> Value {
    let dim = |dim: &Dim| json!({ "size": dim.fixed().map_or("-1".to_owned(), |size| size.to_string()), "name": "" });
    json!({
        "dtype": dtype(spec.dtype),
        "tensor_shape": { "dim": spec.dims.iter().map(dim).collect::<Vec<_>>(), "unknown_rank": false },
        "name": spec.name,
    })
}

fn dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "DT_BOOL",
        DType::Uint8 => "DT_UINT8",
        DType::Uint16 => "DT_UINT16",
        DType::Uint32 => "DT_UINT32",
        DType::Uint64 => "DT_UINT64",
        DType::Int8 => "DT_INT8",
        DType::Int16 => "DT_INT16",
        DType::Int32 => "DT_INT32",
        DType::Int64 => "DT_INT64",
        DType::Fp16 => "DT_HALF",
        DType::Bf16 => "DT_BFLOAT16",
        DType::Fp32 => "DT_FLOAT",
        DType::Fp64 => "DT_DOUBLE",
        DType::Bytes => "DT_STRING",
    }
}
