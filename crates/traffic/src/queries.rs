//! The queries of a rollout's rules, asked on a thread of their own: a Prometheus that hangs holds up nobody.

use std::collections::VecDeque;
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

/// Answers of which the median counts: one that is odd decides nothing.
const COUNTED: usize = 3;

/// What the queries gave last, by the place of their rules. Dropping it ends the thread.
pub(crate) struct Queries(Arc<Mutex<Vec<Answers>>>);

/// The last answers to one query.
#[derive(Clone, Default)]
struct Answers(VecDeque<f64>);

impl Answers {
    /// After none, as from a server that is away, it takes as many again.
    fn add(&mut self, answer: Option<f64>) {
        let Some(answer) = answer else { return self.0.clear() };
        self.0.push_back(answer);
        if self.0.len() > COUNTED {
            self.0.pop_front();
        }
    }

    fn median(&self) -> Option<f64> {
        let mut all: Vec<f64> = self.0.iter().copied().collect();
        all.sort_by(f64::total_cmp);
        all.get(COUNTED / 2).copied().filter(|_| all.len() == COUNTED)
    }
}

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
        let latest = Arc::new(Mutex::new(vec![Answers::default(); queries.len()]));
        let shared = Arc::downgrade(&latest);
        let ask = move || {
            while let Some(latest) = shared.upgrade() {
                for (place, query) in queries.iter().enumerate() {
                    let Some((address, query)) = query else { continue };
                    let value = prometheus::query(address, query, TIMEOUT).unwrap_or_else(|error| {
                        tracing::warn!(error = error.message(), "a rollout's query gives nothing");
                        None
                    });
                    latest.lock()[place].add(value);
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
        self.0.lock().iter().map(Answers::median).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Answers;

    #[test]
    fn one_odd_answer_decides_nothing_and_a_server_that_is_away_says_nothing() {
        let mut answers = Answers::default();
        let mut after = |answer| {
            answers.add(answer);
            answers.median()
        };
        assert_eq!([Some(1.0), Some(9.0), Some(2.0)].map(&mut after), [None, None, Some(2.0)]);
        assert_eq!([Some(9.0), Some(1.0), Some(1.0)].map(&mut after), [Some(9.0), Some(2.0), Some(1.0)]);
        assert_eq!([None, Some(1.0), Some(1.0), Some(1.0)].map(&mut after), [None, None, None, Some(1.0)]);
    }
}
