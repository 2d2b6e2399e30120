//! Which version answers a request: one load of the published table, held to the request's end.

use std::sync::Arc;
use std::time::Instant;

use sluicegate_core::{Code, Error, ModelRef, Result};
use sluicegate_registry::publish::MAX_NESTED;
use sluicegate_registry::{Live, Published, Table};
use sluicegate_triton::ensemble::Step;

use crate::limit::Permit;

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
}

impl Routed {
    pub(crate) fn find(published: &Published, target: &ModelRef<'_>) -> Result<Self> {
        let table = published.load();
        let live = table.find(target.model, target.version.as_ref())?.clone();
        let table = live.steps().map(|_| Arc::clone(&table));
        Ok(Self { live, table, depth: 0, began: Instant::now(), counted: false, permit: None })
    }

    /// The room that it takes.
    pub(crate) fn with(mut self, permit: Permit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// A step of an ensemble that this request is for: a request of its own to the model that takes it.
    pub(crate) fn step(&self, step: &Step) -> Result<Self> {
        let none = || Error::new(Code::Internal, "the table of an ensemble's request is kept with it");
        let table = self.table.as_ref().ok_or_else(none)?;
        let live = table.member(step)?.clone();
        if self.depth >= MAX_NESTED {
            return Err(Error::new(Code::NotReady, format!("more than {MAX_NESTED} ensembles are within each other")));
        }
        let table = live.steps().map(|_| table.clone());
        Ok(Self { live, table, depth: self.depth + 1, began: Instant::now(), counted: false, permit: None })
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

    /// When the version was found.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Counts an answer that is encoded.
    pub fn answered(mut self) {
        self.counted = true;
        self.live.meter.answered(self.began.elapsed());
    }

    /// Counts a failure.
    pub fn failed(mut self, error: &Error) {
        self.counted = true;
        self.live.meter.failed(error.code(), self.began.elapsed());
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        if !self.counted {
            self.live.meter.failed(Code::Cancelled, self.began.elapsed());
        }
    }
}
