//! What a person reads, what a machine reads, and the lines for `sluicegate.yaml`.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Serialize;
use sluicegate_batch::Execution;

use super::choose::Choice;
use super::drive::Facts;
use super::grid::Setting;
use super::{Ask, Tried};
use crate::subject::Subject;

/// The name of the registry that a model without a `registry` key comes from.
const DEFAULT_REGISTRY: &str = "local";

const HEAD: [&str; 9] = ["max_rows", "instances", "threads", "execution", "rows/s", "p50", "p99", "rows/run", ""];

/// The outcome of a tuning. It serializes to the JSON of `--output json`.
#[derive(Debug, Serialize)]
pub struct Report {
    model: String,
    version: u64,
    digest: String,
    engine: &'static str,
    cores: usize,
    callers: usize,
    rows: usize,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_bound_microseconds: Option<f64>,
    /// The setting that is configured; it is the first one of those tried, where it is one.
    configured: Setting,
    settings: Vec<Row>,
    /// Whether a setting is within the bound.
    within: bool,
    /// The best setting, where one is within the bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<Row>,
    /// The one that came nearest, where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<Row>,
    reason: String,
    /// The best setting as lines of configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    setting: Setting,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    figures: Option<Figures>,
    /// Why there are no figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Figures {
    execution: &'static str,
    rows_per_second: f64,
    p50_microseconds: f64,
    p99_microseconds: f64,
    rows_per_run: f64,
}

impl Report {
    pub(super) fn new(subject: &Subject, facts: &Facts, ask: &Ask, cores: NonZeroUsize, tried: &[Tried], choice: Choice) -> Self {
        let settings: Vec<Row> = tried.iter().map(Row::new).collect();
        let chosen = choice.place.and_then(|place| settings.get(place)).cloned();
        let (best, nearest) = if choice.within { (chosen, None) } else { (None, chosen) };
        let model = subject.found.model.to_string();
        let registry = Some(&subject.registry).filter(|name| *name != DEFAULT_REGISTRY);
        let registry = registry.map(|name| format!(" registry: {name},")).unwrap_or_default();
        let config = best.as_ref().map(|Row { setting, .. }| {
            let Setting { max_rows, instances, threads } = setting;
            let batching = format!("{{ max_rows: {max_rows}, instances: {instances}, threads: {threads} }}");
            format!("models:\n  - {{ name: {model},{registry} batching: {batching} }}\n")
        });
        Self {
            model,
            version: subject.found.version,
            digest: facts.digest.to_string(),
            engine: facts.engine.name(),
            cores: cores.get(),
            callers: ask.callers.get(),
            rows: ask.rows.get(),
            seconds: ask.time.as_secs_f64(),
            p99_bound_microseconds: ask.p99.map(micros),
            configured: Setting::of(&subject.run),
            settings,
            within: choice.within,
            best,
            nearest,
            reason: choice.reason,
            config,
        }
    }

    /// Whether a setting is within the bound.
    pub fn is_within(&self) -> bool {
        self.within
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let rows: Vec<Vec<String>> = std::iter::once(HEAD.map(str::to_owned).to_vec()).chain(self.cells()).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..HEAD.len()).map(|column| width(column).unwrap_or_default()).collect();
        let mut text = self.title();
        text.push_str("\n\n");
        for row in &rows {
            let mut line = String::new();
            let Some((word, cells)) = row.split_last() else { continue };
            for (cell, width) in cells.iter().zip(&widths) {
                let _ = write!(line, "{cell:>width$}  ");
            }
            let _ = writeln!(text, "{}", (line + word).trim_end());
        }
        let _ = write!(text, "\n{}", self.reasons());
        if let Some(config) = &self.config {
            let _ = write!(text, "\n\n{}", config.trim_end());
        }
        text
    }

    /// For a pull request.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\n| {} |\n|{}\n", self.title(), HEAD.join(" | "), "---:|".repeat(HEAD.len() - 1) + "---|");
        for row in self.cells() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        let _ = write!(text, "\n{}", self.reasons());
        if let Some(config) = &self.config {
            let _ = write!(text, "\n\n```yaml\n{config}```");
        }
        text
    }

    /// For a machine.
    ///
    /// # Errors
    /// None that can be thought of: a report has text keys and plain values alone.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    fn title(&self) -> String {
        let Self { model, version, engine, cores, callers, rows, seconds, .. } = self;
        let rows = if *rows == 1 { "one row".to_owned() } else { format!("{rows} rows") };
        format!("{model}@{version} on {engine}, {cores} cores: {callers} callers of {rows}, {seconds} s a setting")
    }

    /// Why settings failed or were not tried, and why the best one is it.
    fn reasons(&self) -> String {
        let Self { configured, cores, .. } = self;
        let failed = self.settings.iter().filter_map(|row| Some(format!("{} failed: {}\n", row.setting, row.error.as_ref()?)));
        let beyond = format!("the configured {configured} was not tried: it would keep more than {cores} cores busy\n");
        let beyond = Some(beyond).filter(|_| configured.cores() > *cores);
        failed.chain(beyond).chain([self.reason.clone()]).collect()
    }

    /// The cells of each line of the table.
    fn cells(&self) -> impl Iterator<Item = Vec<String>> + '_ {
        let is = |row: &Option<Row>, setting| row.as_ref().is_some_and(|row| row.setting == setting);
        let word = move |setting| {
            let words = [
                (is(&self.best, setting), "best"),
                (is(&self.nearest, setting), "nearest"),
                (self.configured == setting, "configured"),
            ];
            words.into_iter().filter_map(|(holds, word)| holds.then_some(word)).collect::<Vec<_>>().join(", ")
        };
        self.settings.iter().map(move |row| {
            let Setting { max_rows, instances, threads } = row.setting;
            let mut cells = [max_rows, instances, threads].map(|count| count.to_string()).to_vec();
            match &row.figures {
                None => cells.extend(["", "", "", "", "", "failed"].map(str::to_owned)),
                Some(figures) => cells.extend([
                    figures.execution.to_owned(),
                    format!("{:.0}", figures.rows_per_second),
                    time(Duration::from_secs_f64(figures.p50_microseconds / 1e6)),
                    time(Duration::from_secs_f64(figures.p99_microseconds / 1e6)),
                    format!("{:.1}", figures.rows_per_run),
                    word(row.setting),
                ]),
            }
            cells
        })
    }
}

impl Row {
    fn new(tried: &Tried) -> Self {
        let figures = tried.outcome.as_ref().ok().map(|measured| Figures {
            execution: match measured.execution {
                Execution::Inline => "inline",
                // A queue is opened with what `auto` came to.
                Execution::Auto | Execution::Threads => "threads",
            },
            rows_per_second: (measured.rows_per_second * 10.0).round() / 10.0,
            p50_microseconds: micros(measured.p50),
            p99_microseconds: micros(measured.p99),
            rows_per_run: (measured.rows_per_run * 100.0).round() / 100.0,
        });
        Self { setting: tried.setting, figures, error: tried.outcome.as_ref().err().map(ToString::to_string) }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// A time with two or more digits that count, in the unit that suits it.
pub fn time(time: Duration) -> String {
    match time.as_nanos() {
        nanos @ 0..1_000 => format!("{nanos} ns"),
        nanos @ 1_000..1_000_000 => format!("{} us", (nanos + 500) / 1_000),
        nanos @ 1_000_000..100_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        nanos @ 100_000_000..1_000_000_000 => format!("{:.0} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}
