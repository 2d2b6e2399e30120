//! What the statistics promise, by simulation with a seed: healthy candidates are let through however often one looks, and bad ones are found.
//!
//! `SLUICEGATE_TEST_ROLLOUTS=10000` makes it the longer proof.

use sluicegate_core::tally::{Counts, Numbers, bucket};
use sluicegate_rollout::Evidence;
use sluicegate_rollout::bound;
use sluicegate_rollout::rate::log_e_of_share;
use std::time::Duration;

/// A generator of random bits with a seed: SplitMix64 (Steele, Lea and Flood 2014).
struct Dice(u64);

impl Dice {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1].
    fn part(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// How many of `tries` hit, each with this probability: the misses between two hits are geometric.
    fn hits(&mut self, tries: u64, probability: f64) -> u64 {
        if probability <= 0.0 {
            return 0;
        }
        let (mut at, mut hits) = (0u64, 0);
        loop {
            let skipped = (self.part().ln() / (-probability).ln_1p()).floor();
            at = at.saturating_add(skipped as u64).saturating_add(1);
            if at > tries {
                return hits;
            }
            hits += 1;
        }
    }
}

fn rollouts() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long to test is told to the test, not to the product")]
    let asked = std::env::var("SLUICEGATE_TEST_ROLLOUTS");
    asked.ok().and_then(|asked| asked.parse().ok()).unwrap_or(600)
}

/// Requests between two looks.
const SLICE: u64 = 200;

const ALPHA: f64 = 0.01;

/// A slice of requests that fail so often, of which the candidate has a share.
fn slice(dice: &mut Dice, requests: u64, share: f64, stable: f64, candidate: f64) -> Numbers {
    let own = dice.hits(requests, share);
    let count = |dice: &mut Dice, tried: u64, rate: f64| {
        let failed = dice.hits(tried, rate);
        Counts { drawn: tried, answered: tried - failed, failed, ..Counts::default() }
    };
    let candidate = count(dice, own, candidate);
    Numbers { stable: count(dice, requests - own, stable), candidate, ..Numbers::default() }
}

/// Requests until the evidence is enough; `None` where it never was.
fn found(dice: &mut Dice, looks: u64, mut each: impl FnMut(&mut Dice, u64) -> Numbers) -> Option<u64> {
    let mut evidence = Evidence::default();
    let mut requests = 0;
    for look in 0..looks {
        let slice = each(dice, look);
        requests += slice.stable.tried() + slice.candidate.tried();
        evidence.settle(&slice);
        if evidence.log_e_of_failures() >= -ALPHA.ln() {
            return Some(requests);
        }
    }
    None
}

/// The most that may be wrong of so many with a probability of α: its mean and four deviations.
fn most_wrong(rollouts: u64) -> u64 {
    let mean = rollouts as f64 * ALPHA;
    (mean + 4.0 * mean.sqrt()).ceil() as u64
}

#[test]
fn healthy_candidates_are_let_through_however_often_one_looks() {
    let (mut wrong, mut naive) = (0, 0);
    for seed in 0..rollouts() {
        let dice = &mut Dice(seed);
        wrong += u64::from(found(dice, 1_000, |dice, _| slice(dice, SLICE, 0.05, 0.01, 0.01)).is_some());
        naive += u64::from(naive_test_stops(&mut Dice(seed)));
    }
    assert!(wrong <= most_wrong(rollouts()), "{wrong} of {} healthy rollouts were stopped", rollouts());
    // That this test can fail: a plain comparison of two rates, looked at as often, is wrong many times as often as it says.
    assert!(naive as f64 > 5.0 * ALPHA * rollouts() as f64, "a plain test stopped {naive} of {}", rollouts());
}

/// A one-sided test of two proportions at the same α, at each look.
fn naive_test_stops(dice: &mut Dice) -> bool {
    let mut sum = Numbers::default();
    (0..1_000).any(|_| {
        sum = sum.plus(&slice(dice, SLICE, 0.05, 0.01, 0.01));
        let (x, n) = (sum.candidate.failed as f64, sum.candidate.tried().max(1) as f64);
        let (y, m) = (sum.stable.failed as f64, sum.stable.tried().max(1) as f64);
        let pooled = (x + y) / (n + m);
        let deviation = (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
        deviation > 0.0 && (x / n - y / m) / deviation > 2.326
    })
}

#[test]
fn shares_that_change_and_failures_that_come_and_go_do_not_pass_for_a_worse_candidate() {
    let mut wrong = 0;
    for seed in 0..rollouts() / 2 {
        let share = |look: u64| [0.01, 0.05, 0.25, 0.5][(look / 100 % 4) as usize];
        // Both fail in 1 % of requests, and in 30 % of them in each tenth slice; the load changes by a factor of ten.
        let rate = |look: u64| if look % 10 == 9 { 0.3 } else { 0.01 };
        let load = |look: u64| 40 * (1 + look % 10);
        let each = |dice: &mut Dice, look: u64| slice(dice, load(look), share(look), rate(look), rate(look));
        wrong += u64::from(found(&mut Dice(seed ^ 0xabc), 400, each).is_some());
    }
    assert!(wrong <= most_wrong(rollouts() / 2), "{wrong} of {}", rollouts() / 2);
}

#[test]
fn replicas_that_are_added_up_are_as_honest() {
    let mut wrong = 0;
    for seed in 0..rollouts() / 3 {
        let mut replicas = [Evidence::default(), Evidence::default(), Evidence::default()];
        let dice = &mut Dice(seed ^ 0x77);
        let stopped = (0..300).any(|look| {
            // One of them has another share than the others, and requests of its own.
            let share = [0.05, 0.05, 0.2];
            replicas
                .iter_mut()
                .zip(share)
                .for_each(|(replica, share)| replica.settle(&slice(dice, 60 + look % 50, share, 0.02, 0.02)));
            let sum = replicas[0].plus(&replicas[1]).plus(&replicas[2]);
            sum.log_e_of_failures() >= -ALPHA.ln()
        });
        wrong += u64::from(stopped);
    }
    assert!(wrong <= most_wrong(rollouts() / 3), "{wrong} of {}", rollouts() / 3);
}

#[test]
fn worse_candidates_are_found_as_fast_as_the_table_says() {
    let cases = [(0.01, 0.02), (0.01, 0.03), (0.01, 0.05), (0.01, 0.2), (0.001, 0.005), (0.001, 0.01), (0.001, 0.05)];
    let mut table = String::from(
        "share 5 %, alpha 1 %, a look every 200 requests, 100 rollouts each: requests of both variants until the rollback\nstable candidate found median 95th\n",
    );
    for (stable, candidate) in cases {
        let mut until: Vec<u64> = (0..100u64)
            .filter_map(|seed| found(&mut Dice(seed ^ 0x5eed), 2_000, |dice, _| slice(dice, SLICE, 0.05, stable, candidate)))
            .collect();
        until.sort_unstable();
        let at = |part: f64| until.get(((until.len() as f64 - 1.0) * part) as usize).copied().unwrap_or(0);
        table.push_str(&format!("{}% {}% {} {} {}\n", stable * 100.0, candidate * 100.0, until.len(), at(0.5), at(0.95)));
    }
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power.txt");
    #[expect(clippy::disallowed_methods, reason = "how to test is told to the test, not to the product")]
    if std::env::var_os("SLUICEGATE_BLESS").is_some() {
        std::fs::write(&golden, &table).expect("the table is written");
    }
    assert_eq!(table, std::fs::read_to_string(&golden).unwrap_or_default(), "SLUICEGATE_BLESS=1 writes it anew");
}

#[test]
fn a_rate_is_within_its_bounds_at_all_times() {
    let mut outside = 0;
    for seed in 0..rollouts() {
        let dice = &mut Dice(seed ^ 0xb0);
        let (mut hits, mut all) = (0, 0);
        let left = (0..200).any(|_| {
            hits += dice.hits(50, 0.03);
            all += 50;
            let (least, most) = (bound::least(hits, all, ALPHA), bound::most(hits, all, ALPHA));
            assert!(least <= most);
            !(least..=most).contains(&0.03)
        });
        outside += u64::from(left);
    }
    assert!(outside <= most_wrong(rollouts()), "{outside} of {}", rollouts());
}

#[test]
fn a_quantile_is_within_its_bounds_at_all_times() {
    // Exponential times with a mean of 10 ms.
    let (quantile, mean): (f64, f64) = (0.95, 0.010);
    let truth = -mean * (1.0 - quantile).ln();
    let mut outside = 0;
    for seed in 0..rollouts() / 2 {
        let dice = &mut Dice(seed ^ 0x1a7e);
        let mut times = vec![0u64; sluicegate_core::tally::TIMES];
        let left = (0..40).any(|_| {
            for _ in 0..50 {
                times[bucket(Duration::from_secs_f64(-mean * dice.part().ln()))] += 1;
            }
            let (least, most) = bound::quantile(&times, quantile, ALPHA);
            !(least..=most).contains(&truth)
        });
        outside += u64::from(left);
    }
    assert!(outside <= most_wrong(rollouts() / 2), "{outside} of {}", rollouts() / 2);
    let mut times = vec![0u64; 200];
    times[100] = 10_000;
    let (least, most) = bound::quantile(&times, 0.99, ALPHA);
    assert!(least <= sluicegate_core::tally::bound(100) && most <= sluicegate_core::tally::bound(100), "{least} {most}");
}

#[test]
fn a_mean_is_shown_to_be_where_it_is_not_no_oftener_than_promised() {
    let (mut wrong, mut right) = (0, 0);
    for seed in 0..rollouts() / 2 {
        let dice = &mut Dice(seed ^ 0x3ea);
        // Nine tenths do not differ, the others by 0.5: exactly in the mean 0.05.
        let mut differences = vec![0u64; 33];
        let mut shown = (false, false);
        for _ in 0..60 {
            let apart = dice.hits(50, 0.1);
            differences[32] += apart;
            differences[0] += 50 - apart;
            shown.0 |= bound::mean_is(true, &differences, 0.05, ALPHA) || bound::mean_is(false, &differences, 0.05, ALPHA);
            shown.1 |= bound::mean_is(true, &differences, 0.02, ALPHA) && bound::mean_is(false, &differences, 0.1, ALPHA);
        }
        wrong += u64::from(shown.0);
        right += u64::from(shown.1);
    }
    assert!(wrong <= 2 * most_wrong(rollouts() / 2), "{wrong} of {}", rollouts() / 2);
    assert!(right > rollouts() * 9 / 20, "3,000 rows show what is far off: {right} of {}", rollouts() / 2);
}

#[test]
fn a_split_that_is_off_is_noticed_and_a_right_one_is_not() {
    let stopped = |seed: u64, real: f64| {
        let dice = &mut Dice(seed ^ 0x511);
        let (mut own, mut all) = (0, 0);
        (0..300).any(|_| {
            own += dice.hits(SLICE, real);
            all += SLICE;
            log_e_of_share(own, all, 0.05) >= -ALPHA.ln()
        })
    };
    let wrong = (0..rollouts()).filter(|&seed| stopped(seed, 0.05)).count() as u64;
    assert!(wrong <= most_wrong(rollouts()), "{wrong} of {}", rollouts());
    assert!((0..50).all(|seed| stopped(seed, 0.06)), "6 % where 5 % are declared");
}

#[test]
fn equal_answers_do_not_drift_and_others_do() {
    let labels = |dice: &mut Dice, all: u64, first: f64| {
        let one = dice.hits(all, first);
        let two = dice.hits(all - one, 0.5);
        Counts { answered: all, answers: vec![one, two, all - one - two], ..Counts::default() }
    };
    let stopped = |seed: u64, candidate: f64| {
        let dice = &mut Dice(seed ^ 0xd21f);
        let mut evidence = Evidence::default();
        (0..200).any(|_| {
            let slice = Numbers { stable: labels(dice, 190, 0.3), candidate: labels(dice, 10, candidate), ..Numbers::default() };
            evidence.settle(&slice);
            evidence.log_e_of_answers() >= -ALPHA.ln()
        })
    };
    let wrong = (0..rollouts() / 2).filter(|&seed| stopped(seed, 0.3)).count() as u64;
    assert!(wrong <= most_wrong(rollouts() / 2), "{wrong} of {}", rollouts() / 2);
    assert!((0..20).all(|seed| stopped(seed, 0.5)), "30 % against 50 %");
}

/// The logarithm of n over k.
fn log_choose(n: u64, k: u64) -> f64 {
    let log_factorial = |n: u64| (1..=n).map(|i| (i as f64).ln()).sum::<f64>();
    log_factorial(n) - log_factorial(k) - log_factorial(n - k)
}

#[test]
fn a_bet_on_a_worse_candidate_is_fair_whatever_the_slice() {
    // All slices of up to 12 requests, not a sample of them: given who was asked and how many failed, each choice of those who failed is
    // as likely where the two are equal, whatever made them fail.
    for (own, others) in (1..=6u64).flat_map(|own| (1..=6u64).map(move |others| (own, others))) {
        for failed in 0..=own + others {
            let mut mean = 0.0;
            for x in failed.saturating_sub(others)..=failed.min(own) {
                let log = log_choose(own, x) + log_choose(others, failed - x) - log_choose(own + others, failed);
                let mut evidence = Evidence::default();
                let count = |tried: u64, failed: u64| Counts { answered: tried - failed, failed, ..Counts::default() };
                let (stable, candidate) = (count(others, failed - x), count(own, x));
                evidence.settle(&Numbers { stable, candidate, ..Numbers::default() });
                mean += (log + evidence.log_e_of_failures()).exp();
            }
            assert!(mean <= 1.0 + 1e-9, "{failed} failures of {own} + {others}: {mean}");
        }
    }
}

/// Answers of a variant: so many requests, of which 1 % fail, with log-normal times and three labels.
fn answers(dice: &mut Dice, tried: u64) -> Counts {
    let failed = dice.hits(tried, 0.01);
    let (mut times, mut labels) = (vec![0u64; sluicegate_core::tally::TIMES], vec![0u64; 3]);
    for _ in 0..tried - failed {
        let normal = (-2.0 * dice.part().ln()).sqrt() * (std::f64::consts::TAU * dice.part()).cos();
        times[bucket(Duration::from_secs_f64(0.020 * (0.8 * normal).exp()))] += 1;
        labels[(dice.bits() % 3) as usize] += 1;
    }
    Counts { drawn: tried, answered: tried - failed, failed, times, answers: labels }
}

#[test]
fn whole_rollouts_of_healthy_candidates_are_not_rolled_back() {
    use sluicegate_rollout::spec::{Limits, Metric, Outcome, Rule, Step, Strategy};
    use sluicegate_rollout::{Look, Phase, Spec, State, decide};

    let rule = |metric| Rule { metric, max: None, min: None, max_increase: None, max_decrease: None, min_samples: 100 };
    let step = |weight: &str| Step { weight: weight.parse().expect("a share"), hold_ms: 10_000, pause: false };
    let spec = Spec {
        strategy: Strategy::Canary,
        stable: 1,
        candidate: 2,
        mirror: None,
        steps: vec![step("5%"), step("25%"), step("50%")],
        rules: vec![
            Rule { max_increase: Some(0.0), ..rule(Metric::ErrorRate) },
            Rule { max_increase: Some(0.5), ..rule(Metric::Latency(0.5)) },
            Rule { max: Some(0.2), ..rule(Metric::Drift) },
        ],
        // The true rate is 1 %, the true p99 129 ms.
        limits: Limits { error_rate: Some(0.02), latency_p99: Some(0.15), min_samples: 50 },
        alpha: ALPHA,
        on_failure: Outcome::Rollback,
        patience_ms: 1_000_000,
        on_inconclusive: Outcome::Hold,
    };
    assert_eq!(spec.check(), []);
    let runs = rollouts() / 12;
    let (mut back, mut steps) = (0, 0);
    for seed in 0..runs {
        let dice = &mut Dice(seed ^ 0xa11);
        let mut state = State::new(spec.digest(), 0);
        let (mut evidence, mut recent) = (Evidence::default(), std::collections::VecDeque::new());
        for now in 0..120u64 {
            let share = decide::shares(&spec, &state).0.fraction();
            // The load rises and falls, and what was counted of late is of sixty looks.
            let all = 100 + 100 * (now % 4);
            let own = dice.hits(all, share);
            let slice = Numbers { stable: answers(dice, all - own), candidate: answers(dice, own), ..Numbers::default() };
            evidence.settle(&slice);
            recent.push_back(slice);
            if recent.len() > 60 {
                recent.pop_front();
            }
            let recent = recent.iter().fold(Numbers::default(), |sum, slice| sum.plus(slice));
            let look = Look { now_ms: now * 1_000, ready: true, evidence: evidence.clone(), recent, ..Look::default() };
            if let Some(decision) = decide::decide(&spec, &state, &look) {
                if decision.next.stage != state.stage {
                    evidence = Evidence::default();
                    steps += 1;
                }
                state = decision.next;
            }
        }
        back += u64::from(state.phase == Phase::RolledBack);
    }
    assert!(back <= most_wrong(runs), "{back} of {runs} healthy rollouts were rolled back");
    assert!(steps > runs, "they go on, too: {steps} steps of {runs}");
}
