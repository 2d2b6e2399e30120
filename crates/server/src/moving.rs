//! The wiring of rollouts: what the configuration says of them, where it is kept, who is told, and what the registry is to hold.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;
use sluicegate_core::{Code, Error, Result, VersionRef};
use sluicegate_gateway::Splits;
use sluicegate_outbound::webhook::{Hook, Hooks, Pace};
use sluicegate_outbound::{Address, Secret};
use sluicegate_registry::{Also, Declared, Registry, Want};
use sluicegate_state::{Incarnation, Place, Secret as Url};
use sluicegate_traffic::{Declared as Rolling, Journal, Placements, Prepared, Setup};

use crate::app::declared;
use crate::config::{Config, Webhook};

/// What is declared, and what rollouts made of it.
pub struct Standing {
    config: Config,
    placements: Placements,
    registry: Weak<Registry>,
}

impl Standing {
    /// Before the registry is there.
    pub fn new(config: Config, placements: Placements) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { config, placements, registry: Weak::new() }))
    }

    /// Says who is told of changes.
    pub fn attach(&mut self, registry: &Arc<Registry>) {
        self.registry = Arc::downgrade(registry);
    }

    /// What the registry is to hold.
    pub fn declared(&self) -> Declared {
        place(declared(&self.config), &self.placements)
    }

    /// The configuration is another one.
    pub fn configure(&mut self, config: Config) {
        self.config = config;
        self.tell();
    }

    /// Rollouts ask for other versions.
    pub fn place(&mut self, placements: Placements) {
        self.placements = placements;
        self.tell();
    }

    fn tell(&self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.declare(self.declared());
        }
    }
}

/// What is declared, with the versions that rollouts ask for, under the names that they have there where nothing else has them.
fn place(mut declared: Declared, placements: &Placements) -> Declared {
    if let Declared::Models(specs, _) = &mut declared {
        for spec in specs {
            let Some(placement) = placements.get(&spec.name) else { continue };
            spec.version = Want::Number(placement.answers);
            if let (Also::Numbers(numbers), Some(beside)) = (&mut spec.also, placement.beside)
                && !numbers.contains(&beside)
            {
                numbers.push(beside);
            }
            let called = [("stable", Some(placement.answers)), ("candidate", placement.candidate)];
            for (alias, version) in called.into_iter().filter_map(|(alias, version)| Some((alias, version?))) {
                Arc::make_mut(&mut spec.aliases).entry(alias.into()).or_insert(VersionRef::Number(version));
            }
        }
    }
    declared
}

/// What is declared of rollouts.
pub fn rollouts(config: &Config) -> Vec<Rolling> {
    let rolling = |model: &crate::config::Model| {
        let rollout = model.rollout.as_ref()?;
        Some(Rolling {
            model: model.name.clone(),
            spec: model.plan()?,
            sticky: rollout.sticky(),
            fallback: rollout.fallback.then(|| rollout.fallback_after.get()),
            allow_override: rollout.allow_override,
            compare: rollout.shadow.as_ref().map_or((0.0, false), |shadow| (shadow.tolerance.get(), shadow.keep_inputs)),
        })
    };
    config.models.iter().flatten().filter_map(rolling).collect()
}

/// Reads how far rollouts came.
///
/// # Errors
/// Where a person has to change something: [`Code::BadConfig`] for a database that is none of ours, for example.
pub fn prepare(config: &Config, splits: Splits) -> Result<Prepared> {
    let prepare = || {
        let setup = Setup { journal: journal(config)?, splits, hooks: hooks(&config.webhooks)? };
        Ok(Prepared::new(setup, rollouts(config)))
    };
    // A database blocks, which no thread of a runtime may.
    let failed = |_| Err(Error::new(Code::Internal, "the state of rollouts could not be read"));
    std::thread::scope(|scope| scope.spawn(prepare).join().unwrap_or_else(failed))
}

fn journal(config: &Config) -> Result<Journal> {
    let place = match (&config.state.path, &config.state.postgres) {
        (Some(path), _) => Place::Sqlite(path.clone()),
        (None, Some(file)) => Place::Postgres(Url::File(file.0.clone())),
        (None, None) => {
            if config.models.iter().flatten().any(|model| model.rollout.is_some()) {
                tracing::warn!(
                    "rollouts are kept in memory alone, and begin anew with a restart: set state.path or state.postgres"
                );
            }
            return Ok(Journal::forgetful());
        }
    };
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    let chance = RandomState::new().hash_one(started);
    Journal::open(place, Incarnation::new(format!("{started}-{}-{chance:016x}", std::process::id()))?)
}

fn hooks(webhooks: &[Webhook]) -> Result<Hooks> {
    let hook = |webhook: &Webhook| {
        Ok(Hook {
            url: webhook.url.parse::<Address>()?,
            secret: webhook.secret.as_ref().map(|file| Secret::read(&file.to_string())).transpose()?,
            events: webhook.events.iter().map(|event| event.parse()).collect::<Result<_>>()?,
            timeout: webhook.timeout.get(),
            max_attempts: u32::try_from(webhook.attempts.get()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN),
            pace: Pace::default(),
        })
    };
    let at = |(index, webhook)| {
        hook(webhook).map_err(|error: Error| Error::new(Code::BadConfig, error.message()).at(format_args!("webhooks[{index}]")))
    };
    Hooks::start(webhooks.iter().enumerate().map(at).collect::<Result<_>>()?, "sluicegate")
}
