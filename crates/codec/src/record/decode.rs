//! Records of named fields straight into tensors, column by column, without a tree of values between.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sluicegate_core::signature::{About, Field};
use sluicegate_core::{DType, Result, Shape, Signature, Tensor};

use crate::elements::{Elements, Fill, Name, Scalar};

/// What a body was: it decides what the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One object.
    One,
    /// A list of so many.
    List(usize),
}

/// The inputs that records made.
#[derive(Debug)]
pub struct Records {
    /// By the names of the signature.
    pub inputs: Vec<(Arc<str>, Tensor)>,
    /// What the body was.
    pub form: Form,
}

/// Reads one record or a list of them.
///
/// # Errors
/// A parser's error for the first thing wrong; [`super::problems`] finds them all.
pub fn read(signature: &Signature, content: &[u8]) -> Result<Records, serde_json::Error> {
    // Looked through once as a whole, and not string by string. What is no UTF-8 fails where it is.
    match std::str::from_utf8(content) {
        Ok(text) => fill(signature, serde_json::Deserializer::from_str(text)),
        Err(_) => fill(signature, serde_json::Deserializer::from_slice(content)),
    }
}

fn fill<'de, R: serde_json::de::Read<'de>>(
    signature: &Signature,
    mut deserializer: serde_json::Deserializer<R>,
) -> Result<Records, serde_json::Error> {
    let mut table = Table::new(signature);
    let form = (&mut table).deserialize(&mut deserializer)?;
    deserializer.end()?;
    table.finish(form)
}

/// The inputs under construction. A field with a column lives in its input's elements; others fill theirs alone.
struct Table<'a> {
    signature: &'a Signature,
    inputs: Vec<Elements>,
    /// For each input, the inner shape that the first record gave it.
    inner: Vec<Option<Shape>>,
    rows: usize,
    seen: Vec<bool>,
}

impl<'a> Table<'a> {
    fn new(signature: &'a Signature) -> Self {
        let inputs = signature.inputs().iter().map(|spec| Elements::new(spec.dtype, spec.features.len().max(1))).collect();
        let inner = vec![None; signature.inputs().len()];
        Self { signature, inputs, inner, rows: 0, seen: vec![false; signature.fields().len()] }
    }

    fn finish(self, form: Form) -> Result<Records, serde_json::Error> {
        let batched = self.signature.is_batched();
        if !batched && form != Form::One {
            return Err(serde_json::Error::custom("the model takes one record at a time"));
        }
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for ((spec, elements), inner) in self.signature.inputs().iter().zip(self.inputs).zip(self.inner) {
            let skip = usize::from(batched);
            // What no record has told is told by the signature: 0 where it is free.
            let told = inner.unwrap_or_else(|| spec.dims[skip..].iter().map(|dim| dim.fixed().unwrap_or(0)).collect());
            let shape = std::iter::repeat_n(self.rows, skip).chain(told.sizes().iter().copied()).collect();
            let tensor = elements.tensor(shape).map_err(serde_json::Error::custom)?;
            inputs.push((spec.name.clone(), tensor));
        }
        Ok(Records { inputs, form })
    }

    fn record<'de, A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        self.seen.fill(false);
        for (spec, elements) in self.signature.inputs().iter().zip(&mut self.inputs) {
            if !spec.features.is_empty() {
                elements.resize((self.rows + 1) * spec.features.len());
            }
        }
        let fields = self.signature.fields();
        let mut count = 0;
        while let Some(Name(key)) = map.next_key()? {
            // Callers keep to the order of the documents, mostly.
            let place = match fields.get(count) {
                Some(field) if *field.name == *key => Some(count),
                _ => self.signature.field(&key),
            };
            let Some(place) = place else { return Err(A::Error::custom(format!("unknown field `{key}`"))) };
            if std::mem::replace(&mut self.seen[place], true) {
                return Err(A::Error::custom(format!("field `{key}` is there twice")));
            }
            map.next_value_seed(Value { field: &fields[place], table: self })?;
            count += 1;
        }
        if let Some(missing) = self.seen.iter().position(|seen| !seen) {
            return Err(A::Error::custom(format!("missing field `{}`", fields[missing].name)));
        }
        self.rows += 1;
        Ok(())
    }

    fn put(&mut self, field: &Field, scalar: Scalar<'_>) -> Result<(), String> {
        admits(&field.about, scalar)?;
        let elements = &mut self.inputs[field.input];
        let fits = match field.column {
            Some(column) => elements.set(self.rows * self.signature.inputs()[field.input].features.len() + column, scalar),
            None => elements.push(scalar),
        };
        if fits { self.told(field, &[]) } else { Err(format!("{scalar} is no {}", field.dtype)) }
    }

    /// Holds the inner shape of a value against the signature and against the records before it.
    fn told(&mut self, field: &Field, sizes: &[usize]) -> Result<(), String> {
        let spec = &self.signature.inputs()[field.input];
        let dims = &spec.dims[usize::from(self.signature.is_batched())..];
        if field.dims.is_empty() && self.inner[field.input].is_some() {
            // A scalar has no sizes to differ from those of the first one.
            return Ok(());
        }
        let shape =
            if field.dims.is_empty() { dims.iter().map(|dim| dim.fixed().unwrap_or(1)).collect() } else { Shape::new(sizes) };
        let fits = shape.sizes().len() == dims.len() && dims.iter().zip(shape.sizes()).all(|(dim, &size)| dim.admits(size));
        match &self.inner[field.input] {
            _ if !fits => Err(format!("a value of shape {shape} for `{}`", field.name)),
            Some(before) if *before != shape => Err(format!("a value of shape {shape} for `{}`, {before} before it", field.name)),
            Some(_) => Ok(()),
            None => {
                self.inner[field.input] = Some(shape);
                Ok(())
            }
        }
    }
}

/// Whether a value is inside of what is known of it.
///
/// # Errors
/// A sentence.
pub fn admits(about: &About, scalar: Scalar<'_>) -> Result<(), String> {
    let number = match scalar {
        Scalar::Text(text) if !about.categories.is_empty() && !about.categories.iter().any(|category| category == text) => {
            return Err(format!("`{text}` is none of the categories"));
        }
        Scalar::Float(number) => number,
        Scalar::Int(number) => number as f64,
        Scalar::Uint(number) => number as f64,
        Scalar::Text(_) | Scalar::Bool(_) | Scalar::Raw(_) | Scalar::Special(_) => return Ok(()),
    };
    match (about.min, about.max) {
        (Some(min), _) if number < min => Err(format!("{number} is less than {min}")),
        (_, Some(max)) if number > max => Err(format!("{number} is greater than {max}")),
        _ => Ok(()),
    }
}

impl<'de> DeserializeSeed<'de> for &mut Table<'_> {
    type Value = Form;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Form, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Table<'_> {
    type Value = Form;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record or a list of records")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Form, A::Error> {
        self.record(map)?;
        Ok(Form::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Form, A::Error> {
        while items.next_element_seed(Record(self))?.is_some() {}
        Ok(Form::List(self.rows))
    }
}

struct Record<'t, 'a>(&'t mut Table<'a>);

impl<'de> DeserializeSeed<'de> for Record<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Record<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.record(map)
    }
}

struct Value<'t, 'a> {
    field: &'a Field,
    table: &'t mut Table<'a>,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($visit:ident $type:ty => $scalar:ident),*) => {$(
        fn $visit<E: serde::de::Error>(self, value: $type) -> Result<(), E> {
            // A scalar where the signature has dimensions is found by its shape.
            self.table.put(self.field, Scalar::$scalar(value)).map_err(E::custom)
        }
    )*};
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} for `{}`", self.field.dtype, self.field.name)
    }

    scalars! { visit_bool bool => Bool, visit_i64 i64 => Int, visit_u64 u64 => Uint, visit_f64 f64 => Float, visit_str &str => Text }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { field, table } = self;
        if field.dims.is_empty() {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Err(A::Error::custom(format!("a list for `{}`", field.name)));
        }
        let elements = &mut table.inputs[field.input];
        let before = elements.len();
        let mut sizes = Vec::new();
        list(&mut items, Nested { field, elements, depth: 0, sizes: &mut sizes })?;
        let count = elements.len() - before;
        // A ragged list has not the elements that its first lists promise.
        if sizes.iter().product::<usize>() != count {
            return Err(A::Error::custom(format!("lists of different lengths for `{}`", field.name)));
        }
        table.told(field, &sizes).map_err(A::Error::custom)
    }
}

/// A list within a field's value. `sizes` are those of the first list of each depth.
struct Nested<'t, 'a> {
    field: &'a Field,
    elements: &'t mut Elements,
    depth: usize,
    sizes: &'t mut Vec<usize>,
}

fn list<'de, A: SeqAccess<'de>>(items: &mut A, nested: Nested<'_, '_>) -> Result<(), A::Error> {
    let Nested { field, elements, depth, sizes } = nested;
    let first = sizes.len() == depth;
    if first {
        sizes.push(0);
    }
    let mut count = 0;
    if depth + 1 == field.dims.len() {
        let before = elements.len();
        while items.next_element_seed(Leaf { field, elements })?.is_some() {}
        count = elements.len() - before;
    } else {
        while items.next_element_seed(Nested { field, elements: &mut *elements, depth: depth + 1, sizes: &mut *sizes })?.is_some()
        {
            count += 1;
        }
    }
    if first {
        sizes[depth] = count;
    } else if sizes[depth] != count {
        return Err(A::Error::custom(format!("lists of different lengths for `{}`", field.name)));
    }
    Ok(())
}

impl<'de> DeserializeSeed<'de> for Nested<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lists of {} for `{}`", self.field.dtype, self.field.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        list(&mut items, self)
    }
}

/// One element of the innermost list.
struct Leaf<'t, 'a> {
    field: &'a Field,
    elements: &'t mut Elements,
}

impl<'de> DeserializeSeed<'de> for Leaf<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let About { min, max, ref categories, .. } = self.field.about;
        if min.is_none() && max.is_none() && categories.is_empty() && self.field.dtype != DType::Bytes {
            return Fill::one(self.elements).deserialize(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

macro_rules! leaves {
    ($($visit:ident $type:ty => $scalar:ident),*) => {$(
        fn $visit<E: serde::de::Error>(self, value: $type) -> Result<(), E> {
            admits(&self.field.about, Scalar::$scalar(value)).map_err(E::custom)?;
            if self.elements.push(Scalar::$scalar(value)) { Ok(()) } else { Err(E::custom(format!("no {}", self.field.dtype))) }
        }
    )*};
}

impl<'de> Visitor<'de> for Leaf<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} for `{}`", self.field.dtype, self.field.name)
    }

    leaves! { visit_bool bool => Bool, visit_i64 i64 => Int, visit_u64 u64 => Uint, visit_f64 f64 => Float, visit_str &str => Text }
}
