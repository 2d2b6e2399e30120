//! Values that are written as text: durations (`2ms`), sizes (`64MiB`), addresses, files of secrets; and counts, bounded by their type.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Unexpected};
use serde::{Deserialize, Serialize, Serializer};

/// A time: a whole number and a unit (`ns`, `us`, `ms`, `s`, `m`, `h`, `d`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration(u64);

/// A number of bytes: a whole number and a unit (`B`, `KiB`, `MiB`, `GiB`, `kB`, `MB`, `GB`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(u64);

/// An address to listen on: `127.0.0.1:8080`, `[::]:8080`, `localhost:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(pub SocketAddr);

/// A file that holds a secret: `file:/run/secrets/url`. The secret itself is never a part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileRef(pub std::path::PathBuf);

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

/// A [`Count`], or `auto`: what fits the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auto<const MIN: u32, const MAX: u32>(pub Option<Count<MIN, MAX>>);

/// Largest first, so that the first that divides is the shortest to print.
const TIMES: &[(&str, u64)] = &[
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Read, and never printed.
const DECIMAL_SIZES: &[(&str, u64)] = &[("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];

/// A whole number and a unit, multiplied; `None` where it is neither or too large.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn print(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    match units.iter().find(|(_, factor)| value.is_multiple_of(*factor)) {
        Some((unit, factor)) if value > 0 => write!(f, "{}{unit}", value / factor),
        _ => f.write_str(zero),
    }
}

impl Duration {
    /// This many milliseconds.
    pub const fn from_millis(milliseconds: u32) -> Self {
        Self(milliseconds as u64 * 1_000_000)
    }

    /// This many seconds.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds as u64 * 1_000_000_000)
    }

    /// As the standard library has it.
    pub const fn get(self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0)
    }
}

impl Size {
    /// This many mebibytes.
    pub const fn from_mib(mebibytes: u32) -> Self {
        Self((mebibytes as u64) << 20)
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Address {
    /// This port of the loopback address.
    pub const fn local(port: u16) -> Self {
        Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }
}

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// The number, where it is in the range. In a constant, a number outside does not compile.
    pub const fn new(number: u32) -> Option<Self> {
        if MIN <= number && number <= MAX { Some(Self(number)) } else { None }
    }

    /// The number, moved into the range.
    pub const fn clamped(number: u32) -> Self {
        Self(if number < MIN {
            MIN
        } else if number > MAX {
            MAX
        } else {
            number
        })
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The number, or 1 where the range allows a 0.
    pub const fn nonzero(self) -> NonZeroUsize {
        match NonZeroUsize::new(self.0 as usize) {
            Some(number) => number,
            None => NonZeroUsize::MIN,
        }
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        scaled(text, TIMES)
            .map(Self)
            .ok_or_else(|| format!("expected a duration, a whole number with a unit, as 250ms, 10s or 5m, got `{text}`"))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        scaled(text, SIZES)
            .or_else(|| scaled(text, DECIMAL_SIZES))
            .map(Self)
            .ok_or_else(|| format!("expected a size, a whole number with a unit, as 512KiB or 64MiB, got `{text}`"))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()).map(Self::local);
        text.parse().map(Self).ok().or(local).ok_or_else(|| {
            let hint = match text.strip_prefix(':') {
                Some(port) => format!("; for every interface write 0.0.0.0:{port}"),
                None => String::new(),
            };
            format!("expected an address, IP:PORT, as 127.0.0.1:8080 or [::]:8080, got `{text}`{hint}")
        })
    }
}

impl FromStr for FileRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("file:").filter(|path| !path.is_empty());
        // What was written instead may be the secret, and is not repeated.
        path.map(|path| Self(path.into())).ok_or_else(|| "expected a file with the secret, as file:/run/secrets/url".to_owned())
    }
}

impl fmt::Display for FileRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.0.display())
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, TIMES, "0s")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, SIZES, "0B")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MIN: u32, const MAX: u32> fmt::Display for Count<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const MIN: u32, const MAX: u32>;

        impl<const MIN: u32, const MAX: u32> de::Visitor<'_> for Visitor<MIN, MAX> {
            type Value = Count<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                let checked = u32::try_from(number).ok().and_then(Count::new);
                checked.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }

        deserializer.deserialize_u64(Visitor)
    }
}

impl<const MIN: u32, const MAX: u32> JsonSchema for Count<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Count{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

impl<const MIN: u32, const MAX: u32> Serialize for Auto<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(count) => count.serialize(serializer),
            None => serializer.serialize_str("auto"),
        }
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Auto<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const MIN: u32, const MAX: u32>;

        impl<const MIN: u32, const MAX: u32> de::Visitor<'_> for Visitor<MIN, MAX> {
            type Value = Auto<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}, or `auto`")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                let checked = u32::try_from(number).ok().and_then(Count::new);
                checked.map(|count| Auto(Some(count))).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                match text.parse() {
                    _ if text == "auto" => Ok(Auto(None)),
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl<const MIN: u32, const MAX: u32> JsonSchema for Auto<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Auto{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": format!("{MIN} to {MAX}, or `auto`"),
            "oneOf": [{ "const": "auto" }, { "type": "integer", "minimum": MIN, "maximum": MAX }],
        })
    }
}

/// What is written as text and read by its `FromStr`, with this schema.
macro_rules! as_text {
    ($($type:ident $schema:tt),*) => {$(
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}
pub(super) use as_text;
as_text!(
    Duration { "type": "string", "title": "duration", "pattern": "^[0-9]+ *(ns|us|ms|s|m|h|d)$" },
    Size { "type": "string", "title": "size", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|kB|MB|GB)$" },
    Address { "type": "string", "title": "address", "pattern": "^.+:[0-9]{1,5}$" },
    FileRef { "type": "string", "title": "file with a secret", "pattern": "^file:.+$" }
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(value in any::<u64>(), shift in 0_u32..64) {
            let value = value >> shift;
            prop_assert_eq!(Duration(value).to_string().parse(), Ok(Duration(value)));
            prop_assert_eq!(Size(value).to_string().parse(), Ok(Size(value)));
            for (unit, factor) in TIMES.iter().chain(SIZES) {
                let text = format!("{value}{unit}");
                let expected = value.checked_mul(*factor);
                prop_assert_eq!(scaled(&text, TIMES).or_else(|| scaled(&text, SIZES)), expected);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,12}") {
            let _ = (text.parse::<Duration>(), text.parse::<Size>(), text.parse::<Address>());
        }
    }

    #[test]
    fn durations_and_sizes_are_written_as_people_do() {
        for (text, milliseconds) in [("2ms", 2), ("10s", 10_000), ("5m", 300_000), ("1 h", 3_600_000), ("0ms", 0)] {
            assert_eq!(text.parse::<Duration>().expect(text), Duration::from_millis(milliseconds));
        }
        for (text, bytes) in [("64MiB", 64 << 20), ("512KiB", 512 << 10), ("10 kB", 10_000), ("7B", 7)] {
            assert_eq!(text.parse::<Size>().expect(text).bytes(), bytes);
        }
        for bad in ["", "2", "ms", "-1s", "1.5s", "2 weeks", "99999999999999999999s", "9999999999d"] {
            assert!(bad.parse::<Duration>().is_err(), "{bad:?}");
        }
        for bad in ["", "64", "MiB", "64 mib", "99999999999999GiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?}");
        }
        assert_eq!(Duration::from_secs(90).to_string(), "90s");
        assert_eq!(Size::from_mib(64).to_string(), "64MiB");
    }

    #[test]
    fn an_address_is_an_ip_and_a_port_and_a_bare_port_gets_a_hint() {
        assert_eq!("localhost:8080".parse(), Ok(Address::local(8080)));
        assert!("[::]:8080".parse::<Address>().is_ok());
        assert!("127.0.0.1".parse::<Address>().is_err());
        let error = ":8080".parse::<Address>().expect_err("a bare port");
        assert!(error.ends_with("write 0.0.0.0:8080"), "{error}");
    }
}
