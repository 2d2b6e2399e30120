//! Where a name leads, kept for a while: whoever sends again and again over one connection would look it up each time, by a thread made
//! for that, whose beginning and end hold up those that serve.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Uri;
use parking_lot::Mutex;
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long a name is taken to lead to the same place; as long as Kubernetes' own names are.
const KEPT: Duration = Duration::from_secs(30);

/// The last name and its addresses.
#[derive(Debug, Default)]
pub(crate) struct Names<R = DefaultResolver> {
    resolver: R,
    last: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    uri: Uri,
    addresses: Vec<SocketAddr>,
    until: Instant,
}

impl<R> Names<R> {
    /// Looks the name up again when it is asked for next: nobody may be there any more.
    pub(crate) fn forget(&self) {
        *self.last.lock() = None;
    }
}

impl<R: Resolver> Resolver for &'static Names<R> {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        // The scheme is a port where the address has none.
        let asked = (uri.scheme(), uri.authority());
        let known = |known: &&Known| (known.uri.scheme(), known.uri.authority()) == asked && Instant::now() < known.until;
        if let Some(Known { addresses, .. }) = self.last.lock().as_ref().filter(known) {
            let mut found = self.empty();
            addresses.iter().for_each(|address| found.push(*address));
            return Ok(found);
        }
        let found = self.resolver.resolve(uri, config, timeout)?;
        *self.last.lock() = Some(Known { uri: uri.clone(), addresses: found.to_vec(), until: Instant::now() + KEPT });
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

    use super::*;

    /// Another address each time.
    #[derive(Debug, Default)]
    struct Moving(AtomicU16);

    impl Resolver for Moving {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
            let mut found = self.empty();
            found.push(([127, 0, 0, 1], self.0.fetch_add(1, Relaxed)).into());
            Ok(found)
        }
    }

    #[test]
    fn a_name_is_looked_up_once_until_another_one_is_asked_for_or_its_server_failed() {
        let names: &'static Names<Moving> = Box::leak(Box::default());
        let port = |uri: &'static str| {
            let timeout = NextTimeout { after: KEPT.into(), reason: ureq::Timeout::Resolve, per_read: None, per_write: None };
            names.resolve(&Uri::from_static(uri), &Config::default(), timeout).expect("an address")[0].port()
        };
        assert_eq!([port("http://a/v1/traces"), port("http://a/v1/logs"), port("https://a/v1/logs")], [0, 0, 1]);
        assert_eq!([port("http://b/"), port("http://b:81/")], [2, 3]);
        names.forget();
        assert_eq!([port("http://b:81/"), port("http://b:81/")], [4, 4]);
    }
}
