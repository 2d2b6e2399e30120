//! Requests of different inner sizes in one run: padded up to the largest on the way in, cut back on the way out.
//!
//! Only what the model declares is padded, for only its makers know which value leaves the answer as it was.

use sluicegate_core::shape::Dim;
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{Code, DType, Data, Error, Result, Shape, Signature, Tensor};
use smallvec::SmallVec;

/// Sizes up to this one share a bucket; beyond, each power of two begins one, so that less than half of an axis is padding.
const SMALLEST: usize = 8;

/// What a version's inputs are padded with, and which axes of its outputs follow them.
#[derive(Clone, Debug, Default)]
pub struct Padding {
    /// For each input that may be padded, its element and its free axes but the first.
    inputs: Vec<Option<Input>>,
    /// For each output, its axes that are as long as an axis of an input.
    outputs: Vec<SmallVec<[Follows; 2]>>,
}

#[derive(Clone, Debug)]
struct Input {
    element: SmallVec<[u8; 8]>,
    axes: SmallVec<[usize; 2]>,
}

#[derive(Clone, Copy, Debug)]
struct Follows {
    axis: usize,
    input: usize,
    input_axis: usize,
}

impl Padding {
    /// What the signature declares.
    ///
    /// # Errors
    /// [`Code::BadSignature`] where a pad value does not fit its input, or an axis could not be cut back.
    pub fn of(signature: &Signature) -> Result<Self> {
        let bad = |message: String| Err(Error::new(Code::BadSignature, message));
        if signature.inputs().iter().all(|spec| spec.pad.is_none()) {
            return Ok(Self::default());
        }
        if !signature.is_batched() {
            return bad("`pad` is for models whose first dimension counts rows, and this one's does not".into());
        }
        let mut inputs = Vec::new();
        let mut padded: Vec<(&str, usize, usize)> = Vec::new();
        for (input, spec) in signature.inputs().iter().enumerate() {
            let Some(pad) = spec.pad else {
                inputs.push(None);
                continue;
            };
            let Some(element) = element(spec.dtype, pad) else {
                return bad(format!("input `{}`: {pad} is no {} to pad it with", spec.name, spec.dtype));
            };
            let axes: SmallVec<[usize; 2]> = free_axes(spec).map(|(axis, _)| axis).collect();
            if axes.is_empty() {
                return bad(format!("input `{}` has `pad` and no free dimension but the rows", spec.name));
            }
            padded.extend(free_axes(spec).filter_map(|(axis, name)| Some((name?, input, axis))));
            inputs.push(Some(Input { element, axes }));
        }
        for spec in signature.inputs().iter().filter(|spec| spec.pad.is_none()) {
            if let Some((_, name)) = free_axes(spec).find(|(_, name)| padded.iter().any(|(known, ..)| Some(*known) == *name)) {
                let name = name.unwrap_or_default();
                return bad(format!("input `{}` needs `pad` too: its dimension `{name}` is padded in another one", spec.name));
            }
        }
        let follows = |spec: &TensorSpec| {
            let follow = |(axis, name): (usize, Option<&str>)| {
                let known = padded.iter().find(|(known, ..)| Some(*known) == name);
                known.map(|&(_, input, input_axis)| Follows { axis, input, input_axis }).ok_or_else(|| {
                    let what = format!("output `{}`: dimension {axis} is free and has the name of no padded one", spec.name);
                    Error::new(Code::BadSignature, format!("{what}, so that padding could not be cut off it"))
                })
            };
            free_axes(spec).map(follow).collect::<Result<_>>()
        };
        let outputs = signature.outputs().iter().map(follows).collect::<Result<_>>()?;
        Ok(Self { inputs, outputs })
    }

    /// What makes requests of this size mergeable: the size itself where the axis is not padded, else that of its bucket.
    pub(crate) fn bucket(&self, input: usize, axis: usize, size: usize) -> usize {
        match self.inputs.get(input) {
            Some(Some(padded)) if padded.axes.contains(&axis) => size.max(SMALLEST).checked_next_power_of_two().unwrap_or(size),
            _ => size,
        }
    }

    /// The inner sizes that hold all these requests' tensors of one input.
    pub(crate) fn common<'t>(tensors: impl Iterator<Item = &'t Tensor>) -> Shape {
        let mut sizes: SmallVec<[usize; 6]> = SmallVec::new();
        for tensor in tensors {
            let own = tensor.shape().sizes();
            sizes.resize(own.len(), 0);
            sizes.iter_mut().zip(own).for_each(|(size, own)| *size = (*size).max(*own));
        }
        sizes.into_iter().collect()
    }

    /// Appends a tensor's rows to a batch of these inner sizes.
    pub(crate) fn append(&self, input: usize, tensor: &Tensor, common: &Shape, buffer: &mut bytes::BytesMut) {
        let (Data::Fixed(bytes), Some(width)) = (tensor.data(), tensor.dtype().size()) else { return };
        let start = buffer.len();
        let inner: usize = common.sizes().iter().skip(1).product();
        let end = start + tensor.shape().rows() * inner * width;
        match self.inputs.get(input) {
            Some(Some(Input { element, .. })) if element.iter().any(|&byte| byte != 0) => {
                while buffer.len() < end {
                    buffer.extend_from_slice(element);
                }
            }
            _ => buffer.resize(end, 0),
        }
        let with_width = |shape: &Shape| shape.sizes().iter().copied().chain([width]).collect::<SmallVec<[usize; 8]>>();
        let whole = with_width(&common.with_rows(tensor.shape().rows()));
        overlap(&mut buffer[start..], &whole, bytes, &with_width(tensor.shape()));
    }

    /// Cuts an output's padding off, so that it is as if the request had run alone.
    pub(crate) fn crop(&self, output: usize, tensor: Tensor, inputs: &[Tensor], joined: &[Tensor]) -> Result<Tensor> {
        let Some(follows) = self.outputs.get(output) else { return Ok(tensor) };
        let mut sizes: SmallVec<[usize; 6]> = tensor.shape().sizes().into();
        for &Follows { axis, input, input_axis } in follows {
            let size = |tensors: &[Tensor]| tensors.get(input).and_then(|tensor| tensor.shape().sizes().get(input_axis).copied());
            let (Some(own), Some(padded)) = (size(inputs), size(joined)) else { continue };
            match sizes.get_mut(axis) {
                Some(size) if *size == padded => *size = own,
                _ => {
                    let message = format!("an output of shape {} came back where dimension {axis} has {padded}", tensor.shape());
                    return Err(Error::new(Code::RunFailed, message));
                }
            }
        }
        if sizes[..] == *tensor.shape().sizes() {
            return Ok(tensor);
        }
        let shape: Shape = sizes.iter().copied().collect();
        let count: usize = sizes.iter().product();
        match tensor.data() {
            Data::Text(elements) => {
                let mut cut = vec![bytes::Bytes::new(); count];
                overlap(&mut cut, &sizes, elements, tensor.shape().sizes());
                Tensor::text(shape, cut)
            }
            Data::Fixed(bytes) => {
                let width = tensor.dtype().size().unwrap_or(1);
                let mut cut = vec![0; count * width];
                sizes.push(width);
                let whole: SmallVec<[usize; 8]> = tensor.shape().sizes().iter().copied().chain([width]).collect();
                overlap(&mut cut, &sizes, bytes, &whole);
                Tensor::fixed(tensor.dtype(), shape, cut.into())
            }
        }
    }
}

/// The free dimensions after the first, by place and name.
fn free_axes(spec: &TensorSpec) -> impl Iterator<Item = (usize, Option<&str>)> {
    let free = |(axis, dim): (usize, &'_ Dim)| matches!(dim, Dim::Free(_)).then_some(axis);
    spec.dims.iter().enumerate().skip(1).filter_map(free).map(|axis| match &spec.dims[axis] {
        Dim::Free(name) => (axis, name.as_deref()),
        Dim::Fixed(_) => (axis, None),
    })
}

/// Copies what two row-major blocks have in common.
fn overlap<T: Clone>(to: &mut [T], to_sizes: &[usize], from: &[T], from_sizes: &[usize]) {
    let ([_, to_inner @ ..], [_, from_inner @ ..]) = (to_sizes, from_sizes) else { return };
    if to_inner == from_inner {
        let count = to.len().min(from.len());
        to[..count].clone_from_slice(&from[..count]);
        return;
    }
    let widths = (to_inner.iter().product::<usize>(), from_inner.iter().product::<usize>());
    if widths.0 == 0 || widths.1 == 0 {
        return;
    }
    for (to, from) in to.chunks_exact_mut(widths.0).zip(from.chunks_exact(widths.1)) {
        overlap(to, to_inner, from, from_inner);
    }
}

/// A number as an element of this type, where it is one.
fn element(dtype: DType, number: f64) -> Option<SmallVec<[u8; 8]>> {
    macro_rules! whole {
        ($type:ty) => {{
            #[expect(clippy::cast_possible_truncation, reason = "the next line looks whether it was")]
            let whole = number as i64;
            if whole as f64 != number {
                return None;
            }
            SmallVec::from_slice(&<$type>::try_from(whole).ok()?.to_le_bytes())
        }};
    }
    Some(match dtype {
        #[expect(clippy::cast_possible_truncation, reason = "rounding to the type of the input is meant")]
        DType::Fp32 => SmallVec::from_slice(&(number as f32).to_le_bytes()),
        DType::Fp64 => SmallVec::from_slice(&number.to_le_bytes()),
        DType::Fp16 => SmallVec::from_slice(&half::f16::from_f64(number).to_le_bytes()),
        DType::Bf16 => SmallVec::from_slice(&half::bf16::from_f64(number).to_le_bytes()),
        DType::Int8 => whole!(i8),
        DType::Int16 => whole!(i16),
        DType::Int32 => whole!(i32),
        DType::Int64 => whole!(i64),
        DType::Uint8 => whole!(u8),
        DType::Uint16 => whole!(u16),
        DType::Uint32 => whole!(u32),
        DType::Uint64 => whole!(u64),
        DType::Bool if number == 0.0 || number == 1.0 => SmallVec::from_slice(&[u8::from(number == 1.0)]),
        DType::Bool | DType::Bytes => return None,
    })
}

#[cfg(test)]
mod tests;
