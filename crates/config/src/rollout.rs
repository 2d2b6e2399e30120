//! The keys of a model's rollout: how traffic moves from the version that answers to a candidate, and what decides.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sluicegate_core::split::Share;

use super::models::Pinned;
use super::text::{Count, Duration, as_text};

/// How traffic moves from `version` to a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// `canary`: the candidate's share grows step by step. `shadow`: it answers copies of requests, its answers are compared and
    /// thrown away. `blue_green`: it is warm and takes all traffic at once, when a person says so. `replace`: at once.
    pub strategy: Strategy,
    /// The number of the version that is to answer.
    pub candidate: Pinned,
    /// What keeps a caller on one variant. Without it, each request is drawn by chance.
    #[serde(default, skip_serializing_if = "Sticky::is_none")]
    pub sticky: Sticky,
    /// Copies of requests for the candidate, before a canary's first step or for all of a shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// A canary's steps, in order; each has a larger share than the one before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// What is asked of the candidate at each step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analysis: Vec<Rule>,
    /// What ends the rollout at once, however few requests there were.
    #[serde(default)]
    pub limits: HardLimits,
    /// How often, at most, a candidate that is as good as stable is judged to be worse, over all steps and rules together.
    #[serde(default = "one_percent")]
    pub alpha: Portion,
    /// What is done where a rule is broken.
    #[serde(default)]
    pub on_failure: Outcome,
    /// How much longer than its `hold` a step waits for what is not known yet.
    #[serde(default = "an_hour")]
    pub patience: Duration,
    /// What is done where it is still not known then.
    #[serde(default = "hold")]
    pub on_inconclusive: Outcome,
    /// Whether stable answers what the candidate fails to answer.
    #[serde(default = "yes")]
    pub fallback: bool,
    /// The part of a request's time that the candidate may take before stable answers instead.
    #[serde(default = "half")]
    pub fallback_after: Portion,
    /// Whether the header `x-sluicegate-variant: candidate` (or `stable`) chooses the variant. Without it, such a request is refused.
    #[serde(default)]
    pub allow_override: bool,
}

/// How a candidate takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Strategy {
    #[expect(missing_docs, reason = "a comment would split the schema's enum; `strategy` explains the four")]
    Canary,
    #[expect(missing_docs, reason = "as above")]
    Shadow,
    #[expect(missing_docs, reason = "as above")]
    BlueGreen,
    #[expect(missing_docs, reason = "as above")]
    Replace,
}

/// What becomes of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Outcome {
    #[default]
    #[expect(missing_docs, reason = "a comment would split the schema's enum; the keys explain them")]
    Rollback,
    #[expect(missing_docs, reason = "as above")]
    Hold,
    #[expect(missing_docs, reason = "as above")]
    Promote,
}

/// Where a caller's key is: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sticky {
    /// The name of a header; of the metadata, in gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The name of a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// The name of a field at the top of a JSON body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The name of a parameter of a request of the Open Inference Protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

/// Copies of requests for the candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    /// The share of requests that are copied.
    #[serde(default = "all")]
    #[schemars(schema_with = "share_schema")]
    pub share: Share,
    /// How long, before the first step of a canary. A shadow without steps lasts until a person ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
    /// How far two numbers may lie apart and still agree, as a part of the larger one.
    #[serde(default = "tolerance")]
    pub tolerance: Portion,
    /// Whether the worst disagreements are kept with their inputs, for `GET /models/{model}/shadow`.
    #[serde(default = "yes")]
    pub keep_inputs: bool,
}

/// A step of a canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The candidate's share of the requests that name no version, as `5%`.
    #[schemars(schema_with = "share_schema")]
    pub weight: Share,
    /// How long at least.
    #[serde(default)]
    pub hold: Duration,
    /// Whether it ends only when a person says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause: bool,
}

/// What is asked of the candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `error_rate`, `latency_p50` to `latency_p99`, `throughput`, `drift`, `disagreement`, `difference` or `prometheus`.
    pub metric: String,
    /// The most that it may be: `1%`, `50ms`, `0.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Amount>,
    /// The least that it may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Amount>,
    /// How much more than stable's it may be: of a time, as a part of stable's; of a rate, in points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_increase: Option<Amount>,
    /// How much less than stable's it may be, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_decrease: Option<Amount>,
    /// How many requests the candidate must have had before the rule may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_samples: Option<Count<1, 1_000_000_000>>,
    /// For `prometheus`: the server, as `http://prometheus:9090`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// For `prometheus`: the query, which gives one number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

/// What ends a rollout at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HardLimits {
    /// The candidate's error rate, once it was asked `min_samples` times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<Portion>,
    /// The candidate's p99, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p99: Option<Duration>,
    /// How often it must have been asked.
    pub min_samples: Option<Count<1, 1_000_000_000>>,
}

/// A part of a whole: `1%`, `0.01`. Kept in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Portion(Share);

/// An amount of whatever a metric measures: a percentage, a duration, or a plain number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Amount {
    text: String,
    /// Percentages as a part of 1, durations in seconds.
    pub value: f64,
}

impl Portion {
    /// From 0 to 1.
    pub fn get(self) -> f64 {
        self.0.fraction()
    }
}

impl FromStr for Portion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |text: &str| text.trim_end().parse::<f64>().ok().filter(|number| number.is_finite());
        let value = match text.strip_suffix('%') {
            Some(percent) => plain(percent).map(|percent| percent / 100.0),
            None => text.parse::<Duration>().ok().map(|time| time.get().as_secs_f64()).or_else(|| plain(text)),
        };
        let wrong = || format!("expected a percentage, a duration or a number, as 1%, 50ms or \"0.2\", got `{text}`");
        value.map(|value| Self { text: text.to_owned(), value }).ok_or_else(wrong)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

as_text!(
    Portion { "type": ["string", "integer"], "title": "percentage" },
    Amount { "type": ["string", "integer"], "title": "percentage, duration or number" }
);

impl Sticky {
    /// Whether nothing is named.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What is named.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Self { header, cookie, field, parameter } = self;
        let all = [("header", header), ("cookie", cookie), ("field", field), ("parameter", parameter)];
        all.into_iter().filter_map(|(kind, name)| Some((kind, name.as_deref()?)))
    }
}

fn share_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "title": "percentage", "pattern": "^[0-9]{1,3}([.][0-9]{1,4})?%$" })
}

fn all() -> Share {
    Share::ALL
}

fn one_percent() -> Portion {
    Portion(Share::millionths(10_000))
}

fn half() -> Portion {
    Portion(Share::millionths(500_000))
}

fn tolerance() -> Portion {
    Portion(Share::millionths(10_000))
}

fn an_hour() -> Duration {
    Duration::from_secs(3600)
}

fn hold() -> Outcome {
    Outcome::Hold
}

fn yes() -> bool {
    true
}
