//! Answers to records: each output in the form that [`View`] gives it, straight into one buffer.

use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{DType, Response, Signature, Tensor};

use super::decode::Form;
use super::view::{View, record_dims};
use crate::elements;

/// Writes the answers. Numbers that JSON cannot write become `null`.
pub fn write(signature: &Signature, response: &Response, form: Form) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 4 * response.payload());
    match form {
        Form::One => record(&mut out, signature, response, 0),
        Form::List(rows) => {
            out.push(b'[');
            for row in 0..rows {
                if row > 0 {
                    out.push(b',');
                }
                record(&mut out, signature, response, row);
            }
            out.push(b']');
        }
    }
    out
}

fn record(out: &mut Vec<u8>, signature: &Signature, response: &Response, row: usize) {
    out.push(b'{');
    for (i, output) in response.outputs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        elements::text(out, output.name.as_bytes());
        out.push(b':');
        value(out, &signature.outputs()[output.place], &output.tensor, row, signature.is_batched());
    }
    out.push(b'}');
}

fn value(out: &mut Vec<u8>, spec: &TensorSpec, tensor: &Tensor, row: usize, batched: bool) {
    let rows = if batched { tensor.shape().rows().max(1) } else { 1 };
    let width = tensor.elements() / rows;
    let start = row * width;
    match View::of(spec, batched) {
        View::Scalar => drop(elements::write(out, tensor, start..start + 1)),
        View::Label => match label(spec, tensor, start) {
            Some(label) => elements::text(out, label.as_bytes()),
            None => drop(elements::write(out, tensor, start..start + 1)),
        },
        View::Named => {
            for (i, label) in spec.labels.iter().enumerate() {
                out.push(if i == 0 { b'{' } else { b',' });
                elements::text(out, label.as_bytes());
                out.push(b':');
                elements::write(out, tensor, start + i..start + i + 1);
            }
            out.push(b'}');
        }
        View::Nested => {
            let inner = &tensor.shape().sizes()[usize::from(batched)..];
            debug_assert_eq!(inner.len(), record_dims(spec, batched).len());
            nested(out, tensor, inner, start);
        }
    }
}

/// The label of an index; `None` where there is none for it, or the output is its own label.
fn label<'a>(spec: &'a TensorSpec, tensor: &Tensor, place: usize) -> Option<&'a str> {
    let index = sluicegate_core::for_dtype!(tensor.dtype(), T => index::<T>(tensor, place), BYTES => None)?;
    spec.labels.get(index).map(String::as_str)
}

fn index<T: sluicegate_core::dtype::Element>(tensor: &Tensor, place: usize) -> Option<usize> {
    let values = tensor.values::<T>()?;
    let bytes = bytemuck::bytes_of(values.get(place)?);
    let signed = matches!(tensor.dtype(), DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64);
    let negative = signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    if negative || !tensor.dtype().is_integer() {
        return None;
    }
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    usize::try_from(u64::from_le_bytes(wide)).ok()
}

fn nested(out: &mut Vec<u8>, tensor: &Tensor, sizes: &[usize], start: usize) {
    out.push(b'[');
    match sizes {
        [] => {}
        [last] => drop(elements::write(out, tensor, start..start + last)),
        [first, inner @ ..] => {
            let width: usize = inner.iter().product();
            for i in 0..*first {
                if i > 0 {
                    out.push(b',');
                }
                nested(out, tensor, inner, start + i * width);
            }
        }
    }
    out.push(b']');
}

#[cfg(test)]
mod tests;
