//! Records of named fields. The first byte of an input picks the signature that they are for; the rest is the body.

use serde_json::Value;
use sluicegate_codec::record::problems;
use sluicegate_codec::record::{Form, Records, decode, read};
use sluicegate_core::signature::{About, Feature, Field, TensorSpec};
use sluicegate_core::{Code, DType, Dim, Signature, Tensor};

use super::{accepted, refused};
use crate::Memory;

pub(super) const WORDS: &[&str] = &[
    "\"amount\"",
    "\"age\"",
    "\"island\"",
    "\"Biscoe\"",
    "\"pixels\"",
    "\"words\"",
    "\"flag\"",
    "\"half\"",
    "\"x\"",
    "\"small\"",
    "\"large\"",
    "\"matrix\"",
    "\"loose\"",
];

pub(super) fn check(input: &[u8], memory: &mut Memory) -> Result<String, String> {
    let (&first, body) = input.split_first().unwrap_or((&b'a', &[]));
    let signature = signature(first);
    match memory.of(|| read(&signature, body)) {
        Ok(records) => {
            as_a_tree_has_it(&signature, body, &records)?;
            let form = if records.form == Form::One { "one" } else { "a list" };
            Ok(accepted(format!("{form} for {}", signature.inputs()[0].name)))
        }
        Err(error) => {
            if error.code() != Code::InvalidFields || error.problems().is_empty() {
                return Err(format!("{:?} without a problem told: {error}", error.code()));
            }
            let told = serde_json::to_string(error.problems()).map_err(|error| error.to_string())?;
            if error.problems().len() > MOST || told.len() > MOST * 8192 + 64 * input.len() {
                return Err(format!("{} problems, {} bytes for {}", error.problems().len(), told.len(), input.len()));
            }
            refused(input, &error).map(|outcome| format!("{}: {outcome}", error.problems()[0].kind))
        }
    }
}

/// Most problems that a caller is told.
const MOST: usize = 100;

/// Signatures of every form that a record has.
fn signature(pick: u8) -> Signature {
    let rows = Dim::Free(None);
    let free = || Dim::Free(Some("length".into()));
    let spec = |name: &str, dtype, dims: &[Dim]| TensorSpec::new(name, dtype, dims.to_vec());
    let feature = |name: &str, min, max| Feature { name: name.into(), about: About { min, max, ..About::default() } };
    let mut inputs = match pick % 4 {
        // Columns with ranges.
        0 => {
            let mut table = spec("table", DType::Fp32, &[rows, Dim::Fixed(2)]);
            table.features = vec![feature("amount", Some(0.0), Some(1e6)), feature("age", None, Some(150.0))];
            vec![table]
        }
        // Scalars of several types, one of them with categories.
        1 => {
            let mut island = spec("island", DType::Bytes, &[rows.clone(), Dim::Fixed(1)]);
            island.about.categories = vec!["Biscoe".into(), "Dream".into()];
            let mut small = spec("small", DType::Int8, std::slice::from_ref(&rows));
            small.about.max = Some(100.0);
            let plain = [("large", DType::Uint64), ("flag", DType::Bool), ("half", DType::Fp16), ("x", DType::Fp64)];
            let plain = plain.into_iter().map(|(name, dtype)| spec(name, dtype, std::slice::from_ref(&rows)));
            [island, small].into_iter().chain(plain).collect()
        }
        // Lists: of a fixed size, with a free one, of text.
        2 => {
            let mut pixels = spec("pixels", DType::Uint8, &[rows.clone(), Dim::Fixed(2), Dim::Fixed(3)]);
            pixels.about.max = Some(16.0);
            let matrix = spec("matrix", DType::Int32, &[rows.clone(), free(), Dim::Fixed(2)]);
            vec![pixels, matrix, spec("words", DType::Bytes, &[rows, free()])]
        }
        // One record at a time.
        _ => vec![spec("loose", DType::Int64, &[Dim::Fixed(2), Dim::Free(None)]), spec("x", DType::Fp32, &[])],
    };
    if pick % 8 >= 4 {
        inputs.truncate(1);
    }
    let dims = inputs[0].dims[..1].to_vec();
    Signature::new(inputs, vec![spec("y", DType::Fp32, &dims)], None).expect("a good signature")
}

/// Holds the reader against a tree of values: as many rows, the shapes of the signature, every element its own; and the slow
/// reader, which lists problems, finds none.
fn as_a_tree_has_it(signature: &Signature, body: &[u8], records: &Records) -> Result<(), String> {
    let tree: Value = serde_json::from_slice(body).map_err(|error| format!("taken, and no JSON: {error}"))?;
    let rows: Vec<&Value> = match (&tree, records.form) {
        (Value::Array(rows), Form::List(count)) if rows.len() == count => rows.iter().collect(),
        (row @ Value::Object(_), Form::One) => vec![row],
        _ => return Err(format!("read as {:?}", records.form)),
    };
    for (spec, (name, tensor)) in signature.inputs().iter().zip(&records.inputs) {
        let sizes = tensor.shape().sizes();
        let fits = sizes.len() == spec.dims.len() && spec.dims.iter().zip(sizes).all(|(dim, &size)| dim.admits(size));
        if *name != spec.name || tensor.dtype() != spec.dtype || !fits {
            return Err(format!("`{name}` is {} {:?}", tensor.dtype(), tensor.shape()));
        }
        if signature.is_batched() && sizes[0] != rows.len() {
            return Err(format!("{} records are {} rows of `{name}`", rows.len(), sizes[0]));
        }
    }
    for field in signature.fields() {
        let tensor = &records.inputs[field.input].1;
        for (row, record) in rows.iter().enumerate() {
            let mut leaves = Vec::new();
            flatten(&record[&*field.name], &mut leaves);
            let (first, width) = place(field, tensor, row, rows.len());
            if leaves.len() != width {
                return Err(format!("`{}` has {} elements, and {width} were read", field.name, leaves.len()));
            }
            if let Some(at) = (0..width).find(|&at| !is(leaves[at], tensor, first + at)) {
                return Err(format!("element {at} of `{}` of record {row}, {}, is another one", field.name, leaves[at]));
            }
        }
    }
    // It tells what the fast reader said where it finds nothing of its own.
    let error = decode::read(signature, b"").err().ok_or("an empty body is taken")?;
    match &problems::find(signature, body, &error)[..] {
        [only] if only.kind == "value_error" => Ok(()),
        problems => Err(format!("taken, and has problems: {problems:?}")),
    }
}

/// Where the elements of a field of a record are in its tensor, and how many.
fn place(field: &Field, tensor: &Tensor, row: usize, rows: usize) -> (usize, usize) {
    let width = tensor.elements() / rows.max(1);
    match field.column {
        Some(column) => (row * width + column, 1),
        None => (row * width, width),
    }
}

fn flatten<'a>(value: &'a Value, leaves: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, leaves)),
        leaf => leaves.push(leaf),
    }
}

/// Whether an element is what a value says, to the precision of its type.
fn is(leaf: &Value, tensor: &Tensor, at: usize) -> bool {
    if let Some(strings) = tensor.strings() {
        return leaf.as_str().is_some_and(|text| text.as_bytes() == strings[at]);
    }
    let mut written = Vec::new();
    sluicegate_codec::elements::write(&mut written, tensor, at..at + 1);
    let Ok(read) = serde_json::from_slice::<Value>(&written) else { return false };
    match tensor.dtype() {
        DType::Bool => leaf.as_bool().map(u64::from).or(leaf.as_u64()) == read.as_bool().map(u64::from),
        DType::Fp32 => leaf.as_f64().map(|number| number as f32) == read.as_f64().map(|number| number as f32),
        // Eleven bits of precision, and steps of 2^-24 near zero.
        DType::Fp16 => leaf.as_f64().zip(read.as_f64()).is_some_and(|(a, b)| (a - b).abs() <= a.abs() / 2048.0 + 6e-8),
        _ => leaf.as_f64() == read.as_f64() && leaf.as_f64().is_some(),
    }
}
