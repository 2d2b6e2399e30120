//! Who runs a batch: the thread of a caller who found an instance idle, or a thread of the model's own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use sluicegate_core::trace::{self, Place, Span};
use sluicegate_core::{Code, Error, Result, Tensor, Trace};
use sluicegate_engine::TokenCount;
use smallvec::SmallVec;

use crate::journal::Ran;
use crate::policy::{Batch, Entry, Left, Next};
use crate::queue::{Instance, Setup, Shared, Work};
use crate::stack;
use crate::ticket::{self, Done};

/// Runs what waits on the caller's thread, where an instance is idle; then gives the instance on: to a task that serves those
/// who came meanwhile, or back to the idle ones.
///
/// Whoever waits for a ticket calls this, and whoever has an instance looks at the queue before it rests: so nobody is left.
pub(crate) fn lead(shared: &Arc<Shared>) {
    let (mut instance, next) = {
        let mut state = shared.state.lock();
        if state.waiting.is_empty() {
            return;
        }
        let Some(instance) = state.idle.pop() else {
            drop(state);
            // All instances may have threads of their own.
            shared.more.notify_one();
            if !shared.setup.limits.max_delay.is_zero() {
                shared.came.notify_one();
            }
            return;
        };
        (instance, state.next(shared))
    };
    if let Next::Run(batch) = next {
        run(shared, &mut instance, batch);
    }
    if let Some(instance) = rest(shared, instance) {
        tokio::spawn(follow(shared.clone(), instance));
    }
}

/// Takes out what a caller left behind who went before its turn to lead: nobody else may come to look.
pub(crate) fn clear(shared: &Arc<Shared>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let mut state = shared.state.lock();
    if state.waiting.is_empty() {
        return;
    }
    match state.idle.pop() {
        Some(instance) => drop(runtime.spawn(follow(shared.clone(), instance))),
        None => drop(shared.more.notify_one()),
    }
}

/// Serves the queue from a task of its own until it is empty, and lets others have the thread between batches.
async fn follow(shared: Arc<Shared>, mut instance: Instance) {
    loop {
        let next = shared.state.lock().next(&shared);
        match next {
            Next::Run(batch) => {
                run(&shared, &mut instance, batch);
                tokio::task::yield_now().await;
            }
            Next::Wait(until) => {
                // More may have come before this waits; the permit of the notification is kept, so none is missed.
                let _ = tokio::time::timeout_at(until.into(), shared.came.notified()).await;
            }
            Next::Empty => {}
        }
        match rest(&shared, instance) {
            Some(kept) => instance = kept,
            None => return,
        }
    }
}

/// Puts an instance to rest where nothing waits. In one step with the look, so that nobody is left waiting for it.
fn rest(shared: &Shared, instance: Instance) -> Option<Instance> {
    let mut state = shared.state.lock();
    if state.closed {
        drop(state);
        // Freeing an engine takes milliseconds, which a serving thread has not.
        tokio::task::spawn_blocking(move || drop(instance));
        return None;
    }
    if !state.waiting.is_empty() {
        return Some(instance);
    }
    state.idle.push(instance);
    None
}

/// Starts a thread that owns an instance until the version closes. Gives the instance back where the machine has no thread.
pub(crate) fn spawn(shared: &Arc<Shared>, instance: Instance) -> Result<JoinHandle<()>, (Instance, Error)> {
    // The instance goes over once the thread is there, so that it is not lost with a thread that is not.
    let (hand, taken) = std::sync::mpsc::sync_channel(1);
    let serving = shared.clone();
    let serve = move || {
        // Nothing comes where the one who started this gave up.
        let Ok(instance) = taken.recv() else { return };
        own(&serving, instance);
    };
    // Linux keeps 15 characters of a thread's name.
    let name: String = shared.setup.name.chars().take(15).collect();
    match std::thread::Builder::new().name(name).spawn(serve) {
        Ok(thread) => {
            // The channel has room for one, and its other end waits.
            let _ = hand.send(instance);
            Ok(thread)
        }
        Err(error) => Err((instance, Error::new(Code::Io, format!("no thread for an instance: {error}")))),
    }
}

/// A model's own thread.
fn own(shared: &Arc<Shared>, mut instance: Instance) {
    let mut state = shared.state.lock();
    loop {
        match state.next(shared) {
            Next::Run(batch) => {
                // One caller wakes one thread; a thread wakes the next while more waits. That there is none is no news here.
                if !state.waiting.is_empty() {
                    let _ = shared.more_hands(&mut state);
                }
                MutexGuard::unlocked(&mut state, || run(shared, &mut instance, batch));
            }
            Next::Wait(until) => {
                state.parked += 1;
                shared.more.wait_until(&mut state, until);
                state.parked -= 1;
            }
            Next::Empty if state.closed => return,
            Next::Empty => {
                state.parked += 1;
                shared.more.wait(&mut state);
                state.parked -= 1;
            }
        }
    }
}

fn run(shared: &Shared, instance: &mut Instance, batch: Batch<Work>) {
    let Batch { entries, left, behind } = batch;
    let started = Instant::now();
    let rows: usize = entries.iter().map(|entry| entry.rows).sum();
    shared.meter.batch_rows.record_rows(rows);
    let outcome = outputs(instance, &entries, &shared.setup);
    let compute = started.elapsed();
    let waited = |entry: &Entry<Work>| started.saturating_duration_since(entry.arrived);
    shared.journal.add(Ran {
        at: started,
        rows,
        requests: entries.len(),
        left,
        waited: entries.first().map_or(Duration::ZERO, waited),
        compute,
        behind,
        failed: outcome.is_err(),
    });
    let span = traced(&entries, rows, left, (started, compute), outcome.as_ref().err().map(Error::code));
    match outcome {
        Ok(slices) => {
            if let Some(TokenCount { read, padding }) = instance.engine.tokens() {
                shared.meter.tokens(read, padding);
            }
            for (entry, outputs) in entries.into_iter().zip(slices) {
                let queue = waited(&entry);
                let batches = span.filter(|_| entry.payload.trace.is_some()).into_iter().collect();
                let _ = entry.payload.reply.send(Ok(Done { outputs, queue, compute, batches }));
            }
        }
        Err(error) if entries.len() == 1 => {
            for entry in entries {
                let _ = entry.payload.reply.send(Err(error.clone()));
            }
        }
        // One of them made the run fail; alone, each gets the answer that it would have had without the others.
        Err(_) => {
            for entry in entries {
                run(shared, instance, Batch { entries: SmallVec::from_buf([entry]), left: Left::Again, behind });
            }
        }
    }
}

/// Tells the span of a batch that has traced requests in it. It is a part of none of them: it is linked to them all.
fn traced(
    entries: &[Entry<Work>],
    rows: usize,
    left: Left,
    (began, took): (Instant, Duration),
    error: Option<Code>,
) -> Option<ticket::Batch> {
    let traces = || entries.iter().filter_map(|entry| entry.payload.trace.as_ref());
    let first = traces().next()?;
    let place = Place::new();
    let attributes = vec![
        (trace::BATCH_SIZE, rows.into()),
        (trace::BATCH_REQUESTS, entries.len().into()),
        (trace::BATCH_LEFT, left.name().into()),
    ];
    let links = traces().map(Trace::place).collect();
    let span =
        Span { id: place.span, version: first.version(), attributes, links, error, ..Span::new("batch", began, began + took) };
    first.beside(place.trace, span);
    Some(ticket::Batch { place, rows })
}

fn outputs(instance: &mut Instance, batch: &[Entry<Work>], setup: &Setup) -> Result<SmallVec<[Vec<Tensor>; 1]>> {
    let [first, ..] = batch else { return Ok(SmallVec::new()) };
    let Instance { engine, scratch } = instance;
    let wanted = &first.payload.wanted[..];
    if batch.len() == 1 {
        let outputs = guarded(|| engine.run(&first.payload.inputs, wanted))?;
        if setup.batched {
            stack::check(&outputs, first.rows)?;
        }
        return Ok(SmallVec::from_buf([outputs]));
    }
    let parts: Vec<&[Tensor]> = batch.iter().map(|entry| &entry.payload.inputs[..]).collect();
    let joined = stack::join(&parts, &setup.padding, scratch)?;
    let outputs = guarded(|| engine.run(&joined, wanted))?;
    let rows: Vec<usize> = batch.iter().map(|entry| entry.rows).collect();
    let slices = stack::cut(&outputs, &rows)?;
    let own = |(slice, part): (Vec<Tensor>, &&[Tensor])| {
        let crop = |(tensor, &output): (Tensor, &usize)| setup.padding.crop(output, tensor, part, &joined);
        slice.into_iter().zip(wanted).map(crop).collect::<Result<Vec<_>>>()
    };
    slices.into_iter().zip(&parts).map(own).collect()
}

/// A model must not take the process, the instance or its neighbours along.
fn guarded(run: impl FnOnce() -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Error::new(Code::RunFailed, "the engine panicked on this request")))
}
