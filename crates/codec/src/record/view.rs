//! How an output looks in the answer to one record: a label, named numbers, one number, or nested lists.

use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{DType, Dim};

/// The form of an output in the answer to one record. The encoder and the documents both follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// One index or one string. An index is answered as its label, or as itself where it is outside the labels.
    Label,
    /// One value a label: an object.
    Named,
    /// One value.
    Scalar,
    /// Lists within lists, by the output's dimensions.
    Nested,
}

impl View {
    /// The form of this output; `batched` where its first axis counts records.
    pub fn of(spec: &TensorSpec, batched: bool) -> Self {
        let dims = record_dims(spec, batched);
        let classes = spec.labels.len();
        if dims.iter().all(|dim| dim.fixed() == Some(1)) {
            let is_class = spec.dtype.is_integer() || spec.dtype == DType::Bytes;
            return if classes > 0 && is_class { Self::Label } else { Self::Scalar };
        }
        match dims {
            [only] if classes > 0 && only.fixed() == Some(classes) => Self::Named,
            _ => Self::Nested,
        }
    }
}

/// The dimensions that an output has for one record.
pub fn record_dims(spec: &TensorSpec, batched: bool) -> &[Dim] {
    match &*spec.dims {
        [_, rest @ ..] if batched => rest,
        dims => dims,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(dtype: DType, dims: &[Dim], labels: &[&str]) -> View {
        let mut spec = TensorSpec::new("y", dtype, dims.to_vec());
        spec.labels = labels.iter().map(|&label| label.into()).collect();
        View::of(&spec, matches!(dims.first(), Some(Dim::Free(_))))
    }

    #[test]
    fn labels_name_an_index_or_one_value_each_and_nothing_else() {
        let n = || Dim::Free(None);
        let two = ["no", "yes"];
        assert_eq!(view(DType::Int64, &[n()], &two), View::Label);
        assert_eq!(view(DType::Int64, &[n(), Dim::Fixed(1)], &two), View::Label);
        assert_eq!(view(DType::Bytes, &[n()], &two), View::Label);
        assert_eq!(view(DType::Fp32, &[n()], &two), View::Scalar);
        assert_eq!(view(DType::Int64, &[n()], &[]), View::Scalar);
        assert_eq!(view(DType::Fp32, &[n(), Dim::Fixed(2)], &two), View::Named);
        assert_eq!(view(DType::Fp32, &[n(), Dim::Fixed(3)], &two), View::Nested);
        assert_eq!(view(DType::Fp32, &[n(), n()], &two), View::Nested);
        assert_eq!(view(DType::Fp32, &[n(), Dim::Fixed(0)], &[]), View::Nested);
        assert_eq!(view(DType::Fp32, &[n(), Dim::Fixed(2), Dim::Fixed(2)], &two), View::Nested);
    }

    #[test]
    fn without_a_batch_axis_every_dimension_belongs_to_the_record() {
        assert_eq!(view(DType::Fp32, &[], &[]), View::Scalar);
        assert_eq!(view(DType::Int64, &[Dim::Fixed(1)], &["a", "b"]), View::Label);
        assert_eq!(view(DType::Fp32, &[Dim::Fixed(2)], &["a", "b"]), View::Named);
        assert_eq!(view(DType::Fp32, &[Dim::Fixed(1), Dim::Fixed(2)], &["a", "b"]), View::Nested);
    }
}
