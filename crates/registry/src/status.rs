//! How far each version came, and why it did not come further.

use std::collections::BTreeMap;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;
use sluicegate_core::{Digest, ModelName};

/// Versions remembered for each model after they have gone or failed.
const REMEMBERED: usize = 32;

/// The steps of a version's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its directory is there; its files may still be on their way.
    Found,
    /// Its files are what its manifest says.
    Verified,
    /// An engine holds it.
    Loaded,
    /// It has answered its warm-up.
    Warm,
    /// It serves.
    Live,
    /// It takes no new requests; those it has are finished.
    Draining,
    /// It is freed.
    Gone,
    /// It could not be made live; see the reason.
    Failed,
}

/// What is known of one version.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// How far it came.
    pub state: State,
    /// Why it is not further, or what should be known of how it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What its configuration says to no effect, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// Its digest, once its files were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u128,
}

/// Every version of every model.
#[derive(Default)]
pub struct Status(Mutex<BTreeMap<ModelName, BTreeMap<u64, Entry>>>);

impl Status {
    /// A copy of it all.
    pub fn snapshot(&self) -> BTreeMap<ModelName, BTreeMap<u64, Entry>> {
        self.0.lock().clone()
    }

    /// A copy of what is known of one model's versions.
    pub fn of(&self, model: &str) -> BTreeMap<u64, Entry> {
        self.0.lock().get(model).cloned().unwrap_or_default()
    }

    pub(crate) fn set(&self, model: &ModelName, version: u64, state: State, reason: Option<String>, digest: Option<Digest>) {
        self.change(model, version, |entry| {
            entry.state = state;
            entry.reason = reason;
            entry.digest = digest.or(entry.digest.take());
        });
    }

    pub(crate) fn change(&self, model: &ModelName, version: u64, change: impl FnOnce(&mut Entry)) {
        let mut models = self.0.lock();
        let versions = models.entry(model.clone()).or_default();
        let new = Entry { state: State::Found, reason: None, remarks: Vec::new(), digest: None, since_ms: now_ms() };
        let entry = versions.entry(version).or_insert(new);
        let before = entry.state;
        change(entry);
        if entry.state != before {
            entry.since_ms = now_ms();
        }
        while versions.len() > REMEMBERED {
            let over = |entry: &Entry| matches!(entry.state, State::Gone | State::Failed);
            let Some(oldest) = versions.iter().find(|(_, entry)| over(entry)).map(|(number, _)| *number) else { break };
            versions.remove(&oldest);
        }
    }

    /// Forgets a model that is declared no longer.
    pub(crate) fn forget(&self, model: &ModelName) {
        self.0.lock().remove(model);
    }
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
}
