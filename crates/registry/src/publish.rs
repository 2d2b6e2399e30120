//! What serves: one table behind one pointer. Publishing a version is one store; a request holds its version to its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use sluicegate_batch::{Batcher, Execution};
use sluicegate_core::meter::{Meters, VersionMeter};
use sluicegate_core::trace;
use sluicegate_core::{Code, Digest, Error, ModelName, ModelRef, Result, Signature, VersionRef};
use sluicegate_engine::Footprint;
use sluicegate_proto::inference::ModelConfig;

use crate::assemble::Assembled;
use crate::cache::Cache;
use crate::drain::Reaper;
use crate::manifest::Lineage;
use crate::source::Fingerprint;
use crate::spec::{Aliases, Also, Run, Want};
use crate::verify::Verified;
use crate::warm::Warm;
use sluicegate_triton::ENSEMBLE;
use sluicegate_triton::ensemble::{Ensemble, Step};

/// The most ensembles within each other.
pub const MAX_NESTED: usize = 8;

/// A version that serves.
pub struct Live {
    /// The model.
    pub model: ModelName,
    /// The version's number.
    pub version: u64,
    /// The digest of its files.
    pub digest: Digest,
    /// Version and digest as text that answers share.
    pub text: (Bytes, Bytes),
    /// The state of its files when they were read.
    pub fingerprint: Fingerprint,
    /// What it takes and gives.
    pub signature: Signature,
    /// What it is for.
    pub description: Option<String>,
    /// Where it came from.
    pub lineage: Option<Lineage>,
    /// What really runs it: `onnxruntime` or `tract`; `ensemble` where other models do.
    pub engine: &'static str,
    /// Why it is not the preferred engine.
    pub fallback: Option<String>,
    /// The device; for an ensemble, that of its steps.
    pub device: String,
    /// What traces say of it.
    pub traced: Arc<[trace::Attribute]>,
    /// How it is declared to run.
    pub declared: Run,
    /// How it is run, with what its configuration says.
    pub run: Run,
    /// The model's `config.pbtxt`, where it has one.
    pub config: Option<Arc<ModelConfig>>,
    /// What that says to no effect, one sentence each.
    pub remarks: Vec<String>,
    /// When it went live.
    pub since: SystemTime,
    /// Memory that it takes: what was taken more when it was loaded alone, and no less than its files.
    pub footprint: Footprint,
    /// Its metric handles.
    pub meter: Arc<VersionMeter>,
    /// The answers that it has given, where the model has a cache.
    pub cache: Option<Cache>,
    /// Taken out by the drop alone.
    work: Option<Work>,
    reaper: Reaper,
}

/// What answers a version's requests.
pub enum Work {
    /// Instances of an engine, in batches.
    Batches(Batches),
    /// Other models, step by step.
    Steps(Arc<Ensemble>),
}

/// A version's instances behind their queue.
pub struct Batches {
    /// The queue.
    pub batcher: Batcher,
    /// The measured cost of one row.
    pub one_row: Duration,
    /// The measured cost of a full batch.
    pub full_batch: Duration,
}

/// What a version has whatever answers its requests.
struct Common<'a> {
    verified: Verified,
    signature: Signature,
    engine: &'static str,
    fallback: Option<String>,
    device: String,
    declared: Run,
    run: Run,
    meters: &'a Meters,
    reaper: &'a Reaper,
}

/// How many of so many instances are used. On the processor, where requests run it themselves and nobody said otherwise, one for two
/// threads: with one for each, a request that is as far as another would never find company. On devices there is one for each already.
fn used(instances: usize, auto: bool, execution: Execution, device: &str) -> usize {
    if auto && execution == Execution::Inline && device == "cpu" { instances.div_ceil(2) } else { instances }
}

impl Live {
    /// Opens a warm version's queue. Nobody can reach it before it is published.
    pub fn new(warm: Warm, meters: &Meters, reaper: &Reaper) -> Self {
        let setup = warm.setup();
        let Warm { loaded, one_row, full_batch } = warm;
        let (opened, run) = (loaded.opened, loaded.run);
        let mut instances = opened.instances;
        instances.truncate(used(instances.len(), run.options.auto_instances, setup.execution, &opened.device));
        let common = Common {
            verified: loaded.verified,
            signature: loaded.signature,
            engine: opened.engine.name(),
            fallback: opened.fallback,
            device: opened.device,
            declared: loaded.declared,
            run,
            meters,
            reaper,
        };
        Self::open(common, |meter| Work::Batches(Batches { batcher: Batcher::new(instances, setup, meter), one_row, full_batch }))
    }

    /// Opens an ensemble, whose steps other models take.
    pub fn ensemble(assembled: Assembled, meters: &Meters, reaper: &Reaper) -> Self {
        let Assembled { verified, ensemble, signature, declared, run } = assembled;
        let (fallback, device) = (None, "steps".to_owned());
        let cached = declared.cache.is_some();
        let common = Common { verified, signature, engine: ENSEMBLE, fallback, device, declared, run, meters, reaper };
        let mut live = Self::open(common, |_| Work::Steps(ensemble));
        if cached {
            live.remarks
                .push("cache has no effect on an ensemble, whose steps' versions change: set it for their models".to_owned());
        }
        live
    }

    fn open(common: Common<'_>, work: impl FnOnce(Arc<VersionMeter>) -> Work) -> Self {
        let Common { verified, signature, engine, fallback, device, declared, run, meters, reaper } = common;
        let remarks = verified.remarks();
        let (found, digest) = (verified.found, verified.digest);
        let meter = Arc::new(VersionMeter::new(&found.model, found.version, &digest, engine, fallback.is_some()));
        meters.add(meter.clone());
        let traced = Arc::new([
            (trace::MODEL_NAME, found.model.to_string().into()),
            (trace::MODEL_VERSION, found.version.to_string().into()),
            (trace::ENGINE, engine.into()),
            (trace::DEVICE, device.clone().into()),
        ]);
        Self {
            traced,
            text: (found.version.to_string().into(), digest.to_string().into()),
            digest,
            fingerprint: found.fingerprint,
            signature,
            description: verified.manifest.description,
            lineage: verified.manifest.lineage,
            engine,
            fallback,
            device,
            config: found.config.and_then(Result::ok).map(|config| config.model.clone()),
            remarks,
            since: SystemTime::now(),
            footprint: Footprint::default(),
            cache: run.cache.map(|size| Cache::new(size.get(), meter.clone())),
            declared,
            run,
            work: Some(work(meter.clone())),
            meter,
            reaper: reaper.clone(),
            model: found.model,
            version: found.version,
        }
    }

    /// What answers its requests.
    pub fn work(&self) -> &Work {
        self.work.as_ref().expect("only the drop takes the work out")
    }

    /// Its instances and their queue; none for an ensemble.
    pub fn batches(&self) -> Option<&Batches> {
        match self.work() {
            Work::Batches(batches) => Some(batches),
            Work::Steps(_) => None,
        }
    }

    /// Its queue; none for an ensemble.
    pub fn batcher(&self) -> Option<&Batcher> {
        self.batches().map(|batches| &batches.batcher)
    }

    /// Its steps; none where it is no ensemble.
    pub fn steps(&self) -> Option<&Arc<Ensemble>> {
        match self.work() {
            Work::Batches(_) => None,
            Work::Steps(ensemble) => Some(ensemble),
        }
    }

    /// The protocol's word for what it is.
    pub fn platform(&self) -> &'static str {
        match (self.work(), &self.config) {
            (Work::Steps(_), _) => ENSEMBLE,
            (Work::Batches(_), Some(_)) => "onnxruntime_onnx",
            (Work::Batches(_), None) => "onnx_onnxv1",
        }
    }
}

/// The last request has ended: engine and cache are freed, off the serving threads.
impl Drop for Live {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.reaper.free(self.model.clone(), self.version, self.digest.clone(), work, self.cache.take());
        }
    }
}

/// One model of the table.
#[derive(Clone, Default)]
pub struct Served {
    /// The version that answers those who name none; `None` while none is ready.
    pub default: Option<Arc<Live>>,
    /// Every live version by number, the default included.
    pub versions: BTreeMap<u64, Arc<Live>>,
    /// What versions are called beside their numbers.
    pub aliases: Arc<Aliases>,
    /// Why there is no default, where that is known.
    pub reason: Option<String>,
    /// Which versions are to serve: the one that answers, and those beside it.
    pub wanted: Option<(Want, Also)>,
    /// What callers changed by hand.
    pub held: Option<String>,
    /// Whether it is in memory on demand: with no default it rests, and the next request loads it.
    pub on_demand: bool,
}

impl Served {
    /// The live version of this number, digest or alias.
    fn find(&self, version: &VersionRef) -> Option<&Arc<Live>> {
        let version = match version {
            VersionRef::Alias(alias) => self.aliases.get(alias)?,
            version => version,
        };
        match version {
            VersionRef::Number(number) => self.versions.get(number),
            VersionRef::Digest(digest) => self.versions.values().find(|live| live.digest == *digest),
            VersionRef::Alias(_) => None,
        }
    }
}

/// All that serves at one moment. Never changed: publishing stores a new one.
#[derive(Clone, Default)]
pub struct Table {
    /// Grows with each change, so that what is made from a table can be kept until it does.
    pub generation: u64,
    /// Every known model, ready or not.
    pub models: HashMap<ModelName, Served>,
}

impl Table {
    /// The version that answers this.
    ///
    /// # Errors
    /// [`Code::UnknownModel`], [`Code::UnknownVersion`], or [`Code::NotReady`] where the model is known and has no live
    /// version yet.
    pub fn find(&self, model: &str, version: Option<&VersionRef>) -> Result<&Arc<Live>> {
        let Some(served) = self.models.get(model) else {
            return Err(Error::new(
                Code::UnknownModel,
                format!("no model is called `{model}`; GET /v2/models lists those that are"),
            ));
        };
        let Some(default) = &served.default else {
            let none = if served.on_demand { "it rests; a request for a prediction loads it" } else { "it is being loaded" };
            let reason = served.reason.as_deref().unwrap_or(none);
            return Err(Error::new(Code::NotReady, format!("model `{model}` is not ready: {reason}")));
        };
        let Some(version) = version else { return Ok(default) };
        served.find(version).ok_or_else(|| {
            let live = served.versions.keys().map(u64::to_string).collect::<Vec<_>>().join(", ");
            let alias = |(alias, version): (&Arc<str>, &VersionRef)| format!(", @{alias} is {version}");
            let aliases: String = served.aliases.iter().map(alias).collect();
            Error::new(Code::UnknownVersion, format!("model `{model}` has no live version {version}; live: {live}{aliases}"))
        })
    }

    /// Whether a request for it has to wait until its model is in memory.
    pub fn rests(&self, target: &ModelRef<'_>) -> bool {
        self.models.get(target.model).is_some_and(|served| {
            served.on_demand
                && match &target.version {
                    None => served.default.is_none(),
                    Some(version) => served.find(version).is_none(),
                }
        })
    }

    /// Whether a request for it would be answered, if only after a load.
    ///
    /// # Errors
    /// Those of [`Self::find`] and [`Self::answers`].
    pub fn would_answer(&self, target: &ModelRef<'_>) -> Result<()> {
        let resting = |served: &Served| served.on_demand && served.default.is_none() && served.reason.is_none();
        if self.models.get(target.model).is_some_and(resting) {
            return Ok(());
        }
        self.answers(self.find(target.model, target.version.as_ref())?)
    }

    /// The version that a step of an ensemble asks.
    ///
    /// # Errors
    /// [`Code::NotReady`] where it is not live.
    pub fn member(&self, step: &Step) -> Result<&Arc<Live>> {
        let version = step.version.map(VersionRef::Number);
        let pinned = |error: Error| match self.models.get(&step.model) {
            Some(served) if served.on_demand => {
                format!("model `{}` takes steps of an ensemble: its residency has to be pinned", step.model)
            }
            _ => error.message().to_owned(),
        };
        self.find(step.model.as_str(), version.as_ref())
            .map_err(|error| Error::new(Code::NotReady, pinned(error)).at(step.place()))
    }

    /// Whether a version can answer: an ensemble can where every step of it can.
    ///
    /// # Errors
    /// [`Code::NotReady`] with the step that cannot.
    pub fn answers(&self, live: &Live) -> Result<()> {
        self.answers_within(live, MAX_NESTED)
    }

    fn answers_within(&self, live: &Live, left: usize) -> Result<()> {
        let Some(ensemble) = live.steps() else { return Ok(()) };
        for step in &ensemble.steps {
            let member = self.member(step)?;
            if left == 0 {
                return Err(Error::new(Code::NotReady, format!("more than {MAX_NESTED} ensembles are within each other")));
            }
            self.answers_within(member, left - 1).map_err(|error| error.at(step.place()))?;
        }
        Ok(())
    }

    /// Every live version, by model and number.
    pub fn live(&self) -> Vec<&Arc<Live>> {
        let mut live: Vec<_> = self.models.values().flat_map(|served| served.versions.values()).collect();
        live.sort_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
        live
    }
}

/// The pointer to the table. Readers take no lock.
#[derive(Clone, Default)]
pub struct Published(Arc<ArcSwap<Table>>);

impl Published {
    /// The table as it is now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Table>> {
        self.0.load()
    }

    /// Stores a changed table. Only the registry's one thread calls this, so that no change is lost.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Table)) {
        let mut table = Table::clone(&self.0.load());
        change(&mut table);
        table.generation += 1;
        self.0.store(Arc::new(table));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_run_themselves_share_instances_of_the_processor_and_every_device_is_used() {
        assert_eq!([1, 2, 5].map(|instances| used(instances, true, Execution::Inline, "cpu")), [1, 1, 3]);
        assert_eq!(used(2, true, Execution::Inline, "cuda:0,1"), 2);
        assert_eq!([used(4, false, Execution::Inline, "cpu"), used(4, true, Execution::Threads, "cpu")], [4, 4]);
    }
}
