//! How models and versions are called: checked names, content digests, and references to versions.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

/// Longest model name or alias accepted; a Kubernetes label value has the same bound.
pub const MAX_NAME: usize = 63;

/// A served name such as `fraud`: 1 to 63 of `[A-Za-z0-9._-]`, not beginning with a dot.
///
/// `stats` is reserved, because `/v2/models/stats` is a route of the statistics extension.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(Arc<str>);

/// The digest of a version's content: `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Arc<str>);

/// One way to say which version is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VersionRef {
    /// `3`
    Number(u64),
    /// `champion`, written `@champion` in configuration
    Alias(Arc<str>),
    /// `sha256:…`
    Digest(Digest),
}

/// A model and, where the caller named one, its version: `fraud`, `fraud@2`, `fraud@champion`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef<'a> {
    /// The served name, not yet known to exist.
    pub model: &'a str,
    /// The version asked for; `None` leaves the choice to the gateway.
    pub version: Option<VersionRef>,
}

fn is_word(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl ModelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "stats" {
            return Err(Error::new(Code::BadConfig, "the model name `stats` is reserved for /v2/models/stats"));
        }
        if !is_word(text) {
            let rule = "a model name is 1 to 63 letters, digits, `.`, `_` or `-` and does not begin with a dot";
            return Err(Error::new(Code::BadConfig, format!("`{text}` is no model name: {rule}")));
        }
        Ok(Self(text.into()))
    }
}

impl Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Digest {
    /// Wraps the 32 bytes of a SHA-256.
    pub fn sha256(bytes: &[u8]) -> Self {
        use fmt::Write;
        let mut text = String::with_capacity(7 + 2 * bytes.len());
        text.push_str("sha256:");
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }

    /// The digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => Ok(Self(text.into())),
            _ => Err(Error::new(
                Code::BadConfig,
                format!("`{text}` is no digest: expected `sha256:` and 64 lower-case hexadecimal digits"),
            )),
        }
    }
}

impl FromStr for VersionRef {
    type Err = Error;

    /// Digits are a number, `sha256:…` a digest, anything else (with or without `@`) an alias.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.starts_with("sha256:") {
            return Ok(Self::Digest(text.parse()?));
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let number = text.parse().map_err(|_| {
                Error::new(Code::UnknownVersion, format!("version `{text}` is larger than any version number can be"))
            })?;
            return Ok(Self::Number(number));
        }
        let alias = text.strip_prefix('@').unwrap_or(text);
        if !is_word(alias) {
            return Err(Error::new(
                Code::UnknownVersion,
                format!("`{text}` is no version: expected a number, an alias of letters, digits, `.`, `_`, `-`, or a digest"),
            ));
        }
        Ok(Self::Alias(alias.into()))
    }
}

impl<'a> ModelRef<'a> {
    /// Reads `model` or `model@version`.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        match text.split_once('@') {
            None => Ok(Self { model: text, version: None }),
            Some((model, version)) => Ok(Self { model, version: Some(version.parse()?) }),
        }
    }
}

macro_rules! text_conversions {
    ($($type:ident),*) => {$(
        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )*};
}
text_conversions!(ModelName, Digest, VersionRef);

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Alias(alias) => write!(f, "@{alias}"),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_name_cannot_leave_its_directory_or_shadow_a_route() {
        for good in ["fraud", "a", "breast-cancer", "m_1.2"] {
            assert_eq!(good.parse::<ModelName>().expect("a good name").as_str(), good);
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "stats", "a@1", &"x".repeat(64)] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reference_tells_numbers_aliases_and_digests_apart() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!("3".parse::<VersionRef>().expect("number"), VersionRef::Number(3));
        assert_eq!("@stable".parse::<VersionRef>().expect("alias"), VersionRef::Alias("stable".into()));
        assert_eq!("stable".parse::<VersionRef>().expect("alias"), VersionRef::Alias("stable".into()));
        assert!(matches!(digest.parse::<VersionRef>(), Ok(VersionRef::Digest(_))));
        for bad in ["", "@", "99999999999999999999999", "sha256:12", "a/b"] {
            assert!(bad.parse::<VersionRef>().is_err(), "{bad:?}");
        }
    }
}
