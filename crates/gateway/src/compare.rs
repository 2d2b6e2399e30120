//! How far the answers of two versions to one request lie apart. Pure: tensors in, numbers out.

use sluicegate_core::dtype::Bit;
use sluicegate_core::for_dtype;
use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::tally::ANSWERS;
use sluicegate_core::{Data, Tensor};

/// Rows of a request that are compared, or whose answers are counted: a large request says no more than these.
pub const ROWS: usize = 64;

/// Pairs of rows whose order is compared: those of so many rows.
const RANKED: usize = 16;

/// The numbers of some rows of a tensor, row by row; `None` where it holds texts.
fn numbers(tensor: &Tensor) -> Option<Vec<Vec<f64>>> {
    let rows = tensor.shape().rows().min(ROWS);
    let all = flat(tensor, rows)?;
    let width = (all.len() / rows.max(1)).max(1);
    Some(all.chunks(width).map(<[f64]>::to_vec).collect())
}

/// An element as a number.
trait Number: Copy {
    fn number(self) -> f64;
}

macro_rules! number {
    ($($type:ty => $how:expr),*) => {$(impl Number for $type { fn number(self) -> f64 { ($how)(self) } })*};
}
number!(
    Bit => |bit: Bit| f64::from(bit.0), u8 => f64::from, u16 => f64::from, u32 => f64::from, u64 => |n: u64| n as f64,
    i8 => f64::from, i16 => f64::from, i32 => f64::from, i64 => |n: i64| n as f64,
    half::f16 => |n: half::f16| n.to_f64(), half::bf16 => |n: half::bf16| n.to_f64(), f32 => f64::from, f64 => |n: f64| n
);

/// The numbers of so many rows, one after another; `None` where it holds texts.
fn flat(tensor: &Tensor, rows: usize) -> Option<Vec<f64>> {
    let count = tensor.elements() / tensor.shape().rows().max(1) * rows;
    Some(
        for_dtype!(tensor.dtype(), T => tensor.values::<T>()?.iter().take(count).map(|&n| n.number()).collect(), BYTES => return None),
    )
}

/// The first numbers of a tensor, as JSON has them: what is none, or endless, as text.
pub fn first_numbers(tensor: &Tensor, most: usize) -> Vec<serde_json::Value> {
    let json =
        |number: f64| serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), serde_json::Value::Number);
    numbers(tensor).unwrap_or_default().concat().into_iter().take(most).map(json).collect()
}

/// Some rows of a tensor of texts.
fn texts(tensor: &Tensor) -> Option<Vec<Vec<&[u8]>>> {
    let Data::Text(elements) = tensor.data() else { return None };
    let rows = tensor.shape().rows();
    let width = (elements.len() / rows.max(1)).max(1);
    Some(elements.chunks(width).take(ROWS).map(|row| row.iter().map(|text| &text[..]).collect()).collect())
}

/// The place of the largest number.
fn largest(row: impl IntoIterator<Item = f64>) -> usize {
    let numbers = row.into_iter().enumerate();
    numbers.fold((0, f64::NEG_INFINITY), |best, (place, n)| if n > best.1 { (place, n) } else { best }).0
}

/// How far two rows lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apart {
    /// From 0 to 1: the length of the difference beside the lengths of both, `|a - b| / (|a| + |b|)`.
    pub difference: f64,
    /// The largest difference of two elements.
    pub absolute: f64,
    /// The cosine of the angle between them; 1 where both are nothing.
    pub cosine: f64,
    /// Whether they disagree: another label, another text, or further apart than the tolerance.
    pub disagree: bool,
}

/// Compares two rows of numbers.
fn rows_apart(one: &[f64], other: &[f64], spec: &TensorSpec, tolerance: f64) -> Apart {
    if one.len() != other.len() {
        return Apart { difference: 1.0, absolute: f64::INFINITY, cosine: 0.0, disagree: true };
    }
    let length = |row: &[f64]| row.iter().map(|n| n * n).sum::<f64>().sqrt();
    let gap: Vec<f64> = one.iter().zip(other).map(|(a, b)| a - b).collect();
    let (long, longer, apart) = (length(one), length(other), length(&gap));
    let both = long + longer;
    let same = one.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits() || a == b);
    // What is no number, or endless, is as far apart as can be, unless both are the same.
    let difference = match () {
        () if same => 0.0,
        () if both.is_finite() && both > 0.0 => (apart / both).min(1.0),
        () => 1.0,
    };
    let dot: f64 = one.iter().zip(other).map(|(a, b)| a * b).sum();
    let cosine = if same { 1.0 } else { (dot / (long * longer)).clamp(-1.0, 1.0) };
    let absolute =
        if same { 0.0 } else { gap.iter().fold(0.0f64, |most, n| if n.is_nan() { f64::INFINITY } else { most.max(n.abs()) }) };
    let disagree = match spec.kind {
        Kind::Label => !same,
        Kind::Probability | Kind::Score if one.len() > 1 => largest(one.iter().copied()) != largest(other.iter().copied()),
        _ if !spec.dtype.is_float() => !same,
        _ => difference > tolerance,
    };
    Apart { difference, absolute, cosine: if cosine.is_nan() { 0.0 } else { cosine }, disagree }
}

/// Compares the rows of one output.
pub fn outputs_apart(stable: &Tensor, candidate: &Tensor, spec: &TensorSpec, tolerance: f64) -> Vec<Apart> {
    let far = Apart { difference: 1.0, absolute: f64::INFINITY, cosine: 0.0, disagree: true };
    match (numbers(stable), numbers(candidate)) {
        (Some(one), Some(other)) if one.len() == other.len() => {
            one.iter().zip(&other).map(|(one, other)| rows_apart(one, other, spec, tolerance)).collect()
        }
        (None, None) => match (texts(stable), texts(candidate)) {
            (Some(one), Some(other)) if one.len() == other.len() => {
                let same = Apart { difference: 0.0, absolute: 0.0, cosine: 1.0, disagree: false };
                one.iter().zip(&other).map(|(one, other)| if one == other { same } else { far }).collect()
            }
            _ => vec![far],
        },
        _ => vec![far],
    }
}

/// The part of the pairs of rows that two outputs of one number a row put in the same order; `None` where there are none.
pub fn rank_agreement(stable: &Tensor, candidate: &Tensor) -> Option<f64> {
    let scores = |tensor: &Tensor| -> Option<Vec<f64>> {
        let rows = numbers(tensor)?;
        rows.iter().all(|row| row.len() == 1).then(|| rows.iter().take(RANKED).map(|row| row[0]).collect())
    };
    let (one, other) = (scores(stable)?, scores(candidate)?);
    if one.len() != other.len() || one.len() < 2 {
        return None;
    }
    let pairs = (0..one.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let mut all = 0u32;
    let agree = pairs.filter(|&(a, b)| {
        all += 1;
        one[a].partial_cmp(&one[b]) == other[a].partial_cmp(&other[b])
    });
    let agree = agree.count() as f64;
    Some(agree / f64::from(all))
}

/// The bucket of what the first row of an output says: a label by its place, a number by its size.
pub fn bucket(tensor: &Tensor, spec: &TensorSpec) -> Option<usize> {
    if let Data::Text(elements) = tensor.data() {
        let place = |text: &[u8]| spec.labels.iter().position(|label| label.as_bytes() == text);
        // A text that is no label: by its bytes, so that the same text has the same bucket (FNV-1a).
        let hash = |text: &[u8]| {
            text.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        };
        return elements.first().map(|text| place(text).unwrap_or((hash(text) % ANSWERS as u64) as usize));
    }
    let width = tensor.elements().checked_div(tensor.shape().rows())?;
    let one = |number: f64| match spec.kind {
        Kind::Probability => ((number.clamp(0.0, 1.0) * (ANSWERS - 1) as f64) as usize).min(ANSWERS - 1),
        _ if spec.dtype.is_integer() && (0.0..ANSWERS as f64).contains(&number) => number as usize,
        _ => magnitude(number),
    };
    for_dtype!(tensor.dtype(), T => {
        let values = tensor.values::<T>()?;
        let mut row = values.iter().take(width).map(|n| n.number());
        Some(if width > 1 { largest(row).min(ANSWERS - 1) } else { row.next().map_or(0, one) })
    }, BYTES => None)
}

/// A number by its sign and its size: nothing is in the middle, and each bucket is a doubling. What is no number has the last one.
fn magnitude(number: f64) -> usize {
    let middle = (ANSWERS / 2) as f64;
    if number.is_nan() {
        return ANSWERS - 1;
    }
    if number == 0.0 {
        return ANSWERS / 2;
    }
    let steps = (number.abs().log2() + 16.0).clamp(1.0, middle - 2.0);
    (middle + steps.copysign(number)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluicegate_core::{DType, Shape};

    use super::*;

    fn buckets(tensor: &Tensor, spec: &TensorSpec) -> Vec<usize> {
        (0..tensor.shape().rows()).filter_map(|row| bucket(&tensor.rows(row..row + 1), spec)).collect()
    }

    fn floats(rows: &[&[f32]]) -> Tensor {
        let all: Vec<f32> = rows.concat();
        Tensor::from_vec(Shape::new(&[rows.len(), all.len() / rows.len()]), all).expect("fits")
    }

    fn spec(kind: Kind) -> TensorSpec {
        TensorSpec { kind, ..TensorSpec::new("y", DType::Fp32, Vec::new()) }
    }

    fn labels(texts: &[&'static str]) -> Tensor {
        Tensor::text(Shape::new(&[texts.len()]), texts.iter().map(|text| bytes::Bytes::from_static(text.as_bytes())).collect())
            .expect("fits")
    }

    #[test]
    fn probabilities_disagree_where_another_label_is_the_most_likely() {
        let (one, other) = (floats(&[&[0.9, 0.1], &[0.6, 0.4]]), floats(&[&[0.7, 0.3], &[0.4, 0.6]]));
        let apart = outputs_apart(&one, &other, &spec(Kind::Probability), 0.01);
        assert_eq!(apart.iter().map(|apart| apart.disagree).collect::<Vec<_>>(), [false, true]);
        assert!((apart[0].absolute - 0.2).abs() < 1e-6 && apart[0].cosine > 0.9);
    }

    #[test]
    fn numbers_disagree_beyond_the_tolerance_and_texts_where_they_differ() {
        let apart = |a: f32, b: f32| outputs_apart(&floats(&[&[a]]), &floats(&[&[b]]), &spec(Kind::Value), 0.01)[0];
        assert!(!apart(100.0, 101.0).disagree && apart(100.0, 110.0).disagree);
        assert_eq!(apart(0.0, 0.0).difference, 0.0);
        assert_eq!((apart(1.0, f32::NAN).difference, apart(f32::NAN, f32::NAN).difference), (1.0, 0.0));
        assert_eq!(apart(1.0, -1.0).difference, 1.0);
        let said = outputs_apart(&labels(&["a", "b"]), &labels(&["a", "c"]), &spec(Kind::Label), 0.0);
        assert_eq!(said.iter().map(|apart| apart.difference).collect::<Vec<_>>(), [0.0, 1.0]);
        assert!(outputs_apart(&labels(&["a"]), &floats(&[&[1.0]]), &spec(Kind::Label), 0.0)[0].disagree, "another type");
    }

    #[test]
    fn orders_are_compared_pair_by_pair() {
        let column = |scores: &[f32]| Tensor::from_vec(Shape::new(&[scores.len()]), scores.to_vec()).expect("fits");
        assert_eq!(rank_agreement(&column(&[1.0, 2.0, 3.0]), &column(&[10.0, 20.0, 15.0])), Some(2.0 / 3.0));
        assert_eq!(rank_agreement(&column(&[1.0]), &column(&[1.0])), None);
    }

    #[test]
    fn answers_have_the_bucket_of_their_label_or_their_size() {
        let known = TensorSpec { labels: vec!["no".to_owned(), "yes".to_owned()], ..spec(Kind::Label) };
        assert_eq!(buckets(&labels(&["yes", "no"]), &known), [1, 0]);
        assert_eq!(buckets(&floats(&[&[0.1, 0.7, 0.2]]), &spec(Kind::Probability)), [1]);
        let sizes =
            buckets(&Tensor::from_vec(Shape::new(&[5]), vec![-8.0f32, -1.0, 0.0, 1.0, 8.0]).expect("fits"), &spec(Kind::Value));
        assert!(sizes.windows(2).all(|two| two[0] < two[1]), "{sizes:?}");
    }

    proptest! {
        #[test]
        fn whatever_two_rows_hold_they_are_no_further_apart_than_all(one in prop::collection::vec(any::<f32>(), 1..5), other in prop::collection::vec(any::<f32>(), 1..5)) {
            let apart = |a: &[f32], b: &[f32]| outputs_apart(&floats(&[a]), &floats(&[b]), &spec(Kind::Value), 0.01)[0];
            let both = apart(&one, &other);
            prop_assert!((0.0..=1.0).contains(&both.difference) && (-1.0..=1.0).contains(&both.cosine) && both.absolute >= 0.0);
            prop_assert_eq!(both.difference, apart(&other, &one).difference);
            prop_assert_eq!(apart(&one, &one).difference, 0.0);
            prop_assert!(buckets(&floats(&[&one]), &spec(Kind::Value)).iter().all(|&bucket| bucket < ANSWERS));
        }
    }
}
