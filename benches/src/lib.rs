//! What the benches share: the signature and the bodies of one tabular row, as the sample models have them.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sluicegate_core::response::Output;
use sluicegate_core::shape::Dim;
use sluicegate_core::signature::{About, Feature, Kind, TensorSpec};
use sluicegate_core::{DType, Digest, Response, Shape, Signature, Tensor};

/// Columns of the row: those of the breast-cancer sample.
pub const COLUMNS: usize = 30;

/// One FP32 input of 30 named columns with ranges; a label and two probabilities.
///
/// # Panics
/// Never: the signature is a good one.
pub fn signature() -> Signature {
    let free = || Dim::Free(Some("N".into()));
    let about = || About { min: Some(0.0), max: Some(1e6), ..About::default() };
    let mut input = TensorSpec::new("X", DType::Fp32, vec![free(), Dim::Fixed(COLUMNS)]);
    input.features = (0..COLUMNS).map(|i| Feature { name: name(i).into(), about: about() }).collect();
    let labels = vec!["malignant".to_owned(), "benign".to_owned()];
    let mut label = TensorSpec::new("label", DType::Int64, vec![free()]);
    let mut probabilities = TensorSpec::new("probabilities", DType::Fp32, vec![free(), Dim::Fixed(2)]);
    (label.kind, label.labels) = (Kind::Label, labels.clone());
    (probabilities.kind, probabilities.labels) = (Kind::Probability, labels);
    Signature::new(vec![input], vec![label, probabilities], None).expect("a good signature")
}

fn name(column: usize) -> String {
    format!("mean_of_column_{column}")
}

fn value(column: usize) -> f64 {
    17.99 + column as f64 * 1.37
}

/// The row as the typed route takes it.
pub fn typed() -> Bytes {
    let record: Map<String, Value> = (0..COLUMNS).map(|i| (name(i), json!(value(i)))).collect();
    Value::Object(record).to_string().into()
}

/// The row in the JSON of the Open Inference Protocol.
pub fn v2() -> Bytes {
    let data: Vec<f64> = (0..COLUMNS).map(value).collect();
    json!({ "inputs": [{ "name": "X", "shape": [1, COLUMNS], "datatype": "FP32", "data": data }] }).to_string().into()
}

/// The row by the binary tensor extension: the JSON head's length, and the body.
pub fn binary() -> (usize, Bytes) {
    let parameters = json!({ "binary_data_size": COLUMNS * 4 });
    let head =
        json!({ "inputs": [{ "name": "X", "shape": [1, COLUMNS], "datatype": "FP32", "parameters": parameters }] }).to_string();
    let mut body = head.clone().into_bytes();
    (0..COLUMNS).for_each(|i| body.extend((value(i) as f32).to_le_bytes()));
    (head.len(), body.into())
}

/// An answer to the row.
///
/// # Panics
/// Never: the tensors fill their shapes.
pub fn response() -> Response {
    let label = Tensor::from_vec(Shape::new(&[1]), vec![1i64]).expect("one element");
    let probabilities = Tensor::from_vec(Shape::new(&[1, 2]), vec![0.012_345_f32, 0.987_655]).expect("two elements");
    Response {
        model: "breast-cancer".parse().expect("a model name"),
        version: 1,
        digest: Digest::sha256(&[0; 32]),
        id: None,
        cached: None,
        outputs: vec![
            Output { name: "label".into(), place: 0, tensor: label },
            Output { name: "probabilities".into(), place: 1, tensor: probabilities },
        ],
    }
}
