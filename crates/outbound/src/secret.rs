//! A secret: a text that is never printed, from where the operator keeps it.

use std::fmt;
use std::fs::File;
use std::io::Read;

use sluicegate_core::{Code, Error, Result};

/// Most bytes of a secret's file. Keys and addresses with passwords have some hundred.
const MOST: u64 = 64 * 1024;

/// A text that neither a log nor an error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// This text, without the line end that editors leave.
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches(['\r', '\n']).into())
    }

    /// What a setting says: `file:/run/secrets/key` reads that file, any other text is the secret itself, which came from the
    /// environment.
    ///
    /// # Errors
    /// [`Code::BadConfig`] with the path, where the file cannot be read, is empty, too long, or no text.
    pub fn read(setting: &str) -> Result<Self> {
        let secret = match setting.strip_prefix("file:") {
            Some(path) => Self::new(&file(path).map_err(|why| bad(format!("the secret's file `{path}` {why}")))?),
            None => Self::new(setting),
        };
        if secret.0.trim().is_empty() {
            return Err(bad("a secret is empty: name its file, as in `file:/run/secrets/key`".to_owned()));
        }
        Ok(secret)
    }

    /// The text, for those who send it or sign with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn file(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MOST + 1).read_to_string(&mut text));
    match read {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(bytes) if bytes as u64 > MOST => Err(format!("is longer than {MOST} bytes")),
        Ok(_) => Ok(text),
    }
}

fn bad(message: String) -> Error {
    Error::new(Code::BadConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_its_file_and_printed_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        std::fs::write(&path, "open sesame\n").expect("written");
        let secret = Secret::read(&format!("file:{}", path.display())).expect("a secret");
        assert_eq!(secret.expose(), "open sesame");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(…) Some(Secret(…))");
        assert_eq!(Secret::read("open sesame").expect("a text"), secret);
    }

    #[test]
    fn a_file_that_holds_no_secret_is_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            Secret::read(&format!("file:{}", path.display())).expect_err(name).to_string()
        };
        assert!(error("empty", b"\n").contains("empty"));
        assert!(error("binary", b"\xff\xfe").contains("binary` cannot be read"));
        assert!(error("long", &vec![b'a'; MOST as usize + 1]).contains("is longer than 65536 bytes"));
        let missing = Secret::read("file:/no/such/file").expect_err("no file");
        assert!(missing.to_string().contains("`/no/such/file` cannot be read: No such file"), "{missing}");
        assert_eq!(missing.code(), Code::BadConfig);
    }
}
