//! Lines of the log for machines: JSON by the Elastic Common Schema, which also has names for traces.
//!
//! What the schema has no name for is a label, whose value is text: one name never has two types.

use std::fmt::{self, Debug, Write};
use std::time::SystemTime;

use serde_json::{Map, Value};
use sluicegate_core::trace::TraceParent;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::process::VERSION;

/// The version of the schema.
const ECS: &str = "8.17.0";

/// Writes an event as one line.
pub(super) struct Ecs {
    /// `service.name`.
    pub(super) service: String,
}

impl<S, N> FormatEvent<S, N> for Ecs
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writeln!(writer, "{}", Value::Object(self.line(event, SystemTime::now())))
    }
}

impl Ecs {
    fn line(&self, event: &Event<'_>, now: SystemTime) -> Map<String, Value> {
        let mut said = Said { logger: event.metadata().target().to_owned(), ..Said::default() };
        event.record(&mut said);
        let mut line = Map::new();
        let mut put = |name: &str, value: Value| line.insert(name.to_owned(), value);
        // Who reads lines by their beginning finds these four there, as the schema's guide for logs has it.
        put("@timestamp", humantime::format_rfc3339_micros(now).to_string().into());
        put("log.level", event.metadata().level().as_str().into());
        put("message", said.message.into());
        put("ecs.version", ECS.into());
        put("log.logger", said.logger.into());
        put("service.name", self.service.as_str().into());
        put("service.version", VERSION.into());
        put("process.pid", std::process::id().into());
        put("event.dataset", "sluicegate.log".into());
        line.extend(said.fields);
        if !said.labels.is_empty() {
            line.insert("labels".to_owned(), said.labels.into());
        }
        line
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    logger: String,
    fields: Map<String, Value>,
    labels: Map<String, Value>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, text: &str) {
        let name = match field.name() {
            "message" => return text.clone_into(&mut self.message),
            // Events of crates that know only `log`.
            "log.target" => return text.clone_into(&mut self.logger),
            name if name.starts_with("log.") => return,
            "trace" => {
                if let Some(TraceParent { place, .. }) = TraceParent::parse(text.as_bytes()) {
                    self.fields.insert("trace.id".to_owned(), format!("{:032x}", place.trace).into());
                    self.fields.insert("span.id".to_owned(), format!("{:016x}", place.span).into());
                }
                return;
            }
            "request_id" => "http.request.id",
            "error" => "error.message",
            "code" => "error.code",
            label => {
                self.labels.insert(label.replace('.', "_"), text.into());
                return;
            }
        };
        self.fields.insert(name.to_owned(), text.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // A value that cannot be written is not worth a line.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{Registry, fmt};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<Map<String, Value>> {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = fmt::layer().event_format(Ecs { service: "gate".to_owned() }).with_writer(move || writer.clone());
        tracing::subscriber::with_default(Registry::default().with(layer), log);
        let text = String::from_utf8(kept.0.lock().clone()).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("a line is an object of JSON")).collect()
    }

    #[test]
    fn a_line_has_the_names_of_the_schema_and_everything_else_is_a_label() {
        let trace = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let error = "two\nlines";
        let lines = lines(|| {
            tracing::error!(request_id = "r-1", trace, code = "run_failed", %error, "request failed");
            tracing::info!(target: "elsewhere", version = 3, ready = true, list = ?[1, 2], "live \"now\"");
        });
        let [failed, live] = &lines[..] else { panic!("{lines:?}") };
        let begins: Vec<&str> = failed.keys().take(4).map(String::as_str).collect();
        assert_eq!(begins, ["@timestamp", "log.level", "message", "ecs.version"]);
        for (name, value) in [
            ("log.level", "ERROR"),
            ("message", "request failed"),
            ("service.name", "gate"),
            ("http.request.id", "r-1"),
            ("trace.id", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ("span.id", "00f067aa0ba902b7"),
            ("error.code", "run_failed"),
            ("error.message", error),
        ] {
            assert_eq!(failed[name], value, "{name}");
        }
        assert!(!failed.contains_key("labels"));
        assert_eq!(live["log.logger"], "elsewhere");
        assert_eq!(live["message"], "live \"now\"");
        assert_eq!(live["labels"], serde_json::json!({ "version": "3", "ready": "true", "list": "[1, 2]" }));
    }

    #[test]
    fn a_trace_that_is_none_is_left_out() {
        let lines = lines(|| tracing::info!(trace = "my trace", "said"));
        assert!(!lines[0].keys().any(|name| name.starts_with("trace") || name.starts_with("span")), "{lines:?}");
    }
}
