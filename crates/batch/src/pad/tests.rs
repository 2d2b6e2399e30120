//! What padding promises: every request gets what it would have got alone.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::stack::{self, Scratch};

fn free(name: &str) -> Dim {
    Dim::Free(Some(name.into()))
}

fn spec(name: &str, dtype: DType, dims: Vec<Dim>, pad: Option<f64>) -> TensorSpec {
    TensorSpec { pad, ..TensorSpec::new(name, dtype, dims) }
}

/// `x` [N, T, 2] and `words` [N, 1] in; the same out, and `y` [N, T].
fn signature(pad: Option<f64>) -> Signature {
    let x = spec("x", DType::Int32, vec![free("N"), free("T"), Dim::Fixed(2)], pad);
    let words = spec("words", DType::Bytes, vec![free("N"), Dim::Fixed(1)], None);
    let y = spec("y", DType::Int32, vec![free("N"), free("T")], None);
    let out = |spec: &TensorSpec| TensorSpec { pad: None, ..spec.clone() };
    Signature::new(vec![x.clone(), words.clone()], vec![out(&x), out(&words), y], None).expect("a good signature")
}

fn refusal(signature: &Signature) -> String {
    Padding::of(signature).expect_err("no good").message().to_owned()
}

proptest! {
    #[test]
    fn what_is_padded_is_cut_back_to_what_it_was(
        sizes in prop::collection::vec((0..4usize, 0..9usize), 2..6), pad in -3..3i32,
    ) {
        let padding = Padding::of(&signature(Some(f64::from(pad)))).expect("declared well");
        let mut next = 100;
        let parts: Vec<Vec<Tensor>> = sizes.iter().map(|&(rows, length)| {
            let numbers = (0..rows * length * 2).map(|_| { next += 1; next }).collect::<Vec<i32>>();
            let words = (0..rows).map(|row| Bytes::from(format!("{row} of {next}"))).collect();
            vec![
                Tensor::from_vec(Shape::new(&[rows, length, 2]), numbers).expect("fits"),
                Tensor::text(Shape::new(&[rows, 1]), words).expect("fits"),
            ]
        }).collect();
        let views: Vec<&[Tensor]> = parts.iter().map(Vec::as_slice).collect();
        let joined = stack::join(&views, &padding, &mut Scratch::default()).expect("joins");
        let longest = sizes.iter().map(|size| size.1).max().unwrap_or(0);
        let rows: Vec<usize> = sizes.iter().map(|size| size.0).collect();
        prop_assert_eq!(joined[0].shape().sizes(), [rows.iter().sum(), longest, 2]);
        // Every element that is not a request's own is the pad.
        let own: usize = sizes.iter().map(|(rows, length)| rows * length * 2).sum();
        let pads = joined[0].values::<i32>().expect("INT32").iter().filter(|&&value| value == pad).count();
        prop_assert_eq!(pads, joined[0].elements() - own);
        // A model that gives back what it gets.
        let slices = stack::cut(&joined, &rows).expect("rows are kept");
        for (slice, part) in slices.into_iter().zip(&parts) {
            for (output, tensor) in slice.into_iter().enumerate() {
                prop_assert_eq!(&padding.crop(output, tensor, part, &joined).expect("cuts back"), &part[output]);
            }
        }
    }

    #[test]
    fn less_than_half_of_an_axis_is_padding_beyond_the_smallest_bucket(a in 9..5000usize, b in 9..5000usize) {
        let padding = Padding::of(&signature(Some(0.0))).expect("declared well");
        if padding.bucket(0, 1, a) == padding.bucket(0, 1, b) {
            prop_assert!(2 * a.min(b) >= a.max(b));
        }
        prop_assert_eq!(padding.bucket(1, 1, a), a, "an axis that is not padded has no buckets");
    }
}

#[test]
fn nothing_is_padded_unasked() {
    let padding = Padding::of(&signature(None)).expect("nothing to refuse");
    assert_ne!(padding.bucket(0, 1, 5), padding.bucket(0, 1, 6));
}

#[test]
fn a_declaration_that_cannot_be_kept_is_refused_with_what_to_change() {
    assert!(refusal(&signature(Some(0.5))).contains("input `x`: 0.5 is no INT32 to pad it with"));

    let other =
        |inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>| Signature::new(inputs, outputs, None).expect("a good signature");
    let x = |pad| spec("x", DType::Fp32, vec![free("N"), free("T")], pad);
    let mask = spec("mask", DType::Fp32, vec![free("N"), free("T")], None);
    let y = |dim| spec("y", DType::Fp32, vec![free("N"), dim], None);
    let message = refusal(&other(vec![x(Some(0.0)), mask], vec![y(free("T"))]));
    assert!(message.contains("input `mask` needs `pad` too") && message.contains("`T`"), "{message}");
    let message = refusal(&other(vec![x(Some(0.0))], vec![y(free("S"))]));
    assert!(message.contains("output `y`: dimension 1 is free"), "{message}");
    let fixed = spec("x", DType::Fp32, vec![free("N"), Dim::Fixed(3)], Some(0.0));
    assert!(refusal(&other(vec![fixed], vec![y(Dim::Fixed(3))])).contains("no free dimension but the rows"));
}

#[test]
fn an_output_that_does_not_follow_its_input_is_the_models_fault() {
    let padding = Padding::of(&signature(Some(0.0))).expect("declared well");
    let tensor = |sizes: &[usize]| Tensor::from_vec(Shape::new(sizes), vec![0i32; sizes.iter().product()]).expect("fits");
    let (own, joined) = ([tensor(&[1, 3, 2])], [tensor(&[2, 5, 2])]);
    assert_eq!(padding.crop(2, tensor(&[1, 5]), &own, &joined).expect("follows").shape().sizes(), [1, 3]);
    assert_eq!(padding.crop(2, tensor(&[1, 4]), &own, &joined).expect_err("4 is not 5").code(), Code::RunFailed);
}
