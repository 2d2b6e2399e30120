//! Queues a checked request, waits for its run, and puts the answer together.

use std::time::Instant;

use bytes::Bytes;
use sluicegate_batch::{Done, Job};
use sluicegate_core::response::{Cached, Output};
use sluicegate_core::shape::Dim;
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::trace::{BATCH_SIZE, Span};
use sluicegate_core::{Code, Error, Response, Result, Shape, Tensor};
use sluicegate_registry::{Live, Work};

use crate::ensemble;
use crate::route::Routed;
use crate::validate::Checked;

/// Runs a request on the version that it was routed to.
///
/// # Errors
/// Overload where the queue has no room or the time runs out, the model's fault where the run fails.
pub async fn run(routed: &Routed, checked: Checked) -> Result<Response> {
    let live = routed.live();
    let Checked { id, inputs, wanted, rows, priority, timeout, .. } = checked;
    let nothing = || wanted.iter().map(|&place| empty(&live.signature.outputs()[place])).collect::<Option<Vec<_>>>();
    let outputs = match (rows, nothing) {
        // Not every operator takes zero rows, and the answer is known.
        (0, nothing) if let Some(empty) = nothing() => empty,
        _ => {
            let arrived = Instant::now();
            let own = timeout.filter(|_| live.run.own_timeout || routed.is_step());
            let deadline = arrived + routed.time(own.map_or(live.run.timeout, |timeout| timeout.min(live.run.timeout)));
            let job = Job { inputs, wanted: wanted.clone(), rows, priority, arrived, deadline, trace: routed.trace().cloned() };
            match live.work() {
                Work::Batches(batches) => {
                    let job = Job { priority: live.run.priorities.of(priority), ..job };
                    let ticket = batches.batcher.submit(job)?;
                    let done = ticket.wait().await.inspect_err(|error| not_run(routed, arrived, error))?;
                    ran(routed, arrived, &done);
                    live.meter.queue.record(done.queue);
                    live.meter.compute.record(done.compute);
                    done.outputs
                }
                // In a box, so that it does not widen the way of all others.
                Work::Steps(steps) => Box::pin(ensemble::run(routed, steps, job)).await?,
            }
        }
    };
    let output =
        |(&place, tensor): (&usize, Tensor)| Output { name: live.signature.outputs()[place].name.clone(), place, tensor };
    Ok(respond(live, id, wanted.iter().zip(outputs).map(output).collect(), None))
}

/// Tells the spans of a request that was run: how long it waited, and the run that it shared.
fn ran(routed: &Routed, arrived: Instant, done: &Done) {
    let Some(trace) = routed.trace() else { return };
    let meter = &routed.live().meter;
    meter.queue.mark(done.queue, trace.place());
    meter.compute.mark(done.compute, trace.place());
    let now = Instant::now();
    let began = (arrived + done.queue).min(now);
    trace.add(Span::new("queue", arrived, began));
    let rows: usize = done.batches.iter().map(|batch| batch.rows).sum();
    trace.add(Span {
        attributes: vec![(BATCH_SIZE, rows.into())],
        links: done.batches.iter().map(|batch| batch.place).collect(),
        // Pieces of a large request are run side by side, and their times added up.
        ..Span::new("infer", began, (began + done.compute).min(now))
    });
}

/// The same for one that got no answer: nobody knows when its run began, if it did.
fn not_run(routed: &Routed, arrived: Instant, error: &Error) {
    let Some(trace) = routed.trace() else { return };
    let name = if error.code() == Code::RunFailed { "infer" } else { "queue" };
    trace.add(Span { error: Some(error.code()), ..Span::new(name, arrived, Instant::now()) });
}

/// Puts an answer together.
pub(crate) fn respond(live: &Live, id: Option<String>, outputs: Vec<Output>, cached: Option<Cached>) -> Response {
    Response { model: live.model.clone(), version: live.version, digest: live.digest.clone(), id, outputs, cached }
}

/// An output of no rows, where the signature says the sizes of a row.
fn empty(spec: &TensorSpec) -> Option<Tensor> {
    let inner: Option<Vec<usize>> = spec.dims.iter().skip(1).map(Dim::fixed).collect();
    let shape: Shape = std::iter::once(0).chain(inner?).collect();
    match spec.dtype.size() {
        Some(_) => Tensor::fixed(spec.dtype, shape, Bytes::new()).ok(),
        None => Tensor::text(shape, Vec::new()).ok(),
    }
}
