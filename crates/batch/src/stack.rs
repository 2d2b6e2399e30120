//! Joins the rows of several requests into one batch, and cuts the outputs apart again.

use bytes::{Bytes, BytesMut};
use sluicegate_core::{Code, Data, Error, Result, Tensor};

use crate::pad::Padding;

/// Buffers of one instance, one an input, used again by each batch once the engine has let go of them.
#[derive(Default)]
pub struct Scratch(Vec<BytesMut>);

/// Joins tensors along the first axis; those of different inner sizes are padded. One tensor is passed through.
///
/// # Errors
/// Where the tensors of an input differ in type, or in sizes that are not padded.
pub fn join(parts: &[&[Tensor]], padding: &Padding, scratch: &mut Scratch) -> Result<Vec<Tensor>> {
    let Some(first) = parts.first() else { return Ok(Vec::new()) };
    if parts.len() == 1 {
        return Ok(first.to_vec());
    }
    scratch.0.resize_with(first.len(), BytesMut::new);
    (0..first.len()).map(|input| join_one(parts, input, padding, &mut scratch.0[input])).collect()
}

fn join_one(parts: &[&[Tensor]], input: usize, padding: &Padding, buffer: &mut BytesMut) -> Result<Tensor> {
    let tensors = || parts.iter().map(|part| &part[input]);
    let first = &parts[0][input];
    let rows = tensors().map(|tensor| tensor.shape().rows()).sum();
    let same = tensors().all(|tensor| inner(tensor) == inner(first));
    let shape = if same { first.shape().with_rows(rows) } else { Padding::common(tensors()).with_rows(rows) };
    match first.data() {
        Data::Text(_) => {
            let elements: Vec<Bytes> = tensors().filter_map(Tensor::strings).flatten().cloned().collect();
            Tensor::text(shape, elements)
        }
        Data::Fixed(_) => {
            // Reclaims the memory of the last batch where the engine no longer holds it, else takes new.
            let elements = shape.elements().unwrap_or(0);
            buffer.reserve(elements.saturating_mul(first.dtype().size().unwrap_or(1)));
            for tensor in tensors() {
                match tensor.bytes() {
                    Some(bytes) if same => buffer.extend_from_slice(bytes),
                    _ => padding.append(input, tensor, &shape, buffer),
                }
            }
            Tensor::fixed(first.dtype(), shape, buffer.split().freeze())
        }
    }
}

/// The sizes of one row.
fn inner(tensor: &Tensor) -> &[usize] {
    tensor.shape().sizes().get(1..).unwrap_or_default()
}

/// Checks that every output has as many rows as went in.
pub(crate) fn check(outputs: &[Tensor], rows: usize) -> Result<()> {
    match outputs.iter().find(|output| output.shape().sizes().first() != Some(&rows)) {
        None => Ok(()),
        Some(output) => Err(Error::new(
            Code::RunFailed,
            format!("an output of shape {} came back for {rows} rows; the model does not keep rows apart", output.shape()),
        )),
    }
}

/// Cuts outputs into consecutive slices of so many rows each; the slices share the outputs' memory.
///
/// # Errors
/// [`Code::RunFailed`] where an output has another number of rows than went in.
pub fn cut(outputs: &[Tensor], rows: &[usize]) -> Result<Vec<Vec<Tensor>>> {
    check(outputs, rows.iter().sum())?;
    let mut start = 0;
    let slice = |&rows: &usize| {
        let range = start..start + rows;
        start += rows;
        outputs.iter().map(|output| output.rows(range.clone())).collect()
    };
    Ok(rows.iter().map(slice).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluicegate_core::Shape;

    use super::*;

    proptest! {
        #[test]
        fn what_is_joined_is_cut_into_the_same_rows(
            sizes in prop::collection::vec(0..5usize, 1..6), width in 1..4usize, rounds in 1..3usize,
        ) {
            let mut scratch = Scratch::default();
            for round in 0..rounds {
                let mut next = round as f32;
                let parts: Vec<Vec<Tensor>> = sizes.iter().map(|&rows| {
                    let numbers = (0..rows * width).map(|_| { next += 1.0; next }).collect::<Vec<f32>>();
                    let words = (0..rows).map(|_| { next += 1.0; Bytes::from(next.to_string()) }).collect();
                    vec![
                        Tensor::from_vec(Shape::new(&[rows, width]), numbers).expect("fits"),
                        Tensor::text(Shape::new(&[rows, 1]), words).expect("fits"),
                    ]
                }).collect();
                let views: Vec<&[Tensor]> = parts.iter().map(Vec::as_slice).collect();
                let joined = join(&views, &Padding::default(), &mut scratch).expect("same shapes");
                prop_assert_eq!(joined[0].shape().rows(), sizes.iter().sum::<usize>());
                let slices = cut(&joined, &sizes).expect("rows are kept");
                prop_assert_eq!(slices, parts);
            }
        }
    }

    #[test]
    fn outputs_with_another_number_of_rows_are_the_models_fault() {
        let output = Tensor::from_vec(Shape::new(&[1, 2]), vec![1.0f32, 2.0]).expect("fits");
        assert_eq!(cut(&[output], &[1, 1]).expect_err("1 is not 2").code(), Code::RunFailed);
    }
}
