//! What is known of each rule: it holds, it is broken, or that is not known yet; with the numbers, and a sentence for people.

use serde::{Deserialize, Serialize};
use sluicegate_core::split::Share;
use sluicegate_core::tally::DIFFERENCES;

use crate::bound::{self, least, most};
use crate::evidence::Evidence;
use crate::spec::{Metric, Rule, Spec, Stage};

/// Wide of the number of answers that a stability index is made of, by chance alone: its mean under equal distributions is
/// `(buckets - 1) (1/n + 1/m)`, so that it is known once that is this part of its bound.
const NOISE: f64 = 0.5;

/// What is known of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Known {
    /// It holds.
    Pass,
    /// It is broken.
    Fail,
    /// Not yet.
    Unknown,
}

/// What was found of one rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// What it looks at.
    pub metric: String,
    /// What is known.
    pub known: Known,
    /// The candidate's number, where there is one.
    pub candidate: Option<f64>,
    /// Stable's, where it is compared with.
    pub stable: Option<f64>,
    /// How often the candidate was asked.
    pub samples: u64,
    /// The same for people.
    pub sentence: String,
}

/// What a query of Prometheus gave of late, by the place of its rule; `None` where that is nothing.
pub type Queried = Vec<Option<f64>>;

/// What is known of every rule, and of the split itself, in this order.
pub fn analyse(spec: &Spec, stage: &Stage, evidence: &Evidence, seconds: f64, queried: &Queried) -> Vec<Verdict> {
    let alpha = spec.alpha_of_one();
    let scene = Scene { stage, evidence, seconds, alpha };
    let rules = spec.rules.iter().enumerate().filter(|(_, rule)| rule.applies(stage));
    let mut verdicts: Vec<Verdict> = rules.map(|(place, rule)| scene.rule(rule, queried.get(place).copied().flatten())).collect();
    verdicts.push(scene.split());
    verdicts
}

/// What rules are looked at in.
struct Scene<'a> {
    stage: &'a Stage,
    evidence: &'a Evidence,
    seconds: f64,
    alpha: f64,
}

/// Two numbers with their bounds.
struct Sides {
    candidate: (f64, f64),
    /// None where nobody is there to compare with.
    stable: Option<(f64, f64)>,
    /// Whether an increase is a part of stable's, and not in points.
    relative: bool,
}

fn both(one: Known, other: Known) -> Known {
    match (one, other) {
        (Known::Fail, _) | (_, Known::Fail) => Known::Fail,
        (Known::Pass, Known::Pass) => Known::Pass,
        _ => Known::Unknown,
    }
}

/// What is known of something that must not be above a bound, from the least and the most that it may be.
fn below((least, most): (f64, f64), bound: f64) -> Known {
    if most <= bound {
        Known::Pass
    } else if least > bound {
        Known::Fail
    } else {
        Known::Unknown
    }
}

fn above((least, most): (f64, f64), bound: f64) -> Known {
    if least >= bound {
        Known::Pass
    } else if most < bound {
        Known::Fail
    } else {
        Known::Unknown
    }
}

impl Sides {
    /// What all bounds of a rule say together.
    fn against(&self, rule: &Rule) -> Known {
        let mut known = Known::Pass;
        if let Some(max) = rule.max {
            known = both(known, below(self.candidate, max));
        }
        if let Some(min) = rule.min {
            known = both(known, above(self.candidate, min));
        }
        // At a share of 100 % there is no stable beside it, and what was shown before holds.
        let Some(stable) = self.stable else { return known };
        if let Some(increase) = rule.max_increase {
            let bound = |stable: f64| if self.relative { stable * (1.0 + increase) } else { stable + increase };
            known = both(known, compared(self.candidate, (bound(stable.0), bound(stable.1))));
        }
        if let Some(decrease) = rule.max_decrease {
            let bound = |stable: f64| if self.relative { stable * (1.0 - decrease) } else { stable - decrease };
            let turned = |(least, most): (f64, f64)| (-most, -least);
            known = both(known, compared(turned(self.candidate), turned((bound(stable.0), bound(stable.1)))));
        }
        known
    }
}

/// What is known of one number that must not be above another.
fn compared(one: (f64, f64), other: (f64, f64)) -> Known {
    if one.1 <= other.0 {
        Known::Pass
    } else if one.0 > other.1 {
        Known::Fail
    } else {
        Known::Unknown
    }
}

impl Scene<'_> {
    fn rule(&self, rule: &Rule, queried: Option<f64>) -> Verdict {
        let mut verdict = match &rule.metric {
            Metric::ErrorRate => self.errors(rule),
            Metric::Latency(quantile) => self.latency(rule, *quantile),
            Metric::Throughput => self.throughput(rule),
            Metric::Drift => self.drift(rule),
            Metric::Disagreement => self.disagreement(rule),
            Metric::Difference => self.difference(rule),
            Metric::Prometheus { query, .. } => prometheus(rule, query, queried),
        };
        let is_few = verdict.samples < rule.min_samples && !matches!(rule.metric, Metric::Prometheus { .. });
        if is_few && verdict.known == Known::Pass {
            verdict.known = Known::Unknown;
            verdict.sentence.push_str(&format!("; {} are wanted", rule.min_samples));
        }
        verdict
    }

    fn has_stable(&self) -> bool {
        self.stage.share < Share::ALL
    }

    fn rates(&self, candidate: (u64, u64), stable: (u64, u64)) -> Sides {
        // Each of the two sides has two ends.
        let alpha = self.alpha / 4.0;
        let bounds = |(hits, all): (u64, u64)| (least(hits, all, alpha), most(hits, all, alpha));
        Sides { candidate: bounds(candidate), stable: self.has_stable().then(|| bounds(stable)), relative: false }
    }

    fn errors(&self, rule: &Rule) -> Verdict {
        let (candidate, stable) = (&self.evidence.numbers.candidate, &self.evidence.numbers.stable);
        let sides = self.rates((candidate.failed, candidate.tried()), (stable.failed, stable.tried()));
        let mut known = sides.against(rule);
        // Where nothing more is allowed, to be worse at all is enough, and that is seen much earlier.
        let log_e = self.evidence.log_e_of_failures();
        let mut shown = String::new();
        if rule.max_increase == Some(0.0) && self.has_stable() {
            shown = format!("; evidence that it is worse: e = {}", exponential(log_e));
            // That two rates are equal is never shown. It passes where nothing speaks for its being worse.
            let alone = Rule { max_increase: None, ..rule.clone() };
            let beside = match log_e {
                shown if shown >= -self.alpha.ln() => Known::Fail,
                nothing if nothing <= 0.0 && candidate.tried() > 0 && stable.tried() > 0 => Known::Pass,
                _ => Known::Unknown,
            };
            known = both(sides.against(&alone), beside);
        }
        let sentence = format!(
            "the candidate failed {} of {} requests ({}), stable {} of {} ({}){shown}",
            candidate.failed,
            candidate.tried(),
            percent(ratio(candidate.failed, candidate.tried())),
            stable.failed,
            stable.tried(),
            percent(ratio(stable.failed, stable.tried())),
        );
        verdict(
            rule,
            known,
            ratio(candidate.failed, candidate.tried()),
            ratio(stable.failed, stable.tried()),
            candidate.tried(),
            sentence,
        )
    }

    fn latency(&self, rule: &Rule, quantile: f64) -> Verdict {
        let (candidate, stable) = (&self.evidence.numbers.candidate.times, &self.evidence.numbers.stable.times);
        let alpha = self.alpha / 4.0;
        let bounds = |times: &[u64]| bound::quantile(times, quantile, alpha);
        let sides = Sides { candidate: bounds(candidate), stable: self.has_stable().then(|| bounds(stable)), relative: true };
        let known = sides.against(rule);
        let (own, others) = (bound::seen_quantile(candidate, quantile), bound::seen_quantile(stable, quantile));
        let samples = candidate.iter().sum();
        let sentence = format!(
            "the candidate's {} is {} after {samples} answers (it is from {} to {}), stable's {}",
            rule.metric.name().trim_start_matches("latency_"),
            time(own),
            time(Some(sides.candidate.0)),
            time(Some(sides.candidate.1)),
            time(others),
        );
        verdict(rule, known, own, others, samples, sentence)
    }

    fn throughput(&self, rule: &Rule) -> Verdict {
        let samples = self.evidence.numbers.candidate.tried();
        let rate = samples as f64 / self.seconds.max(1.0);
        let known = Sides { candidate: (rate, rate), stable: None, relative: false }.against(rule);
        // A rate of so short a time says nothing; and how often callers come is no fault of the candidate's, so that it waits.
        let known = if self.seconds < 10.0 || known == Known::Fail { Known::Unknown } else { known };
        let sentence = format!("the candidate was asked {rate:.1} times a second in {:.0} s", self.seconds);
        verdict(rule, known, Some(rate), None, samples, sentence)
    }

    fn drift(&self, rule: &Rule) -> Verdict {
        let (candidate, stable) = (&self.evidence.numbers.candidate.answers, &self.evidence.numbers.stable.answers);
        let (own, others): (u64, u64) = (candidate.iter().sum(), stable.iter().sum());
        let Some(index) = bound::stability(candidate, stable).filter(|_| self.has_stable()) else {
            let known = if self.has_stable() { Known::Unknown } else { Known::Pass };
            return verdict(rule, known, None, None, own, "there are no answers of both to compare yet".to_owned());
        };
        let used = (0..candidate.len().max(stable.len()))
            .filter(|&bucket| [candidate, stable].iter().any(|counts| counts.get(bucket).is_some_and(|&count| count > 0)))
            .count();
        let noise = used.saturating_sub(1) as f64 * (1.0 / own as f64 + 1.0 / others as f64);
        let log_e = self.evidence.log_e_of_answers();
        let known = match rule.max {
            Some(max) if index - noise > max && log_e >= -self.alpha.ln() => Known::Fail,
            Some(max) if index <= max && noise <= max * NOISE => Known::Pass,
            _ => Known::Unknown,
        };
        let sentence = format!(
            "the answers lie {index:.3} apart (population stability, of which {noise:.3} may be chance) after {own} of the candidate's and {others} of stable's; evidence that they differ: e = {}",
            exponential(log_e)
        );
        verdict(rule, known, Some(index), None, own, sentence)
    }

    fn disagreement(&self, rule: &Rule) -> Verdict {
        let shadow = &self.evidence.numbers.shadow;
        // A request that it failed is a row on which it has no answer: no less than another answer.
        let (apart, all) = (shadow.disagreed + shadow.failed, shadow.compared + shadow.failed);
        let sides = self.rates((apart, all), (0, 0));
        let known = Sides { stable: None, ..sides }.against(rule);
        let rate = ratio(apart, all);
        let failed = shadow.failed;
        let sentence = format!("the shadow disagreed on {apart} of {all} rows ({}), {failed} of them failed", percent(rate));
        verdict(rule, known, rate, None, all, sentence)
    }

    fn difference(&self, rule: &Rule) -> Verdict {
        let shadow = &self.evidence.numbers.shadow;
        // A request that it failed is a row as far apart as can be.
        let mut differences = shadow.differences.clone();
        if shadow.failed > 0 {
            differences.resize(DIFFERENCES, 0);
            differences[DIFFERENCES - 1] += shadow.failed;
        }
        let all = shadow.compared + shadow.failed;
        let mean = bound::seen_mean(&differences);
        let is = |above: bool, bound: f64| bound::mean_is(above, &differences, bound, self.alpha / 4.0);
        let mut known = Known::Pass;
        let mut hold = |holds: bool, is_broken: bool| {
            known = both(
                known,
                if is_broken {
                    Known::Fail
                } else if holds {
                    Known::Pass
                } else {
                    Known::Unknown
                },
            );
        };
        if let Some(max) = rule.max {
            hold(is(false, max), is(true, max));
        }
        if let Some(min) = rule.min {
            hold(is(true, min), is(false, min));
        }
        let shown = mean.map_or_else(|| "nothing yet".to_owned(), |mean| format!("{mean:.4}"));
        let sentence =
            format!("the shadow's numbers lie {shown} apart in the mean of {all} rows, {} of them failed", shadow.failed);
        verdict(rule, known, mean, None, all, sentence)
    }

    /// The split itself: whether the candidate has the share that it is to have.
    fn split(&self) -> Verdict {
        let (own, others) = (self.evidence.numbers.candidate.drawn, self.evidence.numbers.stable.drawn);
        let log_e = self.evidence.log_e_of_split(self.stage.share);
        let known = if log_e >= -self.alpha.ln() { Known::Fail } else { Known::Pass };
        let sentence = format!(
            "{own} of {} requests without a key fell to the candidate, whose share is {}; evidence that the split is wrong: e = {}",
            own + others,
            self.stage.share,
            exponential(log_e)
        );
        Verdict {
            metric: SPLIT.to_owned(),
            known,
            candidate: ratio(own, own + others),
            stable: None,
            samples: own + others,
            sentence,
        }
    }
}

/// What the watch over the split is called among the rules.
pub const SPLIT: &str = "split";

fn prometheus(rule: &Rule, query: &str, queried: Option<f64>) -> Verdict {
    let Some(value) = queried.filter(|value| value.is_finite()) else {
        return verdict(rule, Known::Unknown, None, None, 0, format!("`{query}` gives no number"));
    };
    let known = Sides { candidate: (value, value), stable: None, relative: false }.against(rule);
    verdict(rule, known, Some(value), None, 1, format!("`{query}` is {value}"))
}

fn verdict(
    rule: &Rule,
    known: Known,
    candidate: Option<f64>,
    stable: Option<f64>,
    samples: u64,
    mut sentence: String,
) -> Verdict {
    let bounds = [
        ("at most", rule.max),
        ("at least", rule.min),
        ("no more above stable's than", rule.max_increase),
        ("no more below stable's than", rule.max_decrease),
    ];
    let wanted: Vec<String> = bounds.iter().filter_map(|(words, bound)| Some(format!("{words} {}", (*bound)?))).collect();
    sentence.push_str(&format!(" (wanted: {})", wanted.join(", ")));
    // JSON has no endless number, as the bound of the last bucket is; the sentence has its word.
    let finite = |number: Option<f64>| number.filter(|number| number.is_finite());
    Verdict { metric: rule.metric.name(), known, candidate: finite(candidate), stable: finite(stable), samples, sentence }
}

fn ratio(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

fn percent(part: Option<f64>) -> String {
    part.map_or_else(|| "none".to_owned(), |part| format!("{:.2} %", part * 100.0))
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "unknown".to_owned(),
        Some(seconds) if seconds.is_infinite() => "any length".to_owned(),
        Some(seconds) if seconds < 1e-3 => format!("{:.0} us", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.2} s"),
    }
}

/// `e` as people read it, however large.
fn exponential(log: f64) -> String {
    if log > 20.0 { format!("10^{:.0}", log / std::f64::consts::LN_10) } else { format!("{:.2}", log.exp()) }
}
