//! The binary tensor data extension: a JSON head, then raw tensors in its order, cut out of the body without a copy.

use bytes::{Buf, Bytes};
use sluicegate_core::{Code, DType, Data, Dim, Error, ModelName, Request, Result, Shape, Signature, Tensor};

/// The header that has the length of the JSON head; there exactly where a tensor is binary.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// Splits a body into its JSON head and its raw tensors. Without a length, which [`HEADER_LENGTH`] has, all of it is JSON.
///
/// # Errors
/// [`Code::BadHeader`] where the length is no number or larger than the body.
pub fn split(length: Option<&str>, mut body: Bytes) -> Result<(Bytes, Option<Raw>)> {
    let Some(length) = length.map(str::trim) else { return Ok((body, None)) };
    let whole = body.len();
    let json = match length.parse::<u64>().ok().and_then(|length| usize::try_from(length).ok()) {
        Some(length) if length <= whole => length,
        _ => {
            let expected = format!("expected a length of 0 to {whole} bytes, got `{length}`");
            return Err(Error::new(Code::BadHeader, format!("{HEADER_LENGTH}: {expected}")));
        }
    };
    let head = body.split_to(json);
    Ok((head, Some(Raw(body))))
}

/// The raw tensors that are left to read.
pub struct Raw(Bytes);

impl Raw {
    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// All that is left.
    pub fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    /// Cuts the next tensor off.
    ///
    /// # Errors
    /// [`Code::WrongByteCount`] where fewer bytes are left than announced, or they are not as many as type and shape take.
    pub fn take(&mut self, name: &str, dtype: DType, shape: Shape, announced: u64) -> Result<Tensor> {
        let left = self.0.len();
        let size = usize::try_from(announced).ok().filter(|&size| size <= left).ok_or_else(|| {
            Error::new(Code::WrongByteCount, format!("input `{name}` announces {announced} bytes, {left} are left in the body"))
        })?;
        let bytes = self.0.split_to(size);
        decode(dtype, shape, bytes).map_err(|error| error.at(format!("input `{name}`")))
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`Code::WrongByteCount`].
    pub fn end(self) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(Error::new(
                Code::WrongByteCount,
                format!("unexpected additional input data: {left} bytes after the last tensor"),
            )),
        }
    }
}

/// A tensor over raw bytes. BYTES elements are each a 32-bit little-endian length and so many bytes.
///
/// # Errors
/// [`Code::WrongByteCount`], [`Code::WrongElementCount`], [`Code::InvalidTensor`].
pub fn decode(dtype: DType, shape: Shape, mut bytes: Bytes) -> Result<Tensor> {
    if dtype != DType::Bytes {
        return Tensor::fixed(dtype, shape, bytes);
    }
    let expected = shape.elements().unwrap_or(usize::MAX);
    // Each element takes 4 bytes at least, so that a shape alone cannot ask for memory.
    let mut elements = Vec::with_capacity(expected.min(bytes.len() / 4));
    while bytes.len() >= 4 && elements.len() < expected {
        let length = bytes.get_u32_le() as usize;
        if length > bytes.len() {
            let (place, left) = (elements.len(), bytes.len());
            return Err(Error::new(Code::WrongByteCount, format!("element {place} announces {length} bytes, {left} are left")));
        }
        elements.push(bytes.split_to(length));
    }
    if !bytes.is_empty() {
        return Err(Error::new(
            Code::WrongByteCount,
            format!("{} bytes are left after {} elements", bytes.len(), elements.len()),
        ));
    }
    Tensor::text(shape, elements)
}

/// A body that is one tensor: its type is the model's, its one free dimension follows from its length.
///
/// # Errors
/// [`Code::InvalidShape`] for a model of another form, [`Code::WrongByteCount`] for a body of another length.
pub fn whole(model: &ModelName, signature: &Signature, mut raw: Raw) -> Result<Request> {
    let bad = |why: String| Error::new(Code::InvalidShape, format!("a raw request {why}"));
    let [spec] = signature.inputs() else {
        return Err(bad(format!("is for models of one input, `{}` has {}", model, signature.inputs().len())));
    };
    let skip = usize::from(signature.is_batched());
    let free = spec.dims[skip..].iter().filter(|dim| dim.fixed().is_none()).count();
    let size = match spec.dtype.size() {
        // One string, which takes the whole body.
        None if free == 0 && spec.dims[skip..].iter().all(|dim| dim.fixed() == Some(1)) => {
            let shape = spec.dims.iter().map(|_| 1).collect();
            let tensor = Tensor::text(shape, vec![raw.rest()])?;
            return Ok(Request { inputs: vec![(spec.name.clone(), tensor)], ..Request::default() });
        }
        None => return Err(bad(format!("of {} is for a shape of one element", DType::Bytes))),
        Some(size) => size,
    };
    if free > 1 {
        return Err(bad(format!("is for models with one free dimension, input `{}` has {free}", spec.name)));
    }
    let fixed: usize = spec.dims[skip..].iter().filter_map(Dim::fixed).product::<usize>().max(1) * size;
    let length = raw.left();
    if !length.is_multiple_of(fixed) || (free == 0 && length != fixed) {
        return Err(Error::new(
            Code::WrongByteCount,
            format!("a raw request for input `{}` takes {fixed} bytes, got {length}", spec.name),
        ));
    }
    let batch = std::iter::repeat_n(1, skip);
    let shape: Shape = batch.chain(spec.dims[skip..].iter().map(|dim| dim.fixed().unwrap_or(length / fixed))).collect();
    let tensor = raw.take(&spec.name, spec.dtype, shape, length as u64)?;
    Ok(Request { inputs: vec![(spec.name.clone(), tensor)], ..Request::default() })
}

/// The raw bytes of a tensor, appended: as many as its payload is.
pub fn encode(out: &mut Vec<u8>, tensor: &Tensor) {
    match tensor.data() {
        Data::Fixed(bytes) => out.extend_from_slice(bytes),
        Data::Text(elements) => {
            for element in elements {
                // The protocol's own limit of an element is 2^32 - 1 bytes.
                let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&element[..length as usize]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// decode(encode(t)) = t, for every type.
        #[test]
        fn what_is_encoded_is_decoded_again(bytes in prop::collection::vec(any::<u8>(), 0..256), at in 0..DType::ALL.len()) {
            let dtype = DType::ALL[at];
            let tensor = match dtype.size() {
                Some(size) => {
                    let mut bytes = bytes[..bytes.len() / size * size].to_vec();
                    if dtype == DType::Bool { bytes.iter_mut().for_each(|byte| *byte &= 1); }
                    Tensor::fixed(dtype, Shape::new(&[bytes.len() / size]), bytes.into()).expect("fits")
                }
                None => {
                    let words: Vec<Bytes> = bytes.split(|&b| b < 30).map(Bytes::copy_from_slice).collect();
                    Tensor::text(Shape::new(&[words.len()]), words).expect("fits")
                }
            };
            let mut raw = Vec::new();
            encode(&mut raw, &tensor);
            prop_assert_eq!(tensor.payload(), raw.len());
            prop_assert_eq!(decode(dtype, tensor.shape().clone(), raw.into()).expect("our own bytes"), tensor);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), count in 0..20usize) {
            let _ = decode(DType::Bytes, Shape::new(&[count]), bytes.into());
        }
    }
}
