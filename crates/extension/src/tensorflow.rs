//! A version's signature as TensorFlow Serving tells it (`GetModelMetadata`).

use serde_json::{Map, Value, json};
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{DType, Dim};
use sluicegate_registry::Live;

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
