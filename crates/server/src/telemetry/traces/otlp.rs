//! Spans as messages of OTLP.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use sluicegate_core::trace::{Attribute, ERROR_TYPE, Place, Span, Told, Value};
use sluicegate_proto::otlp::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use sluicegate_proto::otlp::opentelemetry::proto::resource::v1::Resource;
use sluicegate_proto::otlp::opentelemetry::proto::trace::v1::{span::SpanKind, status::StatusCode};

use super::convention::{Served, served};
use super::wire::Message;
use crate::config::otel::Otel;
use crate::telemetry::process::VERSION;

/// Flags of a span and of a link: sampled, that it is known where the other one is, and whether it is another process's.
const SAMPLED: u32 = 1;
const HAS_REMOTE: u32 = 1 << 8;
const REMOTE: u32 = 1 << 9;

/// `ExportTraceServiceRequest` with spans of one resource that are written already: a message within another one is on the wire as
/// bytes are.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(bytes = "bytes", tag = "1")]
    resource_spans: Bytes,
}

/// Writes what a process tells.
pub(super) struct Teller {
    /// The messages `Resource` and `InstrumentationScope`.
    resource: Vec<u8>,
    scope: Vec<u8>,
    /// The path before all others.
    root: String,
}

impl Teller {
    pub(super) fn new(otel: &Otel, root: &str) -> Self {
        let own = [
            ("service.name", otel.service.clone()),
            ("service.version", VERSION.to_owned()),
            ("telemetry.sdk.name", "sluicegate".to_owned()),
            ("telemetry.sdk.language", "rust".to_owned()),
            ("telemetry.sdk.version", VERSION.to_owned()),
        ];
        let said = otel.attributes.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let own = own.into_iter().filter(|(name, _)| otel.attributes.iter().all(|(said, _)| said != name));
        let resource =
            Resource { attributes: own.chain(said).map(|(name, value)| key_value(name, value)).collect(), ..Default::default() };
        let scope = InstrumentationScope { name: "sluicegate".to_owned(), version: VERSION.to_owned(), ..Default::default() };
        Self { resource: resource.encode_to_vec(), scope: scope.encode_to_vec(), root: root.to_owned() }
    }

    /// Spans as they are sent.
    pub(super) fn request(&self, told: &[Told]) -> Request {
        // Spans have a clock that only goes forwards; where that stands now, the wall's clock says.
        let (now, wall) = (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let time = |at: Instant| {
            let since = wall.saturating_sub(now.saturating_duration_since(at)) + at.saturating_duration_since(now);
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        };
        let mut spans = Message::default();
        spans.bytes(1, &self.resource);
        spans.message(2, |scope_spans| {
            scope_spans.bytes(1, &self.scope);
            for told in told {
                for span in &told.spans {
                    scope_spans.message(2, |message| self.span(message, told, span, &time));
                }
            }
        });
        Request { resource_spans: spans.0.into() }
    }

    fn span(&self, message: &mut Message, told: &Told, span: &Span, time: &impl Fn(Instant) -> u64) {
        let Span { id, parent, name, began, ended, version, attributes, links, error, asked } = span;
        let served = asked.as_deref().map(|asked| served(asked, &self.root, attributes));
        let Served { name, attributes: more, failed } = served.unwrap_or_else(|| Served {
            name: (*name).to_owned(),
            attributes: error.map(|code| (ERROR_TYPE, code.name().into())).into_iter().collect(),
            failed: error.is_some(),
        });
        message.bytes(1, &told.trace.to_be_bytes());
        message.bytes(2, &id.to_be_bytes());
        if let Some(state) = &told.state {
            message.bytes(3, state.as_bytes());
        }
        if *parent != 0 {
            message.bytes(4, &parent.to_be_bytes());
        }
        message.bytes(5, name.as_bytes());
        message.number(6, if asked.is_some() { SpanKind::Server } else { SpanKind::Internal } as u64);
        message.fixed64(7, time(*began));
        message.fixed64(8, time(*ended));
        for attribute in version.iter().flat_map(|version| &version[..]).chain(attributes).chain(&more) {
            message.message(9, |message| write_attribute(message, attribute));
        }
        for Place { trace, span } in links {
            message.message(13, |link| {
                link.bytes(1, &trace.to_be_bytes());
                link.bytes(2, &span.to_be_bytes());
                link.fixed32(6, SAMPLED | HAS_REMOTE);
            });
        }
        if failed {
            message.message(15, |status| status.number(3, StatusCode::Error as u64));
        }
        let is_remote = *parent != 0 && *parent == told.caller;
        message.fixed32(16, SAMPLED | HAS_REMOTE | if is_remote { REMOTE } else { 0 });
    }
}

fn write_attribute(message: &mut Message, (name, value): &Attribute) {
    message.bytes(1, name.as_bytes());
    message.message(2, |any| match value {
        Value::Text(text) => any.bytes(1, text.as_bytes()),
        Value::Number(number) => any.number(3, *number as u64),
    });
}

fn key_value(name: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key: name.to_owned(), value, ..Default::default() }
}
