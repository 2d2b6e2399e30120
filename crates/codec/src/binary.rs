//! The binary tensor data extension: a JSON head, then raw tensors in its order, cut out of the body without a copy.

use bytes::{Buf, Bytes};
use sluicegate_core::{Code, DType, Data, Error, Result, Shape, Tensor};

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
