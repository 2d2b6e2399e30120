//! Whether a request fits the signature of the version that is to answer it.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::request::Reuse;
use sluicegate_core::shape::{Dim, Dims};
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{Code, Error, Problem, Request, Result, Signature, Tensor};
use sluicegate_registry::Live;
use smallvec::{SmallVec, smallvec};

/// A request that fits: its inputs are in the order of the signature.
#[derive(Debug)]
pub struct Checked {
    pub(crate) id: Option<String>,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) wanted: SmallVec<[usize; 4]>,
    pub(crate) rows: usize,
    pub(crate) priority: u64,
    pub(crate) timeout: Option<Duration>,
    pub(crate) reuse: Reuse,
}

/// What is wrong, and where in the request.
struct Finding {
    code: Code,
    kind: &'static str,
    place: Vec<sluicegate_core::error::Loc>,
    message: String,
}

impl Checked {
    /// Checks a request against a live version.
    ///
    /// # Errors
    /// With the code of the first thing found wrong, and every thing found wrong among the problems.
    pub fn new(live: &Arc<Live>, request: Request) -> Result<Self> {
        Self::against(&live.signature, request)
    }

    fn against(signature: &Signature, request: Request) -> Result<Self> {
        let mut findings = Vec::new();
        let wanted = wanted(signature, &request.outputs, &mut findings);
        let inputs = inputs(signature, request.inputs, &mut findings);
        let rows = rows(signature, &inputs, &mut findings);
        match findings.first().map(|finding| finding.code) {
            Some(code) => Err(report(code, findings)),
            None => Ok(Self {
                id: request.id,
                inputs: whole(inputs),
                wanted,
                rows,
                priority: request.priority,
                timeout: request.timeout,
                reuse: request.reuse,
            }),
        }
    }
}

fn whole(found: Found) -> Vec<Tensor> {
    let mut inputs = Vec::with_capacity(found.len());
    inputs.extend(found.into_iter().flatten());
    inputs
}

fn report(code: Code, findings: Vec<Finding>) -> Error {
    let message = findings.iter().map(|finding| finding.message.as_str()).collect::<Vec<_>>().join("; ");
    let problem = |finding: Finding| {
        let loc = std::iter::once("body".into()).chain(finding.place).collect();
        Problem { kind: finding.kind, loc, msg: finding.message, input: None, ctx: None }
    };
    Error::new(code, message).with_problems(findings.into_iter().map(problem).collect())
}

fn wanted(signature: &Signature, names: &[String], findings: &mut Vec<Finding>) -> SmallVec<[usize; 4]> {
    if names.is_empty() {
        return (0..signature.outputs().len()).collect();
    }
    let mut wanted = SmallVec::new();
    for (i, name) in names.iter().enumerate() {
        match signature.output(name) {
            // Asked for twice is answered once.
            Some(place) if wanted.contains(&place) => {}
            Some(place) => wanted.push(place),
            None => findings.push(Finding {
                code: Code::UnknownOutput,
                kind: "value_error",
                place: vec!["outputs".into(), i.into(), "name".into()],
                message: format!("the model has no output `{name}`; it has {}", list(signature.outputs())),
            }),
        }
    }
    wanted
}

/// Inputs in the order of the signature; `None` where one is missing or does not fit.
type Found = SmallVec<[Option<Tensor>; 2]>;

/// Puts what was sent in order.
fn inputs(signature: &Signature, sent: Vec<(Arc<str>, Tensor)>, findings: &mut Vec<Finding>) -> Found {
    let mut inputs: Found = smallvec![None; signature.inputs().len()];
    let mut seen: SmallVec<[bool; 8]> = smallvec![false; inputs.len()];
    for (i, (name, tensor)) in sent.into_iter().enumerate() {
        let mut find = |code, kind, part: &str, message| {
            let place = vec!["inputs".into(), i.into(), part.into()];
            findings.push(Finding { code, kind, place, message });
        };
        let Some(place) = signature.input(&name) else {
            let have = list(signature.inputs());
            find(Code::UnknownInput, "extra_forbidden", "name", format!("the model has no input `{name}`; it has {have}"));
            continue;
        };
        if std::mem::replace(&mut seen[place], true) {
            find(Code::UnknownInput, "value_error", "name", format!("input `{name}` was sent twice"));
            continue;
        }
        let spec = &signature.inputs()[place];
        if let Some(message) = misfit_dtype(spec, &tensor) {
            find(Code::WrongDtype, "value_error", "datatype", message);
        } else if let Some(message) = misfit_shape(spec, &tensor) {
            find(Code::WrongShape, "value_error", "shape", message);
        } else if let Some(message) = misfit_text(spec, &tensor) {
            find(Code::InvalidTensor, "value_error", "data", message);
        } else {
            inputs[place] = Some(tensor);
        }
    }
    for (spec, _) in signature.inputs().iter().zip(seen).filter(|(_, seen)| !seen) {
        findings.push(Finding {
            code: Code::MissingInput,
            kind: "missing",
            place: vec!["inputs".into()],
            message: format!("input `{}` is missing: expected {} {}", spec.name, spec.dtype, Dims(&spec.dims)),
        });
    }
    inputs
}

fn misfit_dtype(spec: &TensorSpec, tensor: &Tensor) -> Option<String> {
    let wrong = tensor.dtype() != spec.dtype;
    wrong.then(|| format!("input `{}` is {}, expected {}", spec.name, tensor.dtype(), spec.dtype))
}

fn misfit_shape(spec: &TensorSpec, tensor: &Tensor) -> Option<String> {
    let sizes = tensor.shape().sizes();
    let fits = sizes.len() == spec.dims.len() && spec.dims.iter().zip(sizes).all(|(dim, &size)| dim.admits(size));
    (!fits).then(|| format!("input `{}` has shape {}, expected {}", spec.name, tensor.shape(), Dims(&spec.dims)))
}

/// The engines' strings are UTF-8.
fn misfit_text(spec: &TensorSpec, tensor: &Tensor) -> Option<String> {
    let place = tensor.strings()?.iter().position(|text| std::str::from_utf8(text).is_err())?;
    Some(format!("element {place} of input `{}` is not UTF-8", spec.name))
}

/// Dimensions of one name have one size in the whole request; the first one counts rows where the model is batched.
fn rows(signature: &Signature, inputs: &[Option<Tensor>], findings: &mut Vec<Finding>) -> usize {
    let mut known: SmallVec<[(&str, usize, &str); 4]> = SmallVec::new();
    let mut rows: Option<(usize, &str)> = None;
    for (spec, tensor) in signature.inputs().iter().zip(inputs) {
        let Some(tensor) = tensor else { continue };
        let mut find = |size: usize, other: usize, whose: &str| {
            findings.push(Finding {
                code: Code::WrongShape,
                kind: "value_error",
                place: vec!["inputs".into()],
                message: format!("input `{}` has a size of {size} where input `{whose}` has {other}", spec.name),
            });
        };
        if signature.is_batched() {
            let size = tensor.shape().rows();
            match rows {
                None => rows = Some((size, &spec.name)),
                Some((other, whose)) if other != size => find(size, other, whose),
                Some(_) => {}
            }
        }
        let skip = usize::from(signature.is_batched());
        for (dim, &size) in spec.dims.iter().zip(tensor.shape().sizes()).skip(skip) {
            let Dim::Free(Some(name)) = dim else { continue };
            match known.iter().find(|(seen, ..)| *seen == &**name) {
                None => known.push((name, size, &spec.name)),
                Some((_, other, whose)) if *other != size => find(size, *other, whose),
                Some(_) => {}
            }
        }
    }
    rows.map_or(1, |(rows, _)| rows)
}

fn list(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| format!("`{}`", spec.name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use sluicegate_core::{DType, Shape};

    use super::*;

    fn free(name: &str) -> Dim {
        Dim::Free(Some(name.into()))
    }

    fn signature() -> Signature {
        let x = TensorSpec::new("x", DType::Fp32, vec![free("N"), free("T")]);
        let y = TensorSpec::new("y", DType::Fp32, vec![free("N"), free("T")]);
        Signature::new(vec![x, y.clone()], vec![TensorSpec { name: "a".into(), ..y.clone() }, y], None).expect("a good signature")
    }

    fn tensor(sizes: &[usize]) -> Tensor {
        Tensor::from_vec(Shape::new(sizes), vec![0f32; sizes.iter().product()]).expect("fits")
    }

    fn request(inputs: &[(&str, Tensor)], outputs: &[&str]) -> Request {
        Request {
            inputs: inputs.iter().map(|(name, tensor)| ((*name).into(), tensor.clone())).collect(),
            outputs: outputs.iter().map(|&name| name.to_owned()).collect(),
            ..Request::default()
        }
    }

    #[test]
    fn inputs_come_in_the_models_order_whatever_the_callers_was() {
        let both = request(&[("y", tensor(&[2, 3])), ("x", tensor(&[2, 3]))], &["y", "a", "y"]);
        let checked = Checked::against(&signature(), both).expect("fits");
        assert_eq!((checked.rows, checked.inputs.len()), (2, 2));
        assert_eq!(&checked.wanted[..], [1, 0]);
    }

    #[test]
    fn every_fault_is_told_and_names_expected_and_got() {
        let bad = request(&[("x", tensor(&[2])), ("z", tensor(&[1]))], &["q"]);
        let error = Checked::against(&signature(), bad).expect_err("four faults");
        assert_eq!(error.code(), Code::UnknownOutput);
        let messages: Vec<_> = error.problems().iter().map(|problem| problem.msg.as_str()).collect();
        assert_eq!(
            messages,
            [
                "the model has no output `q`; it has `a`, `y`",
                "input `x` has shape [2], expected [-1, -1]",
                "the model has no input `z`; it has `x`, `y`",
                "input `y` is missing: expected FP32 [-1, -1]",
            ]
        );
    }

    #[test]
    fn sizes_that_share_a_name_agree() {
        let sizes =
            |x: &[usize], y: &[usize]| Checked::against(&signature(), request(&[("x", tensor(x)), ("y", tensor(y))], &[]));
        assert!(sizes(&[2, 3], &[2, 3]).is_ok());
        assert_eq!(sizes(&[2, 3], &[1, 3]).expect_err("rows").code(), Code::WrongShape);
        assert_eq!(sizes(&[2, 3], &[2, 4]).expect_err("T").code(), Code::WrongShape);
        assert_eq!(sizes(&[0, 3], &[0, 3]).expect("no rows are legal").rows, 0);
    }

    #[test]
    fn text_that_an_engine_could_not_hold_is_refused() {
        let spec = TensorSpec::new("s", DType::Bytes, vec![free("N")]);
        let signature = Signature::new(vec![spec.clone()], vec![spec], None).expect("a good signature");
        for (text, good) in [(&b"caf\xc3\xa9"[..], true), (b"\xff", false), (b"a\0b", true), (b"", true)] {
            let tensor = Tensor::text(Shape::new(&[1]), vec![bytes::Bytes::from_static(text)]).expect("fits");
            assert_eq!(Checked::against(&signature, request(&[("s", tensor)], &[])).is_ok(), good, "{text:?}");
        }
    }
}
