//! Which `max_rows`, `instances` and `threads` suit a version on this machine: tried one after another, in process.
//!
//! In reading order: [`grid`] (pure: what to try), `drive` (loads the version with one setting and keeps it busy),
//! [`choose`] (pure: which one is best), [`report`] (the table and the lines of configuration).

pub mod choose;
mod drive;
pub mod grid;
pub mod report;

use std::num::NonZeroUsize;
use std::time::Duration;

use sluicegate_batch::Execution;
use sluicegate_core::{Code, Error, Result};
use sluicegate_engine::{EngineChoice, Engines};
use tokio::runtime::Handle;

use crate::subject::Subject;
use grid::{Axes, Bounds, Setting};
use report::Report;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The p99 that must be kept; without it, throughput alone decides.
    pub p99: Option<Duration>,
    /// Callers, each of which sends its next request when the last one is answered.
    pub callers: NonZeroUsize,
    /// Rows of each request.
    pub rows: NonZeroUsize,
    /// How long each setting is measured.
    pub time: Duration,
    /// Values to try, where the defaults are not wanted.
    pub axes: Axes,
}

/// What one setting gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Rows answered a second.
    pub rows_per_second: f64,
    /// The median time from a request to its answer.
    pub p50: Duration,
    /// The 99th percentile of it.
    pub p99: Duration,
    /// Rows of a run, on average.
    pub rows_per_run: f64,
    /// Whose thread ran the batches.
    pub execution: Execution,
}

/// A setting and what became of it: its figures, or why it could not be measured.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The setting.
    pub setting: Setting,
    /// What became of it.
    pub outcome: Result<Measured>,
}

/// Tries every setting of the grid. `done` is told each one as it ends, with its place and how many there are.
///
/// # Errors
/// [`Code::BadConfig`] where what is asked leaves nothing to try; else why the version does not load, or the error of the last
/// setting where none of them could be measured.
pub fn run(
    subject: &Subject,
    engines: &Engines,
    ask: &Ask,
    cores: NonZeroUsize,
    serving: &Handle,
    mut done: impl FnMut(usize, usize, &Tried),
) -> Result<Report> {
    let facts = drive::look(subject, engines)?;
    let (callers, rows, queue_rows) = (ask.callers.get(), ask.rows.get(), subject.run.limits.queue_rows);
    let wrong = |message: String| Err(Error::new(Code::BadConfig, message));
    if !facts.batched && rows > 1 {
        return wrong(format!("the model takes one row a request, got --rows {rows}"));
    }
    let offered = callers.saturating_mul(rows);
    if offered > queue_rows {
        let hint = "ask for fewer callers or rows, or raise batching.queue_rows";
        return wrong(format!("{callers} callers of {rows} rows may wait at once, the queue takes {queue_rows} rows; {hint}"));
    }
    let bounds = Bounds {
        cores: cores.get(),
        callers,
        offered,
        queue_rows,
        batched: facts.batched,
        threaded: facts.engine == EngineChoice::OnnxRuntime,
    };
    let settings = grid::settings(&ask.axes, Setting::of(&subject.run), &bounds);
    if settings.is_empty() {
        return wrong(format!(
            "nothing is left to try: instances x threads may be at most {cores}, the cores of this machine, and max_rows at most \
             {queue_rows}, which is batching.queue_rows"
        ));
    }
    let mut tried = Vec::with_capacity(settings.len());
    for (place, &setting) in settings.iter().enumerate() {
        let outcome = drive::measure(subject, engines, ask, setting, &facts, serving);
        let one = Tried { setting, outcome };
        done(place + 1, settings.len(), &one);
        tried.push(one);
    }
    if tried.iter().all(|one| one.outcome.is_err())
        && let Some(Tried { outcome: Err(error), .. }) = tried.pop()
    {
        return Err(error.at("no setting could be measured"));
    }
    let choice = choose::choose(&tried, ask.p99);
    Ok(Report::new(subject, &facts, ask, cores, &tried, choice))
}
