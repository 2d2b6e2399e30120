//! Versions that could not be made live, told once each: training pipelines wait for that as much as people do.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use sluicegate_core::ModelName;
use sluicegate_outbound::webhook::{Event, Kind};
use sluicegate_registry::Status;
use sluicegate_registry::status::State;

/// How often they are looked for, in milliseconds.
const EVERY: u64 = 1_000;

/// What was told.
pub(crate) struct Failures {
    status: Arc<Status>,
    told: BTreeMap<(ModelName, u64), u128>,
    looked_ms: u64,
}

impl Failures {
    pub(crate) fn new(status: Arc<Status>) -> Self {
        Self { status, told: BTreeMap::new(), looked_ms: 0 }
    }

    /// What is to be told now.
    pub(crate) fn look(&mut self, now_ms: u64) -> Vec<Event> {
        if now_ms < self.looked_ms + EVERY {
            return Vec::new();
        }
        self.looked_ms = now_ms;
        let mut failed = BTreeMap::new();
        let mut events = Vec::new();
        for (model, versions) in self.status.snapshot() {
            for (version, entry) in versions.into_iter().filter(|(_, entry)| entry.state == State::Failed) {
                let known = self.told.get(&(model.clone(), version)) == Some(&entry.since_ms);
                failed.insert((model.clone(), version), entry.since_ms);
                if !known {
                    let letters: String =
                        model.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
                    events.push(Event {
                        id: format!("{letters}-{version}-failed-{}", entry.since_ms),
                        kind: Kind::ModelFailed,
                        model: model.to_string(),
                        time_ms: now_ms,
                        data: json!({ "model": model, "version": version.to_string(), "digest": entry.digest, "reason": entry.reason }),
                    });
                }
            }
        }
        self.told = failed;
        events
    }
}
