//! The threads that take one version after another through its life, up to the point of being published.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use metrics::histogram;
use parking_lot::Mutex;
use sluicegate_core::meter::Meters;
use sluicegate_core::{Code, Digest, Error, Result, metric};
use sluicegate_engine::Engines;

use super::Event;
use super::control::{Reply, Report};
use crate::drain::Reaper;
use crate::load::Loaded;
use crate::manifest::Manifest;
use crate::publish::Live;
use crate::source::Found;
use crate::spec::Run;
use crate::status::{State, Status};
use crate::verify::Verified;
use crate::warm::Warm;

/// Loads at once: one big model must not hold up the others, and serving needs the cores more.
pub(super) const LOADERS: usize = 2;

/// Starts the threads that load. They stay: memory that a thread took is reused best by the same thread.
pub(super) fn start(events: &SyncSender<Event>) -> Result<SyncSender<Load>> {
    let (sender, loads) = sync_channel::<Load>(LOADERS);
    let loads = Arc::new(Mutex::new(loads));
    for _ in 0..LOADERS {
        let (loads, events) = (loads.clone(), events.clone());
        let work = move || {
            sluicegate_engine::lower_priority();
            loop {
                // Held while it waits: the other one waits for the lock, which is the same.
                let next = loads.lock().recv();
                let Ok(mut load) = next else { return };
                match load.trial.take() {
                    Some(reply) => {
                        let _ = reply.send(load.try_out().map(Some));
                        let _ = events.send(Event::Tried(load.found.model));
                    }
                    None => {
                        let outcome = load.work().map(Arc::new);
                        let Load { found, settled, .. } = load;
                        let _ = events.send(Event::Loaded { found, settled, outcome });
                    }
                }
            }
        };
        let started = std::thread::Builder::new().name("load".into()).spawn(work);
        started.map_err(|error| Error::new(Code::Io, format!("no thread to load versions: {error}")))?;
    }
    Ok(sender)
}

/// One version on its way.
pub(super) struct Load {
    pub(super) found: Found,
    /// Whether its files had come to rest: if not, a failure may only mean that they are still on their way.
    pub(super) settled: bool,
    pub(super) run: Run,
    /// The version whose callers it must not break.
    pub(super) published: Option<Arc<Live>>,
    pub(super) engines: Arc<Engines>,
    pub(super) status: Arc<Status>,
    pub(super) meters: Arc<Meters>,
    pub(super) reaper: Reaper,
    /// Who wants to know what would become of it, where it is not to be published.
    pub(super) trial: Option<Reply>,
}

impl Load {
    fn work(&self) -> Result<Live> {
        let began = Instant::now();
        let (model, version) = (&self.found.model, self.found.version);
        let warm = self.warm(&|state, digest| self.status.set(model, version, state, None, digest))?;
        let live = Live::new(warm, &self.run, &self.meters, &self.reaper);
        histogram!(metric::LOAD_SECONDS, "model" => model.to_string()).record(began.elapsed().as_secs_f64());
        Ok(live)
    }

    /// Loads it, warms it up, and frees it.
    fn try_out(&self) -> Result<Report> {
        let warm = self.warm(&|_, _| {}).map_err(|error| Error::new(Code::NotLoaded, error.message()))?;
        let (verified, opened) = (&warm.loaded.verified, &warm.loaded.opened);
        Ok(Report {
            model: self.found.model.clone(),
            version: self.found.version,
            digest: verified.digest.clone(),
            engine: opened.engine.name(),
            fallback: opened.fallback.clone(),
            device: opened.device.clone(),
            execution: warm.setup(&self.run).execution,
            one_row: warm.one_row,
            full_batch: warm.full_batch,
        })
    }

    fn warm(&self, step: &dyn Fn(State, Option<Digest>)) -> Result<Warm> {
        let manifest = Manifest::read(&self.found.path)?;
        let verified = Verified::read(self.found.clone(), manifest)?;
        step(State::Verified, Some(verified.digest.clone()));
        let published = self.published.as_ref().map(|live| &live.signature);
        let loaded = Loaded::load(verified, &self.engines, &self.run, published)?;
        step(State::Loaded, None);
        let warm = Warm::up(loaded, self.run.limits.max_rows)?;
        step(State::Warm, None);
        Ok(warm)
    }
}
