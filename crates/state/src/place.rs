//! Where the state is kept, and who writes there.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use sluicegate_core::{Code, Error, Result};

use crate::store::WORD;

/// Where the state is kept.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file of its own, for one replica: `state.path`.
    Sqlite(PathBuf),
    /// A database that several replicas share, by its URL: `state.postgres`.
    Postgres(Secret),
}

/// A text that is never shown: its `Debug` says where it comes from, or nothing.
#[derive(Clone)]
pub enum Secret {
    /// The text itself.
    Text(String),
    /// A file, read whenever the secret is used, so that it may be renewed while the gateway runs.
    File(PathBuf),
}

/// Largest file that is read as a secret.
const SECRET: u64 = 64 << 10;

impl Secret {
    /// The text, without the white space around it.
    pub(crate) fn read(&self) -> Result<String> {
        let path = match self {
            Self::Text(text) => return Ok(text.trim().to_owned()),
            Self::File(path) => path,
        };
        let mut text = String::new();
        File::open(path).and_then(|file| file.take(SECRET).read_to_string(&mut text)).map_err(|error| {
            let message = format!("state.postgres: the file `{}` with the URL cannot be read: {error}", path.display());
            Error::new(Code::Io, message)
        })?;
        Ok(text.trim().to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Secret(..)"),
            Self::File(path) => write!(f, "Secret(file {})", path.display()),
        }
    }
}

/// One life of one replica, from its start to its end: who counts from zero after a restart is another incarnation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(String);

impl Incarnation {
    /// A name that no other life has, such as the pod's with the time of its start: 1 to [`WORD`] printable ASCII characters.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if (1..=WORD).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(name));
        }
        let message = format!("the name of a replica has 1 to {WORD} printable ASCII characters, and not {name:?}");
        Err(Error::new(Code::BadConfig, message))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
