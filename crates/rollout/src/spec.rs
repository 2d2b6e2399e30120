//! What is declared of a rollout, and the stages that it has.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sluicegate_core::split::Share;

/// What is declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// How the candidate takes traffic.
    pub strategy: Strategy,
    /// The version that answered before.
    pub stable: u64,
    /// The version that is to answer.
    pub candidate: u64,
    /// Copies of requests for the candidate.
    pub mirror: Option<Mirror>,
    /// The steps of a canary.
    pub steps: Vec<Step>,
    /// What is asked of the candidate in each stage.
    pub rules: Vec<Rule>,
    /// What ends it at once.
    pub limits: Limits,
    /// How often, at most, a candidate as good as stable is judged to be worse.
    pub alpha: f64,
    /// What is done where a rule is broken.
    pub on_failure: Outcome,
    /// How long, after a stage's hold, is waited for what is not known yet, in milliseconds.
    pub patience_ms: u64,
    /// What is done after that.
    pub on_inconclusive: Outcome,
}

/// How the candidate takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Step by step.
    Canary,
    /// Never: its answers are compared and thrown away.
    Shadow,
    /// All at once, when a person says so.
    BlueGreen,
    /// All at once, as soon as it is ready.
    Replace,
}

/// Copies of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The share that is copied.
    pub share: Share,
    /// How long, in milliseconds, before a canary's first step; until a person ends it where that is not said.
    pub hold_ms: Option<u64>,
}

/// A step of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The candidate's share.
    pub weight: Share,
    /// How long at least, in milliseconds.
    pub hold_ms: u64,
    /// Whether a person says when it ends.
    pub pause: bool,
}

/// What becomes of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The candidate is taken out.
    Rollback,
    /// Everything stays as it is until a person says more.
    Hold,
    /// On to the next stage.
    Promote,
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The part of requests that failed, for another reason than the caller's fault.
    ErrorRate,
    /// A quantile of the time of answers, in seconds.
    Latency(f64),
    /// Requests to the candidate in a second.
    Throughput,
    /// How far the distributions of the answers lie apart: the population stability index.
    Drift,
    /// The part of rows on which shadow and stable disagree.
    Disagreement,
    /// The mean relative difference between shadow and stable, from 0 to 1.
    Difference,
    /// What a query of Prometheus gives.
    Prometheus {
        /// The server.
        address: String,
        /// The query.
        query: String,
    },
}

/// What is asked of the candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What is looked at.
    pub metric: Metric,
    /// The most that it may be.
    pub max: Option<f64>,
    /// The least that it may be.
    pub min: Option<f64>,
    /// How much more than stable's: of a time, as a part of stable's; of a rate, in points.
    pub max_increase: Option<f64>,
    /// How much less than stable's, likewise.
    pub max_decrease: Option<f64>,
    /// How often the candidate must have been asked before the rule may pass.
    pub min_samples: u64,
}

/// What ends a rollout at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The candidate's error rate of late.
    pub error_rate: Option<f64>,
    /// The candidate's p99 of late, in seconds.
    pub latency_p99: Option<f64>,
    /// How often it must have been asked of late.
    pub min_samples: u64,
}

/// A part of a rollout in which the shares stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The candidate's share of requests.
    pub share: Share,
    /// The share of requests that are copied for it.
    pub mirrored: Share,
    /// How long at least, in milliseconds.
    pub hold_ms: u64,
    /// Whether a person says when it ends.
    pub pause: bool,
}

/// Where in a rollout's declaration something is wrong, and what.
pub type Fault = (Vec<Place>, String);

/// A step on the way to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A key.
    Key(&'static str),
    /// A place in a list.
    Index(usize),
}

impl Metric {
    /// As it is written.
    pub fn name(&self) -> String {
        match self {
            Self::ErrorRate => "error_rate".to_owned(),
            Self::Latency(quantile) => format!("latency_p{}", quantile * 100.0),
            Self::Throughput => "throughput".to_owned(),
            Self::Drift => "drift".to_owned(),
            Self::Disagreement => "disagreement".to_owned(),
            Self::Difference => "difference".to_owned(),
            Self::Prometheus { .. } => "prometheus".to_owned(),
        }
    }

    /// Reads a name.
    ///
    /// # Errors
    /// A sentence with the names that there are.
    pub fn read(name: &str, address: Option<&str>, query: Option<&str>) -> Result<Self, String> {
        let quantile = name.strip_prefix("latency_p").and_then(|percent| percent.parse::<f64>().ok());
        Ok(match name {
            "error_rate" => Self::ErrorRate,
            "throughput" => Self::Throughput,
            "drift" => Self::Drift,
            "disagreement" => Self::Disagreement,
            "difference" => Self::Difference,
            "prometheus" => match (address, query) {
                (Some(address), Some(query)) => Self::Prometheus { address: address.to_owned(), query: query.to_owned() },
                _ => return Err("expected `address` and `query` beside it".to_owned()),
            },
            _ => match quantile {
                Some(percent) if (1.0..100.0).contains(&percent) => Self::Latency(percent / 100.0),
                _ => {
                    let all = "error_rate, latency_p50 to latency_p99, throughput, drift, disagreement, difference or prometheus";
                    return Err(format!("expected {all}, got `{name}`"));
                }
            },
        })
    }

    /// Whether it is counted from copies of requests.
    fn is_of_shadow(&self) -> bool {
        matches!(self, Self::Disagreement | Self::Difference)
    }

    /// Whether there is a stable to compare with.
    fn has_stable(&self) -> bool {
        matches!(self, Self::ErrorRate | Self::Latency(_))
    }
}

impl Spec {
    /// Its stages, in order. There is one at least.
    pub fn stages(&self) -> Vec<Stage> {
        let still = Stage { share: Share::NONE, mirrored: Share::NONE, hold_ms: 0, pause: false };
        let mirrored = self.mirror.map(|mirror| Stage {
            mirrored: mirror.share,
            hold_ms: mirror.hold_ms.unwrap_or(0),
            pause: mirror.hold_ms.is_none(),
            ..still
        });
        match self.strategy {
            Strategy::Canary => {
                let step = |step: &Step| Stage { share: step.weight, hold_ms: step.hold_ms, pause: step.pause, ..still };
                mirrored.into_iter().chain(self.steps.iter().map(step)).collect()
            }
            // Whatever it shows, a shadow alone takes no traffic before a person says so.
            Strategy::Shadow => vec![Stage { pause: true, ..mirrored.unwrap_or(still) }],
            Strategy::BlueGreen => vec![Stage { pause: true, ..mirrored.unwrap_or(still) }],
            Strategy::Replace => vec![still],
        }
    }

    /// What it is known by: the SHA-256 of all that is declared. Another declaration is another rollout.
    pub fn digest(&self) -> String {
        let canonical = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(&canonical).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The part of [`Self::alpha`] that one rule may use in one stage: each rule, each limit, and the watch over the split, has the same
    /// part, so that all together are wrong no oftener than is declared (Bonferroni).
    pub fn alpha_of_one(&self) -> f64 {
        let limits = usize::from(self.limits.error_rate.is_some()) + usize::from(self.limits.latency_p99.is_some());
        self.alpha / ((self.rules.len() + limits + 1) * self.stages().len()) as f64
    }

    /// All that is wrong with it.
    pub fn check(&self) -> Vec<Fault> {
        use Place::{Index, Key};
        let mut faults: Vec<Fault> = Vec::new();
        let mut find = |place: Vec<Place>, message: String| faults.push((place, message));
        if self.candidate == self.stable {
            find(vec![Key("candidate")], format!("expected another version than the stable one, got {} for both", self.stable));
        }
        if !(self.alpha > 0.0 && self.alpha <= 0.5) {
            find(vec![Key("alpha")], format!("expected more than 0% and at most 50%, got {}%", self.alpha * 100.0));
        }
        match self.strategy {
            Strategy::Canary if self.steps.is_empty() => {
                find(vec![Key("steps")], "expected the steps of a canary, as [{ weight: 5%, hold: 10m }]".to_owned());
            }
            Strategy::Canary => {}
            _ if !self.steps.is_empty() => find(vec![Key("steps")], "expected no steps: only a canary has them".to_owned()),
            Strategy::Shadow if self.mirror.is_none() => {
                find(vec![Key("shadow")], "expected which share is copied, as { share: 100% }".to_owned());
            }
            _ => {}
        }
        for (index, pair) in self.steps.windows(2).enumerate() {
            if pair[1].weight <= pair[0].weight {
                let message =
                    format!("expected more than the step before it has, which is {}, got {}", pair[0].weight, pair[1].weight);
                find(vec![Key("steps"), Index(index + 1), Key("weight")], message);
            }
        }
        if self.steps.first().is_some_and(|step| step.weight == Share::NONE) {
            find(vec![Key("steps"), Index(0), Key("weight")], "expected more than 0%".to_owned());
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let at = |key| vec![Key("analysis"), Index(index), Key(key)];
            let name = rule.metric.name();
            let whole = vec![Key("analysis"), Index(index)];
            if [rule.max, rule.min, rule.max_increase, rule.max_decrease].iter().all(Option::is_none) {
                find(whole.clone(), format!("expected max, min, max_increase or max_decrease for {name}"));
            }
            if let (Some(min), Some(max)) = (rule.min, rule.max)
                && min > max
            {
                find(at("min"), format!("expected at most max, which is {max}, got {min}"));
            }
            if !rule.metric.has_stable() && (rule.max_increase.is_some() || rule.max_decrease.is_some()) {
                find(whole.clone(), format!("expected max or min: {name} has no stable to compare with"));
            }
            if rule.metric.is_of_shadow() && self.mirror.is_none() {
                find(at("metric"), format!("expected a `shadow`, without which nothing is compared for {name}"));
            }
            let is_of_traffic = !rule.metric.is_of_shadow() && !matches!(rule.metric, Metric::Prometheus { .. });
            if is_of_traffic && self.stages().iter().all(|stage| stage.share == Share::NONE) {
                find(at("metric"), format!("expected a step with traffic, without which {name} is never known"));
            }
            for (key, amount) in
                [("max", rule.max), ("min", rule.min), ("max_increase", rule.max_increase), ("max_decrease", rule.max_decrease)]
            {
                if amount.is_some_and(|amount| amount < 0.0) && !matches!(rule.metric, Metric::Prometheus { .. }) {
                    find(at(key), "expected no less than 0".to_owned());
                }
            }
        }
        faults
    }
}

impl Rule {
    /// Whether it can be known in a stage; in others it passes.
    pub fn applies(&self, stage: &Stage) -> bool {
        match self.metric {
            Metric::Prometheus { .. } => true,
            Metric::Disagreement | Metric::Difference => stage.mirrored > Share::NONE,
            _ => stage.share > Share::NONE,
        }
    }
}
