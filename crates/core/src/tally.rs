//! What is counted of a rollout's variants: atomics on the requests' way, and the numbers that they sum up to.
//!
//! Numbers of two replicas add up to those of both, so that nobody has to lead.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::meter::{SHARDS, shard};
use crate::split::Variant;

/// Buckets of a time: 16 to each doubling, from 1 microsecond to 134 seconds. A bucket is 4.4 % wide.
pub const TIMES: usize = 27 * 16 + 2;

/// Buckets of what was answered.
pub const ANSWERS: usize = 64;

/// Buckets of how far two answers lie apart: one for none, and 64 of equal width from 0 to 1.
pub const DIFFERENCES: usize = 65;

/// What is counted of one rollout by one replica.
#[derive(Default)]
pub struct Tally {
    stable: [Arm; SHARDS],
    candidate: [Arm; SHARDS],
    /// What is counted of the pairs of answers to one request.
    pub shadow: Shadow,
    fallen: AtomicU64,
}

/// What is counted of requests that both versions answered, where the candidate's answer was compared and thrown away.
#[derive(Default)]
pub struct Shadow {
    compared: AtomicU64,
    disagreed: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    differences: Buckets<DIFFERENCES>,
}

/// What threads of one shard count of one variant.
#[derive(Default)]
#[repr(align(64))]
pub struct Arm {
    drawn: AtomicU64,
    failed: AtomicU64,
    times: Buckets<TIMES>,
    answers: Buckets<ANSWERS>,
}

struct Buckets<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Buckets<N> {
    fn add(&self, bucket: usize) {
        if let Some(count) = self.0.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn get(&self) -> Vec<u64> {
        self.0.iter().map(|count| count.load(Relaxed)).collect()
    }
}

/// The numbers of one variant. They add up over replicas, and what was counted since a moment is a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Requests without a key that fell to it by chance while both variants were ready: what the share is compared with.
    pub drawn: u64,
    /// Requests that it answered.
    pub answered: u64,
    /// Requests that it failed, for another reason than a fault of the caller. What stable then answered is not in stable's numbers.
    pub failed: u64,
    /// Times of what it answered, by bucket: see [`bucket`] and [`bound`]. Shorter than [`TIMES`] where the rest is 0.
    pub times: Vec<u64>,
    /// The first rows of what it answered, by bucket: labels by their place, else numbers by their size. Shorter than [`ANSWERS`] where the rest is 0.
    pub answers: Vec<u64>,
}

/// The numbers of compared answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// Rows that both answered.
    pub compared: u64,
    /// Rows of them on which they disagreed: another label, or numbers further apart than the tolerance.
    pub disagreed: u64,
    /// Requests that the candidate failed.
    pub failed: u64,
    /// Requests that were not put to the candidate, because it had no room.
    pub dropped: u64,
    /// How far the rows lay apart, by bucket: see [`apart`]. Shorter than [`DIFFERENCES`] where the rest is 0.
    pub differences: Vec<u64>,
}

/// All numbers of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// Those of stable.
    pub stable: Counts,
    /// Those of the candidate.
    pub candidate: Counts,
    /// Those of the shadow.
    pub shadow: Compared,
}

/// The bucket of a difference from 0 to 1; above 1 is 1, and what is no number is as far apart as can be.
pub fn apart(difference: f64) -> usize {
    if difference == 0.0 {
        return 0;
    }
    let cut = if difference.is_nan() { 1.0 } else { difference.abs().min(1.0) };
    ((cut * 64.0).ceil() as usize).clamp(1, DIFFERENCES - 1)
}

/// The bucket of a time.
pub fn bucket(time: Duration) -> usize {
    let microseconds = time.as_secs_f64() * 1e6;
    if microseconds <= 1.0 {
        return 0;
    }
    // A logarithm is below the last bucket or cut to it.
    ((microseconds.log2() * 16.0).ceil() as usize).min(TIMES - 1)
}

/// The upper bound of a bucket, inclusive; endless for the last one.
pub fn bound(bucket: usize) -> f64 {
    if bucket + 1 >= TIMES { f64::INFINITY } else { (bucket as f64 / 16.0).exp2() * 1e-6 }
}

impl Tally {
    /// Where the calling thread counts a variant.
    pub fn arm(&self, variant: Variant) -> &Arm {
        let arms = match variant {
            Variant::Stable => &self.stable,
            Variant::Candidate => &self.candidate,
        };
        &arms[shard()]
    }

    /// Stable answered what the candidate had failed.
    pub fn fell(&self) {
        self.fallen.fetch_add(1, Relaxed);
    }

    /// How often it did.
    pub fn fallen(&self) -> u64 {
        self.fallen.load(Relaxed)
    }

    /// The numbers so far.
    pub fn numbers(&self) -> Numbers {
        let sum = |arms: &[Arm]| arms.iter().fold(Counts::default(), |sum, arm| sum.zip(&arm.counts(), u64::saturating_add));
        Numbers { stable: sum(&self.stable), candidate: sum(&self.candidate), shadow: self.shadow.counts() }
    }
}

impl Arm {
    /// A request without a key fell to it by chance while both variants were ready.
    pub fn drawn(&self) {
        self.drawn.fetch_add(1, Relaxed);
    }

    /// It answered after this time.
    pub fn answered(&self, time: Duration) {
        self.times.add(bucket(time));
    }

    /// It failed, for another reason than a fault of the caller.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// The first row of an answer was of this bucket.
    pub fn said(&self, bucket: usize) {
        self.answers.add(bucket.min(ANSWERS - 1));
    }

    fn counts(&self) -> Counts {
        let times = self.times.get();
        Counts {
            drawn: self.drawn.load(Relaxed),
            answered: times.iter().sum(),
            failed: self.failed.load(Relaxed),
            times: short(times),
            answers: short(self.answers.get()),
        }
    }
}

impl Shadow {
    /// Two answers to one row, so far apart.
    pub fn compared(&self, difference: f64, disagree: bool) {
        self.compared.fetch_add(1, Relaxed);
        self.disagreed.fetch_add(u64::from(disagree), Relaxed);
        self.differences.add(apart(difference));
    }

    /// The candidate failed a request that stable answered.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// There was no room to put a request to the candidate.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    fn counts(&self) -> Compared {
        Compared {
            compared: self.compared.load(Relaxed),
            disagreed: self.disagreed.load(Relaxed),
            failed: self.failed.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            differences: short(self.differences.get()),
        }
    }
}

/// Without the zeros at its end.
fn short(mut counts: Vec<u64>) -> Vec<u64> {
    let end = counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
    counts.truncate(end);
    counts
}

fn zip(one: &[u64], other: &[u64], with: impl Fn(u64, u64) -> u64) -> Vec<u64> {
    let at = |counts: &[u64], place: usize| counts.get(place).copied().unwrap_or(0);
    short((0..one.len().max(other.len())).map(|place| with(at(one, place), at(other, place))).collect())
}

impl Counts {
    /// Requests that it was tried for.
    pub fn tried(&self) -> u64 {
        self.answered.saturating_add(self.failed)
    }

    fn zip(&self, other: &Self, with: impl Fn(u64, u64) -> u64 + Copy) -> Self {
        Self {
            drawn: with(self.drawn, other.drawn),
            answered: with(self.answered, other.answered),
            failed: with(self.failed, other.failed),
            times: zip(&self.times, &other.times, with),
            answers: zip(&self.answers, &other.answers, with),
        }
    }
}

impl Compared {
    fn zip(&self, other: &Self, with: impl Fn(u64, u64) -> u64 + Copy) -> Self {
        Self {
            compared: with(self.compared, other.compared),
            disagreed: with(self.disagreed, other.disagreed),
            failed: with(self.failed, other.failed),
            dropped: with(self.dropped, other.dropped),
            differences: zip(&self.differences, &other.differences, with),
        }
    }
}

impl Numbers {
    fn zip(&self, other: &Self, with: impl Fn(u64, u64) -> u64 + Copy) -> Self {
        Self {
            stable: self.stable.zip(&other.stable, with),
            candidate: self.candidate.zip(&other.candidate, with),
            shadow: self.shadow.zip(&other.shadow, with),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_counts() -> impl Strategy<Value = Counts> {
        let many = || prop::collection::vec(0..1_000u64, 0..5).prop_map(short);
        (prop::array::uniform3(0..1_000u64), many(), many()).prop_map(|([drawn, answered, failed], times, answers)| Counts {
            drawn,
            answered,
            failed,
            times,
            answers,
        })
    }

    fn any_numbers() -> impl Strategy<Value = Numbers> {
        let shadow = (prop::array::uniform4(0..1_000u64), prop::collection::vec(0..1_000u64, 0..5).prop_map(short)).prop_map(
            |([compared, disagreed, failed, dropped], differences)| Compared {
                compared,
                disagreed,
                failed,
                dropped,
                differences,
            },
        );
        (any_counts(), any_counts(), shadow).prop_map(|(stable, candidate, shadow)| Numbers { stable, candidate, shadow })
    }

    proptest! {
        #[test]
        fn replicas_add_up_in_any_order(one in any_numbers(), two in any_numbers(), three in any_numbers()) {
            prop_assert_eq!(one.plus(&two), two.plus(&one));
            prop_assert_eq!(one.plus(&two).plus(&three), one.plus(&two.plus(&three)));
            prop_assert_eq!(one.plus(&Numbers::default()), one.clone());
            prop_assert_eq!(one.plus(&two).since(&two), one);
        }

        #[test]
        fn a_time_is_within_its_bucket(ns in 0..200_000_000_000u64) {
            let time = Duration::from_nanos(ns);
            let bucket = bucket(time);
            // A ten-thousandth of the bucket's width: what a logarithm is off.
            let slack = 1.0 + 5e-6;
            prop_assert!(time.as_secs_f64() <= bound(bucket) * slack);
            prop_assert!(bucket == 0 || time.as_secs_f64() * slack > bound(bucket - 1));
        }
    }

    #[test]
    fn what_is_counted_is_summed_up() {
        let tally = Tally::default();
        tally.arm(Variant::Candidate).answered(Duration::from_micros(100));
        tally.arm(Variant::Candidate).failed();
        tally.arm(Variant::Stable).said(1_000);
        tally.shadow.compared(0.5, true);
        let counts = tally.numbers();
        assert_eq!(counts.shadow.differences.len(), 33);
        assert_eq!((counts.candidate.tried(), counts.candidate.times.iter().sum::<u64>()), (2, 1));
        assert_eq!(counts.stable.answers.len(), ANSWERS);
    }

    #[test]
    fn what_each_thread_counts_is_in_the_sum() {
        let tally = Tally::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| {
                    tally.arm(Variant::Stable).answered(Duration::from_millis(1));
                    tally.arm(Variant::Candidate).failed();
                });
            }
        });
        let (numbers, all) = (tally.numbers(), 2 * SHARDS as u64);
        assert_eq!((numbers.stable.answered, numbers.stable.times.iter().sum::<u64>()), (all, all));
        assert_eq!((numbers.candidate.failed, numbers.candidate.answered), (all, 0));
    }
}
