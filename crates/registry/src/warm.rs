//! Lets a loaded version answer before anybody is served by it, and measures what it costs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use sluicegate_batch::Setup;
use sluicegate_core::shape::Dims;
use sluicegate_core::{Code, Error, Result, Signature, Tensor};
use sluicegate_engine::Engine;

use crate::load::Loaded;
use crate::sample;
use sluicegate_triton::warmup;

/// Runs of each size; the shortest one counts, because the first ones pay for the engine's own preparations.
const RUNS: usize = 4;

/// A version whose every instance has answered.
pub struct Warm {
    /// What was loaded.
    pub loaded: Loaded,
    /// The shortest run of one row.
    pub one_row: Duration,
    /// The shortest run of a full batch; that of one row where the model is not batched.
    pub full_batch: Duration,
}

impl Warm {
    /// How its queue is to take what comes.
    pub fn setup(&self) -> Setup {
        let (found, run) = (&self.loaded.verified.found, &self.loaded.run);
        // What a text costs goes by its length, which the warm-up's says nothing of.
        let cost = if self.loaded.opened.text { Duration::MAX } else { self.full_batch };
        Setup {
            name: format!("{}@{}", found.model, found.version),
            execution: run.execution.resolve(cost),
            limits: run.limits,
            preferred: run.preferred.clone(),
            batched: self.loaded.signature.is_batched(),
            padding: self.loaded.padding.clone(),
        }
    }

    /// Warms every instance up with one row, with two and with a full batch.
    ///
    /// # Errors
    /// [`Code::RunFailed`] where an instance fails or answers something else than its signature says.
    pub fn up(mut loaded: Loaded) -> Result<Self> {
        let max_rows = loaded.run.limits.max_rows;
        let signature = &loaded.signature;
        let sizes: &[usize] = if signature.is_batched() { &[1, 2.min(max_rows), max_rows] } else { &[1] };
        let mut costs = Vec::new();
        for &rows in sizes {
            let inputs = sample::inputs(signature, rows)?;
            let mut cost = Duration::MAX;
            for engine in &mut loaded.opened.instances {
                cost = cost.min(measure(engine.as_mut(), &inputs, signature, rows)?);
            }
            costs.push(cost);
        }
        let found = &loaded.verified.found;
        if let Some(config) = found.config()? {
            for sample in &warmup::samples(&config.model, found.model_directory(), signature)? {
                for engine in &mut loaded.opened.instances {
                    for _ in 0..sample.count {
                        let answered = answer(engine.as_mut(), &sample.inputs, signature, sample.rows);
                        answered.map_err(|error| error.at(format!("model_warmup `{}`", sample.name)))?;
                    }
                }
            }
        }
        let one_row = costs.first().copied().unwrap_or_default();
        let full_batch = costs.last().copied().unwrap_or_default();
        Ok(Self { loaded, one_row, full_batch })
    }
}

fn measure(engine: &mut dyn Engine, inputs: &[Tensor], signature: &Signature, rows: usize) -> Result<Duration> {
    let mut shortest = Duration::MAX;
    for _ in 0..RUNS {
        shortest = shortest.min(answer(engine, inputs, signature, rows)?);
    }
    Ok(shortest)
}

/// Runs it once: how long that took.
fn answer(engine: &mut dyn Engine, inputs: &[Tensor], signature: &Signature, rows: usize) -> Result<Duration> {
    let wanted: Vec<usize> = (0..signature.outputs().len()).collect();
    let began = Instant::now();
    let outputs = catch_unwind(AssertUnwindSafe(|| engine.run(inputs, &wanted)))
        .unwrap_or_else(|_| Err(Error::new(Code::RunFailed, "the engine panicked")))
        .map_err(|error| error.at(format!("warm-up with {rows} rows")))?;
    let took = began.elapsed();
    check(&outputs, signature, rows)?;
    Ok(took)
}

fn check(outputs: &[Tensor], signature: &Signature, rows: usize) -> Result<()> {
    for (output, spec) in outputs.iter().zip(signature.outputs()) {
        let sizes = output.shape().sizes();
        let fits = sizes.len() == spec.dims.len() && spec.dims.iter().zip(sizes).all(|(dim, &size)| dim.admits(size));
        let kept = !signature.is_batched() || sizes.first() == Some(&rows);
        if output.dtype() != spec.dtype || !fits || !kept {
            return Err(Error::new(
                Code::RunFailed,
                format!(
                    "warm-up with {rows} rows: output `{}` came back as {} {}, its signature says {} {}",
                    spec.name,
                    output.dtype(),
                    output.shape(),
                    spec.dtype,
                    Dims(&spec.dims)
                ),
            ));
        }
    }
    Ok(())
}
