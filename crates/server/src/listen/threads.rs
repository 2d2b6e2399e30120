//! The threads that serve: one single-threaded runtime each, so that a request stays on the core that read it.
//!
//! A new connection goes to the thread that has the fewest. The requests of an HTTP/2 connection stay on its thread, too, until that
//! has `AHEAD` more of them than another one: a proxy may open no other connection.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sluicegate_core::{Code, Error, Result};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// How many requests more than another thread has one of them may have before it hands requests over. To wake another core takes
/// longer than a few cheap requests do, and with the connection here and its requests there, the two wait for each other; with
/// none handed over, one connection has one core (`loadtests/profile.md`).
const AHEAD: usize = 8;

thread_local! {
    /// The place of this thread among those that serve.
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// The threads that serve. They end with this, and with them whatever they still run.
pub struct Threads {
    each: Vec<Thread>,
    end: CancellationToken,
}

struct Thread {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    /// Requests of HTTP/2.
    requests: Arc<AtomicUsize>,
}

impl Thread {
    fn new(runtime: Handle) -> Self {
        Self { runtime, connections: Arc::default(), requests: Arc::default() }
    }
}

/// The place of a connection or of a request on a thread.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count.clone())
    }
}

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
        let mut threads = Self { each: Vec::new(), end: CancellationToken::new() };
        for number in 0..count {
            let runtime =
                Builder::new_current_thread().enable_all().max_blocking_threads(count.max(2)).build().map_err(failed)?;
            threads.each.push(Thread::new(runtime.handle().clone()));
            let end = threads.end.clone();
            let serve = move || {
                HERE.set(number);
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
        Self { each: vec![Thread::new(Handle::current())], end: CancellationToken::new() }
    }

    /// Serves a connection on the thread that has the fewest. Only the one who accepts calls this, so that none is counted late.
    pub(super) fn serve(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let Some(thread) = self.each.iter().min_by_key(|thread| thread.connections.load(Relaxed)) else { return };
        let place = Place::take(&thread.connections);
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
        let each = &self.0.each;
        let busy = |thread: &&Thread| thread.requests.load(Relaxed);
        let (Some(here), Some(idlest)) = (each.get(HERE.get()).or(each.first()), each.iter().min_by_key(busy)) else { return };
        let thread = if busy(&here) >= busy(&idlest) + AHEAD { idlest } else { here };
        let place = Place::take(&thread.requests);
        thread.runtime.spawn(async move {
            request.await;
            drop(place);
        });
    }
}
