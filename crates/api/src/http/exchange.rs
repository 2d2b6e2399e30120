//! One request on its way through: what every route that asks a model does before its decoding and after its encoding.

use std::borrow::Cow;
use std::time::Instant;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Body;
use sluicegate_codec::sticky;
use sluicegate_core::split::Asker;
use sluicegate_core::{Code, Error, ModelRef, Result, Trace};
use sluicegate_gateway::{Permit, Routed, meter};
use sluicegate_registry::Live;

use super::answer::{self, Dialect, Head};
use super::{Api, body, caching};

/// Most bytes of JSON that are read or written on a serving thread: about half a millisecond, as for a run
/// ([`Execution::CHEAP`](sluicegate_batch::Execution::CHEAP)).
const SHORT: usize = 256 * 1024;

/// Reads or writes so many bytes of JSON: where they are few on this thread, else on one where nobody else waits.
///
/// # Errors
/// [`Code::Internal`] where the work panicked.
pub async fn aside<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if bytes <= SHORT {
        return work();
    }
    let failed = |error| Error::new(Code::Internal, format!("a body of {bytes} bytes: {error}"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(error)))
}

/// Takes an exchange to its answer: by its version, and once more by stable where a candidate fails.
macro_rules! through {
    ($api:expr, $exchange:ident, $run:expr) => {{
        let mut exchange = $exchange;
        let $exchange = &exchange;
        let mut outcome = $run;
        if exchange.falls_back($api, &outcome) {
            let $exchange = &exchange;
            outcome = $run;
        }
        exchange.leave(outcome)
    }};
}
pub(super) use through;

/// A request that has room, a body, and a version to answer it.
pub struct Exchange {
    /// What its head says of the answer.
    pub head: Head,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, decompressed.
    pub content: Bytes,
    /// The version that answers.
    pub routed: Routed,
    dialect: Dialect,
}

/// A request that has room and a body. It has no version yet.
pub struct Arrived {
    /// What its head says of the answer.
    pub head: Head,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, decompressed.
    pub content: Bytes,
    permit: Permit,
    dialect: Dialect,
    trace: Option<Trace>,
}

impl Arrived {
    /// Takes a request in: room first, then its body.
    ///
    /// # Errors
    /// The answer to a request that had no room or no whole body.
    pub async fn take<B>(api: &Api, dialect: Dialect, request: Request<B>) -> Result<Self, Response>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let (mut parts, content) = request.into_parts();
        let head = Head::of(&parts.headers);
        let taken = async {
            let permit = api.gateway.admit()?;
            let content = body::read(&parts.headers, content, api.body).await.inspect_err(meter::unrouted)?;
            Ok((permit, content))
        };
        match taken.await {
            Ok((permit, content)) => {
                Ok(Self { head, headers: parts.headers, content, permit, dialect, trace: parts.extensions.remove() })
            }
            Err(error) => Err(answer::error(dialect, &head, &error)),
        }
    }

    /// Answers with an error, and counts it.
    pub fn refuse(self, error: &Error) -> Response {
        meter::unrouted(error);
        answer::error(self.dialect, &self.head, error)
    }

    /// Finds the version that answers, by what the request says of who asks.
    ///
    /// # Errors
    /// The answer to a request for which there is none.
    pub async fn route(self, api: &Api, target: Result<ModelRef<'_>>) -> Result<Exchange, Response> {
        let Self { head, headers, content, permit, dialect, trace } = self;
        let asker = Sent { head: &head, headers: &headers, content: &content };
        let routed = async { api.gateway.route(permit, trace, &target.inspect_err(meter::unrouted)?, &asker).await };
        match routed.await {
            Ok(routed) => Ok(Exchange { head, headers, content, routed, dialect }),
            Err(error) => Err(answer::error(dialect, &head, &error)),
        }
    }
}

/// An answer that is encoded.
pub struct Answer {
    /// What it is.
    pub content_type: HeaderValue,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Exchange {
    /// Asks the model: `read` decodes the body, and keeps what `write` has to know of it to encode the answer.
    ///
    /// # Errors
    /// Those of both, and of [`Gateway::infer`](sluicegate_gateway::Gateway::infer).
    pub async fn ask<T: Send + 'static>(
        &self,
        api: &Api,
        read: impl FnOnce(&Live, &[u8]) -> Result<(sluicegate_core::Request, T)> + Send + 'static,
        write: impl FnOnce(&Live, &sluicegate_core::Response, T) -> Result<Answer> + Send + 'static,
    ) -> Result<Response> {
        let live = self.routed.live();
        self.routed.look()?;
        let (version, content) = (live.clone(), self.content.clone());
        let (mut request, kept) = aside(content.len(), move || read(&version, &content)).await?;
        request.reuse = caching::asked(&self.headers);
        self.routed.decoded();
        let response = api.gateway.infer(&self.routed, request).await?;
        let encoding = Instant::now();
        let (version, cached) = (live.clone(), response.cached);
        let Answer { content_type, body } = aside(response.payload(), move || write(&version, &response, kept)).await?;
        let mut answer = answer::respond(&self.head, StatusCode::OK, content_type, body);
        caching::tell(&mut answer, cached);
        self.routed.encoded(encoding);
        Ok(answer)
    }

    /// Takes a request in: room first, then its body, then a version. A refusal is an answer.
    ///
    /// # Errors
    /// The answer to a request that had no room, no whole body, or no version.
    pub async fn enter<B>(
        api: &Api,
        dialect: Dialect,
        target: Result<ModelRef<'_>>,
        request: Request<B>,
    ) -> Result<Self, Response>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        // Also for a model that is not there: a caller who still sends would not read the answer.
        Arrived::take(api, dialect, request).await?.route(api, target).await
    }

    /// Turns to stable, where a candidate failed so and that is not for the caller to see.
    pub fn falls_back(&mut self, api: &Api, outcome: &Result<Response>) -> bool {
        outcome.as_ref().is_err_and(|error| api.gateway.falls_back(&mut self.routed, error))
    }

    /// Counts what became of it, and says which version it was.
    pub fn leave(self, outcome: Result<Response>) -> Response {
        let (live, variant) = (self.routed.live().clone(), self.routed.variant());
        let mut response = match outcome {
            Ok(response) => {
                self.routed.answered();
                response
            }
            Err(error) => {
                self.routed.failed(&error);
                answer::error(self.dialect, &self.head, &error)
            }
        };
        answer::sign(&mut response, &live);
        answer::sign_variant(response.headers_mut(), variant);
        response
    }
}

/// The value of a header, by its name in lower case. A map that is asked by text reads and hashes it, which takes longer than a look at the
/// few that there are.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value.as_bytes())
}

/// What a request says of who asks.
struct Sent<'a> {
    head: &'a Head,
    headers: &'a HeaderMap,
    content: &'a [u8],
}

impl Asker for Sent<'_> {
    fn chosen(&self) -> Option<&[u8]> {
        self.head.chosen.as_ref().map(HeaderValue::as_bytes)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        header(self.headers, name)
    }

    fn field(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        sticky::field(self.json(), name)
    }

    fn parameter(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        sticky::field(&sticky::field(self.json(), "parameters")?, name).map(|value| value.into_owned().into())
    }
}

impl Sent<'_> {
    /// The JSON of the body: its head, where raw tensors follow.
    fn json(&self) -> &[u8] {
        let length = self.headers.get(answer::HEADER_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        length.and_then(|length| self.content.get(..length)).unwrap_or(self.content)
    }
}
