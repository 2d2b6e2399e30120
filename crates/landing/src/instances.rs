//! KServe's first protocol and TensorFlow Serving's: `instances` and `inputs` in, `predictions` and `outputs` out; `examples` in,
//! `results` out.
//!
//! An instance is a plain value where the model has one input, else an object of named ones. Beside inputs, columns that have
//! names may be named. Where there are several inputs, all of one size a row, a plain list has their elements in order.

mod answer;

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sluicegate_codec::elements::{self, Name};
use sluicegate_codec::json::malformed;
use sluicegate_core::{Code, Error, Result, Signature};

use crate::nest::{self, BASE64, Base64};
use crate::rows::{Columns, Rows, Slot};

pub use answer::{output, write, write_results};
pub(crate) use answer::{rows, write_rows};

pub use crate::rows::Inputs;

/// Most bytes of a context that are read for all of its examples together: it is read once for each.
const MAX_CONTEXT: usize = 64 * 1024 * 1024;

/// How a request had its values: it decides what the answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One after the other: `instances`, answered with `predictions`.
    Rows,
    /// Each input whole: `inputs`, answered with `outputs`.
    Columns,
}

/// What is asked of a model in these protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// All outputs.
    Predict,
    /// A score for each class.
    Classify,
    /// One number.
    Regress,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Classify => "classify",
            Self::Regress => "regress",
        }
    }
}

/// A request.
#[derive(Debug)]
pub struct Asked {
    /// By the names of the signature.
    pub inputs: Inputs,
    /// How they came.
    pub form: Form,
}

/// Reads a request to predict.
///
/// # Errors
/// [`Code::Malformed`] with the byte position of what is wrong.
pub fn read(signature: &Signature, content: &[u8]) -> Result<Asked> {
    parse(content, "predict request", |text| {
        let body = Body { signature, name: None, asked: None };
        let Body { name, asked, .. } = whole(text, body)?;
        known(name.as_deref(), Verb::Predict)?;
        asked.ok_or_else(|| {
            serde_json::Error::custom("expected `instances`, a list of rows, or `inputs`, whole inputs; got neither")
        })
    })
}

/// Reads a request to classify or to regress.
///
/// # Errors
/// [`Code::Malformed`] with the byte position of what is wrong.
pub fn read_examples(signature: &Signature, content: &[u8], verb: Verb) -> Result<Inputs> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body<'a> {
        #[serde(default, borrow)]
        signature_name: Option<Name<'a>>,
        #[serde(default, borrow)]
        context: Option<&'a RawValue>,
        #[serde(borrow)]
        examples: &'a RawValue,
    }
    parse(content, &format!("{} request", verb.name()), |text| {
        let body: Body<'_> = serde_json::from_str(text)?;
        known(body.signature_name.as_ref().map(|Name(name)| &**name), verb)?;
        let mut rows = Rows::new(signature);
        let context = body.context.map(RawValue::get).filter(|context| *context != "null");
        if let Some(other) = context.filter(|context| !context.starts_with('{')) {
            let shown: String = other.chars().take(20).collect();
            return Err(serde_json::Error::custom(format!("`context` is an object of named values, got `{shown}`")));
        }
        whole(body.examples.get(), List { rows: &mut rows, context, records: true })?;
        rows.finish().map_err(serde_json::Error::custom)
    })
}

/// Reads with a parser of JSON, and once more where numbers have words that JSON lacks.
pub(crate) fn parse<T>(content: &[u8], what: &str, read: impl Fn(&str) -> Result<T, serde_json::Error>) -> Result<T> {
    let text =
        std::str::from_utf8(content).map_err(|error| Error::new(Code::Malformed, format!("the body is no {what}: {error}")))?;
    let again = |error| match nest::quoted(text) {
        Some(quoted) => read(&quoted),
        None => Err(error),
    };
    read(text).or_else(again).map_err(|error| malformed(content, &error, what))
}

/// Reads all of a text.
pub(crate) fn whole<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> Result<S::Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(read)
}

/// A model has one signature. It goes by the names that TensorFlow has for the usual one, and for that of the verb.
fn known(name: Option<&str>, verb: Verb) -> Result<(), serde_json::Error> {
    let own = |name: &str| name.strip_prefix("tensorflow/serving/") == Some(verb.name());
    match name {
        None | Some("" | "serving_default") => Ok(()),
        Some(name) if own(name) => Ok(()),
        Some(name) => {
            let message = format!("signature_name: a model has the one signature `serving_default`, got `{name}`");
            Err(serde_json::Error::custom(message))
        }
    }
}

struct Body<'a> {
    signature: &'a Signature,
    name: Option<String>,
    asked: Option<Asked>,
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `instances` or `inputs`")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(Name(key)) = map.next_key()? {
            let asked = match &*key {
                "signature_name" => {
                    self.name = map.next_value::<Option<Name<'de>>>()?.map(|Name(name)| name.into_owned());
                    continue;
                }
                "instances" => {
                    let mut rows = Rows::new(self.signature);
                    map.next_value_seed(List { rows: &mut rows, context: None, records: false })?;
                    Asked { inputs: rows.finish().map_err(A::Error::custom)?, form: Form::Rows }
                }
                "inputs" => inputs(self.signature, map.next_value::<&RawValue>()?.get()).map_err(A::Error::custom)?,
                other => {
                    let known = "the keys are `signature_name` and one of `instances` and `inputs`";
                    return Err(A::Error::custom(format!("unknown key `{other}`: {known}")));
                }
            };
            if self.asked.replace(asked).is_some() {
                return Err(A::Error::custom("expected one of `instances` and `inputs`, got two"));
            }
        }
        Ok(self)
    }
}

/// Reads whole inputs, or, as KServe has it too, a list of objects, which are rows.
pub(crate) fn inputs(signature: &Signature, text: &str) -> Result<Asked, serde_json::Error> {
    fn within(text: &str, start: char) -> Option<&str> {
        text.trim_start().strip_prefix(start).map(str::trim_start)
    }
    let is_base64 = |object: &str| object.starts_with("\"b64\"") && signature.field(BASE64).is_none();
    let object = |text: &str| within(text, '{').is_some_and(|rest| !is_base64(rest));
    if within(text, '[').is_some_and(object) {
        let mut rows = Rows::new(signature);
        whole(text, List { rows: &mut rows, context: None, records: true })?;
        return Ok(Asked { inputs: rows.finish().map_err(serde_json::Error::custom)?, form: Form::Rows });
    }
    let mut columns = Columns::new(signature);
    if object(text) {
        whole(text, &mut columns)?;
    } else {
        whole(text, columns.only().map_err(serde_json::Error::custom)?)?;
    }
    Ok(Asked { inputs: columns.finish().map_err(serde_json::Error::custom)?, form: Form::Columns })
}

impl<'de> DeserializeSeed<'de> for &mut Columns<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Columns<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of inputs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(key)) = map.next_key()? {
            let column = self.value(&key).map_err(A::Error::custom)?;
            map.next_value_seed(column)?;
        }
        Ok(())
    }
}

/// A list of instances.
pub(crate) struct List<'t, 'a, 'c> {
    pub(crate) rows: &'t mut Rows<'a>,
    /// Values that every one of them has.
    pub(crate) context: Option<&'c str>,
    /// Whether they have to be objects.
    pub(crate) records: bool,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { rows, context, records } = self;
        let mut left = MAX_CONTEXT;
        loop {
            let row = rows.len();
            let at = |error: &dyn fmt::Display| A::Error::custom(format!("row {row}: {error}"));
            let item = items.next_element_seed(Instance { rows: &mut *rows, record: records }).map_err(|error| at(&error))?;
            if item.is_none() {
                return Ok(());
            }
            if let Some(context) = context {
                left = left.checked_sub(context.len()).ok_or_else(|| {
                    at(&format!(
                        "the context is repeated for each example, to more than {MAX_CONTEXT} bytes; send it in fewer requests"
                    ))
                })?;
                whole(context, Instance { rows: &mut *rows, record: true }).map_err(|error| at(&format!("context: {error}")))?;
            }
            rows.end().map_err(|error| at(&error))?;
        }
    }
}

/// One instance, or a part of it; who reads it ends the row.
struct Instance<'t, 'a> {
    rows: &'t mut Rows<'a>,
    record: bool,
}

impl Instance<'_, '_> {
    fn plain<'de, D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        if self.record {
            return Err(D::Error::custom("expected an object of named values"));
        }
        if !self.rows.has_one_input() {
            return Err(D::Error::custom("the model has several inputs: expected an object of named values"));
        }
        self.rows.value(Slot::Input(0)).deserialize(value)
    }
}

impl<'de> DeserializeSeed<'de> for Instance<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Instance<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row: a value, a list or an object of named values")
    }

    fn visit_bool<E: serde::de::Error>(self, bit: bool) -> Result<(), E> {
        self.plain(bit.into_deserializer())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.plain(number.into_deserializer())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.plain(number.into_deserializer())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.plain(number.into_deserializer())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.plain(text.into_deserializer())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.plain(().into_deserializer())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.record || self.rows.has_one_input() {
            return self.plain(SeqAccessDeserializer::new(items));
        }
        positions(self.rows, &mut items)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { rows, record } = self;
        while let Some(Name(key)) = map.next_key()? {
            let slot = rows.slot(&key);
            if slot.is_err() && key == BASE64 && !record && rows.has_one_input() {
                let bytes = map.next_value_seed(Base64)?;
                rows.put(Slot::Input(0), elements::Scalar::Raw(&bytes)).map_err(A::Error::custom)?;
                continue;
            }
            map.next_value_seed(rows.value(slot.map_err(A::Error::custom)?))?;
        }
        Ok(())
    }
}

/// A row whose values have no names: they are in the order of the signature.
fn positions<'de, A: SeqAccess<'de>>(rows: &mut Rows<'_>, items: &mut A) -> Result<(), A::Error> {
    let unnamed = || A::Error::custom("the model's rows have no fixed count of values: expected an object of named values");
    let places = rows.places().ok_or_else(unnamed)?;
    row(rows, &places, items)
}

/// A row whose values go to these places.
pub(crate) fn row<'de, A: SeqAccess<'de>>(rows: &mut Rows<'_>, places: &[Slot], items: &mut A) -> Result<(), A::Error> {
    let mut count = 0;
    for place in places {
        if items.next_element_seed(rows.value(*place))?.is_none() {
            break;
        }
        count += 1;
    }
    while items.next_element::<serde::de::IgnoredAny>()?.is_some() {
        count += 1;
    }
    if count == places.len() { Ok(()) } else { Err(A::Error::custom(format!("expected {} values, got {count}", places.len()))) }
}

#[cfg(test)]
pub(crate) mod tests;
