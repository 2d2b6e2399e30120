//! Bounds of rates, means and quantiles that hold at all times at once: confidence sequences.
//!
//! A rate is outside of its bounds, ever, with a probability of at most `α`: the mixture of binomial likelihoods over a beta
//! distribution is a martingale under the true rate (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform,
//! nonparametric, nonasymptotic confidence sequences", section 3). Quantiles are bounded by the rate of what is below a bound; means by bets
//! (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", section 4), with bets that do not change, so
//! that only counts are needed and their order does not matter.

use sluicegate_core::tally;

use crate::rate::log_beta;

/// Steps of a bisection: to the precision of a double.
const HALVINGS: usize = 60;

/// Parts of the largest bet that is allowed.
const BETS: [f64; 10] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95];

/// The logarithm of the evidence against the rate being `rate`, where `hits` of `all` were counted.
fn log_against(hits: u64, all: u64, rate: f64) -> f64 {
    let (hits, rest) = (hits as f64, (all - hits) as f64);
    let times = |count: f64, log: f64| if count == 0.0 { 0.0 } else { count * log };
    log_beta(0.5 + hits, 0.5 + rest) - log_beta(0.5, 0.5) - times(hits, rate.ln()) - times(rest, (1.0 - rate).ln())
}

/// The least that the rate may be.
pub fn least(hits: u64, all: u64, alpha: f64) -> f64 {
    if all == 0 || hits == 0 { 0.0 } else { edge(hits, all, alpha, 0.0) }
}

/// The most that the rate may be.
pub fn most(hits: u64, all: u64, alpha: f64) -> f64 {
    if all == 0 || hits == all { 1.0 } else { edge(hits, all, alpha, 1.0) }
}

/// Between what was seen and `far`, where the evidence reaches `1/α`.
fn edge(hits: u64, all: u64, alpha: f64, far: f64) -> f64 {
    let (mut inside, mut outside) = (hits as f64 / all as f64, far);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(inside, outside);
        if log_against(hits, all, middle) < -alpha.ln() { inside = middle } else { outside = middle }
    }
    outside
}

/// The least and the most that a quantile of times may be, in seconds. The bounds are those of buckets.
///
/// To say that a quantile is above a bucket's bound is to say that fewer than that part of all times are below it. Of the bounds of which
/// that is not true, one is passed the easiest, the one next to the quantile, so that one test is as good as all.
pub fn quantile(times: &[u64], quantile: f64, alpha: f64) -> (f64, f64) {
    let all: u64 = times.iter().sum();
    let (mut least, mut most) = (0.0, f64::INFINITY);
    let mut below = 0;
    for (bucket, count) in times.iter().enumerate() {
        below += count;
        let seen = below as f64 / all.max(1) as f64;
        if log_against(below, all, quantile) < -alpha.ln() {
            continue;
        }
        if seen < quantile {
            least = tally::bound(bucket);
        } else if seen > quantile {
            most = tally::bound(bucket);
            break;
        }
    }
    (least, most)
}

/// A quantile of times as it was seen, in seconds: the bound of its bucket. `None` where there are no times.
pub fn seen_quantile(times: &[u64], quantile: f64) -> Option<f64> {
    let all: u64 = times.iter().sum();
    let wanted = (quantile * all as f64).ceil().max(1.0) as u64;
    let mut below = 0;
    let bucket = times.iter().position(|count| {
        below += count;
        below >= wanted
    })?;
    Some(tally::bound(bucket))
}

/// The least and the most that a difference of this bucket is.
fn width(bucket: usize) -> (f64, f64) {
    let parts = (tally::DIFFERENCES - 1) as f64;
    if bucket == 0 { (0.0, 0.0) } else { ((bucket - 1) as f64 / parts, bucket as f64 / parts) }
}

/// The mean of differences as it was seen, from the middles of the buckets. `None` where there are none.
pub fn seen_mean(differences: &[u64]) -> Option<f64> {
    let all: u64 = differences.iter().sum();
    let middle = |bucket: usize| f64::midpoint(width(bucket).0, width(bucket).1);
    let sum: f64 = differences.iter().enumerate().map(|(bucket, &count)| middle(bucket) * count as f64).sum();
    (all > 0).then(|| sum / all as f64)
}

/// Whether the mean of differences is shown to be above `mean` (where `above`), or below it.
pub fn mean_is(above: bool, differences: &[u64], mean: f64, alpha: f64) -> bool {
    if (above && mean >= 1.0) || (!above && mean <= 0.0) {
        return false;
    }
    let largest = if above { 1.0 / mean.max(f64::MIN_POSITIVE) } else { 1.0 / (1.0 - mean).max(f64::MIN_POSITIVE) };
    let wealth = |bet: f64| -> f64 {
        let bet = (bet * largest).min(1e6);
        let of = |(bucket, &count): (usize, &u64)| {
            // The end of the bucket that is the worse one for what is to be shown.
            let gain = if above { bet * (width(bucket).0 - mean) } else { bet * (mean - width(bucket).1) };
            if count == 0 { 0.0 } else { count as f64 * gain.ln_1p() }
        };
        differences.iter().enumerate().map(of).sum()
    };
    crate::rate::log_e(&BETS.map(wealth)) >= -alpha.ln()
}

/// The population stability index of two distributions: the sum of `(p - q) ln(p / q)` over buckets, with half a count added to each.
/// `None` where one has nothing.
pub fn stability(candidate: &[u64], stable: &[u64]) -> Option<f64> {
    let at = |counts: &[u64], place: usize| counts.get(place).copied().unwrap_or(0) as f64;
    let used: Vec<usize> =
        (0..candidate.len().max(stable.len())).filter(|&place| at(candidate, place) + at(stable, place) > 0.0).collect();
    let sum = |counts: &[u64]| used.iter().map(|&place| at(counts, place) + 0.5).sum::<f64>();
    let (all, of_all) = (sum(candidate), sum(stable));
    if candidate.iter().all(|&count| count == 0) || stable.iter().all(|&count| count == 0) {
        return None;
    }
    let part = |&place: &usize| {
        let (p, q) = ((at(candidate, place) + 0.5) / all, (at(stable, place) + 0.5) / of_all);
        (p - q) * (p / q).ln()
    };
    Some(used.iter().map(part).sum())
}
