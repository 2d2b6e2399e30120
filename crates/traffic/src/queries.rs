//! The queries of a rollout's rules, asked on a thread of their own: a Prometheus that hangs holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sluicegate_outbound::{Address, prometheus};
use sluicegate_rollout::Spec;
use sluicegate_rollout::analysis::Queried;
use sluicegate_rollout::spec::Metric;

/// How often they are asked: as often as servers scrape, at the most.
const EVERY: Duration = Duration::from_secs(5);

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the queries gave last. Dropping it ends the thread.
pub(crate) struct Queries(Arc<Mutex<Queried>>);

impl Queries {
    /// `None` where no rule has a query.
    pub(crate) fn start(spec: &Spec) -> Option<Self> {
        let query = |metric: &Metric| match metric {
            Metric::Prometheus { address, query } => address.parse::<Address>().ok().map(|address| (address, query.clone())),
            _ => None,
        };
        let queries: Vec<Option<(Address, String)>> = spec.rules.iter().map(|rule| query(&rule.metric)).collect();
        if queries.iter().all(Option::is_none) {
            return None;
        }
        let latest = Arc::new(Mutex::new(vec![None; queries.len()]));
        let shared = Arc::downgrade(&latest);
        let ask = move || {
            while let Some(latest) = shared.upgrade() {
                for (place, query) in queries.iter().enumerate() {
                    let Some((address, query)) = query else { continue };
                    let value = prometheus::query(address, query, TIMEOUT).unwrap_or_else(|error| {
                        tracing::warn!(error = error.message(), "a rollout's query gives nothing");
                        None
                    });
                    latest.lock()[place] = value;
                }
                drop(latest);
                std::thread::sleep(EVERY);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("queries".into()).spawn(ask) {
            tracing::error!(%error, "no thread to ask Prometheus: its rules stay unknown");
        }
        Some(Self(latest))
    }

    pub(crate) fn latest(&self) -> Queried {
        self.0.lock().clone()
    }
}
