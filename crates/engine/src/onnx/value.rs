//! Tensors into ONNX Runtime's values and back, copied only where they must be.

use std::borrow::Cow;

use bytes::Bytes;
use half::{bf16, f16};
use ort::AsPointer;
use ort::memory::Allocator;
use ort::session::SessionInputValue;
use ort::value::{DynTensor, DynValue, TensorElementType, TensorRef, ValueType};
use sluicegate_core::dtype::{Bit, Element};
use sluicegate_core::{Code, DType, Data, Error, Result, Shape, Tensor, for_dtype};

use crate::sentence::sentence;

/// Outputs up to this many bytes are copied: that costs less than to keep the runtime's value alive for them.
const COPIED: usize = 4096;

/// The same tensor where a slice of its type can be had of it, else a copy that is aligned.
pub(super) fn aligned(tensor: &Tensor) -> Cow<'_, Tensor> {
    for_dtype!(tensor.dtype(), T => match tensor.values::<T>() {
        Some(Cow::Owned(copy)) => match Tensor::from_vec(tensor.shape().clone(), copy) {
            Ok(copy) => Cow::Owned(copy),
            Err(_) => Cow::Borrowed(tensor),
        },
        _ => Cow::Borrowed(tensor),
    }, BYTES => Cow::Borrowed(tensor))
}

/// An input over the tensor's own memory, which has to be [`aligned`].
pub(super) fn input(tensor: &Tensor) -> Result<SessionInputValue<'_>> {
    let sizes = tensor.shape().sizes();
    let Data::Fixed(bytes) = tensor.data() else {
        return text(sizes, tensor.strings().unwrap_or_default());
    };
    let value = for_dtype!(tensor.dtype(), T => T::view(sizes, bytes), BYTES => None);
    value.ok_or_else(|| failed("an input's bytes do not fit its type"))?.map_err(|error| failed(error.message()))
}

/// Strings go in by length: as C strings, which is what `ort` does, they would end at their first NUL.
#[allow(unsafe_code, reason = "ort has no call that hands strings over by length")]
fn text<'v>(sizes: &[usize], strings: &[Bytes]) -> Result<SessionInputValue<'v>> {
    let fill = || -> ort::Result<DynTensor> {
        let mut tensor = DynTensor::new(&Allocator::default(), TensorElementType::String, sizes)?;
        for (place, string) in strings.iter().enumerate() {
            let mut room = std::ptr::null_mut();
            // SAFETY: `tensor` is a live tensor of strings, and ONNX Runtime checks `place` against its size. On success `room` points
            // to as many bytes as were asked for, inside that string, which nothing else reads or writes before this returns.
            unsafe {
                let status =
                    (ort::api().GetResizedStringTensorElementBuffer)(tensor.ptr_mut(), place, string.len(), &raw mut room);
                ort::Error::result_from_status(status)?;
                std::ptr::copy_nonoverlapping(string.as_ptr(), room.cast(), string.len());
            }
        }
        Ok(tensor)
    };
    if strings.iter().any(|string| std::str::from_utf8(string).is_err()) {
        return Err(failed("a BYTES element is not UTF-8 text, and ONNX strings are"));
    }
    fill().map(Into::into).map_err(|error| failed(error.message()))
}

/// An output as a tensor of the type that the signature has.
pub(super) fn output(value: DynValue, dtype: DType) -> Result<Tensor> {
    let ValueType::Tensor { shape, .. } = value.dtype() else {
        return Err(failed(&format!("the model gave {} where its signature has {dtype}", value.dtype())));
    };
    let shape: Shape = shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
    let tensor = for_dtype!(dtype, T => {
        let bytes = T::bytes(&value).map_err(|error| failed(error.message()))?;
        let bytes = if bytes.len() <= COPIED { Bytes::copy_from_slice(bytes) } else { Bytes::from_owner(Held::<T>::new(value)) };
        Tensor::fixed(dtype, shape, bytes)
    }, BYTES => {
        let (_, strings) = value.try_extract_strings().map_err(|error| failed(error.message()))?;
        Tensor::text(shape, strings.into_iter().map(Bytes::from).collect())
    });
    tensor.map_err(|error| failed(error.message()))
}

/// The runtime's sentence as the error of a run.
pub(super) fn failed(message: &str) -> Error {
    Error::new(Code::RunFailed, sentence(message))
}

/// Keeps the runtime's memory for as long as somebody has a view of it.
struct Held<T> {
    value: DynValue,
    of: std::marker::PhantomData<T>,
}

impl<T: Native> Held<T> {
    fn new(value: DynValue) -> Self {
        Self { value, of: std::marker::PhantomData }
    }
}

impl<T: Native> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        T::bytes(&self.value).unwrap_or_default()
    }
}

/// A fixed-width element type that ONNX Runtime has.
trait Native: Element {
    /// A value over `bytes`; `None` where they are not aligned or not whole.
    fn view<'v>(sizes: &[usize], bytes: &'v [u8]) -> Option<ort::Result<SessionInputValue<'v>>>;

    /// The elements of a value of this type.
    fn bytes(value: &DynValue) -> ort::Result<&[u8]>;
}

macro_rules! natives {
    ($($type:ty),*) => {$(
        impl Native for $type {
            fn view<'v>(sizes: &[usize], bytes: &'v [u8]) -> Option<ort::Result<SessionInputValue<'v>>> {
                let elements: &'v [Self] = bytemuck::try_cast_slice(bytes).ok()?;
                Some(TensorRef::from_array_view((sizes.to_vec(), elements)).map(Into::into))
            }

            fn bytes(value: &DynValue) -> ort::Result<&[u8]> {
                Ok(bytemuck::cast_slice(value.try_extract_tensor::<Self>()?.1))
            }
        }
    )*};
}
natives!(u8, u16, u32, u64, i8, i16, i32, i64, f16, bf16, f32, f64);

impl Native for Bit {
    fn view<'v>(sizes: &[usize], bytes: &'v [u8]) -> Option<ort::Result<SessionInputValue<'v>>> {
        let elements: &'v [bool] = bytemuck::checked::try_cast_slice(bytes).ok()?;
        Some(TensorRef::from_array_view((sizes.to_vec(), elements)).map(Into::into))
    }

    fn bytes(value: &DynValue) -> ort::Result<&[u8]> {
        Ok(bytemuck::cast_slice(value.try_extract_tensor::<bool>()?.1))
    }
}
