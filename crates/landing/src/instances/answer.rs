//! Answers of KServe's first protocol and TensorFlow Serving's: `predictions`, `outputs`, `results`.

use sluicegate_codec::elements;
use sluicegate_codec::record::view::record_dims;
use sluicegate_core::response::Output;
use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::{Code, Dim, Error, Response, Result, Signature};

use super::{Form, Verb};
use crate::nest;

/// Writes the answer to a request to predict.
///
/// # Errors
/// [`Code::WrongShape`] where rows are asked for and outputs have none, or not as many as each other.
pub fn write(response: &Response, form: Form) -> Result<Vec<u8>> {
    match form {
        Form::Rows => write_rows(response, "predictions"),
        Form::Columns => Ok(write_columns(response)),
    }
}

/// Whether an output's text is for machines, by TensorFlow's convention.
fn is_raw(output: &Output) -> bool {
    output.name.ends_with("_bytes")
}

fn begin(response: &Response, key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 4 * response.payload());
    out.extend_from_slice(format!("{{\"{key}\":").as_bytes());
    out
}

fn write_columns(response: &Response) -> Vec<u8> {
    let mut out = begin(response, "outputs");
    let tensor = |out: &mut Vec<u8>, output: &Output| {
        nest::write(out, &output.tensor, output.tensor.shape().sizes(), 0, is_raw(output));
    };
    match &*response.outputs {
        [only] => tensor(&mut out, only),
        several => {
            for (i, output) in several.iter().enumerate() {
                out.push(if i == 0 { b'{' } else { b',' });
                elements::text(&mut out, output.name.as_bytes());
                out.push(b':');
                tensor(&mut out, output);
            }
            out.push(b'}');
        }
    }
    out.push(b'}');
    out
}

/// Writes one value a row where there is one output, else one object.
pub(crate) fn write_rows(response: &Response, key: &str) -> Result<Vec<u8>> {
    let count = rows(response)?;
    let mut out = begin(response, key);
    out.push(b'[');
    let value = |out: &mut Vec<u8>, output: &Output, row: usize| {
        let inner = &output.tensor.shape().sizes()[1..];
        nest::write(out, &output.tensor, inner, row * inner.iter().product::<usize>(), is_raw(output));
    };
    for row in 0..count {
        if row > 0 {
            out.push(b',');
        }
        match &*response.outputs {
            [only] => value(&mut out, only, row),
            several => {
                for (i, output) in several.iter().enumerate() {
                    out.push(if i == 0 { b'{' } else { b',' });
                    elements::text(&mut out, output.name.as_bytes());
                    out.push(b':');
                    value(&mut out, output, row);
                }
                out.push(b'}');
            }
        }
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// How many rows all outputs have.
pub(crate) fn rows(response: &Response) -> Result<usize> {
    let mut counts = response.outputs.iter().map(|output| output.tensor.shape().sizes().first().copied());
    let first = counts.next().flatten();
    match first {
        Some(rows) if counts.all(|other| other == first) => Ok(rows),
        _ => Err(Error::new(
            Code::WrongShape,
            "the outputs have no rows, or not as many as each other, and cannot be answered row by row; send `inputs`, or use /v2",
        )),
    }
}

/// The output that answers a request to classify or to regress.
///
/// # Errors
/// [`Code::UnknownOutput`] where the model has none.
pub fn output(signature: &Signature, verb: Verb) -> Result<&TensorSpec> {
    let batched = signature.is_batched();
    let floats = || signature.outputs().iter().filter(|spec| batched && spec.dtype.is_float());
    let classes = |spec: &&TensorSpec| record_dims(spec, batched).len() == 1;
    let single = |spec: &&TensorSpec| record_dims(spec, batched).iter().all(|dim| dim.fixed() == Some(1));
    let (found, has) = match verb {
        Verb::Classify => {
            let rank = |spec: &&TensorSpec| match spec.kind {
                Kind::Probability => 0,
                Kind::Score => 1,
                Kind::Label | Kind::Value => 2 + u8::from(spec.labels.is_empty()),
            };
            let several = |spec: &&TensorSpec| classes(spec) && record_dims(spec, true)[0] != Dim::Fixed(1);
            (floats().filter(several).min_by_key(rank), "one score for each class")
        }
        Verb::Predict | Verb::Regress => (floats().find(single), "one number for each row"),
    };
    found.ok_or_else(|| {
        Error::new(Code::UnknownOutput, format!("the model has no output of {has}; `:predict` answers the outputs that it has"))
    })
}

/// Writes the answer to a request to classify or to regress, from the one output of [`output`].
///
/// # Errors
/// [`Code::WrongShape`] where the output has no rows.
pub fn write_results(signature: &Signature, response: &Response, verb: Verb) -> Result<Vec<u8>> {
    let count = rows(response)?;
    let mut out = begin(response, "results");
    out.push(b'[');
    for Output { place, tensor, .. } in response.outputs.iter().take(1) {
        let width = tensor.elements() / count.max(1);
        let labels = &signature.outputs()[*place].labels;
        for row in 0..count {
            if row > 0 {
                out.push(b',');
            }
            if verb != Verb::Classify {
                elements::write(&mut out, tensor, row * width..(row + 1) * width);
                continue;
            }
            out.push(b'[');
            for class in 0..width {
                out.extend_from_slice(if class > 0 { b",[" } else { b"[" });
                // TensorFlow has no name for a class without one either.
                let label = labels.get(class).filter(|_| labels.len() == width).map_or("", String::as_str);
                elements::text(&mut out, label.as_bytes());
                out.push(b',');
                elements::write(&mut out, tensor, row * width + class..row * width + class + 1);
                out.push(b']');
            }
            out.push(b']');
        }
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}
