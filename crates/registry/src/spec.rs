//! What is declared of a model: where its versions come from, which of them serve, and how they run.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use sluicegate_batch::{Execution, Limits};
use sluicegate_core::{Digest, ModelName, VersionRef};
use sluicegate_engine::{Budget, Options};

/// Which version answers those who name none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// The newest complete one that could be loaded.
    Latest,
    /// The newest of these that could be.
    LatestOf(Vec<u64>),
    /// This one.
    Number(u64),
    /// The one with this content.
    Digest(Digest),
}

/// Which versions serve beside it, for those who name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Also {
    /// These.
    Numbers(Vec<u64>),
    /// Those that make so many of the newest, with the one that answers.
    Newest(usize),
    /// Every one that the registry has.
    All,
}

/// Names for versions of one model: numbers or digests, never aliases of their own.
pub type Aliases = BTreeMap<Arc<str>, VersionRef>;

/// One declared model.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The served name.
    pub name: ModelName,
    /// The name of its registry.
    pub registry: String,
    /// Which version answers.
    pub version: Want,
    /// Which serve beside it.
    pub also: Also,
    /// What versions are called beside their numbers.
    pub aliases: Arc<Aliases>,
    /// When it is in memory.
    pub residency: Residency,
    /// How it runs.
    pub run: Run,
}

/// When a model is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residency {
    /// Always.
    #[default]
    Pinned,
    /// From a request for it until others need the room.
    OnDemand,
}

/// The memory that models may take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// How many bytes.
    pub budget: Budget,
    /// How long a request waits for a model that is not in memory.
    pub wait: Duration,
}

/// How a model runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Engine, device, instances, threads.
    pub options: Options,
    /// Bounds of batches and queue.
    pub limits: Limits,
    /// Sizes at which a batch leaves without more company.
    pub preferred: Vec<usize>,
    /// What the priorities of requests mean.
    pub priorities: Priorities,
    /// Whose thread runs batches.
    pub execution: Execution,
    /// How long a request may wait and run where it does not say so itself.
    pub timeout: Duration,
    /// Whether a request may ask for less.
    pub own_timeout: bool,
    /// The bytes of answers that are kept for those who ask the same; `None` without a cache.
    pub cache: Option<NonZeroU64>,
    /// Whether a new version may break the published signature.
    pub allow_signature_change: bool,
    /// What of this the model's own entry says.
    pub said: Said,
}

/// A setting that a model's `config.pbtxt` may have too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of the settings")]
pub enum Key {
    Device,
    MaxRows,
    MaxDelay,
    QueueRows,
    QueueTimeout,
    Instances,
    Threads,
    Cache,
}

/// The settings that a model's own entry says itself. They win over its `config.pbtxt`, which wins over what holds for all models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(BTreeSet<Key>);

impl Said {
    /// Whether the entry says it.
    pub fn has(&self, key: Key) -> bool {
        self.0.contains(&key)
    }

    /// The same with these said too.
    #[must_use]
    pub fn and(mut self, keys: impl IntoIterator<Item = Key>) -> Self {
        self.0.extend(keys);
        self
    }
}

/// What the protocol's priorities mean for a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priorities {
    /// How many levels there are; 0 where the model does not say.
    pub levels: u64,
    /// The level of a request that names none of them.
    pub default: u64,
}

impl Priorities {
    /// The priority that counts where this one was asked for.
    #[must_use]
    pub fn of(self, asked: u64) -> u64 {
        if self.levels > 0 && !(1..=self.levels).contains(&asked) { self.default } else { asked }
    }
}

/// What is said of how a model runs where it is loaded by hand; the rest is as it is declared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay {
    /// Most rows of a run.
    pub max_rows: Option<usize>,
    /// How long a batch may wait for company.
    pub max_delay: Option<Duration>,
    /// Runs at the same time.
    pub instances: Option<NonZeroUsize>,
    /// Which versions serve.
    pub versions: Option<Policy>,
}

/// Which versions serve, as Triton's configurations say it. The newest of them answers those who name none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// So many, the newest ones.
    Newest(usize),
    /// Every one.
    All,
    /// These.
    These(Vec<u64>),
}

/// All that is declared.
#[derive(Clone, Debug, PartialEq)]
pub enum Declared {
    /// Every model that the registries have, with its newest version.
    Everything(Run),
    /// These models, and how others run that are loaded by hand.
    Models(Vec<Spec>, Run),
}
