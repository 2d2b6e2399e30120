//! Tensors in their natural form: lists within lists, as deep as the tensor has dimensions, and back.
//!
//! Beside what JSON has, a number may be `null` or one of the strings `NaN`, `Infinity` and `-Infinity`, and an element of
//! BYTES an object `{"b64": …}`, as TensorFlow Serving has it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use sluicegate_codec::elements::{self, Elements, Name, Scalar};
use sluicegate_core::shape::MAX_RANK;
use sluicegate_core::{DType, Shape, Tensor};
use smallvec::SmallVec;

/// The key of an object that is an element of BYTES.
pub(crate) const BASE64: &str = "b64";

/// The sizes of a value, learnt from the first lists of each depth and held against all others.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    list: SmallVec<[usize; 4]>,
    /// Whether it is known how deep lists go.
    told: bool,
}

impl Sizes {
    /// What is known of them.
    pub(crate) fn list(&self) -> &[usize] {
        &self.list
    }

    /// A whole value has been read: the next one is as deep.
    pub(crate) fn tell(&mut self) {
        self.told = true;
    }

    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape::new(&self.list)
    }
}

/// Reads a scalar, or lists within lists of them, into elements.
pub(crate) struct Nest<'t> {
    elements: &'t mut Elements,
    sizes: &'t mut Sizes,
    depth: usize,
}

impl<'t> Nest<'t> {
    pub(crate) fn new(elements: &'t mut Elements, sizes: &'t mut Sizes) -> Self {
        Self { elements, sizes, depth: 0 }
    }

    fn put<E: serde::de::Error>(self, scalar: Scalar<'_>) -> Result<(), E> {
        if self.sizes.list.len() != self.depth {
            return Err(E::custom("a value where others have a list"));
        }
        self.sizes.told = true;
        let dtype = self.elements.dtype;
        let scalar = special(dtype, scalar);
        if self.elements.push(scalar) { Ok(()) } else { Err(E::custom(misfit(dtype, scalar))) }
    }

    fn expected(&self) -> DType {
        self.elements.dtype
    }

    fn list<'de, A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { elements, sizes, depth } = self;
        if depth >= MAX_RANK {
            return Err(A::Error::custom(format!("more than {MAX_RANK} lists within each other")));
        }
        let first = sizes.list.len() == depth;
        if first && sizes.told {
            return Err(A::Error::custom("a list where others have a value"));
        }
        if first {
            sizes.list.push(0);
        }
        let mut count = 0;
        while items.next_element_seed(Nest { elements: &mut *elements, sizes: &mut *sizes, depth: depth + 1 })?.is_some() {
            count += 1;
        }
        if first {
            sizes.list[depth] = count;
        } else if sizes.list[depth] != count {
            return Err(A::Error::custom(format!("a list of {count} where others have {}", sizes.list[depth])));
        }
        Ok(())
    }
}

/// Reads one scalar, which may be alone in lists, and hands it on.
pub(crate) struct Cell<F> {
    pub(crate) dtype: DType,
    pub(crate) put: F,
    /// How many lists it is in.
    pub(crate) depth: usize,
}

impl<F: FnOnce(Scalar<'_>) -> bool> Cell<F> {
    fn put<E: serde::de::Error>(self, scalar: Scalar<'_>) -> Result<(), E> {
        let scalar = special(self.dtype, scalar);
        if (self.put)(scalar) { Ok(()) } else { Err(E::custom(misfit(self.dtype, scalar))) }
    }

    fn expected(&self) -> DType {
        self.dtype
    }

    fn list<'de, A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { dtype, put, depth } = self;
        let one = |got: &str| A::Error::custom(format!("expected one {dtype}, got {got}"));
        if depth >= MAX_RANK {
            return Err(one("too many lists within each other"));
        }
        if items.next_element_seed(Cell { dtype, put, depth: depth + 1 })?.is_none() {
            return Err(one("an empty list"));
        }
        match items.next_element::<serde::de::IgnoredAny>()? {
            Some(_) => Err(one("a list of several")),
            None => Ok(()),
        }
    }
}

/// The words that numbers have beside those of JSON.
pub(crate) fn special(dtype: DType, scalar: Scalar<'_>) -> Scalar<'_> {
    match scalar {
        Scalar::Text("NaN") if dtype.is_float() => Scalar::Special(f64::NAN),
        Scalar::Text("Infinity") if dtype.is_float() => Scalar::Special(f64::INFINITY),
        Scalar::Text("-Infinity") if dtype.is_float() => Scalar::Special(f64::NEG_INFINITY),
        other => other,
    }
}

pub(crate) fn misfit(dtype: DType, scalar: Scalar<'_>) -> String {
    match scalar {
        Scalar::Special(number) if number.is_nan() => format!("null is no {dtype}"),
        other => format!("{other} is no {dtype}"),
    }
}

/// The bytes of `{"b64": …}`, the brace of which has been read.
fn base64<'de, A: MapAccess<'de>>(mut map: A) -> Result<Vec<u8>, A::Error> {
    let only = || A::Error::custom("expected a value, a list or {\"b64\": …}, got an object");
    let Some(Name(key)) = map.next_key()? else { return Err(only()) };
    if key != BASE64 {
        return Err(only());
    }
    let bytes = map.next_value_seed(Base64)?;
    if map.next_key::<Name<'de>>()?.is_some() { Err(only()) } else { Ok(bytes) }
}

/// Text in base64, with padding, as its bytes.
pub(crate) struct Base64;

impl<'de> DeserializeSeed<'de> for Base64 {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let Name(text) = serde::Deserialize::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(|error| D::Error::custom(format!("b64: no base64 with padding: {error}")))
    }
}

macro_rules! reads_a_value {
    ($([$($bounds:tt)*] $type:ty),* $(,)?) => {$(
        impl<'de, $($bounds)*> DeserializeSeed<'de> for $type {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de, $($bounds)*> Visitor<'de> for $type {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a value of {}", self.expected())
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

            /// `null` is what answers have for a number that is not finite, and what tables have for one that is missing.
            fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
                self.put(Scalar::Special(f64::NAN))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
                let bytes = base64(map)?;
                self.put(Scalar::Raw(&bytes))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
                self.list(items)
            }
        }
    )*};
}
reads_a_value!([] Nest<'_>, [F: FnOnce(Scalar<'_>) -> bool] Cell<F>);

/// Puts the bare words `NaN`, `Infinity` and `-Infinity`, which Python and JavaScript write where JSON has none, in quotes.
/// `None` where there are none.
pub(crate) fn quoted(text: &str) -> Option<String> {
    let mut out = String::new();
    let (mut from, mut at, mut inside) = (0, 0, false);
    let bytes = text.as_bytes();
    while let Some(&byte) = bytes.get(at) {
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !inside && bytes[at..].starts_with(word.as_bytes()));
        match byte {
            b'"' => inside = !inside,
            b'\\' if inside => at += 1,
            _ => {}
        }
        if let Some(word) = word {
            // Before and after it is ASCII: these are boundaries of characters.
            out.extend([&text[from..at], "\"", word, "\""]);
            at += word.len();
            from = at;
        } else {
            at += 1;
        }
    }
    (from > 0).then(|| out + &text[from..])
}

/// Writes the elements from `start` on as lists of these sizes, one after the other. Numbers that JSON cannot write become
/// `null`; text that is not UTF-8, and all of it where `raw`, becomes `{"b64": …}`.
pub(crate) fn write(out: &mut Vec<u8>, tensor: &Tensor, sizes: &[usize], start: usize, raw: bool) {
    match sizes {
        [] => run(out, tensor, start, 1, raw),
        [last] => {
            out.push(b'[');
            run(out, tensor, start, *last, raw);
            out.push(b']');
        }
        [first, inner @ ..] => {
            let width: usize = inner.iter().product();
            out.push(b'[');
            for i in 0..*first {
                if i > 0 {
                    out.push(b',');
                }
                write(out, tensor, inner, start + i * width, raw);
            }
            out.push(b']');
        }
    }
}

fn run(out: &mut Vec<u8>, tensor: &Tensor, start: usize, count: usize, raw: bool) {
    let Some(strings) = tensor.strings() else {
        elements::write(out, tensor, start..start + count);
        return;
    };
    for (i, element) in strings[start..start + count].iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match std::str::from_utf8(element) {
            Ok(_) if !raw => elements::text(out, element),
            _ => {
                out.extend_from_slice(b"{\"b64\":\"");
                out.extend_from_slice(STANDARD.encode(element).as_bytes());
                out.extend_from_slice(b"\"}");
            }
        }
    }
}
