//! The threads that serve: one single-threaded runtime each, so that a request stays on the core that read it.
//!
//! A new connection goes to the thread that has the fewest; the requests of one HTTP/2 connection, which may be all that a
//! proxy opens, are dealt out to all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sluicegate_core::{Code, Error, Result};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The threads that serve. They end with this, and with them whatever they still run.
pub struct Threads {
    each: Vec<Thread>,
    dealt: AtomicUsize,
    end: CancellationToken,
}

struct Thread {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// One connection's place on a thread.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Threads {
    /// Starts so many.
    ///
    /// # Errors
    /// [`Code::Io`] where the machine gives no threads.
    pub fn start(count: usize) -> Result<Self> {
        let failed = |error| Error::new(Code::Io, format!("a serving thread cannot be started: {error}"));
        let mut threads = Self { each: Vec::new(), dealt: AtomicUsize::new(0), end: CancellationToken::new() };
        for number in 0..count {
            let runtime =
                Builder::new_current_thread().enable_all().max_blocking_threads(count.max(2)).build().map_err(failed)?;
            threads.each.push(Thread { runtime: runtime.handle().clone(), connections: Arc::default() });
            let end = threads.end.clone();
            let serve = move || {
                runtime.block_on(end.cancelled());
                // what blocks has had its grace
                runtime.shutdown_background();
            };
            std::thread::Builder::new().name(format!("serve-{number}")).spawn(serve).map_err(failed)?;
        }
        Ok(threads)
    }

    /// The runtime that this is called in, as one thread of many.
    pub fn here() -> Self {
        let here = Thread { runtime: Handle::current(), connections: Arc::default() };
        Self { each: vec![here], dealt: AtomicUsize::new(0), end: CancellationToken::new() }
    }

    /// Serves a connection on the thread that has the fewest. Only the one who accepts calls this, so that none is counted late.
    pub(super) fn serve(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let Some(thread) = self.each.iter().min_by_key(|thread| thread.connections.load(Relaxed)) else { return };
        thread.connections.fetch_add(1, Relaxed);
        let place = Place(thread.connections.clone());
        thread.runtime.spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Deals the requests of an HTTP/2 connection out.
#[derive(Clone)]
pub(super) struct Deal(pub(super) Arc<Threads>);

impl<F> hyper::rt::Executor<F> for Deal
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, request: F) {
        let Threads { each, dealt, .. } = &*self.0;
        if let Some(thread) = each.get(dealt.fetch_add(1, Relaxed) % each.len().max(1)) {
            thread.runtime.spawn(request);
        }
    }
}
