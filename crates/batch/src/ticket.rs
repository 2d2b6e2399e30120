//! The caller's end of a queued request: a future of its outputs that gives up at the deadline.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_core::trace;
use sluicegate_core::{Code, Error, Result, Tensor};
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::pad::Padding;
use crate::queue::Shared;
use crate::turn::{self, Place, Turn};
use crate::{stack, worker};

/// What a run gave one request.
#[derive(Debug)]
pub struct Done {
    /// The wanted outputs, in the order asked for.
    pub outputs: Vec<Tensor>,
    /// How long the request waited for its run.
    pub queue: Duration,
    /// How long the run took, shared with those in the same batch.
    pub compute: Duration,
    /// The batch of each of its pieces, where the request is traced.
    pub batches: Vec<Batch>,
}

/// A batch's span.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Where it is.
    pub place: trace::Place,
    /// Rows in it.
    pub rows: usize,
}

/// Waits for the answer. Dropping it takes the request out of the queue before its run.
#[derive(Debug)]
pub struct Ticket {
    pub(crate) pieces: smallvec::SmallVec<[oneshot::Receiver<Result<Done>>; 1]>,
    pub(crate) deadline: Instant,
    pub(crate) arrived: Instant,
    /// Where runs take place on the callers' threads: the queue, and being one of those of this turn.
    pub(crate) inside: Option<Inside>,
}

/// One of those who are to lead a run of a queue.
pub(crate) struct Inside {
    shared: Arc<Shared>,
    turn: &'static Turn,
    place: Place,
    has_led: bool,
}

impl Inside {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let turn = Turn::here();
        Self { shared: shared.clone(), turn, place: turn.enter(), has_led: false }
    }

    fn may_have_company(&self) -> bool {
        self.turn.may_have_company(&self.place)
    }

    /// Those who are as far on this thread come along, which costs them all less than a run for each.
    async fn wait_for_company(&self) {
        turn::wait_in(&self.shared);
        tokio::task::yield_now().await;
        // What one run has brought into the caches, the next one of another queue has there; and no answer leaves between them, which
        // would wake its caller alone.
        for queue in turn::take_queues() {
            worker::lead(&queue);
        }
    }

    fn lead(mut self) {
        self.has_led = true;
        self.turn.led(&self.place);
        worker::lead(&self.shared);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.turn.leave();
        if !self.has_led {
            worker::clear(&self.shared);
        }
    }
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inside")
    }
}

impl Ticket {
    /// Waits until the outputs are there.
    ///
    /// # Errors
    /// [`Code::DeadlineExceeded`] when the time runs out first, [`Code::RunFailed`] when the engine fails,
    /// [`Code::NotReady`] when the version is closed before the run.
    pub async fn wait(mut self) -> Result<Done> {
        if let Some(inside) = self.inside.take() {
            if inside.may_have_company() {
                inside.wait_for_company().await;
            }
            inside.lead();
        }
        let late = || {
            let waited = self.arrived.elapsed().as_millis();
            Error::new(
                Code::DeadlineExceeded,
                format!(
                    "not answered within {waited} ms; raise the request's timeout or batching.queue_timeout, or add instances"
                ),
            )
        };
        // A run leaves out whose time is over, and a queue that closes lets go of all: no answer comes then.
        let dropped = || if Instant::now() < self.deadline { closed() } else { late() };
        if let [piece] = &mut self.pieces[..] {
            match piece.try_recv() {
                // An inline run has answered already: no timer is armed for it.
                Ok(done) => return done,
                // It must not be polled again.
                Err(TryRecvError::Closed) => return Err(dropped()),
                Err(TryRecvError::Empty) => {}
            }
        }
        let pieces = std::mem::take(&mut self.pieces);
        let all = async {
            let mut parts = Vec::with_capacity(pieces.len());
            for piece in pieces {
                parts.push(piece.await.unwrap_or_else(|_| Err(dropped()))?);
            }
            join(parts)
        };
        tokio::time::timeout_at(self.deadline.into(), all).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The answer to those who still wait when a version closes.
pub(crate) fn closed() -> Error {
    Error::new(Code::NotReady, "the version was closed before the request was run; send it again")
}

fn join(mut parts: Vec<Done>) -> Result<Done> {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return Ok(only);
    }
    let views: Vec<&[Tensor]> = parts.iter().map(|part| &part.outputs[..]).collect();
    let outputs = stack::join(&views, &Padding::default(), &mut stack::Scratch::default())?;
    let queue = parts.iter().map(|part| part.queue).max().unwrap_or_default();
    let compute = parts.iter().map(|part| part.compute).sum();
    let batches = parts.iter().flat_map(|part| &part.batches).copied().collect();
    Ok(Done { outputs, queue, compute, batches })
}
