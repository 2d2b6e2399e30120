//! Compares what is declared with what is live, again and again, on one thread that alone changes the table.

pub mod control;
mod ensembles;
pub mod hold;
mod loader;
pub mod plan;
pub mod resting;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use metrics::{counter, gauge};
use sluicegate_core::meter::Meters;
use sluicegate_core::{Code, Digest, Error, ModelName, Result, metric};
use sluicegate_engine::{Engines, Footprint};

use crate::configs::Configs;
use crate::drain::Reaper;
use crate::manifest::Manifest;
use crate::publish::{Live, Published};
use crate::settle;
use crate::source::dir::{Directory, Listing};
use crate::source::{Fingerprint, Found};
use crate::spec::{Also, Declared, Memory, Residency, Run, Spec, Want};
use crate::status::{State, Status};
use crate::verify::Verified;
use control::{Ask, Control, Reply, Trial, Waiter};
use hold::{Hold, NOTHING};
use loader::{LOADERS, Load};
use plan::{Failure, Plan, Readiness, Scene, Standing};
use resting::{Awake, Room, Waker, Woken};

/// How often to look while a caller waits for a load: its files may have to come to rest first.
const AGAIN: Duration = Duration::from_millis(100);

/// One declared registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Root {
    /// Its name in the configuration.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// How often it is looked at.
    pub poll: Duration,
    /// How long nothing may have changed in a version without digests before it counts as complete.
    pub settle: Duration,
}

/// The running registry. Dropping it stops its thread; what is published goes on serving.
pub struct Registry {
    /// What serves.
    pub published: Published,
    /// How far each version came.
    pub status: Arc<Status>,
    /// What is counted of each version.
    pub meters: Arc<Meters>,
    /// The way to ask for models that are in memory on demand.
    pub waker: Waker,
    ready: Arc<AtomicBool>,
    events: SyncSender<Event>,
    thread: Option<JoinHandle<()>>,
}

enum Event {
    Declare(Declared),
    Look,
    Ask(Box<Ask>),
    Tried(ModelName),
    Wake(ModelName, Woken),
    Loaded { found: Found, settled: bool, outcome: Result<Arc<Live>> },
    Stop,
}

impl Registry {
    /// Looks at the registries once, then starts the thread that goes on doing so.
    ///
    /// # Errors
    /// [`Code::Io`] where a registry cannot be read; [`Code::BadConfig`] where none of the models declared is there.
    pub fn start(roots: Vec<Root>, declared: Declared, memory: Memory, engines: Arc<Engines>) -> Result<Self> {
        let (published, status, meters) = (Published::default(), Arc::new(Status::default()), Arc::new(Meters::default()));
        let ready = Arc::new(AtomicBool::new(false));
        let (events, inbox) = sync_channel(64);
        let reaper = Reaper::start(status.clone())?;
        let mut thread = Thread {
            roots,
            declared,
            engines,
            reaper,
            published: published.clone(),
            status: status.clone(),
            meters: meters.clone(),
            ready: ready.clone(),
            loaders: loader::start(&events)?,
            found: BTreeMap::new(),
            configs: Configs::default(),
            loading: HashMap::new(),
            outdated: HashSet::new(),
            failed: HashMap::new(),
            digests: HashMap::new(),
            held: BTreeMap::new(),
            waiting: Vec::new(),
            trials: VecDeque::new(),
            memory,
            awake: HashMap::new(),
            waking: HashMap::new(),
            footprints: HashMap::new(),
        };
        for (name, budget) in [(metric::BUDGET, memory.budget.host), (metric::GPU_BUDGET, memory.budget.gpu)] {
            gauge!(name).set(budget.map_or(0, NonZeroU64::get) as f64);
        }
        for root in &thread.roots {
            Directory { root: root.path.clone() }
                .list(SystemTime::now())
                .map_err(|error| error.at(format!("registry `{}`", root.name)))?;
        }
        thread.look();
        if thread.found.values().all(Vec::is_empty) {
            let places = thread.roots.iter().map(|root| root.path.display().to_string()).collect::<Vec<_>>().join(", ");
            let layout = "expected <model>/<version>/model.onnx, such as fraud/1/model.onnx";
            return Err(Error::new(Code::BadConfig, format!("no model found in {places}; {layout}")));
        }
        // Before the first request can come.
        thread.know(&thread.specs());
        let started = std::thread::Builder::new().name("registry".into()).spawn(move || {
            // Nothing that serves waits for it.
            sluicegate_engine::lower_priority();
            thread.work(&inbox);
        });
        let thread = started.map_err(|error| Error::new(Code::Io, format!("no thread for the registry: {error}")))?;
        let waker = Waker { events: events.clone(), flights: Arc::default(), wait: memory.wait };
        Ok(Self { published, status, meters, waker, ready, events, thread: Some(thread) })
    }

    /// Whether every declared model, and every version named beside it, has had its turn, and each model is live. Where
    /// everything found is served, one that fails does not count.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Replaces what is declared.
    pub fn declare(&self, declared: Declared) {
        // The thread empties its inbox between two looks, so that this waits milliseconds at the most.
        let _ = self.events.send(Event::Declare(declared));
    }

    /// The way to ask for loads and unloads by hand.
    pub fn control(&self) -> Control {
        Control(self.events.clone())
    }

    /// Looks at the registries now and not at the next poll.
    pub fn look(&self) {
        let _ = self.events.try_send(Event::Look);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    roots: Vec<Root>,
    declared: Declared,
    engines: Arc<Engines>,
    reaper: Reaper,
    published: Published,
    status: Arc<Status>,
    meters: Arc<Meters>,
    ready: Arc<AtomicBool>,
    loaders: SyncSender<Load>,
    /// What the last good look at each model's registry found, by ascending number.
    found: BTreeMap<ModelName, Vec<Found>>,
    /// The configurations of models that have one.
    configs: Configs,
    /// One load a model at a time, and the memory that it will take.
    loading: HashMap<ModelName, Footprint>,
    /// Ensembles being loaded for which a model of theirs came in the meantime: if they fail, that is not the last word.
    outdated: HashSet<ModelName>,
    failed: HashMap<ModelName, HashMap<u64, Failure>>,
    digests: HashMap<(ModelName, u64, Fingerprint), Option<Digest>>,
    /// What callers changed by hand.
    held: BTreeMap<ModelName, Hold>,
    /// Who waits for a load; bounded, as are the trials.
    waiting: Vec<Waiter>,
    trials: VecDeque<Trial>,
    memory: Memory,
    /// The models on demand that are to be in memory.
    awake: HashMap<ModelName, Awake>,
    waking: HashMap<ModelName, Woken>,
    /// What versions took when they were loaded last.
    footprints: HashMap<(ModelName, u64, Fingerprint), Footprint>,
}

impl Thread {
    fn work(mut self, inbox: &Receiver<Event>) {
        let poll = self.roots.iter().map(|root| root.poll).min().unwrap_or(Duration::from_secs(1));
        let mut next = Instant::now();
        loop {
            if Instant::now() >= next {
                self.look();
                self.note_uses();
                next = Instant::now() + poll;
            }
            self.act();
            self.answer();
            if !self.waiting.is_empty() || !self.waking.is_empty() {
                next = next.min(Instant::now() + AGAIN);
            }
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Event::Declare(declared)) => {
                    self.declared = declared;
                    self.release();
                }
                Ok(Event::Look) => next = Instant::now(),
                Ok(Event::Ask(ask)) => self.ask(*ask),
                Ok(Event::Tried(model)) => drop(self.loading.remove(&model)),
                Ok(Event::Wake(model, woken)) => self.wake(model, woken),
                Ok(Event::Loaded { found, settled, outcome }) => self.loaded(&found, settled, outcome),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Lists every registry. One that cannot be read keeps what it had: a mount that is away for a moment unloads nothing.
    fn look(&mut self) {
        let mut found: BTreeMap<ModelName, Vec<Found>> = BTreeMap::new();
        let mut whole = true;
        for root in &self.roots {
            let listing = Directory { root: root.path.clone() }.list_with(SystemTime::now(), &mut self.configs);
            let empty = |listing: &Listing| listing.models.is_empty() && !self.found.is_empty();
            match listing {
                Ok(listing) if !empty(&listing) => {
                    for model in listing.models {
                        found.entry(model).or_default();
                    }
                    for version in listing.found {
                        found.entry(version.model.clone()).or_default().push(version);
                    }
                }
                Ok(_) => whole = false,
                Err(error) => {
                    tracing::warn!(registry = root.name, %error, "registry cannot be read; what is live goes on");
                    whole = false;
                }
            }
        }
        let outcome = if whole { "ok" } else { "failed" };
        counter!(metric::REGISTRY_SCANS, "outcome" => outcome).increment(1);
        if whole {
            found.values_mut().for_each(|versions| versions.sort_by_key(|found| found.version));
            self.found = found;
        }
    }

    fn specs(&self) -> Vec<Spec> {
        let mut specs = match &self.declared {
            Declared::Models(specs, _) => specs.clone(),
            Declared::Everything(run) => self.found.keys().map(|name| self.plain(name, run)).collect(),
        };
        for (model, hold) in &self.held {
            match specs.iter_mut().find(|spec| spec.name == *model) {
                Some(spec) => *spec = self.spec_of(model, hold),
                None if hold.declared.is_none() => specs.push(self.spec_of(model, hold)),
                None => {}
            }
        }
        specs
    }

    /// What is declared of a model.
    fn declared_of(&self, model: &ModelName) -> Option<Spec> {
        match &self.declared {
            Declared::Models(specs, _) => specs.iter().find(|spec| spec.name == *model).cloned(),
            Declared::Everything(run) => self.found.contains_key(model).then(|| self.plain(model, run)),
        }
    }

    fn plain(&self, name: &ModelName, run: &Run) -> Spec {
        let registry = self.roots.first().map(|root| root.name.clone()).unwrap_or_default();
        let (also, aliases) = (Also::Numbers(Vec::new()), Arc::default());
        let residency = Residency::Pinned;
        Spec { name: name.clone(), registry, version: Want::Latest, also, aliases, residency, run: run.clone() }
    }

    fn act(&mut self) {
        let specs = self.specs();
        self.forget_undeclared(&specs);
        self.know(&specs);
        for spec in &specs {
            let plan = self.plan(spec);
            self.switch(spec, &plan);
            if let Some(version) = plan.load
                && self.loading.len() < LOADERS
                && !self.loading.contains_key(&spec.name)
            {
                self.start_load(spec, version, plan.default);
            }
            for version in plan.retire {
                self.retire(&spec.name, version);
            }
        }
        // Said once, and kept: a model that is declared later must not take the whole gateway out of its load balancer.
        if !self.ready.load(Ordering::Acquire) && self.is_ready_now(&specs) {
            self.ready.store(true, Ordering::Release);
            tracing::info!(models = specs.len(), "every model has had its turn; ready");
        }
    }

    fn is_ready_now(&self, specs: &[Spec]) -> bool {
        let table = self.published.load();
        let lenient = matches!(self.declared, Declared::Everything(_));
        let live = |spec: &Spec| table.models.get(&spec.name).is_some_and(|served| served.default.is_some());
        let settled = |spec: &Spec| !self.loading.contains_key(&spec.name) && self.plan(spec).load.is_none();
        let off = |spec: &Spec| self.held.get(&spec.name).is_some_and(|hold| hold.off) || spec.residency == Residency::OnDemand;
        specs.iter().any(|spec| live(spec) || self.rests(spec))
            && specs.iter().all(|spec| settled(spec) && (lenient || live(spec) || off(spec)))
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let settle = self.settle(spec);
        self.scene(spec, self.held.get(&spec.name).unwrap_or(&NOTHING), &|found| readiness(found, settle))
    }

    fn settle(&self, spec: &Spec) -> Duration {
        self.roots.iter().find(|root| root.name == spec.registry).map_or(Duration::ZERO, |root| root.settle)
    }

    fn scene(&self, spec: &Spec, hold: &Hold, readiness: &dyn Fn(&Found) -> Readiness) -> Plan {
        let none = Vec::new();
        let found = self.found.get(&spec.name).unwrap_or(&none);
        let table = self.published.load();
        let served = table.models.get(&spec.name);
        let live: HashMap<u64, Standing<'_>> = served
            .into_iter()
            .flat_map(|served| &served.versions)
            .map(|(number, live)| (*number, Standing { fingerprint: live.fingerprint, run: &live.declared }))
            .collect();
        let default = served.and_then(|served| served.default.as_ref()).map(|live| live.version);
        plan::plan(&Scene {
            spec: &settle::versions(spec, found, default),
            found,
            readiness,
            has_digest: &|found| match &spec.version {
                Want::Digest(wanted) => self.digests.get(&key(found)).is_some_and(|digest| digest.as_ref() == Some(wanted)),
                _ => false,
            },
            failed: self.failed.get(&spec.name).unwrap_or(&HashMap::new()),
            live: &live,
            default,
            hold,
            rests: self.rests(spec),
        })
    }

    fn start_load(&mut self, spec: &Spec, version: u64, default: Option<u64>) {
        let found = self.found.get(&spec.name).and_then(|all| all.iter().find(|found| found.version == version)).cloned();
        let Some(found) = found else { return };
        match self.room_for(spec, &found) {
            Room::Now(need) => {
                let load = self.load_of(spec, &found, default, None);
                self.status.set(&spec.name, version, State::Found, None, None);
                self.start(load, need);
            }
            Room::Later(place, need) => {
                let setting = place.setting();
                let reason = format!("waiting for {need} bytes of memory on {place}: models in use take the rest of {setting}");
                self.status.set(&spec.name, version, State::Found, Some(reason), None);
            }
            Room::Never(reason) => self.loaded(&found, true, Err(Error::new(Code::LoadFailed, reason))),
        }
    }

    fn load_of(&self, spec: &Spec, found: &Found, default: Option<u64>, trial: Option<Reply>) -> Load {
        Load {
            found: found.clone(),
            settled: readiness(found, self.settle(spec)) == Readiness::Settled,
            run: spec.run.clone(),
            // Only the version that callers get without asking for it must not break them.
            published: self
                .published
                .load()
                .models
                .get(&spec.name)
                .and_then(|served| served.default.clone())
                .filter(|_| default == Some(found.version)),
            serving: self.published.clone(),
            straight: self.is_straight(&spec.name),
            engines: self.engines.clone(),
            status: self.status.clone(),
            meters: self.meters.clone(),
            reaper: self.reaper.clone(),
            trial,
        }
    }

    fn start(&mut self, load: Load, need: Footprint) {
        let model = load.found.model.clone();
        self.loading.insert(model.clone(), need);
        // Never full: there are no more loads under way than threads that take them.
        if self.loaders.send(load).is_err() {
            self.loading.remove(&model);
        }
    }

    /// Starts the loads that are only tried, as there is room for them.
    fn try_out(&mut self) {
        while self.loading.len() < LOADERS
            && let Some(next) = self.trials.iter().position(|trial| !self.loading.contains_key(&trial.found.model))
            && let Some(Trial { spec, found, default, reply }) = self.trials.remove(next)
        {
            let load = self.load_of(&spec, &found, default.then_some(found.version), Some(reply));
            let need = Footprint::of_files(resting::files_of(&load.found), load.run.options.device, &load.run.options);
            self.start(load, need);
        }
    }

    fn loaded(&mut self, found: &Found, settled: bool, outcome: Result<Arc<Live>>) {
        let Found { model, version, .. } = found;
        self.loading.remove(model);
        let outdated = self.outdated.remove(model);
        match outcome {
            Ok(live) => {
                self.footprints.insert(key(found), live.footprint.clone());
                if let Some(failed) = self.failed.get_mut(model) {
                    failed.remove(version);
                }
                if self.held.get(model).is_some_and(|hold| hold.leaves(*version)) {
                    // It was unloaded before it came.
                    self.status.set(model, *version, State::Gone, None, None);
                } else {
                    self.publish(&live);
                    self.retry_ensembles_of(model);
                }
            }
            Err(error) if outdated => tracing::debug!(%model, version, %error, "ensemble is tried again"),
            Err(error) if !settled || error.code() == Code::NotReady => {
                // Perhaps its files are still on their way, or a model that takes its steps is.
                tracing::debug!(%model, version, %error, "version is not complete yet");
                self.fail(found, settled);
                self.status.set(model, *version, State::Found, Some(format!("waiting: {error}")), None);
            }
            Err(error) => {
                tracing::error!(%model, version, %error, code = error.code().name(), "version failed; what is live goes on");
                counter!(metric::LOADS, "model" => model.to_string(), "outcome" => "failed").increment(1);
                self.fail(found, settled);
                let reason = error.message().to_owned();
                self.tell_failure(found, &reason);
                let live = self.published.load().models.get(model).is_some_and(|served| served.versions.contains_key(version));
                if live {
                    let reason = format!("serves its former files; the new ones failed: {reason}");
                    self.status.set(model, *version, State::Live, Some(reason), None);
                } else {
                    self.status.set(model, *version, State::Failed, Some(reason.clone()), None);
                }
                self.published.change(|table| {
                    let served = table.models.entry(model.clone()).or_default();
                    served.reason = Some(format!("version {version} failed: {reason}"));
                });
            }
        }
    }

    fn fail(&mut self, found: &Found, settled: bool) {
        let failure = Failure { fingerprint: found.fingerprint, settled };
        self.failed.entry(found.model.clone()).or_default().insert(found.version, failure);
    }
}

fn readiness(found: &Found, settle: Duration) -> Readiness {
    Readiness::of(found.still, settle, || Manifest::read(&found.path).is_ok_and(|manifest| Verified::is_vouched(&manifest)))
}

fn key(found: &Found) -> (ModelName, u64, Fingerprint) {
    (found.model.clone(), found.version, found.fingerprint)
}
