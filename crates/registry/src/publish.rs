//! What serves: one table behind one pointer. Publishing a version is one store; a request holds its version to its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use sluicegate_batch::{Batcher, Execution};
use sluicegate_core::meter::{Meters, VersionMeter};
use sluicegate_core::{Code, Digest, Error, ModelName, Result, Signature, VersionRef};

use crate::cache::Cache;
use crate::drain::Reaper;
use crate::manifest::Lineage;
use crate::source::Fingerprint;
use crate::spec::{Aliases, Also, Run, Want};
use crate::warm::Warm;

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
    /// What really runs it: `onnxruntime` or `tract`.
    pub engine: &'static str,
    /// Why it is not the preferred engine.
    pub fallback: Option<String>,
    /// The device.
    pub device: String,
    /// How it is run.
    pub run: Run,
    /// The measured cost of one row.
    pub one_row: Duration,
    /// The measured cost of a full batch.
    pub full_batch: Duration,
    /// When it went live.
    pub since: SystemTime,
    /// Its metric handles.
    pub meter: Arc<VersionMeter>,
    /// The answers that it has given, where the model has a cache.
    pub cache: Option<Cache>,
    /// Taken out by the drop alone.
    batcher: Option<Batcher>,
    reaper: Reaper,
}

impl Live {
    /// Opens a warm version's queue. Nobody can reach it before it is published.
    pub fn new(warm: Warm, run: &Run, meters: &Meters, reaper: &Reaper) -> Self {
        let setup = warm.setup(run);
        let Warm { loaded, one_row, full_batch } = warm;
        let (verified, opened, signature) = (loaded.verified, loaded.opened, loaded.signature);
        let (model, version) = (verified.found.model, verified.found.version);
        let engine = opened.engine.name();
        let meter = Arc::new(VersionMeter::new(&model, version, &verified.digest, engine, opened.fallback.is_some()));
        meters.add(meter.clone());
        let mut instances = opened.instances;
        if run.auto_instances && setup.execution == Execution::Inline {
            // One for two threads: with one for each, a request that is as far as another would never find company.
            instances.truncate(instances.len().div_ceil(2));
        }
        let batcher = Batcher::new(instances, setup, meter.clone());
        Self {
            text: (version.to_string().into(), verified.digest.to_string().into()),
            digest: verified.digest,
            fingerprint: verified.found.fingerprint,
            signature,
            description: verified.manifest.description,
            lineage: verified.manifest.lineage,
            engine,
            fallback: opened.fallback,
            device: opened.device,
            run: run.clone(),
            one_row,
            full_batch,
            since: SystemTime::now(),
            cache: run.cache.map(|size| Cache::new(size.get(), meter.clone())),
            meter,
            batcher: Some(batcher),
            reaper: reaper.clone(),
            model,
            version,
        }
    }

    /// Its queue.
    pub fn batcher(&self) -> &Batcher {
        self.batcher.as_ref().expect("only the drop takes the batcher out")
    }
}

/// The last request has ended: engine and cache are freed, off the serving threads.
impl Drop for Live {
    fn drop(&mut self) {
        if let Some(batcher) = self.batcher.take() {
            self.reaper.free(self.model.clone(), self.version, self.digest.clone(), batcher, self.cache.take());
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
            let reason = served.reason.as_deref().unwrap_or("it is being loaded");
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
