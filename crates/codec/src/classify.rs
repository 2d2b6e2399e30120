//! The classification extension: instead of an output's elements, the best of them with their places and labels.

use std::cmp::Ordering;
use std::fmt::Write;

use bytes::Bytes;
use half::{bf16, f16};
use sluicegate_core::dtype::Bit;
use sluicegate_core::{Code, DType, Error, Response, Result, Shape, Signature, Tensor};

use super::json::Outputs;

/// Replaces the outputs that were asked for as classes.
///
/// # Errors
/// Those of [`classify`].
pub fn apply(response: &mut Response, asked: &Outputs, signature: &Signature) -> Result<()> {
    for output in &mut response.outputs {
        let count = asked.classes(&output.name);
        if count > 0 {
            let labels = signature.outputs().get(output.place).map_or(&[][..], |spec| &spec.labels);
            let classes = classify(&output.tensor, signature.is_batched(), count, labels);
            output.tensor = classes.map_err(|error| error.at(format!("output `{}`", output.name)))?;
        }
    }
    Ok(())
}

/// The `count` largest values of each row as texts `value:index` or `value:index:label`, the largest first; of equal ones the
/// first one first, and what is not a number last. The shape is `[rows, count]`, or `[count]` where there are no rows.
///
/// # Errors
/// [`Code::WrongDtype`] where the elements are texts.
pub fn classify(tensor: &Tensor, batched: bool, count: usize, labels: &[String]) -> Result<Tensor> {
    let rows = if batched { tensor.shape().rows() } else { 1 };
    let width = if batched { tensor.shape().sizes().get(1..).unwrap_or_default().iter().product() } else { tensor.elements() };
    let count = count.min(width);
    let shape = if batched { Shape::new(&[rows, count]) } else { Shape::new(&[count]) };
    let texts = sluicegate_core::for_dtype!(tensor.dtype(), T => {
        let values = tensor.values::<T>().unwrap_or_default();
        let mut texts = Vec::with_capacity(rows * count);
        let mut order: Vec<usize> = Vec::with_capacity(width);
        for row in values.chunks_exact(width.max(1)) {
            order.clear();
            order.extend(0..row.len());
            let better = |&a: &usize, &b: &usize| row[a].compare(&row[b]).then(a.cmp(&b));
            if count < order.len() {
                order.select_nth_unstable_by(count, better);
                order.truncate(count);
            }
            order.sort_unstable_by(better);
            texts.extend(order.iter().map(|&place| text(row[place], place, labels)));
        }
        texts
    }, BYTES => {
        return Err(Error::new(Code::WrongDtype, format!("classification is for numbers, its elements are {}", DType::Bytes)));
    });
    Tensor::text(shape, texts)
}

fn text(value: impl Class, place: usize, labels: &[String]) -> Bytes {
    let mut text = String::new();
    value.write(&mut text);
    let _ = write!(text, ":{place}");
    if let Some(label) = labels.get(place).filter(|label| !label.is_empty()) {
        let _ = write!(text, ":{label}");
    }
    text.into()
}

/// An element that can be the value of a class.
trait Class: Copy {
    /// The larger one is less, as it comes first.
    fn compare(&self, other: &Self) -> Ordering;

    /// As C's `%f` and `%d` write it, which clients read.
    fn write(self, out: &mut String);
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Class for $type {
            fn compare(&self, other: &Self) -> Ordering {
                other.cmp(self)
            }

            fn write(self, out: &mut String) {
                let _ = write!(out, "{self}");
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64);

macro_rules! floats {
    ($($type:ty),*) => {$(
        impl Class for $type {
            fn compare(&self, other: &Self) -> Ordering {
                let by_number = self.is_nan().cmp(&other.is_nan());
                by_number.then(other.partial_cmp(self).unwrap_or(Ordering::Equal))
            }

            fn write(self, out: &mut String) {
                let _ = if self.is_nan() { write!(out, "nan") } else { write!(out, "{:.6}", f64::from(self)) };
            }
        }
    )*};
}
floats!(f32, f64, f16, bf16);

impl Class for Bit {
    fn compare(&self, other: &Self) -> Ordering {
        other.0.cmp(&self.0)
    }

    fn write(self, out: &mut String) {
        let _ = write!(out, "{}", self.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(tensor: &Tensor) -> Vec<String> {
        let texts = tensor.strings().expect("texts");
        texts.iter().map(|text| String::from_utf8(text.to_vec()).expect("UTF-8")).collect()
    }

    fn floats(sizes: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(Shape::new(sizes), values.to_vec()).expect("fits")
    }

    #[test]
    fn the_best_come_first_with_their_places_and_labels() {
        let labels = ["a".to_owned(), String::new()];
        let scores = floats(&[2, 3], &[0.1, 0.7, 0.2, 5.0, -1.5, 1e9]);
        let classes = classify(&scores, true, 2, &labels).expect("numbers");
        assert_eq!(classes.shape().sizes(), [2, 2]);
        assert_eq!(texts(&classes), ["0.700000:1", "0.200000:2", "1000000000.000000:2", "5.000000:0:a"]);
        let whole = classify(&scores, false, 9, &[]).expect("numbers");
        assert_eq!(whole.shape().sizes(), [6], "no more than there are, over all of it");
        assert_eq!(texts(&whole)[0], "1000000000.000000:5");
    }

    #[test]
    fn every_type_is_written_as_c_writes_it_and_texts_are_refused() {
        let integers = Tensor::from_vec(Shape::new(&[1, 2]), vec![-3i8, 7]).expect("fits");
        assert_eq!(texts(&classify(&integers, true, 2, &[]).expect("numbers")), ["7:1", "-3:0"]);
        let odd = floats(&[4], &[f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -0.0]);
        assert_eq!(texts(&classify(&odd, false, 4, &[]).expect("numbers")), ["inf:2", "-0.000000:3", "-inf:1", "nan:0"]);
        // One score a row: the row is its only class.
        assert_eq!(classify(&floats(&[3], &[1.0, 2.0, 3.0]), true, 5, &[]).expect("numbers").shape().sizes(), [3, 1]);
        assert_eq!(classify(&floats(&[0, 3], &[]), true, 2, &[]).expect("no rows").shape().sizes(), [0, 2]);
        assert_eq!(classify(&floats(&[2, 0], &[]), true, 2, &[]).expect("no classes").shape().sizes(), [2, 0]);
        let words = Tensor::text(Shape::new(&[1]), vec![Bytes::from_static(b"x")]).expect("fits");
        assert_eq!(classify(&words, true, 1, &[]).expect_err("texts").code(), Code::WrongDtype);
    }

    proptest! {
        #[test]
        fn what_is_left_out_is_never_better_than_what_is_told(
            values in prop::collection::vec(-4i32..4, 1..24), count in 1..8usize,
        ) {
            let tensor = Tensor::from_vec(Shape::new(&[values.len()]), values.clone()).expect("fits");
            let told = texts(&classify(&tensor, false, count, &[]).expect("numbers"));
            let mut sorted: Vec<(i32, usize)> = values.into_iter().enumerate().map(|(place, value)| (value, place)).collect();
            sorted.sort_by_key(|&(value, place)| (std::cmp::Reverse(value), place));
            let expected: Vec<String> = sorted.iter().take(count).map(|(value, place)| format!("{value}:{place}")).collect();
            prop_assert_eq!(told, expected);
        }
    }
}
