//! A request of the Open Inference Protocol in JSON: what is read and written is read again the same.

use bytes::Bytes;
use serde_json::Value;
use sluicegate_codec::binary;
use sluicegate_codec::json::{Encoded, Outputs, read, write};
use sluicegate_core::{DType, Request};

use super::{accepted, echo, kinds, refused};
use crate::Memory;

pub(super) const WORDS: &[&str] = &[
    "\"inputs\"",
    "\"outputs\"",
    "\"name\"",
    "\"datatype\"",
    "\"shape\"",
    "\"data\"",
    "\"parameters\"",
    "\"id\"",
    "\"binary_data_size\"",
    "\"binary_data\"",
    "\"binary_data_output\"",
    "\"priority\"",
    "\"timeout\"",
    "\"sequence_id\"",
    "\"triton_x\"",
    "\"BOOL\"",
    "\"INT8\"",
    "\"INT16\"",
    "\"INT32\"",
    "\"INT64\"",
    "\"UINT8\"",
    "\"UINT16\"",
    "\"UINT32\"",
    "\"UINT64\"",
    "\"FP16\"",
    "\"BF16\"",
    "\"FP32\"",
    "\"FP64\"",
    "\"BYTES\"",
];

pub(super) fn check(input: &[u8], memory: &mut Memory) -> Result<String, String> {
    let content = Bytes::copy_from_slice(input);
    match memory.of(|| read(&content, None)) {
        Ok((request, _)) => {
            as_a_tree_has_it(input, &request)?;
            again(&request, &Outputs::default())?;
            again(&request, &Outputs::new(true))?;
            Ok(accepted(kinds(&request)))
        }
        Err(error) => refused(input, &error),
    }
}

/// An answer with these tensors, read as a request, has them.
pub(super) fn again(request: &Request, outputs: &Outputs) -> Result<(), String> {
    let id = request.id.clone().unwrap_or_default();
    let (head, raw) = match write(&echo(request), &id, outputs) {
        Ok(Encoded { mut body, json }) => {
            let raw = json.map(|json| body.split_off(json));
            (body, raw)
        }
        Err(error) => {
            let has_no_json = |(_, tensor): &(_, sluicegate_core::Tensor)| matches!(tensor.dtype(), DType::Fp16 | DType::Bf16);
            return if request.inputs.iter().any(has_no_json) { Ok(()) } else { Err(format!("cannot be written: {error}")) };
        }
    };
    let text = String::from_utf8(head).map_err(|error| format!("written JSON is no text: {error}"))?;
    let lost = text.contains("\"nonfinite_count\"");
    let text = text.replacen("\"outputs\":", "\"inputs\":", 1);
    let length = raw.as_ref().map(|_| text.len().to_string());
    let whole = [text.as_bytes(), raw.as_deref().unwrap_or_default()].concat();
    let (head, raw) = binary::split(length.as_deref(), whole.into()).map_err(|error| format!("cannot be split: {error}"))?;
    let (second, _) = match read(&head, raw) {
        Ok(read) => read,
        // An infinity is written as null, which is counted, and null is no number.
        Err(_) if lost => return Ok(()),
        Err(error) => return Err(format!("{error} in what was written: {text}")),
    };
    if second.id.as_deref() != Some(&*id) {
        return Err(format!("the id {id:?} is read as {:?}", second.id));
    }
    if !same(request, &second) {
        return Err(format!("{:?} is written as {text} and read as {:?}", request.inputs, second.inputs));
    }
    Ok(())
}

/// The same tensors, but for text that is not UTF-8 and was replaced in JSON.
fn same(first: &Request, second: &Request) -> bool {
    let whole = |tensor: &sluicegate_core::Tensor| {
        tensor.strings().is_none_or(|strings| strings.iter().all(|text| std::str::from_utf8(text).is_ok()))
    };
    first.inputs.len() == second.inputs.len()
        && first.inputs.iter().zip(&second.inputs).all(|(a, b)| a.0 == b.0 && (a.1 == b.1 || !whole(&a.1)))
}

/// Holds the reader against a tree of values, where serde_json can make one.
fn as_a_tree_has_it(input: &[u8], request: &Request) -> Result<(), String> {
    let Ok(tree) = serde_json::from_slice::<Value>(input) else { return Ok(()) };
    let inputs = tree["inputs"].as_array().ok_or("taken without a list of inputs")?;
    if inputs.len() != request.inputs.len() {
        return Err(format!("{} inputs are read as {}", inputs.len(), request.inputs.len()));
    }
    for (told, (name, tensor)) in inputs.iter().zip(&request.inputs) {
        let sizes: Vec<u64> = tensor.shape().sizes().iter().map(|&size| size as u64).collect();
        if told["name"] != **name || told["datatype"] != tensor.dtype().name() || told["shape"] != serde_json::json!(sizes) {
            return Err(format!("{told} is read as `{name}`, {} {:?}", tensor.dtype(), tensor.shape()));
        }
        let mut leaves = Vec::new();
        flatten(&told["data"], &mut leaves);
        if leaves.len() != tensor.elements() {
            return Err(format!("{} elements are read as {}", leaves.len(), tensor.elements()));
        }
        if let Some(at) = (0..leaves.len()).find(|&at| !is(leaves[at], tensor, at)) {
            return Err(format!("element {at} of `{name}`, {}, is read as another one", leaves[at]));
        }
    }
    Ok(())
}

fn flatten<'a>(value: &'a Value, leaves: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, leaves)),
        leaf => leaves.push(leaf),
    }
}

/// Whether this is element `at`. The half floats have no JSON form and are not read from one.
fn is(leaf: &Value, tensor: &sluicegate_core::Tensor, at: usize) -> bool {
    if let Some(strings) = tensor.strings() {
        return leaf.as_str().is_some_and(|text| text.as_bytes() == strings[at]);
    }
    let float = leaf.as_f64();
    macro_rules! whole {
        ($type:ty) => {{
            let element = i128::from(tensor.values::<$type>().expect("its own type")[at]);
            let number = leaf.as_i64().map(i128::from).or(leaf.as_u64().map(i128::from));
            number.map_or_else(|| float == Some(element as f64), |number| number == element)
        }};
    }
    match tensor.dtype() {
        DType::Bool => {
            let bit = u64::from(tensor.values::<sluicegate_core::dtype::Bit>().expect("its own type")[at].0);
            leaf.as_bool().map(u64::from).or(leaf.as_u64()) == Some(bit)
        }
        DType::Fp32 => float.is_some_and(|number| number as f32 == tensor.values::<f32>().expect("its own type")[at]),
        DType::Fp64 => float.is_some_and(|number| number == tensor.values::<f64>().expect("its own type")[at]),
        DType::Int8 => whole!(i8),
        DType::Int16 => whole!(i16),
        DType::Int32 => whole!(i32),
        DType::Int64 => whole!(i64),
        DType::Uint8 => whole!(u8),
        DType::Uint16 => whole!(u16),
        DType::Uint32 => whole!(u32),
        DType::Uint64 => whole!(u64),
        DType::Fp16 | DType::Bf16 | DType::Bytes => false,
    }
}
