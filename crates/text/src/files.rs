//! The files of JSON that lie beside a model, and how it is said that one is not served, or a run not done.

use std::path::Path;

use serde::de::DeserializeOwned;
use sluicegate_core::{Code, Error, Result};

/// Largest file that is read; a tokenizer of a quarter of a million words has 17 MB.
const MAX_JSON: u64 = 64 << 20;

/// Reads a file of JSON in a version's directory.
///
/// # Errors
/// Those of [`bytes`] and of [`parse`].
pub fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    parse(name, &bytes(folder, name)?)
}

/// The same of a file that may be missing.
///
/// # Errors
/// The same.
pub fn read_if_any<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>> {
    folder.join(name).is_file().then(|| read(folder, name)).transpose()
}

/// A file in a version's directory, which is not endless.
///
/// # Errors
/// Where it is missing, or larger than what is read.
pub fn bytes(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    let failed = |error: std::io::Error| refused(format!("{name}: {error}"));
    let size = std::fs::metadata(&path).map_err(failed)?.len();
    if size > MAX_JSON {
        return Err(refused(format!("{name} has {size} bytes, at most {MAX_JSON} are read")));
    }
    std::fs::read(&path).map_err(failed)
}

/// Parses the content of the file of that name.
///
/// # Errors
/// With the line and column of what is wrong.
pub fn parse<T: DeserializeOwned>(name: &str, content: &[u8]) -> Result<T> {
    serde_json::from_slice(content).map_err(|error| refused(format!("{name}: {error}")))
}

/// That a model is not served, and why.
pub fn refused(message: impl Into<String>) -> Error {
    Error::new(Code::LoadFailed, message)
}

/// That the wanted outputs, by their places, are some of so many.
///
/// # Errors
/// [`Code::RunFailed`], naming the one that is not.
pub fn has_outputs(count: usize, wanted: &[usize]) -> Result<()> {
    match wanted.iter().find(|place| **place >= count) {
        Some(place) => Err(failed(format!("the model has {count} outputs, not one number {place}"))),
        None => Ok(()),
    }
}

/// That a run is not done, and why.
pub fn failed(message: impl Into<String>) -> Error {
    Error::new(Code::RunFailed, message)
}
