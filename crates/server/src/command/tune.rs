//! `sluicegate tune`: tries batching settings on this machine and prints the best one for a bound on p99.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::{Args, ValueEnum};
use sluicegate_core::{Code, Error, ModelRef, VersionRef};
use sluicegate_promotion::subject::Subject;
use sluicegate_promotion::tune::grid::Axes;
use sluicegate_promotion::tune::report::{Report, time};
use sluicegate_promotion::tune::{self, Ask, Tried};

use super::{COULD_NOT, NO, Source, USAGE, WELL, complain, say};
use crate::{app, config};

#[derive(Args)]
pub(super) struct Tune {
    /// The model, as `fraud` or `fraud@2`. Without a version, the one that is declared, else the newest.
    model: String,
    #[command(flatten)]
    source: Source,
    /// Its version, as in `fraud@2`.
    #[arg(long, value_name = "N")]
    version: Option<VersionRef>,
    /// The p99 that must be kept, such as 20ms. Without it, throughput alone decides.
    #[arg(long, value_name = "TIME")]
    p99: Option<config::Duration>,
    /// Callers, each of which sends its next request when the last one is answered.
    #[arg(long, value_name = "N", default_value = "32", value_parser = count::<4096>)]
    callers: NonZeroUsize,
    /// Rows of each request.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count::<65_536>)]
    rows: NonZeroUsize,
    /// How long each setting is measured.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    seconds: Duration,
    /// Values of `max_rows` to try, such as 1,8,64.
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = count::<65_536>)]
    max_rows: Option<Vec<NonZeroUsize>>,
    /// Values of `instances` to try.
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = count::<64>)]
    instances: Option<Vec<NonZeroUsize>>,
    /// Values of `threads` to try.
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = count::<256>)]
    threads: Option<Vec<NonZeroUsize>>,
    /// The form of the report.
    #[arg(long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
    Markdown,
}

fn count<const MOST: usize>(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.trim().parse().ok().filter(|number: &NonZeroUsize| number.get() <= MOST);
    number.ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| (0.05..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected a number of seconds from 0.05 to 60".to_owned())
}

/// Tunes. Returns the exit code.
pub(super) fn run(tune: &Tune) -> u8 {
    let config = match tune.source.watch() {
        Ok((config, _)) => config,
        Err(errors) => {
            errors.iter().for_each(complain);
            return USAGE;
        }
    };
    let report = tune.tried(&config).and_then(|report| {
        let text = match tune.output {
            Form::Text => report.text(),
            Form::Markdown => report.markdown(),
            Form::Json => report.json().map_err(|error| Error::new(Code::Internal, error.to_string()))?,
        };
        Ok((report, text))
    });
    match report {
        Ok((report, text)) => {
            say(text);
            if report.is_within() { WELL } else { NO }
        }
        Err(error) => {
            complain(&error);
            let usage = [Code::UnknownModel, Code::UnknownVersion, Code::BadConfig, Code::NoEngine].contains(&error.code());
            if usage { USAGE } else { COULD_NOT }
        }
    }
}

impl Tune {
    fn tried(&self, config: &config::Config) -> sluicegate_core::Result<Report> {
        let mut target = ModelRef::parse(&self.model)?;
        match (&target.version, &self.version) {
            (Some(one), Some(other)) if one != other => {
                let message = format!("`{}` names another version than --version {other}; give one of them", self.model);
                return Err(Error::new(Code::BadConfig, message));
            }
            (None, other) => target.version.clone_from(other),
            _ => {}
        }
        let subject = Subject::find(&app::roots(config), &app::declared(config), &target)?;
        let engines = app::engines(config)?;
        let values = |list: &Option<Vec<NonZeroUsize>>| list.as_ref().map(|list| list.iter().map(|count| count.get()).collect());
        let ask = Ask {
            p99: self.p99.map(config::Duration::get),
            callers: self.callers,
            rows: self.rows,
            time: self.seconds,
            axes: Axes { max_rows: values(&self.max_rows), instances: values(&self.instances), threads: values(&self.threads) },
        };
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let runtime = app::runtime(cores.get())?;
        tune::run(&subject, &engines, &ask, cores, runtime.handle(), progress)
    }
}

/// A line for each setting on standard error; on a terminal they take each other's place.
#[expect(clippy::print_stderr, reason = "progress is no part of the result")]
fn progress(place: usize, of: usize, tried: &Tried) {
    let what = match &tried.outcome {
        Ok(measured) => format!("{:.0} rows/s, p99 {}", measured.rows_per_second, time(measured.p99)),
        Err(error) => format!("failed: {error}"),
    };
    let line = format!("{place}/{of} {}: {what}", tried.setting);
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}{}", if place == of { "\r\x1b[K" } else { "" });
    } else {
        eprintln!("{line}");
    }
}
