//! Which version answers a request: one load of the published table, held to the request's end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_core::histogram::Histogram;
use sluicegate_core::split::{Asker, Variant};
use sluicegate_core::trace::{self, Span};
use sluicegate_core::{Code, Error, ModelRef, Result, Trace, VersionRef};
use sluicegate_registry::publish::MAX_NESTED;
use sluicegate_registry::{Live, Published, Table};
use sluicegate_triton::ensemble::Step;

use crate::limit::Permit;
use crate::split::{Part, Splits};

/// A request with its version. Whatever becomes of it is counted once: by [`Self::answered`], by [`Self::failed`], or, where
/// the caller leaves, by the drop.
pub struct Routed {
    live: Arc<Live>,
    /// What served when the request came, where its model is an ensemble: no request sees two versions of a step's model.
    table: Option<Arc<Table>>,
    /// How many ensembles it is within.
    depth: usize,
    began: Instant,
    counted: bool,
    /// That of the caller's request, which its steps share.
    permit: Option<Permit>,
    /// The part that the version plays, where its model rolls out.
    part: Option<Part>,
    trace: Option<Trace>,
}

impl Routed {
    pub(crate) fn find(published: &Published, splits: &Splits, target: &ModelRef<'_>, asker: &dyn Asker) -> Result<Self> {
        let table = published.load();
        let split = if target.version.is_none() { splits.of(target.model) } else { None };
        let drawn = split.map(|split| split.draw(&table, target.model, asker)).transpose()?.flatten();
        let (part, live) = match drawn {
            Some((part, live)) => (Some(part), live),
            None => (None, table.find(target.model, target.version.as_ref())?),
        };
        Ok(Self::new(live.clone(), &table, part))
    }

    fn new(live: Arc<Live>, table: &Arc<Table>, part: Option<Part>) -> Self {
        let table = live.steps().map(|_| Arc::clone(table));
        Self { live, table, depth: 0, began: Instant::now(), counted: false, permit: None, part, trace: None }
    }

    /// Stable's turn, where the candidate failed and that is not for the caller to see. What the candidate did is counted.
    pub(crate) fn fall_back(&mut self, published: &Published, error: &Error) -> bool {
        let Some(part) = &self.part else { return false };
        let table = published.load();
        let version = VersionRef::Number(part.split.stable);
        let Ok(stable) = table.find(self.live.model.as_str(), Some(&version)) else { return false };
        let Some(next) = part.fall_back(&self.live, stable, error) else { return false };
        let mut next = Self::new(stable.clone(), &table, Some(next));
        // What the candidate did is no failure of the request.
        next = next.traced(self.trace.take());
        next.permit = self.permit.take();
        std::mem::replace(self, next).failed(error);
        true
    }

    /// The variant that answers, where its model rolls out, and whether it does so for the candidate, which failed.
    pub fn variant(&self) -> Option<(Variant, bool)> {
        self.part.as_ref().map(|part| (part.variant, part.is_fallen()))
    }

    /// The part that the version plays, where its model rolls out.
    pub(crate) fn part(&self) -> Option<&Part> {
        self.part.as_ref()
    }

    /// Whether stable may be asked the same after it.
    pub fn is_tried(&self) -> bool {
        self.part.as_ref().is_some_and(Part::is_tried)
    }

    /// The time that it may take of so much.
    pub(crate) fn time(&self, all: Duration) -> Duration {
        self.part.as_ref().map_or(all, |part| part.time(all))
    }

    /// The room that it takes, and the trace that it is a part of.
    pub(crate) fn with(mut self, permit: Permit, trace: Option<Trace>) -> Self {
        self.permit = Some(permit);
        self.traced(trace)
    }

    fn traced(mut self, trace: Option<Trace>) -> Self {
        if let Some(trace) = &trace {
            trace.run_by(&self.live.traced);
            if let Some((variant, is_fallen)) = self.variant() {
                trace.say(trace::VARIANT, variant.name());
                if is_fallen {
                    trace.say(trace::FALLBACK, Variant::Candidate.name());
                }
            }
        }
        self.trace = trace;
        self
    }

    /// The trace that it is a part of, where that is recorded.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// A step of an ensemble that this request is for: a request of its own to the model that takes it.
    pub(crate) fn step(&self, step: &Step) -> Result<Self> {
        let none = || Error::new(Code::Internal, "the table of an ensemble's request is kept with it");
        let table = self.table.as_ref().ok_or_else(none)?;
        let live = table.member(step)?.clone();
        if self.depth >= MAX_NESTED {
            return Err(Error::new(Code::NotReady, format!("more than {MAX_NESTED} ensembles are within each other")));
        }
        let mut step = Self::new(live, table, None).traced(self.trace.as_ref().map(Trace::part));
        step.depth = self.depth + 1;
        Ok(step)
    }

    /// Whether it is a step of an ensemble, whose time is what is left of the caller's.
    pub(crate) fn is_step(&self) -> bool {
        self.depth > 0
    }

    /// The version that answers.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Refuses before any work where the queue is full, unless the answer may be known without it.
    ///
    /// # Errors
    /// [`Code::QueueFull`].
    pub fn look(&self) -> Result<()> {
        match self.live.batcher() {
            Some(batcher) if self.live.cache.is_none() => batcher.look(),
            _ => Ok(()),
        }
    }

    /// Counts the decoding, which is over, of what came.
    pub fn decoded(&self) {
        let time = self.began.elapsed();
        self.add("decode", &self.live.meter.decode, self.began, time);
    }

    /// Counts the encoding, which is over, of its answer.
    pub fn encoded(&self, began: Instant) {
        let time = began.elapsed();
        self.add("encode", &self.live.meter.encode, began, time);
    }

    fn add(&self, name: &'static str, stage: &Histogram, began: Instant, time: Duration) {
        stage.record(time);
        if let Some(trace) = &self.trace {
            stage.mark(time, trace.place());
            trace.add(Span::new(name, began, began + time));
        }
    }

    /// Counts an answer that is encoded.
    pub fn answered(mut self) {
        self.counted = true;
        let time = self.began.elapsed();
        self.live.meter.answered(time);
        if let Some(trace) = &self.trace {
            self.live.meter.seconds.mark(time, trace.place());
        }
        if let Some(part) = &self.part {
            part.answered(time);
        }
        self.ended(None);
    }

    /// Counts a failure.
    pub fn failed(mut self, error: &Error) {
        self.counted = true;
        self.live.meter.failed(error.code(), self.began.elapsed());
        if let Some(part) = &self.part {
            part.failed(error);
        }
        self.ended(Some(error.code()));
    }

    /// Tells of its end. A step, and a message of a stream, has a span of its own; that of a request ends where its answer leaves.
    fn ended(&self, error: Option<Code>) {
        let Some(trace) = &self.trace else { return };
        match error {
            _ if trace.is_part() => {
                let name = if self.is_step() { "step" } else { "message" };
                trace.end(Span { error, ..Span::new(name, self.began, Instant::now()) });
            }
            Some(code) => trace.say(trace::CODE, code.name()),
            None => {}
        }
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        if !self.counted {
            self.live.meter.failed(Code::Cancelled, self.began.elapsed());
            self.ended(Some(Code::Cancelled));
        }
    }
}
