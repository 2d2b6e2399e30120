//! The files of JSON that lie beside a model, and how it is said that one is not served, or a run not done.

use std::path::{Component, Path};

use serde::de::DeserializeOwned;
use sluicegate_core::{Code, Error, Result};

/// Largest file that is read; a tokenizer of a quarter of a million words has 17 MB.
const MAX_JSON: u64 = 64 << 20;

/// Largest file of a dense layer's weights: 8,192 numbers made of as many, in F32.
pub(crate) const MAX_WEIGHTS: u64 = 257 << 20;

/// Most bytes of a reason.
const LONGEST: usize = 800;

/// Reads a file of JSON in a version's directory.
///
/// # Errors
/// Those of [`bytes()`] and of [`parse`].
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
    bytes_up_to(folder, name, MAX_JSON)
}

pub(crate) fn bytes_up_to(folder: &Path, name: &str, most: u64) -> Result<Vec<u8>> {
    let path = folder.join(name);
    let failed = |error: std::io::Error| refused(format!("{name}: {error}"));
    let size = std::fs::metadata(&path).map_err(failed)?.len();
    if size > most {
        return Err(refused(format!("{name} has {size} bytes, at most {most} are read")));
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
pub fn refused(message: impl AsRef<str>) -> Error {
    Error::new(Code::LoadFailed, sentence(message.as_ref()))
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
pub fn failed(message: impl AsRef<str>) -> Error {
    Error::new(Code::RunFailed, sentence(message.as_ref()))
}

/// One line of a message, and not endless: files name what they like in it.
fn sentence(message: &str) -> String {
    let whole = message.len() <= LONGEST;
    let shown = &message[..message.floor_char_boundary(LONGEST)];
    let mut line: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if !whole {
        line.push('…');
    }
    line
}

/// The path of a part of a version, as a file beside the model names it: below the version's directory, if it is not that itself.
///
/// # Errors
/// Where it is empty or leads elsewhere.
pub fn inside<'a>(file: &str, path: &'a str) -> Result<&'a str> {
    let stays = |part: Component<'_>| matches!(part, Component::Normal(_));
    match !path.is_empty() && !path.contains('\0') && Path::new(path).components().all(stays) {
        true => Ok(path),
        false => Err(refused(format!("{file} names `{path}`, which is not inside the version's directory"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_and_has_an_end() {
        let error = refused(format!("config.json: `{}`", "ä\n".repeat(100_000)));
        assert!(error.message().len() <= LONGEST + '…'.len_utf8() && error.message().ends_with('…'), "{error}");
        assert!(!error.message().contains('\n'), "{error}");
        assert_eq!(failed("short").message(), "short");
    }

    #[test]
    fn a_path_stays_inside() {
        for path in ["1_Pooling", "a/b", "1_Pooling/"] {
            assert_eq!(inside("modules.json", path).expect(path), path);
        }
        for path in ["", "/", "/etc", "..", "a/../../b", "../a", ".", "./a", "a\0b"] {
            assert!(inside("modules.json", path).is_err(), "{path:?}");
        }
    }
}
