//! Which variant of a rollout answers a request: a pure function of the rollout, the caller's key and the candidate's share.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A part that a version plays in a rollout, for those who call the model without a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// What answered before.
    Stable,
    /// What is to answer after.
    Candidate,
}

impl Variant {
    /// As it is told to callers and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Candidate => "candidate",
        }
    }
}

/// A share of all requests, in millionths: what `5%` and `0.1%` are written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share(u32);

impl Share {
    /// No request.
    pub const NONE: Self = Self(0);
    /// Every request.
    pub const ALL: Self = Self(Self::WHOLE);
    const WHOLE: u32 = 1_000_000;

    /// So many millionths; more than all is all.
    pub fn millionths(millionths: u32) -> Self {
        Self(millionths.min(Self::WHOLE))
    }

    /// The share as a number from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    /// Whether a request with this lot is within it.
    pub fn covers(self, lot: Lot) -> bool {
        lot.0 < self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 10_000, self.0 % 10_000);
        if part == 0 {
            return write!(f, "{whole}%");
        }
        let part = format!("{part:04}");
        write!(f, "{whole}.{}%", part.trim_end_matches('0'))
    }
}

impl FromStr for Share {
    type Err = String;

    /// Reads `5%`, `0.1%`, `100%`: at most four digits after the point, and never above 100 %.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a share from 0% to 100% with at most four decimals, as 5% or 0.5%, got `{text}`");
        let number = text.strip_suffix('%').ok_or_else(wrong)?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole, 3) || !digits(part, 4) {
            return Err(wrong());
        }
        let read = |text: &str| text.parse::<u32>().map_err(|_| wrong());
        let millionths = read(whole)? * 10_000 + read(&format!("{part:0<4}"))?;
        if millionths > Self::WHOLE { Err(wrong()) } else { Ok(Self(millionths)) }
    }
}

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> String {
        share.to_string()
    }
}

/// Where a request stands among all: below a share, it belongs to the candidate. Whoever is below 5 % is below 25 %, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lot(u32);

impl Lot {
    /// That of a key in a rollout, the same on every replica: the first 64 bits of the SHA-256 of the rollout's salt, a zero
    /// byte and the key, as a fraction of all that there are. Another salt draws anew.
    pub fn of(salt: &str, key: &[u8]) -> Self {
        let hash = Sha256::new().chain_update(salt).chain_update([0]).chain_update(key).finalize();
        let first: [u8; 8] = std::array::from_fn(|place| hash[place]);
        Self::from_bits(u64::from_be_bytes(first))
    }

    /// That of a request without a key, from random bits.
    pub fn from_bits(bits: u64) -> Self {
        // Below 2^20 after the shift, so it fits.
        Self(((u128::from(bits) * u128::from(Share::WHOLE)) >> 64) as u32)
    }
}

/// Where a caller's key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// In a header; in the metadata, in gRPC.
    Header(String),
    /// In a cookie.
    Cookie(String),
    /// In a field at the top of a JSON body.
    Field(String),
    /// In a parameter of a request of the Open Inference Protocol.
    Parameter(String),
}

/// One who asks, as far as a split has to know. Nothing of it is looked at for a model without a rollout.
pub trait Asker {
    /// The name of the variant that the caller chooses, as it is written there.
    fn chosen(&self) -> Option<&[u8]> {
        None
    }

    /// The value of a header, by its name in lower case; of metadata, in gRPC.
    fn header(&self, name: &str) -> Option<&[u8]>;

    /// The value of a field at the top of a JSON body, as it is written there; a text without its quotes.
    fn field(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>>;

    /// The value of a parameter, as text.
    fn parameter(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>>;

    /// The value of a cookie (RFC 6265, section 4.2.1).
    fn cookie(&self, name: &str) -> Option<&[u8]> {
        let pairs = self.header("cookie")?.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).next()
    }
}

/// One of whom nothing is known: each request is drawn by chance.
pub struct Nobody;

impl Asker for Nobody {
    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn field(&self, _: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        None
    }

    fn parameter(&self, _: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        None
    }
}

impl Sticky {
    /// The lot of one who asks, where there is a key. An empty one is none.
    pub fn lot(&self, salt: &str, asker: &dyn Asker) -> Option<Lot> {
        let of = |key: &[u8]| (!key.is_empty()).then(|| Lot::of(salt, key));
        match self {
            Self::Header(name) => asker.header(name).and_then(of),
            Self::Cookie(name) => asker.cookie(name).and_then(of),
            Self::Field(name) => asker.field(name).as_deref().and_then(of),
            Self::Parameter(name) => asker.parameter(name).as_deref().and_then(of),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(text: &str) -> Share {
        text.parse().expect("a share")
    }

    proptest! {
        #[test]
        fn who_got_the_candidate_keeps_it_as_its_share_grows(key in any::<Vec<u8>>(), one in 0..=1_000_000u32, more in 0..=1_000_000u32) {
            let lot = Lot::of("fraud/sha256:1", &key);
            let (small, large) = (Share::millionths(one.min(more)), Share::millionths(one.max(more)));
            prop_assert!(!small.covers(lot) || large.covers(lot));
            prop_assert!(Share::ALL.covers(lot) && !Share::NONE.covers(lot));
        }

        #[test]
        fn a_share_is_read_as_it_is_written(millionths in 0..=1_000_000u32) {
            let written = Share::millionths(millionths);
            prop_assert_eq!(share(&written.to_string()), written);
        }

        #[test]
        fn any_text_is_a_share_or_a_sentence(text in ".{0,12}") {
            if let Ok(share) = text.parse::<Share>() {
                prop_assert!(share <= Share::ALL);
            }
        }
    }

    #[test]
    fn a_key_has_its_lot_on_every_replica_and_in_every_release() {
        // The first 64 bits of what `printf 'fraud/1\0user-7' | sha256sum` prints.
        let known = Lot::from_bits(0xd68c_81e3_7bca_32a0);
        assert_eq!(Lot::of("fraud/1", b"user-7"), known);
    }

    #[test]
    fn keys_fall_to_the_candidate_as_often_as_its_share_says_and_each_rollout_draws_anew() {
        let users: Vec<String> = (0..200_000).map(|user| format!("user-{user}")).collect();
        let chosen = |salt: &str, share: Share| {
            let within = |user: &String| share.covers(Lot::of(salt, user.as_bytes()));
            users.iter().map(within).collect::<Vec<bool>>()
        };
        let (five, other) = (chosen("fraud/1", share("5%")), chosen("fraud/2", share("5%")));
        let count = |chosen: &[bool]| chosen.iter().filter(|&&is| is).count();
        // 10,000 expected, within four deviations of 97.
        assert!((9_610..=10_390).contains(&count(&five)), "{}", count(&five));
        let both: Vec<bool> = five.iter().zip(&other).map(|(one, other)| *one && *other).collect();
        // 500 expected where the two are independent.
        assert!((410..=590).contains(&count(&both)), "{}", count(&both));
    }

    #[test]
    fn a_cookie_is_found_among_others_and_by_its_whole_name() {
        struct Cookies(&'static str);
        impl Asker for Cookies {
            fn header(&self, name: &str) -> Option<&[u8]> {
                (name == "cookie").then_some(self.0.as_bytes())
            }
            fn field(&self, _: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
                None
            }
            fn parameter(&self, _: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
                None
            }
        }
        assert_eq!(Cookies("a=1; user=ada; b=2").cookie("user"), Some(&b"ada"[..]));
        assert_eq!(Cookies("xuser=1;user=a=b").cookie("user"), Some(&b"a=b"[..]));
        assert_eq!(Cookies("users=1").cookie("user"), None);
        let sticky = Sticky::Cookie("user".to_owned());
        assert_eq!(sticky.lot("s", &Cookies("user=ada")), Some(Lot::of("s", b"ada")));
        assert_eq!(sticky.lot("s", &Cookies("user=")), None);
        assert_eq!(sticky.lot("s", &Nobody), None);
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for bad in ["5", "101%", "-1%", "1.23456%", "%", ".5%", "5.%", "100.0001%", "1e1%"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
        assert_eq!(share("0.5%").to_string(), "0.5%");
        assert_eq!(share("100%"), Share::ALL);
    }
}
