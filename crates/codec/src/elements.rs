//! JSON numbers, booleans and strings straight into the elements of a tensor, and back.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use half::{bf16, f16};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use sluicegate_core::{Code, DType, Data, Error, Result, Shape, Tensor};

/// Deepest nesting of lists that is read; a tensor has no more dimensions.
const MAX_DEPTH: usize = sluicegate_core::shape::MAX_RANK;

/// A JSON string, borrowed where it has no escapes: a plain `Cow` never is.
#[derive(Debug, Deserialize)]
pub struct Name<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Elements of one type as they are read.
#[derive(Debug)]
pub struct Elements {
    /// Their type.
    pub dtype: DType,
    fixed: Vec<u8>,
    text: Vec<Bytes>,
}

/// One JSON scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// `true`
    Bool(bool),
    /// `-3`
    Int(i64),
    /// `3`
    Uint(u64),
    /// `0.5`
    Float(f64),
    /// `"x"`
    Text(&'a str),
    /// Bytes, where the format has them
    Raw(&'a [u8]),
    /// A number that is not finite, where the format has it
    Special(f64),
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(bit) => bit.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::Uint(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Raw(bytes) => write!(f, "a value of {} bytes", bytes.len()),
            Self::Special(number) => number.fmt(f),
        }
    }
}

impl Elements {
    /// No elements yet, with room for some.
    pub fn new(dtype: DType, room: usize) -> Self {
        let (fixed, text) = match dtype.size() {
            Some(size) => (Vec::with_capacity(room * size), Vec::new()),
            None => (Vec::new(), Vec::with_capacity(room)),
        };
        Self { dtype, fixed, text }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self.dtype.size() {
            Some(size) => self.fixed.len() / size,
            None => self.text.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds elements of value zero, or empty strings, up to this count; more than that are cut off.
    pub fn resize(&mut self, count: usize) {
        match self.dtype.size() {
            Some(size) => self.fixed.resize(count * size, 0),
            None => self.text.resize(count, Bytes::new()),
        }
    }

    /// Adds an element. False where it is none of the type.
    pub fn push(&mut self, scalar: Scalar<'_>) -> bool {
        let end = self.len();
        self.resize(end + 1);
        self.set(end, scalar)
    }

    /// Replaces an element. False where it is none of the type.
    pub fn set(&mut self, place: usize, scalar: Scalar<'_>) -> bool {
        let Some(size) = self.dtype.size() else {
            let bytes = match scalar {
                Scalar::Text(text) => text.as_bytes(),
                Scalar::Raw(bytes) => bytes,
                _ => return false,
            };
            self.text[place] = Bytes::copy_from_slice(bytes);
            return true;
        };
        let slot = &mut self.fixed[place * size..(place + 1) * size];
        macro_rules! put {
            ($value:expr) => {
                match $value {
                    Some(value) => {
                        slot.copy_from_slice(&value.to_le_bytes());
                        true
                    }
                    None => false,
                }
            };
        }
        // JSON has no infinity: one here is a number that the type cannot hold, unless the format has a word for it.
        let special = matches!(scalar, Scalar::Special(_));
        match self.dtype {
            DType::Fp32 => put!(scalar.float().map(|number| number as f32).filter(|number| special || number.is_finite())),
            DType::Fp64 => put!(scalar.float()),
            DType::Fp16 => put!(scalar.float().map(f16::from_f64).filter(|number| special || number.is_finite())),
            DType::Bf16 => put!(scalar.float().map(bf16::from_f64).filter(|number| special || number.is_finite())),
            DType::Int8 => put!(scalar.integer().and_then(|number| i8::try_from(number).ok())),
            DType::Int16 => put!(scalar.integer().and_then(|number| i16::try_from(number).ok())),
            DType::Int32 => put!(scalar.integer().and_then(|number| i32::try_from(number).ok())),
            DType::Int64 => put!(scalar.integer().and_then(|number| i64::try_from(number).ok())),
            DType::Uint8 => put!(scalar.integer().and_then(|number| u8::try_from(number).ok())),
            DType::Uint16 => put!(scalar.integer().and_then(|number| u16::try_from(number).ok())),
            DType::Uint32 => put!(scalar.integer().and_then(|number| u32::try_from(number).ok())),
            DType::Uint64 => put!(scalar.integer().and_then(|number| u64::try_from(number).ok())),
            DType::Bool => put!(scalar.bit()),
            DType::Bytes => false,
        }
    }

    /// Elements of columns, one of each after the other; all columns are of one type and length.
    pub fn interleaved(columns: &[Self]) -> Self {
        let (dtype, rows) = columns.first().map_or((DType::Bytes, 0), |first| (first.dtype, first.len()));
        let mut all = Self::new(dtype, rows * columns.len());
        for row in 0..rows {
            for column in columns {
                match dtype.size() {
                    Some(size) => all.fixed.extend_from_slice(&column.fixed[row * size..(row + 1) * size]),
                    None => all.text.push(column.text[row].clone()),
                }
            }
        }
        all
    }

    /// The tensor of these elements.
    ///
    /// # Errors
    /// Where they do not fill the shape.
    pub fn tensor(self, shape: Shape) -> Result<Tensor> {
        let got = self.len();
        match self.dtype.size() {
            Some(_) => Tensor::fixed(self.dtype, shape.clone(), self.fixed.into()).map_err(|error| {
                if error.code() != Code::WrongByteCount {
                    return error;
                }
                // Who sent elements is not told of bytes.
                let expected = shape.elements().unwrap_or_default();
                Error::new(Code::WrongElementCount, format!("shape {shape} takes {expected} elements, got {got}"))
            }),
            None => Tensor::text(shape, self.text),
        }
    }
}

impl Scalar<'_> {
    fn float(self) -> Option<f64> {
        match self {
            Self::Float(number) | Self::Special(number) => Some(number),
            Self::Int(number) => Some(number as f64),
            Self::Uint(number) => Some(number as f64),
            Self::Bool(_) | Self::Text(_) | Self::Raw(_) => None,
        }
    }

    /// Whole numbers may be written with a point: `3.0`.
    #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and within 2^53")]
    fn integer(self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(number.into()),
            Self::Uint(number) => Some(number.into()),
            Self::Float(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => Some(number as i128),
            _ => None,
        }
    }

    fn bit(self) -> Option<u8> {
        match self {
            Self::Bool(bit) => Some(bit.into()),
            Self::Uint(bit @ (0 | 1)) => Some(u8::from(bit == 1)),
            _ => None,
        }
    }
}

/// Reads a scalar, or a list of lists of scalars, into elements: flat or nested, as the protocol allows.
pub struct Fill<'a> {
    elements: &'a mut Elements,
    depth: usize,
}

impl<'a> Fill<'a> {
    /// Fills these.
    pub fn new(elements: &'a mut Elements) -> Self {
        Self { elements, depth: 0 }
    }

    /// Fills in one scalar, and takes no list.
    pub fn one(elements: &'a mut Elements) -> Self {
        Self { elements, depth: MAX_DEPTH }
    }

    fn put<E: serde::de::Error>(self, scalar: Scalar<'_>) -> Result<(), E> {
        let dtype = self.elements.dtype;
        if self.elements.push(scalar) { Ok(()) } else { Err(E::custom(format!("{scalar} is no {dtype}"))) }
    }
}

impl<'de> DeserializeSeed<'de> for Fill<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fill<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements, flat or nested", self.elements.dtype)
    }

    fn visit_bool<E: serde::de::Error>(self, bit: bool) -> Result<(), E> {
        self.put(Scalar::Bool(bit))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.put(Scalar::Int(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.put(Scalar::Uint(number))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.put(Scalar::Float(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.put(Scalar::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.depth >= MAX_DEPTH {
            return Err(A::Error::custom(format!("more than {MAX_DEPTH} lists within each other")));
        }
        while items.next_element_seed(Fill { elements: self.elements, depth: self.depth + 1 })?.is_some() {}
        Ok(())
    }
}

/// Writes elements `range` of a tensor, `separator` between them. Numbers that JSON cannot write become `null` and are counted.
pub fn write(out: &mut Vec<u8>, tensor: &Tensor, range: std::ops::Range<usize>) -> usize {
    match tensor.data() {
        Data::Text(elements) => {
            for (i, element) in elements[range].iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                text(out, element);
            }
            0
        }
        Data::Fixed(_) => {
            sluicegate_core::for_dtype!(tensor.dtype(), T => {
                let values = tensor.values::<T>().unwrap_or_default();
                let mut lost = 0;
                for (i, value) in values[range].iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    lost += usize::from(!value.write(out));
                }
                lost
            }, BYTES => 0)
        }
    }
}

/// Writes a JSON string. What is not UTF-8 is replaced, as the binary extension is there for it.
pub fn text(out: &mut Vec<u8>, element: &[u8]) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, &String::from_utf8_lossy(element));
}

trait Write {
    /// False where it became `null`.
    fn write(&self, out: &mut Vec<u8>) -> bool;
}

macro_rules! write_integers {
    ($($type:ty),*) => {$(
        impl Write for $type {
            fn write(&self, out: &mut Vec<u8>) -> bool {
                serde_json::to_writer(out, self).is_ok()
            }
        }
    )*};
}
write_integers!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Write for f32 {
    fn write(&self, out: &mut Vec<u8>) -> bool {
        // Not a finite number: serde_json writes null.
        serde_json::to_writer(out, self).is_ok() && self.is_finite()
    }
}

impl Write for f64 {
    fn write(&self, out: &mut Vec<u8>) -> bool {
        serde_json::to_writer(out, self).is_ok() && self.is_finite()
    }
}

impl Write for f16 {
    fn write(&self, out: &mut Vec<u8>) -> bool {
        self.to_f32().write(out)
    }
}

impl Write for bf16 {
    fn write(&self, out: &mut Vec<u8>) -> bool {
        self.to_f32().write(out)
    }
}

impl Write for sluicegate_core::dtype::Bit {
    fn write(&self, out: &mut Vec<u8>) -> bool {
        serde_json::to_writer(out, &(self.0 != 0)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(dtype: DType, json: &str) -> Result<Elements, serde_json::Error> {
        let mut elements = Elements::new(dtype, 0);
        let mut deserializer = serde_json::Deserializer::from_str(json);
        Fill::new(&mut elements).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(elements)
    }

    proptest! {
        /// decode(encode(t)) = t, for every type that JSON can carry.
        #[test]
        fn what_is_written_is_read_again(bytes in prop::collection::vec(any::<u8>(), 0..256), at in 0..DType::ALL.len()) {
            let dtype = DType::ALL[at];
            let tensor = match dtype.size() {
                Some(size) => {
                    let mut bytes = bytes[..bytes.len() / size * size].to_vec();
                    if dtype == DType::Bool { bytes.iter_mut().for_each(|byte| *byte &= 1); }
                    Tensor::fixed(dtype, Shape::new(&[bytes.len() / size]), bytes.into()).expect("fits")
                }
                None => {
                    let words: Vec<Bytes> = String::from_utf8_lossy(&bytes).split('a').map(|w| Bytes::from(w.to_owned())).collect();
                    Tensor::text(Shape::new(&[words.len()]), words).expect("fits")
                }
            };
            let mut json = vec![b'['];
            let lost = write(&mut json, &tensor, 0..tensor.elements());
            json.push(b']');
            let json = String::from_utf8(json).expect("JSON is UTF-8");
            if lost > 0 {
                prop_assert_eq!(json.matches("null").count(), lost);
            } else {
                let again = read(dtype, &json).expect("our own text").tensor(tensor.shape().clone()).expect("as many");
                prop_assert_eq!(again, tensor);
            }
        }
    }

    #[test]
    fn numbers_outside_of_their_type_are_refused() {
        for (dtype, good, bad) in [
            (DType::Fp32, "[3.4e38]", "[-3.5e38]"),
            (DType::Fp16, "[65504]", "[65536]"),
            (DType::Uint8, "[0,255,3.0]", "[256]"),
            (DType::Int8, "[-128,127]", "[-129]"),
            (DType::Uint64, "[18446744073709551615]", "[-1]"),
            (DType::Int64, "[-9223372036854775808]", "[9223372036854775808]"),
            (DType::Int32, "[[1],[2]]", "[1.5]"),
            (DType::Bool, "[true,false,0,1]", "[2]"),
            (DType::Fp32, "[1,1.5,-3]", "[\"1\"]"),
            (DType::Bytes, "[\"a\"]", "[1]"),
            (DType::Fp64, "1", "[null]"),
            (DType::Fp64, "[]", "{}"),
        ] {
            assert!(read(dtype, good).is_ok(), "{dtype} {good}");
            assert!(read(dtype, bad).is_err(), "{dtype} {bad}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("{}1{}", "[".repeat(64), "]".repeat(64));
        assert!(read(DType::Fp32, &deep).is_err());
    }
}
