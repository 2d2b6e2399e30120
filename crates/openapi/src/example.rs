//! Worked examples: the model makers' own record, or one made from the ranges, so that "Try it out" works at once.

use serde_json::{Map, Value, json};
use sluicegate_core::signature::{About, Kind, TensorSpec};
use sluicegate_core::{DType, Dim, Signature};

use super::schema::{MAX_ELEMENTS, input_element, is_small, number};
use sluicegate_codec::record::view::{View, record_dims};

/// A record, or an answer.
pub(super) struct Example {
    /// The value.
    pub(super) value: Value,
    /// False where long lists are cut to one item, so that the value shows the form alone.
    pub(super) whole: bool,
}

/// A record that the model takes.
pub(super) fn record(signature: &Signature) -> Example {
    if let Some(value) = signature.example().filter(|value| leaves(value) <= MAX_ELEMENTS) {
        return Example { value: value.clone(), whole: true };
    }
    let mut whole = true;
    let mut record = Map::new();
    for field in signature.fields() {
        let value = fill(&field.dims, &element(field.dtype, &field.about), &mut whole);
        record.insert(field.name.to_string(), value);
    }
    Example { value: Value::Object(record), whole }
}

/// An answer of the right form; its numbers mean nothing.
pub(super) fn prediction(signature: &Signature) -> Example {
    let mut whole = true;
    let mut answer = Map::new();
    for spec in signature.outputs() {
        answer.insert(spec.name.to_string(), output(spec, signature.is_batched(), &mut whole));
    }
    Example { value: Value::Object(answer), whole }
}

/// A V2 inference request of one row; `None` where the V2 protocol has no JSON for an input, or the values are too many.
pub(super) fn infer(signature: &Signature) -> Option<Value> {
    if signature.inputs().iter().any(|spec| matches!(spec.dtype, DType::Fp16 | DType::Bf16)) {
        return None;
    }
    let Example { value: record, whole: true } = record(signature) else { return None };
    let skip = usize::from(signature.is_batched());
    let mut inputs = Vec::with_capacity(signature.inputs().len());
    for (place, spec) in signature.inputs().iter().enumerate() {
        let own = || signature.fields().iter().filter(|field| field.input == place);
        let values = own().map(|field| record.get(&*field.name).cloned()).collect::<Option<Vec<_>>>()?;
        let mut shape = vec![1; skip];
        let mut data = Vec::new();
        if spec.features.is_empty() {
            let value = values.first()?;
            let of_value = lengths(value);
            // A value that stands for an input of ones only, such as [N, 1], is no list.
            shape.extend(if of_value.is_empty() { vec![1; spec.dims.len() - skip] } else { of_value });
            flatten(value, &mut data);
        } else {
            shape.push(values.len());
            data = values;
        }
        inputs.push(json!({ "name": spec.name, "shape": shape, "datatype": spec.dtype, "data": data }));
    }
    Some(json!({ "id": "example-1", "inputs": inputs }))
}

fn output(spec: &TensorSpec, batched: bool, whole: &mut bool) -> Value {
    let plain = element(spec.dtype, &About::default());
    match View::of(spec, batched) {
        View::Label => spec.labels.first().map_or(plain, |label| label.as_str().into()),
        View::Named => {
            let share = (1e4 / spec.labels.len() as f64).round() / 1e4;
            let value = if spec.kind == Kind::Probability && spec.dtype.is_float() { share.into() } else { plain };
            spec.labels.iter().map(|label| (label.clone(), value.clone())).collect::<Map<_, _>>().into()
        }
        View::Scalar => plain,
        View::Nested => fill(record_dims(spec, batched), &plain, whole),
    }
}

/// A value in the middle of what the signature allows, within its type; zero where nothing is said.
fn element(dtype: DType, about: &About) -> Value {
    match dtype {
        DType::Bool => return Value::Bool(false),
        DType::Bytes => return about.categories.first().map_or("text", String::as_str).into(),
        _ => {}
    }
    let schema = input_element(dtype, about);
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let stated = |said: Option<f64>, key: &str| said.and_then(|_| bound(key));
    let middle = match (stated(about.min, "minimum"), stated(about.max, "maximum")) {
        (Some(min), Some(max)) => min + (max - min) / 2.0,
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => 0.0,
    };
    number(if dtype.is_integer() { middle.trunc() } else { middle }).unwrap_or_else(|| 0.into())
}

/// Lists around an element: as long as their dimension where it is fixed, of one item where it is free.
fn fill(dims: &[Dim], element: &Value, whole: &mut bool) -> Value {
    let small = is_small(dims);
    *whole &= small;
    let sizes = dims.iter().map(|dim| dim.fixed().unwrap_or(1));
    let sizes: Vec<usize> = sizes.map(|size| if small { size } else { size.min(1) }).collect();
    sizes.iter().rev().fold(element.clone(), |items, &size| Value::Array(vec![items; size]))
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(leaves).sum(),
        Value::Object(fields) => fields.values().map(leaves).sum(),
        _ => 1,
    }
}

/// How long the lists within lists are, outermost first.
fn lengths(value: &Value) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut here = value;
    while let Value::Array(items) = here {
        lengths.push(items.len());
        match items.first() {
            Some(first) => here = first,
            None => break,
        }
    }
    lengths
}

fn flatten(value: &Value, into: &mut Vec<Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        leaf => into.push(leaf.clone()),
    }
}
