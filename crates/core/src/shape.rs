//! Shapes: the concrete sizes of a tensor, and the dimensions that a signature allows.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use smallvec::SmallVec;

/// Most dimensions a tensor may have; ONNX Runtime and tract both stay far below it.
pub const MAX_RANK: usize = 16;

/// The sizes of one tensor, outermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Shape(SmallVec<[usize; 4]>);

impl Shape {
    /// A shape of these sizes.
    pub fn new(sizes: &[usize]) -> Self {
        Self(SmallVec::from_slice(sizes))
    }

    /// The sizes, outermost first.
    pub fn sizes(&self) -> &[usize] {
        &self.0
    }

    /// How many elements it holds; `None` where the product does not fit in a `usize`.
    pub fn elements(&self) -> Option<usize> {
        self.0.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
    }

    /// The first size, which counts rows where the model is batched.
    pub fn rows(&self) -> usize {
        self.0.first().copied().unwrap_or(1)
    }

    /// The same shape with another first size.
    pub fn with_rows(&self, rows: usize) -> Self {
        let mut shape = self.clone();
        if let Some(first) = shape.0.first_mut() {
            *first = rows;
        }
        shape
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(sizes: I) -> Self {
        Self(sizes.into_iter().collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.0)
    }
}

/// One dimension of a signature.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Any size; dimensions with the same name have the same size.
    Free(Option<Arc<str>>),
}

impl Dim {
    /// Whether a size fits this dimension.
    pub fn admits(&self, size: usize) -> bool {
        match self {
            Self::Fixed(fixed) => *fixed == size,
            Self::Free(_) => true,
        }
    }

    /// The size where it is fixed.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Self::Fixed(size) => Some(*size),
            Self::Free(_) => None,
        }
    }
}

/// On the wire a free dimension is `-1`.
impl Serialize for Dim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(size) => serializer.serialize_u64(*size as u64),
            Self::Free(_) => serializer.serialize_i64(-1),
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => size.fmt(f),
            Self::Free(_) => f.write_str("-1"),
        }
    }
}

/// Dimensions as people write them: `[-1, 30]`.
pub struct Dims<'a>(pub &'a [Dim]);

impl fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0)
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    f.write_str("[")?;
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    f.write_str("]")
}
