//! The log, on standard error: lines for people, or for machines as `ecs` has them, with facts as fields.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sluicegate_core::{Code, Error, Result};
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::ecs::Ecs;
use crate::config::{Log, LogFormat};

/// Changes the level while the process runs.
#[derive(Clone, Debug)]
pub struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    /// The directives as they are, without ours.
    now: Arc<Mutex<String>>,
}

/// Starts the log of this process, which tells of itself by this name.
///
/// # Errors
/// [`Code::BadConfig`] for a level that is none, [`Code::Internal`] when it has been started already.
pub fn init(config: &Log, service: &str) -> Result<Levels> {
    let (filter, handle) = reload::Layer::new(filter(&config.level)?);
    let started = Registry::default().with(filter).with(layer(config.format, service)).try_init();
    started.map_err(|error| Error::new(Code::Internal, format!("the log cannot be started: {error}")))?;
    std::panic::set_hook(Box::new(panicked));
    Ok(Levels { handle, now: Arc::new(Mutex::new(config.level.clone())) })
}

/// A panic is a line of the log. Where an engine panics on a request, that request fails and the process goes on.
fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    static SELDOM: Mutex<Seldom> = Mutex::new(Seldom { last: None, untold: 0 });
    let Some(untold) = SELDOM.lock().tell(Instant::now()) else { return };
    let place = panic.location().map(ToString::to_string);
    let error = panic.payload_as_str().unwrap_or("no message").lines().next();
    tracing::error!(place, error, untold, "panicked");
}

/// Callers may make an engine panic as often as they ask, and are not to fill the log with it: it is told once in a second.
struct Seldom {
    last: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// How many were not told since the last one that was; `None` for one that is not told itself.
    fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < Duration::from_secs(1)) {
            self.untold += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Levels {
    /// Logs from now on what these directives say.
    ///
    /// # Errors
    /// [`Code::BadConfig`] for a level that is none.
    pub fn set(&self, level: &str) -> Result<()> {
        // Held over both, so that what is told is what is logged.
        let mut now = self.now.lock();
        let changed = self.handle.reload(filter(level)?);
        changed.map_err(|error| Error::new(Code::Internal, format!("the log level cannot be changed: {error}")))?;
        level.clone_into(&mut now);
        Ok(())
    }

    /// What is logged now.
    pub fn now(&self) -> String {
        self.now.lock().clone()
    }
}

/// The binding to ONNX Runtime tells at every start that the library is newer than itself, which it is meant to be.
/// The HTTP client tells whole addresses when it is debugged, and those of webhooks may be secrets.
const QUIET: &str = "ort=error,ureq=info";

fn filter(level: &str) -> Result<EnvFilter> {
    EnvFilter::builder()
        .parse(format!("{QUIET},{level}"))
        .map_err(|error| Error::new(Code::BadConfig, format!("log.level `{level}`: {error}")))
}

fn layer<S: Subscriber + for<'span> LookupSpan<'span>>(format: LogFormat, service: &str) -> Box<dyn Layer<S> + Send + Sync> {
    let terminal = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(std::io::stderr);
    if format == LogFormat::Json || (format == LogFormat::Auto && !terminal) {
        layer.event_format(Ecs { service: service.to_owned() }).boxed()
    } else if terminal {
        // its own default has colours, unless NO_COLOR is set
        layer.boxed()
    } else {
        layer.with_ansi(false).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_checked() {
        assert!(filter("info,sluicegate_registry=debug").is_ok());
        assert_eq!(filter("a=b=c").expect_err("no directive").code(), Code::BadConfig);
    }

    #[test]
    fn a_flood_is_told_once_in_a_second_with_how_many_were_not() {
        let (mut seldom, start) = (Seldom { last: None, untold: 0 }, Instant::now());
        let told: Vec<_> = (0..2_500).map(|ms| seldom.tell(start + Duration::from_millis(ms))).collect();
        let told: Vec<_> = told.into_iter().enumerate().filter_map(|(ms, untold)| Some((ms, untold?))).collect();
        assert_eq!(told, [(0, 0), (1_000, 999), (2_000, 999)]);
    }

    #[test]
    fn every_format_has_a_layer() {
        for format in [LogFormat::Auto, LogFormat::Human, LogFormat::Json] {
            let _: Box<dyn Layer<Registry> + Send + Sync> = layer(format, "sluicegate");
        }
    }
}
