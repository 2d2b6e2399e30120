//! The kept inputs: `fuzz/corpus/<target>/`, one a file. Small, and each there for a reason that its name tells.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Target;

/// The folder of a target.
pub fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Its inputs, in the order of their names.
///
/// # Errors
/// Those of reading them.
pub fn read(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(folder(target))? {
        let entry = entry?;
        inputs.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
    }
    inputs.sort();
    Ok(inputs)
}

/// Keeps an input that broke something. It stays when that is mended, under a name that says what it was.
///
/// # Errors
/// Those of writing it.
pub fn keep(target: &Target, input: &[u8]) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = folder(target).join(format!("found-{:016x}", hasher.finish()));
    std::fs::write(&path, input)?;
    Ok(path)
}

/// Notes the input that is checked next: should the process die, it was this one. One call of the system for each.
///
/// # Errors
/// Those of writing it.
pub fn note(file: &File, input: &[u8]) -> io::Result<()> {
    let length = u32::try_from(input.len()).unwrap_or(u32::MAX);
    file.write_all_at(&[&length.to_le_bytes(), input].concat(), 0)
}

/// The input that was noted last.
///
/// # Errors
/// Those of reading it, and where none was noted.
pub fn noted(path: &Path) -> io::Result<Vec<u8>> {
    let all = std::fs::read(path)?;
    let input = all.split_first_chunk().and_then(|(length, rest)| rest.get(..u32::from_le_bytes(*length) as usize));
    input.map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("no input was noted"))
}
