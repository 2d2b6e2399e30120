//! Tensors: typed, shaped, cheap to clone and to cut by rows; fixed-width ones are views into bytes.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use crate::dtype::Element;
use crate::error::{Code, Error, Result};
use crate::{DType, Shape};

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Little-endian elements without padding. May be unaligned: it can be a view into a request body.
    Fixed(Bytes),
    /// One entry an element, for [`DType::Bytes`].
    Text(Vec<Bytes>),
}

/// A tensor whose data always agrees with its type and shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    data: Data,
}

impl Tensor {
    /// A fixed-width tensor over `bytes`, which are not copied.
    ///
    /// # Errors
    /// [`Code::WrongByteCount`] where the bytes do not fit type and shape; [`Code::InvalidTensor`] where a BOOL is neither 0
    /// nor 1, or the type is BYTES.
    pub fn fixed(dtype: DType, shape: Shape, bytes: Bytes) -> Result<Self> {
        let Some(size) = dtype.size() else {
            return Err(Error::new(Code::InvalidTensor, "BYTES elements have no fixed width"));
        };
        let expected = elements(&shape)?.checked_mul(size).ok_or_else(|| too_large(&shape))?;
        if bytes.len() != expected {
            return Err(Error::new(
                Code::WrongByteCount,
                format!("{dtype} of shape {shape} takes {expected} bytes, got {}", bytes.len()),
            ));
        }
        if dtype == DType::Bool && bytes.iter().any(|&b| b > 1) {
            return Err(Error::new(Code::InvalidTensor, "a BOOL element is the byte 0 or 1"));
        }
        Ok(Self { dtype, shape, data: Data::Fixed(bytes) })
    }

    /// A BYTES tensor.
    ///
    /// # Errors
    /// [`Code::WrongElementCount`] where the elements do not fill the shape.
    pub fn text(shape: Shape, elements: Vec<Bytes>) -> Result<Self> {
        check_count(&shape, elements.len())?;
        Ok(Self { dtype: DType::Bytes, shape, data: Data::Text(elements) })
    }

    /// A fixed-width tensor that takes over a vector.
    ///
    /// # Errors
    /// [`Code::WrongElementCount`] where the elements do not fill the shape.
    pub fn from_vec<T: Element>(shape: Shape, elements: Vec<T>) -> Result<Self> {
        check_count(&shape, elements.len())?;
        Ok(Self { dtype: T::DTYPE, shape, data: Data::Fixed(Bytes::from_owner(Owned(elements))) })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements as they are kept.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// How many elements there are.
    pub fn elements(&self) -> usize {
        match (&self.data, self.dtype.size()) {
            (Data::Fixed(bytes), Some(size)) => bytes.len() / size,
            (Data::Fixed(_), None) => 0,
            (Data::Text(elements), _) => elements.len(),
        }
    }

    /// The bytes of a fixed-width tensor; `None` for BYTES.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.data {
            Data::Fixed(bytes) => Some(bytes),
            Data::Text(_) => None,
        }
    }

    /// The elements of a BYTES tensor; `None` for others.
    pub fn strings(&self) -> Option<&[Bytes]> {
        match &self.data {
            Data::Fixed(_) => None,
            Data::Text(elements) => Some(elements),
        }
    }

    /// The elements as `T`: borrowed where the bytes are aligned, copied once where they are not.
    /// `None` where `T` is not the tensor's type.
    pub fn values<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        let Data::Fixed(bytes) = &self.data else { return None };
        if T::DTYPE != self.dtype {
            return None;
        }
        Some(match bytemuck::try_cast_slice(bytes) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
        })
    }

    /// The same elements under another shape of the same element count.
    ///
    /// # Errors
    /// [`Code::WrongElementCount`] where the counts differ.
    pub fn reshaped(self, shape: Shape) -> Result<Self> {
        check_count(&shape, self.elements())?;
        Ok(Self { shape, ..self })
    }

    /// Rows `range` along the first axis, sharing the memory. The range is cut to what there is.
    pub fn rows(&self, range: Range<usize>) -> Self {
        let rows = self.shape.rows();
        let (start, end) = (range.start.min(rows), range.end.min(rows).max(range.start.min(rows)));
        if start == 0 && end == rows {
            return self.clone();
        }
        let shape = self.shape.with_rows(end - start);
        let data = match &self.data {
            Data::Fixed(bytes) => {
                let width = bytes.len() / rows.max(1);
                Data::Fixed(bytes.slice(start * width..end * width))
            }
            Data::Text(elements) => {
                let width = elements.len() / rows.max(1);
                Data::Text(elements[start * width..end * width].to_vec())
            }
        };
        Self { dtype: self.dtype, shape, data }
    }

    /// A copy in memory of its own, which keeps no larger one alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        let data = match &self.data {
            Data::Fixed(bytes) => Data::Fixed(Bytes::copy_from_slice(bytes)),
            Data::Text(elements) => {
                let mut all = Bytes::from(elements.concat());
                Data::Text(elements.iter().map(|element| all.split_to(element.len())).collect())
            }
        };
        Self { dtype: self.dtype, shape: self.shape.clone(), data }
    }

    /// Bytes of payload that it holds.
    pub fn payload(&self) -> usize {
        match &self.data {
            Data::Fixed(bytes) => bytes.len(),
            Data::Text(elements) => elements.iter().map(|e| e.len() + 4).sum(),
        }
    }
}

struct Owned<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

fn elements(shape: &Shape) -> Result<usize> {
    shape.elements().ok_or_else(|| too_large(shape))
}

fn too_large(shape: &Shape) -> Error {
    Error::new(Code::InvalidShape, format!("shape {shape} has more elements than can be addressed"))
}

fn check_count(shape: &Shape, got: usize) -> Result<()> {
    let expected = elements(shape)?;
    if expected == got {
        return Ok(());
    }
    Err(Error::new(Code::WrongElementCount, format!("shape {shape} takes {expected} elements, got {got}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_into_a_body_is_not_copied_when_aligned_and_is_right_when_not() {
        let body = Bytes::from_owner(Owned(vec![1.0f32, 2.0, 3.0]));
        let view = Tensor::fixed(DType::Fp32, Shape::new(&[2]), body.slice(4..12)).expect("fits");
        let values = view.values::<f32>().expect("same type");
        assert!(matches!(values, Cow::Borrowed(_)));
        assert_eq!(&*values, [2.0, 3.0]);

        let odd = Bytes::from([&[0u8][..], &body[..]].concat()).slice(1..);
        let view = Tensor::fixed(DType::Fp32, Shape::new(&[3]), odd).expect("fits");
        assert_eq!(&*view.values::<f32>().expect("same type"), [1.0, 2.0, 3.0]);
        assert!(view.values::<f64>().is_none());
    }

    #[test]
    fn rows_share_memory_and_keep_the_inner_shape() {
        let tensor = Tensor::from_vec(Shape::new(&[3, 2]), vec![1i64, 2, 3, 4, 5, 6]).expect("fits");
        let cut = tensor.rows(1..2);
        assert_eq!(cut.shape(), &Shape::new(&[1, 2]));
        assert_eq!(&*cut.values::<i64>().expect("same type"), [3, 4]);
        assert_eq!(tensor.rows(2..9).shape().rows(), 1);
        assert_eq!(tensor.rows(7..9).elements(), 0);
    }

    #[test]
    fn data_that_does_not_fill_the_shape_is_refused() {
        assert!(Tensor::from_vec(Shape::new(&[2, 2]), vec![0u8; 3]).is_err());
        assert!(Tensor::fixed(DType::Bool, Shape::new(&[1]), Bytes::from_static(&[2])).is_err());
        assert!(Tensor::fixed(DType::Fp64, Shape::new(&[usize::MAX, 2]), Bytes::new()).is_err());
        assert!(Tensor::fixed(DType::Fp64, Shape::new(&[usize::MAX / 4]), Bytes::new()).is_err());
        assert!(Tensor::text(Shape::new(&[0, 3]), Vec::new()).is_ok());
    }
}
