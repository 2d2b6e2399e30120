//! Which requests are traced, and what is said of each: its span as a server has it, from its head to the end of its answer.
//!
//! In reading order: [`Tracer`] (which), [`Traced`] (what is said), `queue` (bounded, on its way to a thread that sends), `send` (to a
//! receiver, over HTTP or gRPC), `otlp` (the messages). What happens within a request is told by `sluicegate_gateway` and `_batch`.

mod otlp;
mod queue;
mod send;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, header};
use sluicegate_api::grpc::Grpc;
use sluicegate_api::http::answer::REQUEST_ID;
use sluicegate_core::trace::{CODE, ERROR_TYPE, Kind, Place, Span, Trace, TraceParent, Value};
use sluicegate_core::{Code, Error, Result};

use crate::config::otel::{Otel, Sampler};
use queue::Queue;
use send::Sender;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Longest text of a caller's that is told, in bytes.
const MAX_TEXT: usize = 256;

/// Decides which requests are traced.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    queue: Arc<Queue>,
    /// The path before all others.
    root: String,
}

/// The thread that sends.
pub struct Exporter {
    queue: Arc<Queue>,
    thread: std::thread::JoinHandle<()>,
}

/// Starts what tells traces, where a receiver is named. It must be called within a runtime.
///
/// # Errors
/// [`Code::BadConfig`] for an address that cannot be one, [`Code::Io`] where the machine gives no thread.
pub fn start(otel: &Otel, root: &str) -> Result<Option<(Arc<Tracer>, Exporter)>> {
    let Some(traces) = &otel.traces else { return Ok(None) };
    let queue = Arc::new(Queue::new(traces));
    let sender = Sender::new(otel, traces, queue.clone())?;
    let thread = std::thread::Builder::new().name("traces".into()).spawn(move || sender.run());
    let thread = thread.map_err(|error| Error::new(Code::Io, format!("no thread to send traces: {error}")))?;
    let tracer = Tracer { sampler: traces.sampler, queue: queue.clone(), root: root.to_owned() };
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
        let version = if request.version() == Version::HTTP_2 { "2" } else { "1.1" };
        trace.say("network.protocol.version", version);
        if let Some(agent) = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()) {
            trace.say("user_agent.original", short(agent));
        }
        let path = request.uri().path();
        let what = if is_call {
            trace.say("rpc.system.name", "grpc");
            let method = path.trim_start_matches('/').to_owned();
            trace.say("rpc.method", method.clone());
            What::Call { method, status: None }
        } else {
            trace.say("http.request.method", "POST");
            trace.say("url.path", short(path));
            trace.say("url.scheme", "http");
            What::Request { route: self.route(path), status: None }
        };
        let header = HeaderValue::from_str(&trace.header()).ok();
        // Who logs says this place, and not the caller's.
        if let Some(header) = header.clone() {
            request.headers_mut().insert(TRACEPARENT, header);
        }
        request.extensions_mut().insert(trace.clone());
        Some(Box::new(Traced { trace, header, began: Instant::now(), what }))
    }

    /// A path with names in the places of models and versions, so that there are few.
    fn route(&self, path: &str) -> String {
        let rest = path.strip_prefix(self.root.as_str()).unwrap_or(path);
        let mut route = path[..path.len() - rest.len()].to_owned();
        let mut before = "";
        for (place, part) in rest.split('/').enumerate() {
            if place > 0 {
                route.push('/');
            }
            let verb = part.find(':').map_or("", |at| &part[at..]);
            match before {
                "models" => route.extend(["{model}", verb]),
                "versions" => route.extend(["{version}", verb]),
                "labels" => route.extend(["{label}", verb]),
                _ => route.push_str(part),
            }
            before = part;
        }
        route
    }
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

/// A request that is traced. Its span ends with it.
pub struct Traced {
    trace: Trace,
    /// Its place, as callers are told.
    header: Option<HeaderValue>,
    began: Instant,
    what: What,
}

enum What {
    Request { route: String, status: Option<u16> },
    Call { method: String, status: Option<i32> },
}

impl Traced {
    /// Tells of an answer's head, and the caller of the trace.
    pub fn answered<B>(&mut self, answer: &mut Response<B>) {
        let http = answer.status().as_u16();
        let headers = answer.headers_mut();
        if let Some(header) = self.header.take() {
            headers.insert(TRACEPARENT, header);
        }
        if let Some(id) = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()) {
            self.trace.say("sluicegate.request.id", id.to_owned());
        }
        match &mut self.what {
            What::Request { status, .. } => *status = Some(http),
            What::Call { .. } => self.trailed(answer.headers()),
        }
    }

    /// Tells of what follows its body.
    pub fn trailed(&mut self, trailers: &HeaderMap) {
        if let (What::Call { status, .. }, Some(said)) = (&mut self.what, trailers.get(GRPC_STATUS)) {
            *status = said.to_str().ok().and_then(|said| said.parse().ok());
        }
    }

    /// The span's name, what is said of its end, and whether that was a failure.
    fn ended(&self) -> (String, Option<(&'static str, Value)>, bool) {
        match &self.what {
            What::Request { route, status } => {
                let is_route = !matches!(status, None | Some(404 | 405));
                let name = if is_route { format!("POST {route}") } else { "POST".to_owned() };
                let said = status.map(|status| ("http.response.status_code", Value::Number(status.into())));
                if is_route {
                    self.trace.say("http.route", route.clone());
                }
                (name, said, status.is_none_or(|status| status >= 500))
            }
            What::Call { method, status } => {
                let code = status.map(tonic::Code::from_i32);
                let said = code.map(|code| ("rpc.response.status_code", name(code).into()));
                // Of these the server is to blame, as the conventions have it.
                use tonic::Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
                let blamed = [Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable, DataLoss];
                (method.clone(), said, code.is_none_or(|code| blamed.contains(&code)))
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let (name, said, failed) = self.ended();
        if failed {
            let known = self.trace.said().into_iter().find(|(name, _)| *name == CODE).map(|(_, code)| code);
            let status = said.as_ref().map(|(_, status)| match status {
                Value::Number(number) => Value::from(number.to_string()),
                text => text.clone(),
            });
            self.trace.say(ERROR_TYPE, known.or(status).unwrap_or_else(|| Code::Cancelled.name().into()));
        }
        let span = Span::new(self.trace.place(), name, self.began, Instant::now()).with(said);
        self.trace.end(Span { kind: Kind::Server, failed, ..span });
    }
}

/// A status as gRPC names it.
fn name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// How long the end waits for a receiver.
const LAST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
