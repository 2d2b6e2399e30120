//! Spans as messages of OTLP.

use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use prost::Message;
use sluicegate_core::trace::{Kind, Span, Value};
use sluicegate_proto::otlp::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use sluicegate_proto::otlp::opentelemetry::proto::resource::v1 as resource;
use sluicegate_proto::otlp::opentelemetry::proto::trace::v1 as otlp;

use crate::config::otel::Otel;
use crate::telemetry::process::VERSION;

/// Flags of a span and of a link: sampled, that it is known where the other one is, and whether it is another process's.
const SAMPLED: u32 = 1;
const HAS_REMOTE: u32 = 1 << 8;
const REMOTE: u32 = 1 << 9;

/// Who tells.
pub(super) struct Resource(resource::Resource);

impl Resource {
    pub(super) fn of(otel: &Otel) -> Self {
        let own = [
            ("service.name", otel.service.clone()),
            ("service.version", VERSION.to_owned()),
            ("telemetry.sdk.name", "sluicegate".to_owned()),
            ("telemetry.sdk.language", "rust".to_owned()),
            ("telemetry.sdk.version", VERSION.to_owned()),
        ];
        let said = otel.attributes.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let own = own.into_iter().filter(|(name, _)| otel.attributes.iter().all(|(said, _)| said != name));
        let attributes = own.chain(said).map(|(name, value)| attribute(name, value.into())).collect();
        Self(resource::Resource { attributes, ..resource::Resource::default() })
    }

    /// Spans as they are sent.
    pub(super) fn request(&self, spans: Vec<Bytes>) -> Request {
        let scope = InstrumentationScope { name: "sluicegate".to_owned(), version: VERSION.to_owned(), ..Default::default() };
        let scope_spans = Some(ScopeSpans { scope: Some(scope), spans });
        Request { resource_spans: Some(ResourceSpans { resource: Some(self.0.clone()), scope_spans }) }
    }
}

/// `ExportTraceServiceRequest` with spans that are encoded already: a message within another one is on the wire as bytes are.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, optional, tag = "1")]
    resource_spans: Option<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<resource::Resource>,
    #[prost(message, optional, tag = "2")]
    scope_spans: Option<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
}

/// Room for the spans of a common trace.
const ROOM: usize = 2048;

/// Each span as the message that it is sent as.
pub(super) fn encoded(spans: Vec<Span>) -> Vec<Bytes> {
    // Spans have a clock that only goes forwards; where that stands now, the wall's clock says.
    let (now, wall) = (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let time = |at: Instant| {
        let since = wall.saturating_sub(now.saturating_duration_since(at)) + at.saturating_duration_since(now);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    };
    let mut all = BytesMut::with_capacity(ROOM);
    let encode = |span| {
        // A buffer in memory grows as it has to.
        let _ = message(span, &time).encode(&mut all);
        all.split().freeze()
    };
    spans.into_iter().map(encode).collect()
}

fn message(span: Span, time: &impl Fn(Instant) -> u64) -> otlp::Span {
    let Span { place, parent, is_parent_remote, state, name, kind, began, ended, attributes, links, failed } = span;
    let link = |place: sluicegate_core::trace::Place| otlp::span::Link {
        trace_id: trace_id(place.trace),
        span_id: span_id(place.span),
        flags: SAMPLED | HAS_REMOTE,
        ..Default::default()
    };
    let kind = match kind {
        Kind::Server => otlp::span::SpanKind::Server,
        Kind::Internal => otlp::span::SpanKind::Internal,
    };
    let code = if failed { otlp::status::StatusCode::Error } else { otlp::status::StatusCode::Unset };
    otlp::Span {
        trace_id: trace_id(place.trace),
        span_id: span_id(place.span),
        trace_state: state.map(|state| state.to_string()).unwrap_or_default(),
        parent_span_id: if parent == 0 { Bytes::new() } else { span_id(parent) },
        flags: SAMPLED | HAS_REMOTE | if is_parent_remote { REMOTE } else { 0 },
        name: name.into_owned(),
        kind: kind.into(),
        start_time_unix_nano: time(began),
        end_time_unix_nano: time(ended),
        attributes: attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
        links: links.into_iter().map(link).collect(),
        status: Some(otlp::Status { message: String::new(), code: code.into() }),
        ..Default::default()
    }
}

fn trace_id(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

fn span_id(id: u64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.into_owned()),
        Value::Number(number) => any_value::Value::IntValue(number),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}
