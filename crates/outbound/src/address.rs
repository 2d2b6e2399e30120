//! The address of a server that is asked: `http` or `https`, with a name and a password where it needs them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use percent_encoding::percent_decode_str;
use sluicegate_core::{Code, Error, Result};

use crate::secret::Secret;

/// Where a server is. It prints as its origin alone: paths and queries of webhooks often are secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Without a name and a password.
    uri: Uri,
    /// The value of `authorization`.
    basic: Option<Secret>,
}

impl Address {
    /// Where it is, without a name and a password. Not for logs.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The value of `authorization` where the address has a name and a password.
    pub fn basic(&self) -> Option<&Secret> {
        self.basic.as_ref()
    }

    /// The host's name, for labels.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// This address with another path below its own.
    pub fn below(&self, path: &str) -> Self {
        let text = format!("{self}{}{path}", self.uri.path().trim_end_matches('/'));
        let uri = Uri::from_str(&text).expect("an address and a path of letters are an address");
        Self { uri, basic: self.basic.clone() }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let example = "an address is as in `https://hooks.example.org/models`";
        // What was said is in no error: it may hold a password.
        let bad = |what: &str| Error::new(Code::BadConfig, format!("{what}; {example}"));
        let given = text.parse::<Uri>().map_err(|error| bad(&format!("an address cannot be read ({error})")))?;
        if !matches!(given.scheme_str(), Some("http" | "https")) {
            return Err(bad("an address begins with neither `https://` nor `http://`"));
        }
        let authority = given.authority().map_or("", |authority| authority.as_str());
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        if given.host().is_none_or(str::is_empty) {
            return Err(bad("an address names no host"));
        }
        let path = given.path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme(given.scheme_str().unwrap_or_default()).authority(host).path_and_query(path).build();
        let uri = uri.map_err(|error| bad(&format!("an address cannot be read ({error})")))?;
        let basic = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let plain = [percent_decode_str(name).collect(), vec![b':'], percent_decode_str(password).collect()].concat();
            Secret::new(&format!("Basic {}", BASE64_STANDARD.encode(plain)))
        });
        Ok(Self { uri, basic })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        write!(f, "{}://{authority}", self.uri.scheme_str().unwrap_or_default())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self}/…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_prints_neither_password_nor_path() {
        let address: Address = "https://me:s%40fe@hooks.example.org:8443/T0K3N?key=K3Y".parse().expect("an address");
        assert_eq!(address.to_string(), "https://hooks.example.org:8443");
        assert_eq!(format!("{address:?}"), "Address(https://hooks.example.org:8443/…)");
        assert_eq!(address.uri().to_string(), "https://hooks.example.org:8443/T0K3N?key=K3Y");
        assert_eq!(address.basic().map(Secret::expose), Some("Basic bWU6c0BmZQ=="), "me:s@fe");
        assert_eq!(address.host(), "hooks.example.org");
    }

    #[test]
    fn a_path_goes_below_that_of_a_proxy() {
        let below = |text: &str| text.parse::<Address>().expect("an address").below("/api/v1/query").uri().to_string();
        assert_eq!(below("http://localhost:9090"), "http://localhost:9090/api/v1/query");
        assert_eq!(below("http://localhost:9090/"), "http://localhost:9090/api/v1/query");
        assert_eq!(below("http://[::1]:9090/prometheus/"), "http://[::1]:9090/prometheus/api/v1/query");
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example_and_not_repeated() {
        for text in ["", "hooks.example.org/s3cret", "/s3cret", "ftp://s3cret", "http://", "http:///s3cret", "http://s3cret:x y"]
        {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains("an address ") && error.contains("https://hooks.example.org/models"), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{text}: {error}");
        }
        assert!("http://:80/".parse::<Address>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_an_address_fail_badly(text in "(https?://)?[ -~]{0,40}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert!(!address.to_string().contains('@'));
                prop_assert!(address.below("/api/v1/query").uri().path().ends_with("/api/v1/query"));
            }
        }
    }
}
