//! A configuration as a tree in which every key and value knows its place, before it has types.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess};
use serde_saphyr::Spanned;

use super::error::ConfigError;

/// Where something was said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// Nowhere: a default.
    Nowhere,
    /// In the file, counted from 1.
    File { line: u64, column: u64 },
    /// In an environment variable, or by a flag.
    Named(String),
}

/// A step on the way to a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Of a mapping.
    Key(String),
    /// Of a list.
    Index(usize),
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    /// The text of a variable or a flag, which may be read as any scalar.
    Untyped(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// An element of a list that had an error: it is passed over, and the others keep their index.
    Gone,
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

/// The whole configuration, and the name of its file.
#[derive(Debug)]
pub(super) struct Tree {
    file: String,
    pub(super) root: Node,
}

impl Tree {
    /// No file: everything is a default.
    pub(super) fn empty() -> Self {
        Self { file: String::new(), root: Node { place: Place::Nowhere, value: Value::Map(Vec::new()) } }
    }

    /// Reads YAML.
    pub(super) fn parse(file: &str, content: &[u8]) -> Result<Self, ConfigError> {
        let text = std::str::from_utf8(content).map_err(|error| {
            let line = content[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            ConfigError::new(format_args!("{file}:{line}"), "is not UTF-8")
        })?;
        let mut root: Node = serde_saphyr::from_str(text).map_err(|error| syntax_error(file, &error))?;
        if matches!(root.value, Value::Null) {
            root.value = Value::Map(Vec::new());
        }
        let tree = Self { file: file.to_owned(), root };
        match tree.root.value {
            Value::Map(_) => Ok(tree),
            _ => Err(tree.error(&[], "expected keys and values")),
        }
    }

    /// An error at the value, or at the nearest thing around it that was written; with the way to it in the message.
    pub(super) fn error(&self, path: &[Step], message: impl fmt::Display) -> ConfigError {
        let message = if path.is_empty() { message.to_string() } else { format!("{}: {message}", Path(path)) };
        self.at(self.nearest(path), message)
    }

    /// An error at this place.
    pub(super) fn at(&self, place: &Place, message: String) -> ConfigError {
        match place {
            Place::Nowhere => ConfigError::new("", message),
            Place::Named(name) => ConfigError::new(name, message),
            Place::File { line, column } => {
                ConfigError::new(format_args!("{}:{line}:{column}", self.file), message).on_line(*line)
            }
        }
    }

    /// The place of the value, or of the nearest thing around it.
    pub(super) fn nearest(&self, path: &[Step]) -> &Place {
        let mut node = &self.root;
        for step in path {
            match node.get(step) {
                Some(inner) => node = inner,
                None => break,
            }
        }
        &node.place
    }

    /// The place of the key, which is not that of its value.
    pub(super) fn key_place(&self, path: &[Step]) -> &Place {
        let Some((Step::Key(name), way)) = path.split_last() else { return self.nearest(path) };
        let node = way.iter().try_fold(&self.root, |node, step| node.get(step));
        match node.map(|node| &node.value) {
            Some(Value::Map(entries)) => {
                entries.iter().find(|(key, _)| key.name == *name).map_or(&Place::Nowhere, |(key, _)| &key.place)
            }
            _ => self.nearest(path),
        }
    }

    /// The value at this path of keys.
    pub(super) fn find(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(&self.root, |node, key| node.get(&Step::from(*key)))
    }

    /// Whether the file says this, and neither a variable, a flag nor a default.
    pub(super) fn is_from_file(&self, keys: &[&str]) -> bool {
        self.find(keys).is_some_and(|node| matches!(node.place, Place::File { .. }))
    }

    /// Takes a value out, so that the rest can be read. False where there is no such value.
    pub(super) fn remove(&mut self, path: &[Step]) -> bool {
        let Some((last, way)) = path.split_last() else { return false };
        let mut node = &mut self.root;
        for step in way {
            match node.get_mut(step) {
                Some(inner) => node = inner,
                None => return false,
            }
        }
        match (&mut node.value, last) {
            (Value::Map(entries), Step::Key(name)) => {
                let before = entries.len();
                entries.retain(|(key, _)| key.name != *name);
                entries.len() < before
            }
            (Value::List(items), Step::Index(index)) => match items.get_mut(*index) {
                Some(item) => !matches!(std::mem::replace(&mut item.value, Value::Gone), Value::Gone),
                None => false,
            },
            _ => false,
        }
    }
}

/// One line of the parser's message, after the place that it has.
fn syntax_error(file: &str, error: &serde_saphyr::Error) -> ConfigError {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or("is no YAML");
    match error.location() {
        Some(at) => {
            let place = format!("{file}:{}:{}", at.line(), at.column());
            let message = line
                .strip_prefix(&format!("error: line {} column {}: ", at.line(), at.column()))
                .or_else(|| line.strip_suffix(&format!(" at line {}, column {}", at.line(), at.column())))
                .unwrap_or(line);
            ConfigError::new(place, message).on_line(at.line())
        }
        None => ConfigError::new(file, line),
    }
}

impl Node {
    pub(super) fn get(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::Map(entries), Step::Key(name)) => entries.iter().find(|(key, _)| key.name == *name).map(|(_, node)| node),
            (Value::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, step: &Step) -> Option<&mut Self> {
        match (&mut self.value, step) {
            (Value::Map(entries), Step::Key(name)) => entries.iter_mut().find(|(key, _)| key.name == *name).map(|(_, node)| node),
            (Value::List(items), Step::Index(index)) => items.get_mut(*index),
            _ => None,
        }
    }
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A path as people write it: `models[3].batching.max_rows`.
pub(super) struct Path<'a>(pub(super) &'a [Step]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn place_of(location: serde_saphyr::Location) -> Place {
    Place::File { line: location.line(), column: location.column() }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { place: place_of(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, node)) = entries.next_entry::<Spanned<String>, Node>()? {
            map.push((Key { place: place_of(key.referenced), name: key.value }, node));
        }
        Ok(Value::Map(map))
    }
}
