//! Who runs a batch: the thread of a caller who found an instance idle, or a thread of the model's own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::MutexGuard;
use sluicegate_core::{Code, Error, Result, Tensor};

use crate::policy::{Entry, Next};
use crate::queue::{Instance, Shared, Work};
use crate::stack;
use crate::ticket::Done;

/// Runs the caller's batch on the caller's thread, then gives the instance on: to a task that serves those who came
/// meanwhile, or back to the idle ones.
pub(crate) fn lead(shared: &Arc<Shared>, mut instance: Instance) {
    let next = shared.state.lock().next(shared);
    if let Next::Run(batch) = next {
        run(shared, &mut instance, batch);
    }
    if let Some(instance) = rest(shared, instance) {
        tokio::spawn(follow(shared.clone(), instance));
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

/// Starts a thread that owns an instance until the version closes.
pub(crate) fn spawn(name: &str, shared: Arc<Shared>, mut instance: Instance) -> Result<JoinHandle<()>> {
    let serve = move || {
        let mut state = shared.state.lock();
        loop {
            match state.next(&shared) {
                Next::Run(batch) => {
                    // One caller wakes one thread; a thread wakes the next while more waits.
                    if !state.waiting.is_empty() {
                        shared.more.notify_one();
                    }
                    MutexGuard::unlocked(&mut state, || run(&shared, &mut instance, batch));
                }
                Next::Wait(until) => drop(shared.more.wait_until(&mut state, until)),
                Next::Empty if state.closed => return,
                Next::Empty => shared.more.wait(&mut state),
            }
        }
    };
    // Linux keeps 15 characters of a thread's name.
    let name: String = name.chars().take(15).collect();
    let started = std::thread::Builder::new().name(name).spawn(serve);
    started.map_err(|error| Error::new(Code::Io, format!("no thread for an instance: {error}")))
}

fn run(shared: &Shared, instance: &mut Instance, batch: Vec<Entry<Work>>) {
    let started = Instant::now();
    let rows: usize = batch.iter().map(|entry| entry.rows).sum();
    shared.meter.batch_rows.record_rows(rows);
    let outcome = outputs(instance, &batch, shared.batched);
    let compute = started.elapsed();
    match outcome {
        Ok(slices) => {
            for (entry, outputs) in batch.into_iter().zip(slices) {
                let queue = started.saturating_duration_since(entry.arrived);
                let _ = entry.payload.reply.send(Ok(Done { outputs, queue, compute }));
            }
        }
        Err(error) if batch.len() == 1 => {
            for entry in batch {
                let _ = entry.payload.reply.send(Err(error.clone()));
            }
        }
        // One of them made the run fail; alone, each gets the answer that it would have had without the others.
        Err(_) => batch.into_iter().for_each(|entry| run(shared, instance, vec![entry])),
    }
}

fn outputs(instance: &mut Instance, batch: &[Entry<Work>], batched: bool) -> Result<Vec<Vec<Tensor>>> {
    let [first, ..] = batch else { return Ok(Vec::new()) };
    let Instance { engine, scratch } = instance;
    let wanted = &first.payload.wanted[..];
    if batch.len() == 1 {
        let outputs = guarded(|| engine.run(&first.payload.inputs, wanted))?;
        if batched {
            stack::check(&outputs, first.rows)?;
        }
        return Ok(vec![outputs]);
    }
    let parts: Vec<&[Tensor]> = batch.iter().map(|entry| &entry.payload.inputs[..]).collect();
    let joined = stack::join(&parts, scratch)?;
    let outputs = guarded(|| engine.run(&joined, wanted))?;
    let rows: Vec<usize> = batch.iter().map(|entry| entry.rows).collect();
    stack::cut(&outputs, &rows)
}

/// A model must not take the process, the instance or its neighbours along.
fn guarded(run: impl FnOnce() -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Error::new(Code::RunFailed, "the engine panicked on this request")))
}
