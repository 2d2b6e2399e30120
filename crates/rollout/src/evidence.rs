//! What was counted in one stage of a rollout. That of several replicas adds up, in any order.

use serde::{Deserialize, Serialize};
use sluicegate_core::split::Share;
use sluicegate_core::tally::{ANSWERS, Numbers};

use crate::rate::{self, OTHER, WORSE};

/// What was counted in a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The numbers.
    pub numbers: Numbers,
    /// The logarithms of the likelihoods of the failures, for each of [`WORSE`].
    pub failures: [f64; WORSE.len()],
    /// The same of the answers, for each of [`OTHER`] and each bucket that was answered.
    pub answers: Vec<[f64; OTHER.len()]>,
}

impl Evidence {
    /// Adds what was counted in a slice of time. Each slice is added once, and ends by time alone, never by what is in it.
    pub fn settle(&mut self, slice: &Numbers) {
        let (stable, candidate) = (&slice.stable, &slice.candidate);
        let all = stable.tried() + candidate.tried();
        if all > 0 {
            let share = candidate.tried() as f64 / all as f64;
            let failed = stable.failed + candidate.failed;
            rate::settle(&mut self.failures, &WORSE, candidate.failed, failed, share);
        }
        let (own, others): (u64, u64) = (candidate.answers.iter().sum(), stable.answers.iter().sum());
        if own + others > 0 {
            let share = own as f64 / (own + others) as f64;
            let buckets = candidate.answers.len().max(stable.answers.len()).min(ANSWERS);
            if self.answers.len() < buckets {
                self.answers.resize(buckets, [0.0; OTHER.len()]);
            }
            for (bucket, logs) in self.answers.iter_mut().enumerate().take(buckets) {
                let at = |counts: &[u64]| counts.get(bucket).copied().unwrap_or(0);
                let own = at(&candidate.answers);
                rate::settle(logs, &OTHER, own, own + at(&stable.answers), share);
            }
        }
        self.numbers = self.numbers.plus(slice);
    }

    /// That of two replicas.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let add = |one: &f64, other: &f64| one + other;
        let mut failures = self.failures;
        failures.iter_mut().zip(&other.failures).for_each(|(mine, theirs)| *mine = add(mine, theirs));
        let nothing = [0.0; OTHER.len()];
        let buckets = self.answers.len().max(other.answers.len());
        let answers = (0..buckets).map(|bucket| {
            let (mine, theirs) = (self.answers.get(bucket).unwrap_or(&nothing), other.answers.get(bucket).unwrap_or(&nothing));
            std::array::from_fn(|ratio| add(&mine[ratio], &theirs[ratio]))
        });
        Self { numbers: self.numbers.plus(&other.numbers), failures, answers: answers.collect() }
    }

    /// The logarithm of the e-value that the candidate fails oftener than stable.
    pub fn log_e_of_failures(&self) -> f64 {
        rate::log_e(&self.failures)
    }

    /// The logarithm of the e-value that the two answer differently: the mean over all buckets that there may be, for those that were
    /// answered are known only afterwards.
    pub fn log_e_of_answers(&self) -> f64 {
        let nothing = [0.0; OTHER.len()];
        let logs: Vec<f64> = (0..ANSWERS).flat_map(|bucket| *self.answers.get(bucket).unwrap_or(&nothing)).collect();
        rate::log_e(&logs)
    }

    /// The logarithm of the e-value that the split does not give the candidate its share.
    pub fn log_e_of_split(&self, share: Share) -> f64 {
        let (own, others) = (self.numbers.candidate.drawn, self.numbers.stable.drawn);
        rate::log_e_of_share(own, own + others, share.fraction())
    }
}
