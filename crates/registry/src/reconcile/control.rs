//! What callers ask for by hand: loads, unloads, and loads that are only tried. The registry's thread answers them between its
//! steps; a load is answered when its version is live or has failed, and never takes away what serves.

use std::collections::BTreeSet;
use std::time::Duration;

use sluicegate_batch::Execution;
use sluicegate_core::{Code, Digest, Error, ModelName, Result};
use tokio::sync::oneshot;

use super::hold::{Hold, NOTHING};
use super::plan::Readiness;
use super::{Event, Thread, key};
use crate::manifest::Manifest;
use crate::source::Found;
use crate::spec::{Declared, Overlay, Policy, Residency, Spec, Want};
use crate::verify::Verified;
use sluicegate_triton::ensemble::Ensemble;

/// How long a load may take before its caller is told that it goes on.
const PATIENCE: Duration = Duration::from_secs(300);

/// Callers who may wait for loads at the same time.
const WAITING: usize = 64;

/// Which version of a model is meant; without either, the model as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// Its number.
    pub number: Option<u64>,
    /// The digest of its content.
    pub digest: Option<Digest>,
}

/// A load that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The model's name.
    pub model: String,
    /// Which version of it.
    pub which: Which,
    /// How it is to run, where that is said.
    pub overlay: Option<Overlay>,
    /// Whether it is only tried: loaded and warmed up, and then freed.
    pub dry_run: bool,
}

/// An unload that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unload {
    /// The model's name.
    pub model: String,
    /// Which version of it.
    pub which: Which,
    /// Whether models that are parts of it go too.
    pub dependents: bool,
}

/// What a load found out that was only tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The model.
    pub model: ModelName,
    /// The version that was loaded.
    pub version: u64,
    /// The digest of its files.
    pub digest: Digest,
    /// What ran it.
    pub engine: &'static str,
    /// Why that is not the preferred engine.
    pub fallback: Option<String>,
    /// On which device.
    pub device: String,
    /// Whose thread would run its batches.
    pub execution: Option<Execution>,
    /// The measured cost of one row.
    pub one_row: Duration,
    /// The measured cost of a full batch.
    pub full_batch: Duration,
}

pub(super) type Reply = oneshot::Sender<Result<Option<Report>>>;

/// Something asked for, and who asks.
pub(super) struct Ask {
    what: What,
    reply: Reply,
}

enum What {
    Load(Load),
    Unload(Unload),
}

/// One who waits until a load has ended.
pub(super) struct Waiter {
    model: ModelName,
    version: Option<u64>,
    reply: Reply,
    /// What failed since then, and why.
    failed: Option<(u64, String)>,
}

/// A load that is to be tried.
pub(super) struct Trial {
    pub(super) spec: Spec,
    pub(super) found: Found,
    /// Whether it would answer those who name no version, and so must not break them.
    pub(super) default: bool,
    pub(super) reply: Reply,
}

/// The way to ask for loads and unloads. Cheap to clone.
#[derive(Clone)]
pub struct Control(pub(super) std::sync::mpsc::SyncSender<Event>);

impl Control {
    /// Loads a model or one version of it, and waits until that is live or has failed. What serves goes on meanwhile.
    ///
    /// # Errors
    /// [`Code::UnknownModel`] and [`Code::UnknownVersion`] where no registry has it, [`Code::NotLoaded`] with the reason where
    /// it fails, [`Code::DeadlineExceeded`] where it takes too long and goes on.
    pub async fn load(&self, load: Load) -> Result<Option<Report>> {
        self.ask(What::Load(load)).await
    }

    /// Takes a model or one version of it out of service. Requests in flight are answered.
    ///
    /// # Errors
    /// [`Code::UnknownModel`] and [`Code::UnknownVersion`].
    pub async fn unload(&self, unload: Unload) -> Result<()> {
        self.ask(What::Unload(unload)).await.map(drop)
    }

    async fn ask(&self, what: What) -> Result<Option<Report>> {
        let (reply, answer) = oneshot::channel();
        let going = || Error::new(Code::NotReady, "the gateway is going, and loads and unloads nothing any more");
        self.0.try_send(Event::Ask(Box::new(Ask { what, reply }))).map_err(|error| match error {
            std::sync::mpsc::TrySendError::Full(_) => busy(),
            std::sync::mpsc::TrySendError::Disconnected(_) => going(),
        })?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(going())),
            Err(_) => {
                let message =
                    format!("not loaded after {} s, and goes on; the repository's index has its state", PATIENCE.as_secs());
                Err(Error::new(Code::DeadlineExceeded, message))
            }
        }
    }
}

fn busy() -> Error {
    Error::new(Code::TooBusy, format!("{WAITING} loads and unloads are waited for; try again later"))
}

impl Thread {
    pub(super) fn ask(&mut self, Ask { what, reply }: Ask) {
        let outcome = match what {
            What::Load(load) if load.dry_run => {
                // What only this look finds is not served for it.
                let before = self.found.clone();
                self.look();
                let trial = self.trial(load);
                self.found = before;
                match trial {
                    Ok((spec, found, default)) => return self.trials.push_back(Trial { spec, found, default, reply }),
                    Err(error) => Err(error),
                }
            }
            What::Load(load) => {
                self.look();
                match self.load(load) {
                    Ok((model, version)) => return self.waiting.push(Waiter { model, version, reply, failed: None }),
                    Err(error) => Err(error),
                }
            }
            What::Unload(unload) => self.unload(unload).map(|()| None),
        };
        let _ = reply.send(outcome);
    }

    /// Takes note of a load; what there is to do follows from the plan.
    fn load(&mut self, load: Load) -> Result<(ModelName, Option<u64>)> {
        let (model, version, hold) = self.held_by(load)?;
        match (version, self.failed.get_mut(&model)) {
            (Some(version), Some(failed)) => drop(failed.remove(&version)),
            (None, Some(failed)) => failed.clear(),
            (_, None) => {}
        }
        tracing::info!(%model, version, "load asked for");
        if let Some(spec) = self.declared_of(&model).filter(|spec| spec.residency == Residency::OnDemand) {
            self.demand(spec.name);
        }
        self.held.insert(model.clone(), hold);
        self.held.retain(|_, hold| !hold.is_idle());
        self.reason(&model, None);
        Ok((model, version))
    }

    /// What a load would bring, and whether that would answer those who name no version.
    fn trial(&self, load: Load) -> Result<(Spec, Found, bool)> {
        let (model, version, hold) = self.held_by(load)?;
        let spec = self.spec_of(&model, &hold);
        let default = match spec.version {
            // Also one that has failed before: why is what is asked.
            Want::Latest => self.found.get(&model).and_then(|all| all.last()).map(|found| found.version),
            Want::LatestOf(_) | Want::Number(_) | Want::Digest(_) => self.scene(&spec, &hold, &|_| Readiness::Settled).default,
        };
        let version = version.or(default);
        let found = self.found.get(&model).and_then(|all| all.iter().find(|found| Some(found.version) == version));
        let found = found.ok_or_else(|| Error::new(Code::UnknownVersion, format!("no registry has a version of `{model}`")))?;
        Ok((spec, found.clone(), default == version))
    }

    /// What would be held of a model after a load.
    fn held_by(&self, load: Load) -> Result<(ModelName, Option<u64>, Hold)> {
        let Load { model, which, overlay, dry_run: _ } = load;
        if self.waiting.len() + self.trials.len() >= WAITING {
            return Err(busy());
        }
        let model = self.known(&model)?;
        let version = self.which(&model, &which)?;
        if let Some(Policy::These(numbers)) = overlay.as_ref().and_then(|overlay| overlay.versions.as_ref()) {
            for number in numbers {
                self.which(&model, &Which { number: Some(*number), digest: None })?;
            }
        }
        let mut hold = self.hold(&model);
        match version {
            // As it is declared: the registry is looked at again, and what is held is let go.
            None => hold = Hold { declared: hold.declared, beside: hold.beside, overlay, ..Hold::default() },
            Some(version) => {
                // What nobody declared has no other versions that would serve.
                hold.off |= hold.declared.is_none() && !self.held.contains_key(&model);
                hold.without.remove(&version);
                hold.beside.insert(version);
            }
        }
        Ok((model, version, hold))
    }

    fn unload(&mut self, unload: Unload) -> Result<()> {
        let Unload { model, which, dependents } = unload;
        let model = self.known(&model)?;
        let version = self.which(&model, &which)?;
        let parts = if dependents { self.dependents(&model) } else { Vec::new() };
        let all: Vec<_> = std::iter::once((model, version)).chain(parts.into_iter().map(|part| (part, None))).collect();
        for (model, version) in &all {
            let mut hold = self.hold(model);
            match *version {
                None => hold = Hold { declared: hold.declared, off: true, ..Hold::default() },
                Some(version) => {
                    hold.beside.remove(&version);
                    hold.without.insert(version);
                }
            }
            tracing::info!(%model, version, "unload asked for");
            self.held.insert(model.clone(), hold);
            let gone = |waiter: &mut Waiter| waiter.model == *model && (version.is_none() || *version == waiter.version);
            for waiter in self.waiting.extract_if(.., gone) {
                let _ = waiter.reply.send(Err(Error::new(Code::NotLoaded, format!("`{model}` was unloaded meanwhile"))));
            }
        }
        // The table is as was asked before the caller is told so.
        self.act();
        for (model, _) in &all {
            if self.published.load().models.get(model).is_some_and(|served| served.default.is_none()) {
                self.reason(model, Some("unloaded by hand; load it to serve it again"));
            }
        }
        Ok(())
    }

    /// The models that take the steps of this one, and of no other ensemble that serves.
    fn dependents(&self, model: &ModelName) -> Vec<ModelName> {
        let steps = |ensemble: &Ensemble| ensemble.steps.iter().map(|step| step.model.clone()).collect::<BTreeSet<_>>();
        let Some(mut parts) = self.ensemble(model).as_deref().map(steps) else { return Vec::new() };
        let table = self.published.load();
        for (other, served) in table.models.iter().filter(|(other, _)| *other != model) {
            let serving = served.versions.values().filter_map(|live| live.steps());
            serving.for_each(|ensemble| parts.retain(|part| part == other || !steps(ensemble).contains(part)));
        }
        parts.into_iter().collect()
    }

    /// Answers those whose load has ended, and starts loads that are only tried.
    pub(super) fn answer(&mut self) {
        for waiter in std::mem::take(&mut self.waiting) {
            if waiter.reply.is_closed() {
                continue;
            }
            match self.outcome(&waiter.model, waiter.version, waiter.failed.as_ref()) {
                None => self.waiting.push(waiter),
                Some(outcome) => drop(waiter.reply.send(outcome.map(|()| None))),
            }
        }
        self.tell_woken();
        self.try_out();
    }

    /// How a load ended; `None` while it has not.
    pub(super) fn outcome(&self, model: &ModelName, version: Option<u64>, failed: Option<&(u64, String)>) -> Option<Result<()>> {
        let failure = |why: &str| Some(Err(Error::new(Code::NotLoaded, format!("model `{model}` is not loaded: {why}"))));
        let Some(spec) = self.specs().into_iter().find(|spec| spec.name == *model) else {
            return failure("it is no longer declared");
        };
        // Also for files that are still on their way: they are loaded when they have come to rest.
        let to_do = self.scene(&spec, self.held.get(model).unwrap_or(&NOTHING), &|_| Readiness::Settled).load.is_some();
        if to_do || self.loading.contains_key(model) {
            return None;
        }
        if let Some((number, reason)) = failed
            && version.is_none_or(|version| version == *number)
        {
            return failure(&format!("version {number} failed: {reason}"));
        }
        let table = self.published.load();
        let served = table.models.get(model);
        let live = match version {
            None => served.is_some_and(|served| served.default.is_some()),
            Some(version) => served.is_some_and(|served| served.versions.contains_key(&version)),
        };
        if live { Some(Ok(())) } else { failure("no registry has a version of it that can be served") }
    }

    /// Tells those who wait that a version failed.
    pub(super) fn tell_failure(&mut self, found: &Found, reason: &str) {
        for waiter in self.waiting.iter_mut().filter(|waiter| waiter.model == found.model) {
            waiter.failed = Some((found.version, reason.to_owned()));
        }
    }

    /// What is held of a model, or nothing over what is declared of it.
    fn hold(&self, model: &ModelName) -> Hold {
        let nothing = || Hold { declared: self.declared_of(model), ..Hold::default() };
        self.held.get(model).cloned().unwrap_or_else(nothing)
    }

    /// Lets go what was held of models of which something else is declared now.
    pub(super) fn release(&mut self) {
        let anew = |(model, hold): &(&ModelName, &Hold)| self.declared_of(model) != hold.declared;
        let released: Vec<ModelName> = self.held.iter().filter(anew).map(|(model, _)| model.clone()).collect();
        for model in released {
            tracing::info!(%model, "declared anew; what was loaded or unloaded by hand is let go");
            self.held.remove(&model);
            self.reason(&model, None);
        }
    }

    /// What is to be served of a model under this hold; a model that nobody declared runs as the operator's defaults say.
    pub(super) fn spec_of(&self, model: &ModelName, hold: &Hold) -> Spec {
        let spec = match (&hold.declared, &self.declared) {
            (Some(spec), _) => spec.clone(),
            (None, Declared::Models(_, run) | Declared::Everything(run)) => self.plain(model, run),
        };
        hold.over(spec)
    }

    fn known(&self, name: &str) -> Result<ModelName> {
        let model: ModelName = name.parse().map_err(|_| unknown(name))?;
        let known = self.found.contains_key(&model) || self.published.load().models.contains_key(&model);
        if known { Ok(model) } else { Err(unknown(name)) }
    }

    /// The number of the version that is meant.
    fn which(&self, model: &ModelName, which: &Which) -> Result<Option<u64>> {
        let Which { number, digest } = which;
        if number.is_none() && digest.is_none() {
            return Ok(None);
        }
        let live: Vec<(u64, Digest)> = {
            let table = self.published.load();
            let served = table.models.get(model);
            served
                .into_iter()
                .flat_map(|served| served.versions.values())
                .map(|live| (live.version, live.digest.clone()))
                .collect()
        };
        let is_meant = |version: u64, has: &dyn Fn(&Digest) -> bool| {
            number.is_none_or(|number| number == version) && digest.as_ref().is_none_or(has)
        };
        let found = self.found.get(model).cloned().unwrap_or_default();
        for found in found.iter().rev() {
            let named = number.is_none_or(|number| number == found.version);
            if named && (digest.is_none() || is_meant(found.version, &|digest| self.digest(found).as_ref() == Some(digest))) {
                return Ok(Some(found.version));
            }
        }
        if let Some((version, _)) = live.iter().find(|(version, has)| is_meant(*version, &|digest| digest == has)) {
            return Ok(Some(*version));
        }
        let have = found.iter().map(|found| found.version.to_string()).collect::<Vec<_>>().join(", ");
        let asked = match (number, digest) {
            (Some(number), Some(digest)) => format!("{number} with the digest {digest}"),
            (Some(number), None) => number.to_string(),
            (None, digest) => digest.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        Err(Error::new(Code::UnknownVersion, format!("model `{model}` has no version {asked}; its registry has: {have}")))
    }

    fn digest(&self, found: &Found) -> Option<Digest> {
        if let Some(known) = self.digests.get(&key(found)) {
            return known.clone();
        }
        let verified = Manifest::read(&found.path).and_then(|manifest| Verified::read(found.clone(), manifest));
        verified.ok().map(|verified| verified.digest)
    }

    /// Says why a model has no version that answers.
    fn reason(&self, model: &ModelName, reason: Option<&str>) {
        self.published.change(|table| {
            if let Some(served) = table.models.get_mut(model) {
                served.reason = reason.map(str::to_owned);
            }
        });
    }
}

fn unknown(name: &str) -> Error {
    Error::new(Code::UnknownModel, format!("no registry has a model called `{name}`"))
}
