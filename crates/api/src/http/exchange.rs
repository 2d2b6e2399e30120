//! One request on its way through: what every route that asks a model does before its decoding and after its encoding.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Body;
use sluicegate_core::{Code, Error, ModelRef, Result};
use sluicegate_gateway::{Routed, meter};

use super::answer::{self, Dialect, Head};
use super::{Api, body};

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

impl Exchange {
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
        let (parts, content) = request.into_parts();
        let head = Head::of(&parts.headers);
        let entered = async {
            let permit = api.gateway.admit()?;
            // Also for a model that is not there: a caller who still sends would not read the answer.
            let content = body::read(&parts.headers, content, api.body).await.inspect_err(meter::unrouted)?;
            let target = target.inspect_err(meter::unrouted)?;
            Ok((content, api.gateway.route(permit, &target)?))
        };
        match entered.await {
            Ok((content, routed)) => Ok(Self { head, headers: parts.headers, content, routed, dialect }),
            Err(error) => Err(answer::error(dialect, &head, &error)),
        }
    }

    /// Counts what became of it, and says which version it was.
    pub fn leave(self, outcome: Result<Response>) -> Response {
        let live = self.routed.live().clone();
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
        response
    }
}
