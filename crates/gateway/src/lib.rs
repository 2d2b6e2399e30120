//! The life of a request, one file per step, the same for every transport.
//!
//! ```text
//! limit     is there room                         Permit   (dropped = freed)
//! route     which version; one pointer load       Routed
//! split     which variant, where it rolls out
//! validate  fits the signature                    Checked
//! cache     the same was asked before              Response
//! dispatch  queue, run, outputs                   Response
//! ensemble  the same for each step of an ensemble  outputs
//! shadow    a copy to the candidate, compared       after the answer
//! meter     what became of it                     counted once, whatever happened
//! ```
//!
//! Transports decode and encode; all else that a request goes through is here, in [`Gateway::infer`].

pub mod cache;
pub mod compare;
pub mod dispatch;
mod ensemble;
pub mod limit;
pub mod meter;
pub mod route;
pub mod shadow;
pub mod split;
pub mod validate;

use std::time::Instant;

use sluicegate_core::split::Asker;
use sluicegate_core::{Error, ModelRef, Request, Response, Result, Trace};
use sluicegate_registry::{Published, Registry, Table, Waker};

pub use limit::{Limit, Permit};
pub use route::Routed;
pub use shadow::Mirror;
pub use split::{Split, Splits};

pub use validate::Checked;

/// The way from a decoded request to its answer.
#[derive(Clone)]
pub struct Gateway {
    published: Published,
    waker: Waker,
    limit: Limit,
    splits: Splits,
}

impl Gateway {
    /// A gateway to what a registry has published, with room for so many requests at once, whose traffic is split so.
    pub fn new(registry: &Registry, in_flight: usize, splits: Splits) -> Self {
        Self { published: registry.published.clone(), waker: registry.waker.clone(), limit: Limit::new(in_flight), splits }
    }

    /// What serves.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Requests between their arrival and their answer.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Asks for room, before anything of the request's body is read.
    ///
    /// # Errors
    /// [`Code::TooBusy`](sluicegate_core::Code::TooBusy).
    pub fn admit(&self) -> Result<Permit> {
        self.limit.admit().inspect_err(meter::unrouted)
    }

    /// Finds the version that is to answer, which stays the same to the request's end. One that is in memory on demand is loaded
    /// first.
    ///
    /// # Errors
    /// Those of [`Table::find`](sluicegate_registry::Table::find) and of [`Self::wake`];
    /// [`Code::Forbidden`](sluicegate_core::Code::Forbidden) where the caller chooses a variant and may not.
    pub async fn route(
        &self,
        permit: Permit,
        trace: Option<Trace>,
        target: &ModelRef<'_>,
        asker: &(dyn Asker + Sync),
    ) -> Result<Routed> {
        let mut found = Routed::find(&self.published, &self.splits, target, asker);
        if found.is_err() && self.published.load().rests(target) {
            // In a box, so that it does not widen the way of all others.
            found = Box::pin(self.wake(target)).await.and_then(|()| Routed::find(&self.published, &self.splits, target, asker));
        }
        found.map(|routed| routed.with(permit, trace)).inspect_err(meter::unrouted)
    }

    /// Waits until a model that is in memory on demand is there.
    ///
    /// # Errors
    /// [`Code::NotReady`](sluicegate_core::Code::NotReady) where it could not be loaded, or not in time.
    pub async fn wake(&self, target: &ModelRef<'_>) -> Result<()> {
        let since = Instant::now();
        // Told that it is there, a caller may still be too late: others needed the room.
        while self.published.load().rests(target) {
            self.waker.wake(target.model, since).await?;
            let is_there = |table: &Table| table.models.get(target.model).is_none_or(|served| served.default.is_some());
            if is_there(&self.published.load()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a rollout looks at the headers of requests.
    pub fn reads_headers(&self) -> bool {
        self.splits.read_headers()
    }

    /// Turns to stable where the candidate failed so and that is not for the caller to see. What was asked is then asked again, from its
    /// bytes on, because the two may have different signatures.
    pub fn falls_back(&self, routed: &mut Routed, error: &Error) -> bool {
        routed.fall_back(&self.published, error)
    }

    /// Checks a request, and answers it from the cache or by a run.
    ///
    /// # Errors
    /// The caller's fault where the request does not fit the signature; overload where it had no room or no time; the
    /// model's fault where the run failed.
    pub async fn infer(&self, routed: &Routed, request: Request) -> Result<Response> {
        let part = routed.part();
        let copy = part.and_then(|part| part.copy(&request));
        let response = infer(routed, request).await?;
        if let Some(part) = part {
            // Shadows are the first to go where there is much to do.
            part.said(routed.live(), &response, copy, !self.limit.is_half_full());
        }
        Ok(response)
    }
}

/// The same for a request of a caller and for a step of an ensemble.
pub(crate) async fn infer(routed: &Routed, request: Request) -> Result<Response> {
    let checked = Checked::new(routed.live(), request)?;
    cache::run(routed, checked).await
}
