//! One field at the top of a JSON body, by which a caller stays on a variant: found without reading what follows it.

use std::borrow::Cow;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The value of a field of an object: the content of a text, a number as it is written, an object with its braces. `None` where the
/// body is no object, has no such field before its first error, or where that is `null`, a truth value or a list.
pub fn field<'a>(json: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    let mut found = None;
    // What is found ends the reading as an error does; so do bodies that are nested too deep.
    let _ = serde_json::Deserializer::from_slice(json).deserialize_map(Top { name, found: &mut found });
    let value = found?.get();
    match value.as_bytes().first()? {
        b'"' => match serde_json::from_str::<Cow<'a, str>>(value).ok()? {
            Cow::Borrowed(text) => Some(Cow::Borrowed(text.as_bytes())),
            Cow::Owned(text) => Some(Cow::Owned(text.into_bytes())),
        },
        b'0'..=b'9' | b'-' | b'{' => Some(Cow::Borrowed(value.as_bytes())),
        _ => None,
    }
}

struct Top<'n, 'f, 'a> {
    name: &'n str,
    found: &'f mut Option<&'a RawValue>,
}

impl<'a> Visitor<'a> for Top<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<Cow<'a, str>>()? {
            if key == self.name {
                *self.found = Some(entries.next_value()?);
                return Err(A::Error::custom("found"));
            }
            entries.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(json: &str, name: &str) -> Option<String> {
        field(json.as_bytes(), name).map(|value| String::from_utf8(value.into_owned()).expect("text"))
    }

    #[test]
    fn a_field_is_found_at_the_top_and_nowhere_else() {
        let body =
            r#"{"inputs": [{"user": "inner"}], "user": "a\u0064a", "n": 7, "parameters": {"user": "p"}, "none": null, broken"#;
        assert_eq!(text(body, "user").as_deref(), Some("ada"));
        assert_eq!(text(body, "n").as_deref(), Some("7"));
        assert_eq!(text(body, "parameters").as_deref(), Some(r#"{"user": "p"}"#));
        assert_eq!(text(body, "none"), None);
        assert_eq!(text(body, "absent"), None);
        assert_eq!(text(r#"[{"user": 1}]"#, "user"), None);
        assert_eq!(text(&"{\"a\":".repeat(10_000), "user"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_field_or_none(bytes in any::<Vec<u8>>(), name in ".{0,3}") {
            let _ = field(&bytes, &name);
        }

        #[test]
        fn what_was_written_is_found(key in "[a-z]{1,4}", value in ".{0,8}", other in "[A-Z]{1,4}") {
            let body = serde_json::json!({ other: [1, 2], key.clone(): value.clone() }).to_string();
            prop_assert_eq!(text(&body, &key), Some(value));
        }
    }
}
