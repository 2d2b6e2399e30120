//! One HTTP client for all that is asked: no redirects, no proxy, the machine's own trusted certificates.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::HeaderMap;
use rustls::crypto::ring;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, Resolver};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Error};

use crate::address::Address;
use crate::names::Names;

/// Why there is no answer.
pub struct Failure {
    /// What was expected, what came, and what to change.
    pub why: String,
    /// Whether the same request may have an answer later.
    pub may_pass: bool,
}

/// An answer that came.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Its beginning, where it is longer than was asked for. It may fail after a status that came well.
    pub(crate) body: Result<Vec<u8>, Failure>,
}

/// What is sent.
pub(crate) struct Post<'a> {
    pub(crate) address: &'a Address,
    pub(crate) headers: &'a [(&'a str, String)],
    pub(crate) body: &'a [u8],
    /// For all of it, from the name's lookup to the answer's end.
    pub(crate) timeout: Duration,
    /// Most bytes of the answer that are read.
    pub(crate) most: usize,
    /// Whether the connection is kept for the next.
    pub(crate) again: bool,
}

/// For what is asked once in seconds or less often, which has no use for connections that wait.
static ONCE: LazyLock<Agent> = LazyLock::new(|| agent(0, DefaultResolver::default()));

/// For what is told again and again.
static AGAIN: LazyLock<Agent> = LazyLock::new(|| agent(1, &*NAMES));
static NAMES: LazyLock<Names> = LazyLock::new(Names::default);

/// A redirect could lead what was signed, or the password, to a stranger; a proxy would come from the environment, which is read
/// elsewhere.
fn agent(kept: usize, resolver: impl Resolver) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .max_idle_connections(kept)
        .user_agent(concat!("sluicegate/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    Agent::with_parts(config, DefaultConnector::default(), resolver)
}

impl Post<'_> {
    /// Sends it and waits for the answer.
    pub(crate) fn send(&self) -> Result<Answer, Failure> {
        let mut request = if self.again { &AGAIN } else { &ONCE }.post(self.address.uri());
        for (name, value) in self.headers {
            request = request.header(*name, value);
        }
        if let Some(basic) = self.address.basic() {
            request = request.header("authorization", basic.expose());
        }
        let request = request.config().timeout_global(Some(self.timeout)).build();
        let response = request.send(self.body).map_err(|error| {
            NAMES.forget();
            self.failure(&error)
        })?;
        let (head, body) = response.into_parts();
        let body = read(body, self.most).map_err(|error| self.failure(&error));
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    fn failure(&self, error: &Error) -> Failure {
        let (address, within) = (self.address, self.timeout);
        let why = match (error, tls(error)) {
            (Error::Timeout(_), _) => {
                format!("{address} did not answer within {within:?}; look whether it is up, or give it a longer `timeout`")
            }
            (_, Some(rustls::Error::InvalidCertificate(why))) => format!(
                "{address} shows a certificate that is not trusted ({why}); add its authority to this machine's certificates, or \
                 write the host as the certificate does"
            ),
            (_, Some(why)) => format!("{address} does not speak TLS: {why}; look whether its address begins with `http://`"),
            (Error::Io(why), None) => {
                format!("{address} cannot be reached: {why}; look at the address and whether its server is up")
            }
            (other, None) => format!("{address} does not speak HTTP as it should: {other}; look at the address"),
        };
        Failure { why, may_pass: !matches!(error, Error::Http(_) | Error::BadUri(_)) }
    }
}

/// What went wrong below HTTP; it comes as an error of the connection.
fn tls(error: &Error) -> Option<&rustls::Error> {
    match error {
        Error::Rustls(error) => Some(error),
        Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    }
}

/// The body's first `most` bytes.
fn read(body: ureq::Body, most: usize) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = body.into_reader().take(most as u64).read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(Error::from)
}
