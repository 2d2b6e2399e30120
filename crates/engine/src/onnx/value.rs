//! Tensors into ONNX Runtime's values and back, copied only where they must be.

use std::borrow::Cow;
use std::ffi::c_void;
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

use bytes::Bytes;
use ort::memory::{Allocator, MemoryInfo};
use ort::sys::{ONNXTensorElementDataType as Code, OrtStatusPtr, OrtValue};
use ort::value::DynValue;
use ort::{AsPointer, api};
use sluicegate_core::{DType, Data, Error, Result, Shape, Tensor, for_dtype};
use smallvec::SmallVec;

use super::session::Session;
use crate::sentence::sentence;

/// Outputs up to this many bytes are copied: that costs less than to keep the runtime's value alive for them.
const COPIED: usize = 4096;

/// One of the runtime's values, given back by the drop.
pub(super) struct Value(NonNull<OrtValue>);

#[allow(unsafe_code, reason = "the runtime's values are pointers")]
// SAFETY: a value is owned by whoever holds it, the runtime ties none to a thread, and what is shared is only read.
unsafe impl Send for Value {}
#[allow(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for Value {}

impl Drop for Value {
    #[allow(unsafe_code, reason = "only the runtime can free its values")]
    fn drop(&mut self) {
        // SAFETY: the pointer came from the runtime and is given back once, here.
        unsafe { (api().ReleaseValue)(self.0.as_ptr()) }
    }
}

impl Value {
    /// Takes over what the runtime made; `None` where it made nothing.
    pub(super) fn new(pointer: *mut OrtValue) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }

    pub(super) fn pointer(&self) -> *const OrtValue {
        self.0.as_ptr()
    }
}

/// The same tensor where its bytes are aligned for its type, else a copy that is.
pub(super) fn aligned(tensor: &Tensor) -> Cow<'_, Tensor> {
    for_dtype!(tensor.dtype(), T => match tensor.values::<T>() {
        Some(Cow::Owned(copy)) => match Tensor::from_vec(tensor.shape().clone(), copy) {
            Ok(copy) => Cow::Owned(copy),
            Err(_) => Cow::Borrowed(tensor),
        },
        _ => Cow::Borrowed(tensor),
    }, BYTES => Cow::Borrowed(tensor))
}

/// An input over the tensor's own memory, which has to be [`aligned`] and to outlive the value; strings are copied.
#[allow(unsafe_code, reason = "ort's own way allocates five times for each input of each run")]
pub(super) fn input(tensor: &Tensor, memory: &MemoryInfo<'_>) -> Result<Value> {
    let sizes: SmallVec<[i64; 6]> = tensor.shape().sizes().iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
    let Data::Fixed(bytes) = tensor.data() else {
        return text(&sizes, tensor.strings().unwrap_or_default());
    };
    let mut value = null_mut();
    // SAFETY: the bytes fill the shape, which `Tensor` holds; the caller keeps them for as long as the value; the runtime only
    // reads the inputs of a run, whatever the pointer's type says; sizes are copied by the call.
    let status = unsafe {
        let data = bytes.as_ptr().cast_mut().cast::<c_void>();
        (api().CreateTensorWithDataAsOrtValue)(
            memory.ptr(),
            data,
            bytes.len(),
            sizes.as_ptr(),
            sizes.len(),
            code(tensor.dtype()),
            &raw mut value,
        )
    };
    made(status, value)
}

/// Strings go in by length: as C strings they would end at their first NUL.
#[allow(unsafe_code, reason = "ort has no call that hands strings over by length")]
fn text(sizes: &[i64], strings: &[Bytes]) -> Result<Value> {
    if strings.iter().any(|string| std::str::from_utf8(string).is_err()) {
        return Err(failed("a BYTES element is not UTF-8 text, and ONNX strings are"));
    }
    let mut value = null_mut();
    let allocator = Allocator::default();
    // SAFETY: the allocator is the runtime's own and lives as long as the process; sizes are copied by the call.
    let status = unsafe {
        let allocator = allocator.ptr().cast_mut();
        (api().CreateTensorAsOrtValue)(allocator, sizes.as_ptr(), sizes.len(), code(DType::Bytes), &raw mut value)
    };
    let tensor = made(status, value)?;
    for (place, string) in strings.iter().enumerate() {
        let mut room = null_mut();
        // SAFETY: `tensor` is a live tensor of strings, and the runtime checks `place` against its size. On success `room` points
        // to as many bytes as were asked for, inside that string, which nothing else reads or writes before this returns.
        unsafe {
            let value = tensor.0.as_ptr();
            checked((api().GetResizedStringTensorElementBuffer)(value, place, string.len(), &raw mut room))?;
            std::ptr::copy_nonoverlapping(string.as_ptr(), room.cast(), string.len());
        }
    }
    Ok(tensor)
}

/// An output as a tensor of the type that the signature has.
#[allow(unsafe_code, reason = "ort's own way asks for type, memory and allocator of each output, and allocates for each answer")]
pub(super) fn output(value: Value, dtype: DType, session: &Arc<Session>) -> Result<Tensor> {
    let (mut element, mut sizes, mut count) = (Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, null(), 0);
    // SAFETY: the value is live. On success `sizes` points to `count` numbers inside of it.
    let shape: Shape = unsafe {
        let value = value.pointer();
        let status = (api().GetTensorElementTypeAndShapeDataReference)(value, &raw mut element, &raw mut sizes, &raw mut count);
        checked(status).map_err(|_| failed(&format!("the model gave no tensor where its signature has {dtype}")))?;
        let sizes = if count == 0 { &[] } else { std::slice::from_raw_parts(sizes, count) };
        sizes.iter().map(|&size: &i64| usize::try_from(size).unwrap_or(0)).collect()
    };
    if element != code(dtype) {
        return Err(failed(&format!("the model gave another type than the {dtype} of its signature")));
    }
    let Some(size) = dtype.size() else {
        let allocator = Allocator::default();
        let pointer = value.0;
        std::mem::forget(value);
        // SAFETY: the value is live and owned; from here on `ort` gives it back.
        let value: DynValue = unsafe { DynValue::from_ptr(pointer, Some(&allocator)) };
        let (_, strings) = value.try_extract_strings().map_err(|error| failed(error.message()))?;
        let tensor = Tensor::text(shape, strings.into_iter().map(Bytes::from).collect());
        return tensor.map_err(|error| failed(error.message()));
    };
    let mut data = null();
    // SAFETY: the value is a live tensor of a fixed-width type.
    unsafe { checked((api().GetTensorData)(value.pointer(), &raw mut data))? };
    let length = shape.elements().and_then(|elements| elements.checked_mul(size));
    let length = length.ok_or_else(|| failed(&format!("the model gave a tensor of shape {shape}, which no memory holds")))?;
    let held = Held { data: data.cast(), length, value, _session: session.clone() };
    let bytes = if length <= COPIED { Bytes::copy_from_slice(held.as_ref()) } else { Bytes::from_owner(held) };
    Tensor::fixed(dtype, shape, bytes).map_err(|error| failed(error.message()))
}

/// Keeps the runtime's memory, and the session that it came from, for as long as somebody has a view of it.
struct Held {
    data: *const u8,
    length: usize,
    #[expect(dead_code, reason = "it is what `data` points into")]
    value: Value,
    _session: Arc<Session>,
}

#[allow(unsafe_code, reason = "it holds a pointer")]
// SAFETY: the memory is the value's own, moves with it, and is only read.
unsafe impl Send for Held {}

impl AsRef<[u8]> for Held {
    #[allow(unsafe_code, reason = "it is the runtime's memory")]
    fn as_ref(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: `value` is a tensor whose shape and type make `length` bytes at `data`, and lives as long as this.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }
}

/// The runtime's word for a type.
fn code(dtype: DType) -> Code {
    match dtype {
        DType::Bool => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DType::Uint8 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::Uint16 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DType::Uint32 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DType::Uint64 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DType::Int8 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DType::Int16 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DType::Int32 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DType::Int64 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::Fp16 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::Bf16 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::Fp32 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::Fp64 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DType::Bytes => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

fn made(status: OrtStatusPtr, value: *mut OrtValue) -> Result<Value> {
    checked(status)?;
    Value::new(value).ok_or_else(|| failed("ONNX Runtime made no value and gave no reason"))
}

/// What the runtime says of a call.
#[allow(unsafe_code, reason = "a status is a pointer")]
pub(super) fn checked(status: OrtStatusPtr) -> Result<()> {
    // SAFETY: the status is what a call of the runtime has just returned, and is taken over once.
    unsafe { ort::Error::result_from_status(status) }.map_err(|error| failed(error.message()))
}

/// The runtime's sentence as the error of a run.
pub(super) fn failed(message: &str) -> Error {
    Error::new(sluicegate_core::Code::RunFailed, sentence(message))
}
