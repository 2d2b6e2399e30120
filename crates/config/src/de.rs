//! The tree becomes types. An error takes its value out of the tree and reading begins again, so that all are found.

use std::fmt;

use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::error::{ConfigError, suggest};
use super::tree::{Key, Node, Step, Tree, Value};

/// Past this many errors, the rest is not looked for.
const MAX_ERRORS: usize = 100;

/// Reads what can be read, and adds every error that is met. `None` where nothing could be read.
pub(super) fn read<T: DeserializeOwned>(tree: &mut Tree, errors: &mut Vec<ConfigError>) -> Option<T> {
    let mut removed: Vec<Vec<Step>> = Vec::new();
    loop {
        let problem = match T::deserialize(At(&tree.root)) {
            Ok(value) => return Some(value),
            Err(problem) => problem,
        };
        let path: Vec<Step> = problem.way.into_iter().rev().collect();
        match problem.kind {
            Kind::Key => errors.push(tree.at(tree.key_place(&path), problem.message)),
            Kind::Value => errors.push(tree.error(&path, problem.message)),
            Kind::Missing(field) => {
                // a required key that was taken out has been reported already
                let key = [&*path, &[Step::from(field)]].concat();
                if !removed.contains(&key) {
                    errors.push(tree.error(&path, problem.message));
                }
            }
        }
        if errors.len() >= MAX_ERRORS || !tree.remove(&path) {
            return None;
        }
        removed.push(path);
    }
}

/// What went wrong, and the way to it, innermost step first.
#[derive(Debug)]
pub(super) struct Problem {
    way: Vec<Step>,
    kind: Kind,
    message: String,
}

/// What is wrong: a key, its value, or that a key is not there.
#[derive(Debug)]
enum Kind {
    Key,
    Value,
    Missing(&'static str),
}

impl Problem {
    fn value(message: impl Into<String>) -> Self {
        Self { way: Vec::new(), kind: Kind::Value, message: message.into() }
    }

    fn under(mut self, step: Step) -> Self {
        self.way.push(step);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::value(message.to_string())
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_value(got, expected)
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let got = match got {
            Unexpected::Unit => "nothing".to_owned(),
            Unexpected::Bool(value) => format!("`{value}`"),
            Unexpected::Unsigned(value) => format!("`{value}`"),
            Unexpected::Signed(value) => format!("`{value}`"),
            Unexpected::Float(value) => format!("`{value}`"),
            Unexpected::Str(value) => format!("`{value}`"),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "keys and values".to_owned(),
            other => other.to_string(),
        };
        Self::value(format!("expected {expected}, got {got}"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let message = match &*suggest(field, expected.iter().copied()) {
            "" => format!("unknown key `{field}`; the keys here are {}", expected.join(", ")),
            near => format!("unknown key `{field}`{near}"),
        };
        Self { way: Vec::new(), kind: Kind::Key, message }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let near = suggest(variant, expected.iter().copied());
        Self::value(format!("expected {}, got `{variant}`{near}", expected.join(" or ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { kind: Kind::Missing(field), ..Self::value(format!("the key `{field}` is missing")) }
    }
}

/// A deserializer that stands at a node.
#[derive(Clone, Copy)]
struct At<'a>(&'a Node);

impl At<'_> {
    fn unexpected(self) -> Unexpected<'static> {
        match &self.0.value {
            Value::Null | Value::Gone => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Unsigned(value) => Unexpected::Unsigned(*value),
            Value::Signed(value) => Unexpected::Signed(*value),
            Value::Float(value) => Unexpected::Float(*value),
            Value::Text(_) | Value::Untyped(_) => Unexpected::Other("text"),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        }
    }

    fn mismatch(self, expected: &str) -> Problem {
        de::Error::invalid_type(self.unexpected(), &expected)
    }
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.value {
            Value::Null | Value::Gone => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::Untyped(text) => match &**text {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                _ => match text.parse() {
                    Ok(number) => visitor.visit_u64(number),
                    Err(_) => visitor.visit_str(text),
                },
            },
            Value::List(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Value::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None }),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.value {
            Value::Text(text) | Value::Untyped(text) => visitor.visit_str(text),
            Value::Unsigned(number) => visitor.visit_string(number.to_string()),
            Value::Signed(number) => visitor.visit_string(number.to_string()),
            Value::Bool(value) => Err(Problem::value(format!("expected text, got `{value}`: put it in quotes"))),
            Value::Float(_) => Err(Problem::value("expected text, got a number with a point: put it in quotes")),
            _ => Err(self.mismatch("text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Untyped(text) if text == "true" || text == "false" => visitor.visit_bool(text == "true"),
            _ => Err(self.mismatch("true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.value {
            Value::List(_) => self.deserialize_any(visitor),
            _ => Err(self.mismatch("a list")),
        }
    }

    /// A section whose keys are all commented out is empty.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.value {
            Value::Map(_) => self.deserialize_any(visitor),
            Value::Null => visitor.visit_map(MapDeserializer::new(std::iter::empty::<(&str, &str)>())),
            _ => Err(self.mismatch("keys and values")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.deserialize_map(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match &self.0.value {
            Value::Text(text) | Value::Untyped(text) => visitor.visit_enum(StrDeserializer::<Problem>::new(text)),
            _ => Err(self.mismatch(&variants.join(" or "))),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

struct Items<'a>(std::iter::Enumerate<std::slice::Iter<'a, Node>>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        match self.0.by_ref().find(|(_, node)| !matches!(node.value, Value::Gone)) {
            None => Ok(None),
            Some((index, node)) => seed.deserialize(At(node)).map(Some).map_err(|problem| problem.under(index.into())),
        }
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, (Key, Node)>,
    value: Option<(&'a Key, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        self.value = Some((key, node));
        let deserializer: StrDeserializer<'_, Problem> = key.name.as_str().into_deserializer();
        seed.deserialize(deserializer).map(Some).map_err(|problem| problem.under(Step::from(&*key.name)))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let (key, node) = self.value.take().ok_or_else(|| Problem::value("a value was asked for before its key"))?;
        seed.deserialize(At(node)).map_err(|problem| problem.under(Step::from(&*key.name)))
    }
}
