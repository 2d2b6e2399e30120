//! The signature of the Standard Webhooks specification: HMAC-SHA256 of id, time and body.

use std::fmt;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sluicegate_core::{Code, Error, Result};

use crate::secret::Secret;

/// Bytes that a key may have, as the specification says.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// With or without `=` at the end, as the specification's libraries read it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The keys of a receiver. All of them sign, so that a receiver can go from one to the next without a gap.
#[derive(Clone)]
pub struct Keys(Vec<Hmac<Sha256>>);

impl Keys {
    /// One key, or several with white space between: `whsec_` and base64 as receivers' libraries know it, or the key's bytes as
    /// they are.
    ///
    /// # Errors
    /// [`Code::BadConfig`] where a key is not base64 after `whsec_`, or has not 24 to 64 bytes. No error shows a key.
    pub fn read(secret: &Secret) -> Result<Self> {
        let keys: Vec<_> = secret.expose().split_whitespace().map(key).collect::<Result<_>>()?;
        if keys.is_empty() {
            return Err(bad("the secret of a webhook is empty".to_owned()));
        }
        Ok(Self(keys))
    }

    /// The value of `webhook-signature` for an attempt at this time, in seconds since 1970.
    pub fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let sign = |key: &Hmac<Sha256>| {
            let mut mac = key.clone();
            mac.update(format!("{id}.{seconds}.").as_bytes());
            mac.update(body);
            format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

fn key(text: &str) -> Result<Hmac<Sha256>> {
    let bytes = match text.strip_prefix("whsec_") {
        Some(coded) => {
            BASE64.decode(coded).map_err(|_| bad("the secret of a webhook is not base64 after `whsec_`".to_owned()))?
        }
        None => text.as_bytes().to_vec(),
    };
    if !LENGTH.contains(&bytes.len()) {
        let (least, most, got) = (LENGTH.start(), LENGTH.end(), bytes.len());
        let how = "printf 'whsec_%s' \"$(openssl rand -base64 32)\"";
        return Err(bad(format!("the secret of a webhook has {got} bytes and is to have {least} to {most}; `{how}` makes one")));
    }
    Hmac::new_from_slice(&bytes).map_err(|error| bad(format!("the secret of a webhook cannot be used: {error}")))
}

fn bad(message: String) -> Error {
    Error::new(Code::BadConfig, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(text: &str) -> Keys {
        Keys::read(&Secret::new(text)).expect("a key")
    }

    /// The example of the specification's own libraries, and one of RFC 4231 (its case 3 has a key that is too short here).
    #[test]
    fn signatures_are_those_of_the_specification() {
        let keys = keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature = keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_key_is_the_same_in_base64_with_and_without_padding_and_as_it_is() {
        let plain = "0123456789abcdef0123456789";
        let coded = BASE64_STANDARD.encode(plain);
        let sign = |text: &str| keys(text).sign("a", 1, b"{}");
        assert!(coded.ends_with('='));
        assert_eq!(sign(plain), sign(&format!("whsec_{coded}")));
        assert_eq!(sign(plain), sign(&format!("whsec_{}", coded.trim_end_matches('='))));
    }

    #[test]
    fn a_receiver_finds_its_key_while_keys_change() {
        let (old, new) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "0123456789abcdef0123456789");
        let both = keys(&format!("{new}\n{old}\n")).sign("a", 1, b"{}");
        assert_eq!(both, format!("{} {}", keys(new).sign("a", 1, b"{}"), keys(old).sign("a", 1, b"{}")));
    }

    #[test]
    fn a_key_that_cannot_sign_is_refused_and_not_shown() {
        for text in ["", " \n", "whsec_", "whsec_?", "short-s3cret", "whsec_czNjcmV0", &"s3cret".repeat(11)] {
            let error = Keys::read(&Secret::new(text)).expect_err(text);
            assert_eq!(error.code(), Code::BadConfig);
            assert!(!error.to_string().contains("s3cret") && !error.to_string().contains("czNjcmV0"), "{error}");
        }
        assert_eq!(format!("{:?}", keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")), "Keys(1)");
    }

    proptest! {
        #[test]
        fn another_id_time_or_body_has_another_signature(id in "[a-z0-9_-]{1,20}", at in 0..u64::MAX - 1, body: Vec<u8>) {
            let keys = keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
            let signature = keys.sign(&id, at, &body);
            prop_assert_eq!(&signature, &keys.sign(&id, at, &body));
            prop_assert_ne!(&signature, &keys.sign(&format!("{id}a"), at, &body));
            prop_assert_ne!(&signature, &keys.sign(&id, at + 1, &body));
            prop_assert_ne!(&signature, &keys.sign(&id, at, &[&*body, b" "].concat()));
        }
    }
}
