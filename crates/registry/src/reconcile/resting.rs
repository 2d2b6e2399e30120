//! Models that are in memory on demand: a request wakes them, and those used longest ago rest where others need the room.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use metrics::counter;
use parking_lot::Mutex;
use sluicegate_core::{Code, Error, ModelName, Result, metric};
use sluicegate_engine::{Footprint, Place};
use tokio::sync::watch;

use super::{Event, Thread};
use crate::publish::Served;
use crate::source::Found;
use crate::source::dir;
use crate::spec::{Residency, Spec};

/// How long a model stays whose callers have not come yet: they were told a moment ago that it is there.
const FRESH: Duration = Duration::from_secs(1);

/// Who waits for a model, and is told what became of it.
pub(super) type Woken = watch::Sender<Option<Result<()>>>;

/// The other end of it.
type Flight = watch::Receiver<Option<Result<()>>>;

/// How those ask who need a model that is not in memory. However many they are, they wait for one load. Cheap to clone.
#[derive(Clone)]
pub struct Waker {
    pub(super) events: SyncSender<Event>,
    pub(super) flights: Arc<Mutex<HashMap<ModelName, Flight>>>,
    /// As `memory.wait` sets it.
    pub(super) wait: Duration,
}

impl Waker {
    /// Waits until a model is live, from `since` on and for as long as `memory.wait` says.
    ///
    /// # Errors
    /// [`Code::NotReady`] where it could not be loaded, or not in time: it is loaded further then.
    pub async fn wake(&self, model: &str, since: Instant) -> Result<()> {
        let mut flight = self.join(model)?;
        let deadline = tokio::time::Instant::from_std(since + self.wait);
        match tokio::time::timeout_at(deadline, flight.wait_for(Option::is_some)).await {
            Ok(Ok(landed)) => landed.clone().unwrap_or(Ok(())),
            Ok(Err(_)) => Err(going()),
            Err(_) => Err(Error::new(
                Code::NotReady,
                format!(
                    "model `{model}` was not in memory, and is not after {:?} (memory.wait): it is being loaded, or waits for room \
                     (memory.budget); /status says which",
                    self.wait
                ),
            )),
        }
    }

    fn join(&self, model: &str) -> Result<Flight> {
        let model: ModelName = model.parse()?;
        let mut flights = self.flights.lock();
        // One that has landed has its outcome, or has lost its sender.
        let is_flying = |flight: &&Flight| flight.has_changed().is_ok() && flight.borrow().is_none();
        if let Some(flight) = flights.get(&model).filter(is_flying) {
            return Ok(flight.clone());
        }
        let (woken, flight) = watch::channel(None);
        self.events.try_send(Event::Wake(model.clone(), woken)).map_err(|error| match error {
            TrySendError::Full(_) => Error::new(Code::TooBusy, "too many models are asked for at once; try again later"),
            TrySendError::Disconnected(_) => going(),
        })?;
        // No more entries than models that were ever asked for and are declared.
        flights.insert(model, flight.clone());
        Ok(flight)
    }
}

fn going() -> Error {
    Error::new(Code::NotReady, "the gateway is going, and loads nothing any more")
}

/// A model on demand that is to be in memory.
pub(super) struct Awake {
    /// Its requests when they were counted last.
    requests: u64,
    /// When they were seen to have become more.
    used: Instant,
    /// Whether any came since it woke.
    asked: bool,
}

/// Whether a version may be loaded.
pub(super) enum Room {
    /// And what it is reckoned to take.
    Now(Footprint),
    /// When others have less to do, or less is in memory: so many bytes are missing a place.
    Later(Place, u64),
    Never(String),
}

impl Thread {
    /// Whether none of a model's versions is to be in memory.
    pub(super) fn rests(&self, spec: &Spec) -> bool {
        spec.residency == Residency::OnDemand && !self.awake.contains_key(&spec.name)
    }

    /// Takes note of a request for a model; what there is to do follows from the plan.
    pub(super) fn wake(&mut self, model: ModelName, woken: Woken) {
        self.demand(model.clone());
        self.waking.insert(model, woken);
    }

    /// From now on the model is to be in memory.
    pub(super) fn demand(&mut self, model: ModelName) {
        self.awake.entry(model).or_insert_with(|| Awake { requests: 0, used: Instant::now(), asked: false });
    }

    /// Tells those who wait for models what became of them.
    pub(super) fn tell_woken(&mut self) {
        let waking = std::mem::take(&mut self.waking);
        for (model, woken) in waking {
            let Some(outcome) = self.outcome(&model, None, None) else {
                self.waking.insert(model, woken);
                continue;
            };
            let failed = outcome.is_err();
            counter!(metric::WAKES, "model" => model.to_string(), "outcome" => if failed { "failed" } else { "live" })
                .increment(1);
            if failed {
                self.awake.remove(&model);
            } else if let Some(awake) = self.awake.get_mut(&model) {
                // They come from now on.
                (awake.asked, awake.used) = (false, Instant::now());
            }
            let said = |_| {
                let table = self.published.load();
                let reason = table.models.get(&model).and_then(|served| served.reason.clone());
                let reason = reason.unwrap_or_else(|| "no registry has a version of it that can be served".to_owned());
                Error::new(Code::NotReady, format!("model `{model}` could not be loaded: {reason}"))
            };
            let _ = woken.send(Some(outcome.map_err(said)));
        }
    }

    /// Makes room for a version, as far as models on demand that nobody uses take it. What is pinned has its room whatever
    /// the budget is.
    pub(super) fn room_for(&mut self, spec: &Spec, found: &Found) -> Room {
        let files = Footprint::of_files(files_of(found), spec.run.options.device, &spec.run.options);
        let pinned = spec.residency == Residency::Pinned;
        let too_big = |(place, bytes): &(Place, u64)| !pinned && !self.memory.budget.has_room(*place, 0, *bytes);
        if let Some((place, bytes)) = files.places().find(too_big) {
            let (setting, budget) = (place.setting(), self.memory.budget.of(place).unwrap_or_default());
            return Room::Never(format!("its files have {bytes} bytes for {place}, and {setting} is {budget}"));
        }
        // One that was measured to take more than all of it has it for itself.
        let need = self.footprints.get(&super::key(found)).cloned().unwrap_or(files).within(self.memory.budget);
        self.note_uses();
        for (place, bytes) in need.places() {
            while !self.memory.budget.has_room(place, self.taken().on(place), bytes) {
                match self.idlest(place) {
                    Some(idle) => self.rest(&idle),
                    None if pinned => break,
                    None => return Room::Later(place, bytes),
                }
            }
        }
        Room::Now(need)
    }

    /// Memory that is taken, and that will be by what is being loaded.
    fn taken(&self) -> Footprint {
        let table = self.published.load();
        let live = table.live();
        live.iter().map(|live| &live.footprint).chain(self.loading.values()).sum()
    }

    /// Looks which models on demand had requests since the last look.
    pub(super) fn note_uses(&mut self) {
        let table = self.published.load();
        for (model, awake) in &mut self.awake {
            let versions = table.models.get(model).into_iter().flat_map(|served| served.versions.values());
            let requests: u64 = versions.map(|live| live.meter.succeeded().count + live.meter.failures().count).sum();
            if requests != awake.requests {
                *awake = Awake { requests, used: Instant::now(), asked: true };
            }
        }
    }

    /// The model on demand that was used longest ago, of those that take a memory and have nothing in flight.
    fn idlest(&self, place: Place) -> Option<ModelName> {
        let table = self.published.load();
        let takes = |served: &Served| served.versions.values().any(|live| live.footprint.on(place) > 0);
        let may_rest = |(model, awake): &(&ModelName, &Awake)| {
            let came = awake.asked || awake.used.elapsed() > FRESH;
            let is_to_come = self.loading.contains_key(*model) || self.waking.contains_key(*model);
            came && !is_to_come && table.models.get(*model).is_some_and(|served| takes(served) && is_idle(served))
        };
        self.awake.iter().filter(may_rest).min_by_key(|(_, awake)| awake.used).map(|(model, _)| model.clone())
    }

    fn rest(&mut self, model: &ModelName) {
        self.awake.remove(model);
        counter!(metric::RESTS, "model" => model.to_string()).increment(1);
        tracing::info!(%model, "model rests, to make room");
        let mut versions = Vec::new();
        self.published.change(|table| {
            if let Some(served) = table.models.get_mut(model) {
                served.default = None;
                served.reason = None;
                versions.extend(served.versions.keys());
            }
        });
        versions.into_iter().for_each(|version| self.retire(model, version));
    }
}

/// Whether the table alone holds a model's versions: each request holds its own to its end.
fn is_idle(served: &Served) -> bool {
    let held = |live: &Arc<crate::Live>| {
        let default = served.default.as_ref().is_some_and(|default| Arc::ptr_eq(default, live));
        Arc::strong_count(live) > 1 + usize::from(default)
    };
    !served.versions.is_empty() && !served.versions.values().any(held)
}

/// Bytes of a version's files: the least that it takes.
pub(super) fn files_of(found: &Found) -> u64 {
    let size = |file: &std::path::PathBuf| std::fs::metadata(found.path.join(file)).map_or(0, |about| about.len());
    dir::files(&found.path).unwrap_or_default().iter().map(size).sum()
}
