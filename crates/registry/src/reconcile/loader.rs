//! The threads that take one version after another through its life, up to the point of being published.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use metrics::histogram;
use parking_lot::Mutex;
use sluicegate_core::meter::Meters;
use sluicegate_core::{Code, Digest, Error, Result, Signature, metric};
use sluicegate_engine::{Device, Engines, Footprint, Gpus, Place};

use super::control::{Reply, Report};
use super::{Event, resting};
use crate::assemble::Assembled;
use crate::drain::Reaper;
use crate::load::Loaded;
use crate::manifest::Manifest;
use crate::publish::{Live, Published};
use crate::source::Found;
use crate::spec::Run;
use crate::status::{State, Status};
use crate::verify::Verified;
use crate::warm::Warm;
use sluicegate_triton::ENSEMBLE;
use sluicegate_triton::ensemble::Step;

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
    /// The models that may take the steps of an ensemble.
    pub(super) serving: Published,
    /// Whether the steps of an ensemble do not lead back to it.
    pub(super) straight: Result<()>,
    pub(super) engines: Arc<Engines>,
    pub(super) status: Arc<Status>,
    pub(super) meters: Arc<Meters>,
    pub(super) reaper: Reaper,
    /// Who wants to know what would become of it, where it is not to be published.
    pub(super) trial: Option<Reply>,
}

/// How much memory is taken more, of the process and of the GPUs that a version may go to, as far as it is one load's doing.
struct Growth {
    before: Vec<(Place, Option<u64>)>,
    /// Which load of this process it is.
    place: usize,
    /// Whether none was under way when it began.
    alone: bool,
}

static BEGUN: AtomicUsize = AtomicUsize::new(0);
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

impl Growth {
    fn begin(device: Device) -> Self {
        let gpus = match device {
            Device::Cpu => None,
            Device::Auto => Some(Gpus::FIRST),
            Device::Cuda(gpus) => Some(gpus),
        };
        let places = gpus.into_iter().flat_map(Gpus::numbers).map(Place::Gpu).chain([Place::Host]);
        let before = places.map(|place| (place, place.taken())).collect();
        let alone = UNDER_WAY.fetch_add(1, Ordering::AcqRel) == 0;
        let place = BEGUN.fetch_add(1, Ordering::AcqRel) + 1;
        Self { before, place, alone }
    }

    /// Adds what was measured to what is taken for certain: nothing where another load was under way in between.
    fn end(self, footprint: &mut Footprint) {
        if !self.alone || BEGUN.load(Ordering::Acquire) != self.place {
            return;
        }
        for &(place, before) in &self.before {
            if let Some((after, before)) = place.taken().zip(before) {
                footprint.raise(place, after.saturating_sub(before));
            }
        }
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A version that is ready to be published.
enum Ready {
    Warm(Box<Warm>),
    Assembled(Box<Assembled>),
}

impl Load {
    fn work(&self) -> Result<Live> {
        let began = Instant::now();
        let (model, version) = (&self.found.model, self.found.version);
        let growth = Growth::begin(self.run.options.device);
        let mut live = match self.make_ready(&|state, digest| self.status.set(model, version, state, None, digest))? {
            Ready::Warm(warm) => Live::new(*warm, &self.meters, &self.reaper),
            Ready::Assembled(assembled) => Live::ensemble(*assembled, &self.meters, &self.reaper),
        };
        if live.steps().is_none() {
            let device = live.device.parse().unwrap_or_default();
            let mut footprint = Footprint::of_files(resting::files_of(&self.found), device, &live.run.options);
            growth.end(&mut footprint);
            live.meter.set_footprint(footprint.places().map(|(place, bytes)| (place.to_string(), bytes)).collect());
            live.footprint = footprint;
        }
        histogram!(metric::LOAD_SECONDS, "model" => model.to_string()).record(began.elapsed().as_secs_f64());
        Ok(live)
    }

    /// Loads it, warms it up, and frees it.
    fn try_out(&self) -> Result<Report> {
        let ready = self.make_ready(&|_, _| {}).map_err(|error| Error::new(Code::NotLoaded, error.message()))?;
        let (model, version) = (self.found.model.clone(), self.found.version);
        Ok(match ready {
            Ready::Warm(warm) => {
                let (verified, opened) = (&warm.loaded.verified, &warm.loaded.opened);
                Report {
                    model,
                    version,
                    digest: verified.digest.clone(),
                    engine: opened.engine.name(),
                    fallback: opened.fallback.clone(),
                    device: opened.device.clone(),
                    execution: Some(warm.setup().execution),
                    one_row: warm.one_row,
                    full_batch: warm.full_batch,
                }
            }
            Ready::Assembled(assembled) => Report {
                model,
                version,
                digest: assembled.verified.digest.clone(),
                engine: ENSEMBLE,
                fallback: None,
                device: String::new(),
                execution: None,
                one_row: Duration::ZERO,
                full_batch: Duration::ZERO,
            },
        })
    }

    fn make_ready(&self, step: &dyn Fn(State, Option<Digest>)) -> Result<Ready> {
        let manifest = Manifest::read(&self.found.path)?;
        let verified = Verified::read(self.found.clone(), manifest)?;
        step(State::Verified, Some(verified.digest.clone()));
        let published = self.published.as_ref().map(|live| &live.signature);
        if verified.found.ensemble().is_some() {
            self.straight.clone()?;
            let assembled = Assembled::of(verified, &self.run, published, &|step| self.member(step))?;
            return Ok(Ready::Assembled(Box::new(assembled)));
        }
        let loaded = Loaded::load(verified, &self.engines, &self.run, published)?;
        step(State::Loaded, None);
        let warm = Warm::up(loaded)?;
        step(State::Warm, None);
        Ok(Ready::Warm(Box::new(warm)))
    }

    /// The signature of a model that a step asks. One that is declared and not live yet may still come.
    fn member(&self, step: &Step) -> Result<Signature> {
        let table = self.serving.load();
        let is_known = table.models.contains_key(&step.model);
        let code = |error: &Error| if is_known { error.code() } else { Code::BadManifest };
        let member = table.member(step).map_err(|error| Error::new(code(&error), error.message()))?;
        Ok(member.signature.clone())
    }
}
