//! A rollout as it is written becomes one as it is decided; and what is wrong with it, with its place.

use sluicegate_core::VersionRef;
use sluicegate_core::split;
use sluicegate_rollout::spec::{self, Metric, Mirror, Place, Spec};

use super::models::{Model, Residency, Version};
use super::rollout::{Outcome, Rollout, Strategy};
use super::text::{Count, Duration};
use super::tree::Step;

/// How often a candidate must have been asked before a rule or a limit says anything, where that is not said.
const SAMPLES: u64 = 100;
const LIMIT_SAMPLES: u64 = 50;

/// A mistake: the way to it, and what it is.
type Fault = (Vec<Step>, String);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.get().as_millis()).unwrap_or(u64::MAX)
}

impl Rollout {
    /// The rollout, from one version to another.
    ///
    /// # Errors
    /// Every rule whose metric cannot be read: its place, and why.
    pub fn spec(&self, stable: u64, candidate: u64) -> Result<Spec, Vec<(usize, String)>> {
        let mut faults = Vec::new();
        let mut rules = Vec::new();
        for (place, rule) in self.analysis.iter().enumerate() {
            match Metric::read(&rule.metric, rule.address.as_deref(), rule.query.as_deref()) {
                Err(message) => faults.push((place, message)),
                Ok(metric) => rules.push(spec::Rule {
                    metric,
                    max: rule.max.as_ref().map(|amount| amount.value),
                    min: rule.min.as_ref().map(|amount| amount.value),
                    max_increase: rule.max_increase.as_ref().map(|amount| amount.value),
                    max_decrease: rule.max_decrease.as_ref().map(|amount| amount.value),
                    min_samples: samples(rule.min_samples, SAMPLES),
                }),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let outcome = |outcome: Outcome| match outcome {
            Outcome::Rollback => spec::Outcome::Rollback,
            Outcome::Hold => spec::Outcome::Hold,
            Outcome::Promote => spec::Outcome::Promote,
        };
        let step =
            |step: &super::rollout::Step| spec::Step { weight: step.weight, hold_ms: millis(step.hold), pause: step.pause };
        Ok(Spec {
            strategy: match self.strategy {
                Strategy::Canary => spec::Strategy::Canary,
                Strategy::Shadow => spec::Strategy::Shadow,
                Strategy::BlueGreen => spec::Strategy::BlueGreen,
                Strategy::Replace => spec::Strategy::Replace,
            },
            stable,
            candidate,
            mirror: self.shadow.as_ref().map(|shadow| Mirror { share: shadow.share, hold_ms: shadow.hold.map(millis) }),
            steps: self.steps.iter().map(step).collect(),
            rules,
            limits: spec::Limits {
                error_rate: self.limits.error_rate.map(super::rollout::Portion::get),
                latency_p99: self.limits.latency_p99.map(|limit| limit.get().as_secs_f64()),
                min_samples: samples(self.limits.min_samples, LIMIT_SAMPLES),
            },
            alpha: self.alpha.get(),
            on_failure: outcome(self.on_failure),
            patience_ms: millis(self.patience),
            on_inconclusive: outcome(self.on_inconclusive),
        })
    }

    /// The candidate's number.
    fn number(&self) -> Option<u64> {
        match self.candidate.0 {
            VersionRef::Number(number) => Some(number),
            VersionRef::Alias(_) | VersionRef::Digest(_) => None,
        }
    }

    /// Where a caller's key is.
    pub fn sticky(&self) -> Option<split::Sticky> {
        let (kind, name) = self.sticky.named().next()?;
        let name = name.to_owned();
        Some(match kind {
            // Names of headers are compared in lower case.
            "header" => split::Sticky::Header(name.to_ascii_lowercase()),
            "cookie" => split::Sticky::Cookie(name),
            "field" => split::Sticky::Field(name),
            _ => split::Sticky::Parameter(name),
        })
    }
}

fn samples(asked: Option<Count<1, 1_000_000_000>>, default: u64) -> u64 {
    asked.map_or(default, |count| count.get() as u64)
}

impl Model {
    /// The rollout of this model, where it is well declared.
    pub fn plan(&self) -> Option<Spec> {
        let Version::Is(VersionRef::Number(stable)) = self.version else { return None };
        let rollout = self.rollout.as_ref()?;
        rollout.spec(stable, rollout.number()?).ok()
    }

    /// All that is wrong with its rollout.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let Some(rollout) = &self.rollout else { return Vec::new() };
        let at = |key: &str| vec![Step::from("rollout"), Step::from(key)];
        let mut faults: Vec<Fault> = Vec::new();
        let stable = match &self.version {
            Version::Is(VersionRef::Number(stable)) => *stable,
            other => {
                let message = format!("expected a number beside a rollout, so that it is known what is stable, got {other}");
                faults.push((vec![Step::from("version")], message));
                return faults;
            }
        };
        if self.residency == Residency::OnDemand {
            faults.push((
                vec![Step::from("residency")],
                "expected `pinned` beside a rollout, which needs both versions in memory".to_owned(),
            ));
        }
        if rollout.on_failure == Outcome::Promote {
            faults.push((at("on_failure"), "expected rollback or hold, got promote".to_owned()));
        }
        if rollout.sticky.named().count() > 1 {
            faults.push((at("sticky"), "expected one of header, cookie, field and parameter".to_owned()));
        }
        for (kind, name) in rollout.sticky.named() {
            let is_word = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(c);
            if name.is_empty() || (matches!(kind, "header" | "cookie") && !name.chars().all(is_word)) {
                faults.push((
                    vec![Step::from("rollout"), Step::from("sticky"), Step::from(kind)],
                    format!("`{name}` is no name of a {kind}"),
                ));
            }
        }
        let Some(candidate) = rollout.number() else {
            faults.push((at("candidate"), format!("expected a number, got {}", rollout.candidate.0)));
            return faults;
        };
        match rollout.spec(stable, candidate) {
            Err(unread) => faults.extend(unread.into_iter().map(|(place, message)| {
                (vec![Step::from("rollout"), Step::from("analysis"), Step::from(place), Step::from("metric")], message)
            })),
            Ok(spec) => faults.extend(spec.check().into_iter().map(|(places, message)| {
                let step = |place: Place| match place {
                    Place::Key(key) => Step::from(key),
                    Place::Index(index) => Step::from(index),
                };
                (std::iter::once(Step::from("rollout")).chain(places.into_iter().map(step)).collect(), message)
            })),
        }
        faults
    }
}
