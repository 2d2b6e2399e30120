//! Environment variables and flags, laid over the tree of the file.

use std::path::PathBuf;

use super::error::ConfigError;
use super::tree::{Key, Node, Place, Tree, Value};
use super::{ENV_PREFIX, LOCAL};

/// What flags say. They win over everything else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// `--http`: [`http.address`](super::Http::address).
    pub http: Option<String>,
    /// `--grpc`: [`grpc.address`](super::Grpc::address).
    pub grpc: Option<String>,
    /// `--ops`: [`ops.address`](super::Ops::address).
    pub ops: Option<String>,
    /// `--models`: the directory of the registry [`LOCAL`].
    pub models: Option<PathBuf>,
    /// `--onnxruntime`: [`engine.onnxruntime`](super::Engine::onnxruntime).
    pub onnxruntime: Option<PathBuf>,
}

/// Lays environment, then flags, over the tree. Variables are taken in the order of their names.
pub(super) fn apply(tree: &mut Tree, env: &[(String, String)], flags: &Overrides) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let mut variables: Vec<_> = env.iter().filter_map(|pair| Some((pair.0.strip_prefix(ENV_PREFIX)?, pair))).collect();
    variables.sort();
    for (rest, (name, value)) in variables {
        let words: Vec<&str> = rest.split("__").collect();
        if let Err(message) = set(&mut tree.root, &words, value, &Place::Named(name.clone())) {
            errors.push(ConfigError::new(name, message));
        }
    }
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let (models, library) = (text(&flags.models), text(&flags.onnxruntime));
    for (flag, words, value) in [
        ("--http", &["http", "address"][..], &flags.http),
        ("--grpc", &["grpc", "address"], &flags.grpc),
        ("--ops", &["ops", "address"], &flags.ops),
        ("--models", &["registries", LOCAL, "path"], &models),
        ("--onnxruntime", &["engine", "onnxruntime"], &library),
    ] {
        if let Some(value) = value
            && let Err(message) = set(&mut tree.root, words, value, &Place::Named(flag.to_owned()))
        {
            errors.push(ConfigError::new(flag, message));
        }
    }
    let kind = ["registries", LOCAL, "type"];
    if models.is_some()
        && tree.find(&kind).is_none()
        && let Err(message) = set(&mut tree.root, &kind, "directory", &Place::Named("--models".to_owned()))
    {
        errors.push(ConfigError::new("--models", message));
    }
    errors
}

/// Sets one value, and makes what is missing on the way to it: a list where the next word is a number, else a mapping.
fn set(root: &mut Node, words: &[&str], value: &str, place: &Place) -> Result<(), String> {
    let mut node = root;
    for word in words {
        if word.is_empty() {
            return Err("two underscores stand between two keys, as in SLUICEGATE__BATCHING__MAX_ROWS".to_owned());
        }
        node = child(node, word, place)?;
    }
    *node = Node { place: place.clone(), value: Value::Untyped(value.to_owned()) };
    Ok(())
}

/// The node that a word leads to; a new one where there is none.
fn child<'a>(node: &'a mut Node, word: &str, place: &Place) -> Result<&'a mut Node, String> {
    let number = word.parse::<usize>().ok();
    if !matches!(node.value, Value::Map(_) | Value::List(_)) {
        let value = if number.is_some() { Value::List(Vec::new()) } else { Value::Map(Vec::new()) };
        *node = Node { place: place.clone(), value };
    }
    let new = || Node { place: place.clone(), value: Value::Null };
    match &mut node.value {
        Value::List(items) => {
            let length = items.len();
            let index = number.ok_or_else(|| format!("expected the number of a list's element, got `{word}`"))?;
            if index > length {
                return Err(format!("the list ends before that: its next element has the number {length}, got {index}"));
            }
            if index == length {
                items.push(new());
            }
            Ok(&mut items[index])
        }
        Value::Map(entries) => {
            let found = entries.iter().position(|(key, _)| same(&key.name, word));
            let position = found.unwrap_or_else(|| {
                let name = if matches!(place, Place::Named(name) if name.starts_with(ENV_PREFIX)) {
                    word.to_ascii_lowercase()
                } else {
                    word.to_owned()
                };
                entries.push((Key { place: place.clone(), name }, new()));
                entries.len() - 1
            });
            Ok(&mut entries[position].1)
        }
        _ => Err(format!("`{word}` has nothing to be set in")),
    }
}

/// Variables are in capitals, and cannot have the `-` or `.` that names may have.
fn same(key: &str, word: &str) -> bool {
    let plain = |byte: u8| if byte == b'-' || byte == b'.' { b'_' } else { byte.to_ascii_lowercase() };
    key.len() == word.len() && key.bytes().map(plain).eq(word.bytes().map(plain))
}
