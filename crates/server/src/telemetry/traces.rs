//! Which requests are traced, and what is kept of each: its span as a server has it, from its head to the end of its answer.
//!
//! In reading order: [`Tracer`] (which), [`Traced`] (what is kept), `queue` (bounded, on its way to a thread that sends), `send` (to a
//! receiver, over HTTP or gRPC), `convention` (what it is called), `otlp` and `wire` (the messages). What happens within a request is
//! told by `sluicegate_gateway` and `_batch`.

mod convention;
mod otlp;
mod queue;
mod send;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, header};
use sluicegate_api::grpc::Grpc;
use sluicegate_api::http::answer::REQUEST_ID;
use sluicegate_core::trace::{Asked, Place, Span, Trace, TraceParent};
use sluicegate_core::{Code, Error, Result};

use crate::config::otel::{Otel, Sampler};
use queue::Queue;
use send::Sender;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Longest text of a caller's that is kept, in bytes: a path, a name.
const MAX_TEXT: usize = 256;

/// Decides which requests are traced.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    queue: Arc<Queue>,
}

/// The thread that sends.
pub struct Exporter {
    queue: Arc<Queue>,
    thread: std::thread::JoinHandle<()>,
}

/// Starts what tells traces, where a receiver is named. It must be called within a runtime. All paths are below `root`.
///
/// # Errors
/// [`Code::BadConfig`] for an address that cannot be one, [`Code::Io`] where the machine gives no thread.
pub fn start(otel: &Otel, root: &str) -> Result<Option<(Arc<Tracer>, Exporter)>> {
    let Some(traces) = &otel.traces else { return Ok(None) };
    let queue = Arc::new(Queue::new(traces));
    let sender = Sender::new(otel, traces, root, queue.clone())?;
    let thread = std::thread::Builder::new().name("traces".into()).spawn(move || sender.run());
    let thread = thread.map_err(|error| Error::new(Code::Io, format!("no thread to send traces: {error}")))?;
    let tracer = Tracer { sampler: traces.sampler, queue: queue.clone() };
    tracing::info!(receiver = %traces.address, protocol = ?traces.protocol, ratio = traces.sampler.ratio, "traces are sent");
    Ok(Some((Arc::new(tracer), Exporter { queue, thread })))
}

impl Exporter {
    /// Sends what waits, for a few seconds at the most, and ends.
    pub async fn end(self) {
        self.queue.close();
        let _ = tokio::time::timeout(LAST, tokio::task::spawn_blocking(move || self.thread.join())).await;
    }
}

impl Tracer {
    /// Begins the span of a request, where it is to be traced: what asks a model, and not who looks whether all is well.
    pub fn begin<B>(&self, request: &mut Request<B>) -> Option<Box<Traced>> {
        let is_call = Grpc::is_call(request);
        if *request.method() != Method::POST || is_call && !request.uri().path().ends_with("Infer") {
            return None;
        }
        let headers = request.headers();
        // A look at all costs less than one by hash, and nearly every request is asked and not traced.
        let mut told = headers.iter().filter(|(name, _)| **name == TRACEPARENT);
        let parent = told.next().filter(|_| told.next().is_none()).and_then(|(_, header)| TraceParent::parse(header.as_bytes()));
        let place = parent.map_or_else(Place::new, |parent| parent.place.sibling());
        if !self.sampler.takes(place.trace, parent.map(|parent| parent.sampled)) {
            return None;
        }
        let state = parent.and_then(|_| headers.get(TRACESTATE)?.to_str().ok());
        let trace = Trace::new(self.queue.clone(), place, parent, state);
        let asked = Asked {
            is_call,
            version: if request.version() == Version::HTTP_2 { "2" } else { "1.1" },
            path: short(request.uri().path()),
            agent: text(headers.get(header::USER_AGENT)),
            ..Asked::default()
        };
        let header = HeaderValue::from_bytes(&trace.header().header()).ok();
        // Who logs says this place, and not the caller's.
        if let Some(header) = header.clone() {
            request.headers_mut().insert(TRACEPARENT, header);
        }
        request.extensions_mut().insert(trace.clone());
        Some(Box::new(Traced { trace, header, began: Instant::now(), asked: Some(Box::new(asked)) }))
    }
}

fn short(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(MAX_TEXT)].into()
}

fn text(header: Option<&HeaderValue>) -> Option<Box<str>> {
    header?.to_str().ok().map(short)
}

/// A request that is traced. Its span ends with it.
pub struct Traced {
    trace: Trace,
    /// Its place, as callers are told.
    header: Option<HeaderValue>,
    began: Instant,
    /// Until the drop.
    asked: Option<Box<Asked>>,
}

impl Traced {
    /// Tells of an answer's head, and the caller of the trace.
    pub fn answered<B>(&mut self, answer: &mut Response<B>) {
        let status = answer.status().as_u16();
        let headers = answer.headers_mut();
        if let Some(header) = self.header.take() {
            headers.insert(TRACEPARENT, header);
        }
        let Some(asked) = &mut self.asked else { return };
        asked.id = text(headers.get(REQUEST_ID));
        if asked.is_call {
            self.trailed(answer.headers());
        } else {
            asked.status = Some(status.into());
        }
    }

    /// Tells of what follows its body.
    pub fn trailed(&mut self, trailers: &HeaderMap) {
        if let (Some(asked), Some(said)) = (&mut self.asked, trailers.get(GRPC_STATUS))
            && asked.is_call
        {
            asked.status = said.to_str().ok().and_then(|said| said.parse().ok());
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.trace.end(Span { asked: self.asked.take(), ..Span::new("", self.began, Instant::now()) });
    }
}

/// How long the end waits for a receiver.
const LAST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
