//! MLflow's scoring protocol: tables of named columns, as JSON or as CSV, beside `instances` and `inputs`; `predictions` out.
//!
//! Columns go by the names of the record's fields, in any order. Columns without names, which pandas numbers from 0, go by
//! the order of the signature, where they are as many as a row has elements.

mod media;

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sluicegate_codec::elements::{self, Name, Scalar};
use sluicegate_core::{Code, DType, Error, Response, Result, Signature};

use crate::instances::{self, Inputs, List, parse, row, rows, whole, write_rows};
use crate::rows::{MAX_NAMED, Rows, Slot};

pub use media::Media;

/// The keys of a body, one of which has the rows.
const KEYS: &str = "`dataframe_split`, `dataframe_records`, `instances` and `inputs`";

/// Reads a request in JSON.
///
/// # Errors
/// [`Code::Malformed`] with the byte position of what is wrong.
pub fn read(signature: &Signature, content: &[u8]) -> Result<Inputs> {
    parse(content, "scoring request", |text| {
        let found = whole(text, Body(signature))?;
        found.ok_or_else(|| serde_json::Error::custom(format!("expected one of {KEYS}, got none")))
    })
}

struct Body<'a>(&'a Signature);

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = Option<Inputs>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Inputs>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Option<Inputs>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with one of {KEYS}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Inputs>, A::Error> {
        let mut found: Option<Inputs> = None;
        while let Some(Name(key)) = map.next_key()? {
            let mut rows = Rows::new(self.0);
            let inputs = match &*key {
                "dataframe_split" => {
                    map.next_value_seed(Split { rows: &mut rows, signature: self.0 })?;
                    rows.finish().map_err(A::Error::custom)?
                }
                "dataframe_records" | "instances" => {
                    map.next_value_seed(List { rows: &mut rows, context: None, records: key != "instances" })?;
                    rows.finish().map_err(A::Error::custom)?
                }
                "inputs" => instances::inputs(self.0, map.next_value::<&RawValue>()?.get()).map_err(A::Error::custom)?.inputs,
                "params" => {
                    let params = map.next_value::<Option<serde_json::Map<String, serde_json::Value>>>()?.unwrap_or_default();
                    match params.keys().next() {
                        Some(param) => return Err(A::Error::custom(format!("params: the model takes none, got `{param}`"))),
                        None => continue,
                    }
                }
                other => return Err(A::Error::custom(format!("unknown key `{other}`: expected one of {KEYS}, and `params`"))),
            };
            if found.replace(inputs).is_some() {
                return Err(A::Error::custom(format!("expected one of {KEYS}, got two")));
            }
        }
        Ok(found)
    }
}

/// A table as `pandas` splits it: `columns`, `index` and `data`.
struct Split<'t, 'a> {
    rows: &'t mut Rows<'a>,
    signature: &'a Signature,
}

impl<'de> DeserializeSeed<'de> for Split<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Split<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `columns` and `data`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { rows, signature } = self;
        let (mut slots, mut early, mut read) = (None, None, false);
        while let Some(Name(key)) = map.next_key()? {
            match &*key {
                "columns" if slots.is_none() => {
                    let names = map.next_value::<Option<Vec<Label>>>()?;
                    slots = Some(columns(signature, rows, names).map_err(A::Error::custom)?);
                }
                "data" if !read => {
                    match &slots {
                        Some(slots) => map.next_value_seed(Data { rows: &mut *rows, slots })?,
                        None => early = Some(map.next_value::<&RawValue>()?),
                    }
                    read = true;
                }
                // Names of rows; nothing is made of them.
                "index" => drop(map.next_value::<IgnoredAny>()?),
                "columns" | "data" => return Err(A::Error::custom(format!("`{key}` is there twice"))),
                other => {
                    let known = "expected `columns`, `index` and `data`";
                    return Err(A::Error::custom(format!("dataframe_split: unknown key `{other}`: {known}")));
                }
            }
        }
        if !read {
            return Err(A::Error::custom("dataframe_split: `data` is missing"));
        }
        let Some(early) = early else { return Ok(()) };
        let slots = match slots {
            Some(slots) => slots,
            None => columns(signature, rows, None).map_err(A::Error::custom)?,
        };
        whole(early.get(), Data { rows, slots: &slots }).map_err(A::Error::custom)
    }
}

/// What a column is called: pandas numbers those without a name.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Label {
    Name(String),
    Number(u64),
}

/// Where columns go: by name, or where they have none, by position.
fn columns(signature: &Signature, rows: &Rows<'_>, names: Option<Vec<Label>>) -> Result<Vec<Slot>, String> {
    let is_numbered = |(place, label): (usize, &Label)| matches!(label, Label::Number(number) if *number == place as u64);
    let Some(names) = names.filter(|names| !names.iter().enumerate().all(is_numbered)) else {
        let named = "the model's rows have no fixed count of elements: expected columns with the names of its inputs";
        return rows.places().ok_or_else(|| named.to_owned());
    };
    let text = |label| match label {
        Label::Name(name) => name,
        Label::Number(number) => number.to_string(),
    };
    named(signature, rows, names.into_iter().map(text))
}

/// Where columns of these names go. Those that are unknown, and those that are missing, are told.
fn named(signature: &Signature, rows: &Rows<'_>, names: impl Iterator<Item = String>) -> Result<Vec<Slot>, String> {
    let (mut slots, mut seen, mut unknown) = (Vec::new(), HashSet::new(), Vec::new());
    for name in names {
        match rows.slot(&name) {
            Ok(slot) if !seen.insert(slot) => return Err(format!("columns: `{name}` is there twice")),
            Ok(slot) => slots.push(slot),
            Err(_) if unknown.len() < MAX_NAMED => unknown.push(format!("`{name}`")),
            Err(_) => {}
        }
    }
    let is_there =
        |name: &str, input| seen.contains(&Slot::Input(input)) || rows.slot(name).is_ok_and(|slot| seen.contains(&slot));
    let missing = signature.fields().iter().filter(|field| !is_there(&field.name, field.input));
    let missing: Vec<String> = missing.take(MAX_NAMED).map(|field| format!("`{}`", field.name)).collect();
    let mut wrong = Vec::new();
    for (what, names) in [("unknown", &unknown), ("missing", &missing)] {
        if !names.is_empty() {
            wrong.push(format!("{what}: {}", names.join(", ")));
        }
    }
    if wrong.is_empty() { Ok(slots) } else { Err(format!("columns {}", wrong.join("; "))) }
}

struct Data<'t, 'a, 's> {
    rows: &'t mut Rows<'a>,
    slots: &'s [Slot],
}

impl<'de> DeserializeSeed<'de> for Data<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Data<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { rows, slots } = self;
        loop {
            let place = rows.len();
            let at = |error: &dyn fmt::Display| A::Error::custom(format!("row {place}: {error}"));
            let item = items.next_element_seed(Row { rows: &mut *rows, slots }).map_err(|error| at(&error))?;
            if item.is_none() {
                return Ok(());
            }
            rows.end().map_err(|error| at(&error))?;
        }
    }
}

struct Row<'t, 'a, 's> {
    rows: &'t mut Rows<'a>,
    slots: &'s [Slot],
}

impl<'de> DeserializeSeed<'de> for Row<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} values", self.slots.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        row(self.rows, self.slots, &mut items)
    }
}

/// Reads CSV. Its first line has the names of the columns, unless there is no such line.
///
/// # Errors
/// [`Code::Malformed`] with the line of what is wrong.
pub fn read_csv(signature: &Signature, content: &[u8], header: bool) -> Result<Inputs> {
    let malformed = |why: String| Error::new(Code::Malformed, format!("the body is no CSV for this model: {why}"));
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(content);
    let mut rows = Rows::new(signature);
    let mut record = csv::StringRecord::new();
    let mut slots = None;
    if !header {
        slots = Some(columns(signature, &rows, None).map_err(malformed)?);
    }
    while reader.read_record(&mut record).map_err(|error| malformed(error.to_string()))? {
        let Some(slots) = &slots else {
            let label = |name: &str| match name.parse() {
                Ok(number) if signature.field(name).is_none() => Label::Number(number),
                _ => Label::Name(name.to_owned()),
            };
            slots = Some(columns(signature, &rows, Some(record.iter().map(label).collect())).map_err(malformed)?);
            continue;
        };
        let line = record.position().map_or(0, csv::Position::line);
        let at = |error: String| malformed(format!("line {line}: {error}"));
        if record.len() != slots.len() {
            return Err(at(format!("expected {} values, got {}", slots.len(), record.len())));
        }
        for (slot, text) in slots.iter().zip(&record) {
            let dtype = signature.inputs()[slot.input()].dtype;
            rows.put(*slot, scalar(dtype, text)).map_err(at)?;
        }
        rows.end().map_err(at)?;
    }
    if slots.is_none() {
        return Err(malformed("it is empty: expected a line with the names of the columns".to_owned()));
    }
    rows.finish().map_err(malformed)
}

/// The value that a text stands for; the text itself where it stands for none, which then does not fit.
fn scalar(dtype: DType, text: &str) -> Scalar<'_> {
    if dtype == DType::Bytes {
        return Scalar::Text(text);
    }
    let short = text.trim();
    let number = || {
        let float = |number: f64| if number.is_finite() { Scalar::Float(number) } else { Scalar::Special(number) };
        let whole = short.parse().map(Scalar::Int).or_else(|_| short.parse().map(Scalar::Uint));
        whole.ok().or_else(|| short.parse().map(float).ok())
    };
    match short {
        // Nothing is a number that is missing.
        "" if dtype.is_float() => Scalar::Special(f64::NAN),
        "true" | "True" | "TRUE" if dtype == DType::Bool => Scalar::Bool(true),
        "false" | "False" | "FALSE" if dtype == DType::Bool => Scalar::Bool(false),
        _ => number().unwrap_or(Scalar::Text(text)),
    }
}

/// Writes the answer in JSON.
///
/// # Errors
/// [`Code::WrongShape`] where the outputs have no rows, or not as many as each other.
pub fn write(response: &Response) -> Result<Vec<u8>> {
    write_rows(response, "predictions")
}

/// Writes the answer in CSV: a line a row with the elements of all outputs, without a header. Numbers that are not finite
/// are left out.
///
/// # Errors
/// Those of [`write()`].
pub fn write_csv(response: &Response) -> Result<Vec<u8>> {
    let count = rows(response)?;
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::with_capacity(4 * response.payload()));
    let failed = |error: &dyn fmt::Display| Error::new(Code::Internal, format!("CSV: {error}"));
    let mut text = Vec::new();
    for row in 0..count {
        for output in &response.outputs {
            let tensor = &output.tensor;
            let width = tensor.elements() / count;
            for place in row * width..(row + 1) * width {
                text.clear();
                let field = match tensor.strings() {
                    Some(strings) => &strings[place][..],
                    None if elements::write(&mut text, tensor, place..place + 1) > 0 => b"",
                    None => &text[..],
                };
                writer.write_field(field).map_err(|error| failed(&error))?;
            }
        }
        writer.write_record(None::<&[u8]>).map_err(|error| failed(&error))?;
    }
    writer.into_inner().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests;
