//! Loads the version with one setting, by the steps that serving takes, and keeps it busy with callers in this process.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_batch::{Batcher, Execution, Job};
use sluicegate_core::meter::VersionMeter;
use sluicegate_core::{Code, Digest, Error, Result, Tensor};
use sluicegate_engine::{EngineChoice, Engines};
use sluicegate_registry::load::Loaded;
use sluicegate_registry::manifest::Manifest;
use sluicegate_registry::sample;
use sluicegate_registry::spec::{Key, Run};
use sluicegate_registry::verify::Verified;
use sluicegate_registry::warm::Warm;
use smallvec::SmallVec;
use tokio::runtime::Handle;

use super::grid::Setting;
use super::{Ask, Measured};
use crate::subject::Subject;

/// Callers begin before the measurement, so that it finds queues, caches and buffers as they will be.
const LEAD_IN: Duration = Duration::from_millis(500);

/// What does not depend on the setting.
pub(super) struct Facts {
    pub(super) digest: Digest,
    pub(super) engine: EngineChoice,
    pub(super) batched: bool,
}

/// Loads the version once, to know what can be tried.
pub(super) fn look(subject: &Subject, engines: &Engines) -> Result<Facts> {
    let loaded = load(subject, engines, &with(&subject.run, Setting { max_rows: 1, instances: 1, threads: 1 }))?;
    let (digest, batched) = (loaded.verified.digest.clone(), loaded.signature.is_batched());
    Ok(Facts { digest, engine: loaded.opened.engine, batched })
}

/// Loads the version with a setting, drives it for the time asked, and frees it.
pub(super) fn measure(
    subject: &Subject,
    engines: &Engines,
    ask: &Ask,
    setting: Setting,
    facts: &Facts,
    serving: &Handle,
) -> Result<Measured> {
    let run = with(&subject.run, setting);
    let loaded = load(subject, engines, &run)?;
    if loaded.verified.digest != facts.digest {
        let message = "the version's files changed while it was tuned; try again when they have come to rest";
        return Err(Error::new(Code::BadManifest, message));
    }
    let signature = loaded.signature.clone();
    let warm = Warm::up(loaded)?;
    let inputs = sample::inputs(&signature, ask.rows.get())?;
    let wanted = (0..signature.outputs().len()).collect();
    let (batcher, meter) = serve(warm);
    let execution = batcher.setup().execution;
    let driven = Arc::new(Driven { batcher, inputs, wanted, rows: ask.rows.get(), timeout: run.timeout });
    let heard = serving.block_on(drive(&driven, &meter, ask));
    if let Some(driven) = Arc::into_inner(driven) {
        driven.batcher.free();
    }
    Ok(heard?.measured(ask, execution))
}

fn load(subject: &Subject, engines: &Engines, run: &Run) -> Result<Loaded> {
    let manifest = Manifest::read(&subject.found.path)?;
    Loaded::load(Verified::read(subject.found.clone(), manifest)?, engines, run, None)
}

/// What is configured, but for the setting, which wins over a configuration of the model too.
fn with(run: &Run, setting: Setting) -> Run {
    let some = |count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    let mut run = run.clone();
    run.limits.max_rows = setting.max_rows;
    run.options.instances = some(setting.instances);
    run.options.auto_instances = false;
    run.options.threads = some(setting.threads);
    run.said = run.said.and([Key::MaxRows, Key::Instances, Key::Threads]);
    run
}

/// Opens the queue over warm instances, as publishing a version does.
fn serve(warm: Warm) -> (Batcher, Arc<VersionMeter>) {
    let setup = warm.setup();
    let loaded = warm.loaded;
    let (found, opened) = (&loaded.verified.found, loaded.opened);
    let (engine, fallback) = (opened.engine.name(), opened.fallback.is_some());
    let meter = Arc::new(VersionMeter::new(&found.model, found.version, &loaded.verified.digest, engine, fallback));
    (Batcher::new(opened.instances, setup, meter.clone()), meter)
}

/// What the callers share.
struct Driven {
    batcher: Batcher,
    inputs: Vec<Tensor>,
    wanted: SmallVec<[usize; 4]>,
    rows: usize,
    timeout: Duration,
}

/// What the callers saw between two moments.
struct Heard {
    /// The time of each answer in microseconds, ascending.
    micros: Vec<f32>,
    /// From the beginning of the measurement to its last answer.
    time: Duration,
    /// Runs, and rows in them.
    runs: (u64, u64),
}

async fn drive(driven: &Arc<Driven>, meter: &VersionMeter, ask: &Ask) -> Result<Heard> {
    let from = Instant::now() + LEAD_IN.min(ask.time);
    let until = from + ask.time;
    let callers: Vec<_> = (0..ask.callers.get()).map(|_| tokio::spawn(call(driven.clone(), from, until))).collect();
    tokio::time::sleep_until(from.into()).await;
    let before = meter.batch_rows.totals();
    let (mut micros, mut last, mut failed) = (Vec::new(), from, None);
    for caller in callers {
        match caller.await.unwrap_or_else(|_| Err(Error::new(Code::Internal, "a caller panicked"))) {
            Ok((times, end)) => {
                micros.extend(times);
                last = last.max(end);
            }
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let after = meter.batch_rows.totals();
    micros.sort_unstable_by(f32::total_cmp);
    Ok(Heard { micros, time: last - from, runs: (after.0 - before.0, after.1 - before.1) })
}

/// One caller: a request, its answer, the next request, as a task of the gateway has it. The times of those answers that came
/// after `from`, and when the last one did.
async fn call(driven: Arc<Driven>, from: Instant, until: Instant) -> Result<(Vec<f32>, Instant)> {
    let mut micros = Vec::new();
    let mut sent = Instant::now();
    loop {
        // A request comes through a socket, where its task waits its turn; without that an inline run would keep the thread.
        tokio::task::yield_now().await;
        let arrived = Instant::now();
        let job = Job {
            inputs: driven.inputs.clone(),
            wanted: driven.wanted.clone(),
            rows: driven.rows,
            priority: 0,
            arrived,
            deadline: arrived + driven.timeout,
            trace: None,
        };
        driven.batcher.submit(job)?.wait().await?;
        let answered = Instant::now();
        if answered >= from {
            micros.push((answered - sent).as_secs_f32() * 1e6);
        }
        if answered >= until {
            return Ok((micros, answered));
        }
        sent = answered;
    }
}

impl Heard {
    fn measured(&self, ask: &Ask, execution: Execution) -> Measured {
        let at = |quantile: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list")]
            let rank = (quantile * self.micros.len() as f64).ceil() as usize;
            let micros = self.micros.get(rank.saturating_sub(1)).copied().unwrap_or_default();
            Duration::from_secs_f64(f64::from(micros) / 1e6)
        };
        let rows = self.micros.len() as f64 * ask.rows.get() as f64;
        let (runs, run_rows) = self.runs;
        Measured {
            rows_per_second: rows / self.time.as_secs_f64().max(f64::MIN_POSITIVE),
            p50: at(0.5),
            p99: at(0.99),
            rows_per_run: run_rows as f64 / runs.max(1) as f64,
            execution,
        }
    }
}
