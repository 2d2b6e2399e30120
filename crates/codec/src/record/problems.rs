//! All that is wrong with a body of records, in FastAPI's words. Slow and thorough: only for requests that failed.

use serde_json::{Map, Value, json};
use sluicegate_core::error::Loc;
use sluicegate_core::shape::Dim;
use sluicegate_core::signature::Field;
use sluicegate_core::{DType, Problem, Signature};

use crate::elements::{Elements, Scalar};
use crate::json;

/// Most problems that are listed; a batch of a thousand wrong rows needs no thousand of them.
const MOST: usize = 100;

/// Longest input that is sent back, as JSON text.
const ECHO: usize = 256;

/// Finds every problem. `failed` is what the fast reader said, which is told where this one finds nothing.
pub fn find(signature: &Signature, content: &[u8], failed: &serde_json::Error) -> Vec<Problem> {
    let mut finder = Finder { signature, problems: Vec::new() };
    match serde_json::from_slice::<Value>(content) {
        Err(error) => {
            let loc = vec!["body".into(), json::position(content, &error).into()];
            let ctx = Some(json!({ "error": error.to_string() }));
            finder.add("json_invalid", loc, "JSON decode error".into(), Some(&json!({})), ctx);
        }
        Ok(Value::Array(records)) if signature.is_batched() => {
            for (i, record) in records.iter().enumerate() {
                finder.record(&["body".into(), i.into()], record);
            }
        }
        Ok(record) => finder.record(&["body".into()], &record),
    }
    if finder.problems.is_empty() {
        finder.add("value_error", vec!["body".into()], failed.to_string(), None, None);
    }
    finder.problems
}

struct Finder<'a> {
    signature: &'a Signature,
    problems: Vec<Problem>,
}

impl Finder<'_> {
    fn add(&mut self, kind: &'static str, loc: Vec<Loc>, msg: String, input: Option<&Value>, ctx: Option<Value>) {
        if self.problems.len() < MOST {
            self.problems.push(Problem { kind, loc, msg, input: input.map(short), ctx });
        }
    }

    fn record(&mut self, loc: &[Loc], record: &Value) {
        let Value::Object(values) = record else {
            let msg = "Input should be a valid dictionary or object to extract fields from".into();
            return self.add("model_attributes_type", loc.to_vec(), msg, Some(record), None);
        };
        for field in self.signature.fields() {
            let loc = below(loc, &*field.name);
            match values.get(&*field.name) {
                None => self.add("missing", loc, "Field required".into(), Some(record), None),
                Some(value) => self.value(loc, field, &field.dims, value),
            }
        }
        self.extra(loc, values);
    }

    fn extra(&mut self, loc: &[Loc], values: &Map<String, Value>) {
        for (name, value) in values.iter().filter(|(name, _)| self.signature.field(name).is_none()) {
            self.add("extra_forbidden", below(loc, name.as_str()), "Extra inputs are not permitted".into(), Some(value), None);
        }
    }

    fn value(&mut self, loc: Vec<Loc>, field: &Field, dims: &[Dim], value: &Value) {
        let [dim, inner @ ..] = dims else { return self.scalar(loc, field, value) };
        let Value::Array(items) = value else {
            return self.add("list_type", loc, "Input should be a valid list".into(), Some(value), None);
        };
        match dim {
            Dim::Fixed(size) if items.len() < *size => {
                let msg = format!("List should have at least {} after validation, not {}", counted(*size), items.len());
                let ctx = json!({ "field_type": "List", "min_length": size, "actual_length": items.len() });
                self.add("too_short", loc, msg, Some(value), Some(ctx));
            }
            Dim::Fixed(size) if items.len() > *size => {
                let msg = format!("List should have at most {} after validation, not {}", counted(*size), items.len());
                let ctx = json!({ "field_type": "List", "max_length": size, "actual_length": items.len() });
                self.add("too_long", loc, msg, Some(value), Some(ctx));
            }
            _ => {
                for (i, item) in items.iter().enumerate() {
                    self.value(below(&loc, i), field, inner, item);
                }
            }
        }
    }

    fn scalar(&mut self, loc: Vec<Loc>, field: &Field, value: &Value) {
        let scalar = match value {
            Value::Bool(bit) => Some(Scalar::Bool(*bit)),
            Value::String(text) => Some(Scalar::Text(text)),
            Value::Number(number) => {
                let (uint, int) = (number.as_u64().map(Scalar::Uint), number.as_i64().map(Scalar::Int));
                uint.or(int).or(number.as_f64().map(Scalar::Float))
            }
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        let fits = scalar.is_some_and(|scalar| Elements::new(field.dtype, 1).push(scalar));
        if let (DType::Bytes, categories @ [_, ..]) = (field.dtype, &field.about.categories[..])
            && !value.as_str().is_some_and(|text| categories.iter().any(|category| category == text))
        {
            let quoted: Vec<String> = categories.iter().map(|category| format!("'{category}'")).collect();
            let expected = match &quoted[..] {
                [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
                one => one.concat(),
            };
            let ctx = json!({ "expected": expected });
            return self.add("literal_error", loc, format!("Input should be {expected}"), Some(value), Some(ctx));
        }
        // A number that its type cannot hold is out of range where the signature has one, and else of the wrong type.
        let is_of_kind = fits || value.as_f64().is_some_and(|number| field.dtype.is_float() || number.fract() == 0.0);
        let found = self.problems.len();
        if is_of_kind {
            self.range(&loc, field, value);
        }
        if !fits && self.problems.len() == found {
            let (kind, msg) = type_problem(field.dtype, value);
            self.add(kind, loc, msg, Some(value), None);
        }
    }

    fn range(&mut self, loc: &[Loc], field: &Field, value: &Value) {
        let Some(number) = value.as_f64() else { return };
        // As Python prints it: a whole number without its point.
        let shown = |edge: f64| if edge.fract() == 0.0 && edge.abs() < 1e15 { json!(edge as i64) } else { json!(edge) };
        if let Some(min) = field.about.min.filter(|min| number < *min) {
            let msg = format!("Input should be greater than or equal to {min}");
            self.add("greater_than_equal", loc.to_vec(), msg, Some(value), Some(json!({ "ge": shown(min) })));
        }
        if let Some(max) = field.about.max.filter(|max| number > *max) {
            let msg = format!("Input should be less than or equal to {max}");
            self.add("less_than_equal", loc.to_vec(), msg, Some(value), Some(json!({ "le": shown(max) })));
        }
    }
}

/// Pydantic's kind and message for a value of the wrong type.
fn type_problem(dtype: DType, value: &Value) -> (&'static str, String) {
    let number = value.as_f64();
    let (kind, msg) = match (dtype, value) {
        (DType::Bytes, _) => ("string_type", "Input should be a valid string".to_owned()),
        (DType::Bool, Value::String(_) | Value::Number(_)) => {
            ("bool_parsing", "Input should be a valid boolean, unable to interpret input".to_owned())
        }
        (DType::Bool, _) => ("bool_type", "Input should be a valid boolean".to_owned()),
        (_, Value::String(_)) if dtype.is_float() => {
            ("float_parsing", "Input should be a valid number, unable to parse string as a number".to_owned())
        }
        _ if dtype.is_float() => ("float_type", "Input should be a valid number".to_owned()),
        (_, Value::String(_)) => {
            ("int_parsing", "Input should be a valid integer, unable to parse string as an integer".to_owned())
        }
        _ if number.is_some_and(|number| number.fract() != 0.0) => {
            ("int_from_float", "Input should be a valid integer, got a number with a fractional part".to_owned())
        }
        _ if number.is_some() => ("int_parsing_size", format!("Input should be an integer within the range of {dtype}")),
        _ => ("int_type", "Input should be a valid integer".to_owned()),
    };
    (kind, msg)
}

fn counted(items: usize) -> String {
    format!("{items} item{}", if items == 1 { "" } else { "s" })
}

fn below(loc: &[Loc], step: impl Into<Loc>) -> Vec<Loc> {
    let mut loc = loc.to_vec();
    loc.push(step.into());
    loc
}

/// An input as it is sent back: whole where it is short, else only what it was.
fn short(input: &Value) -> Value {
    match input {
        Value::String(text) if text.len() > ECHO => Value::String(text.chars().take(ECHO).chain("…".chars()).collect()),
        Value::Array(items) if input.to_string().len() > ECHO => json!(format!("a list of {} items", items.len())),
        Value::Object(values) if input.to_string().len() > 4 * ECHO => json!(format!("an object of {} keys", values.len())),
        short => short.clone(),
    }
}
