//! Which version answers a request: one load of the published table, held to the request's end.

use std::sync::Arc;
use std::time::Instant;

use sluicegate_core::{Code, Error, ModelRef, Result};
use sluicegate_registry::{Live, Published};

use crate::limit::Permit;

/// A request with its version. Whatever becomes of it is counted once: by [`Self::answered`], by [`Self::failed`], or, where
/// the caller leaves, by the drop.
pub struct Routed {
    live: Arc<Live>,
    began: Instant,
    counted: bool,
    _permit: Permit,
}

impl Routed {
    pub(crate) fn new(published: &Published, permit: Permit, target: &ModelRef<'_>) -> Result<Self> {
        let live = published.load().find(target.model, target.version.as_ref())?.clone();
        Ok(Self { live, began: Instant::now(), counted: false, _permit: permit })
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
        if self.live.cache.is_some() { Ok(()) } else { self.live.batcher().look() }
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
