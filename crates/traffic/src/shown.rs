//! What is told of rollouts as metrics, from numbers that are counted anyway.

use metrics::{counter, gauge};
use sluicegate_core::metric;
use sluicegate_core::tally::Counts;
use sluicegate_rollout::Phase;
use sluicegate_rollout::analysis::Known;
use sluicegate_rollout::decide::shares;

use crate::mover::Mover;

/// Sets the series of a rollout.
pub(crate) fn metrics(mover: &Mover) {
    let model = mover.model().to_string();
    let (spec, state) = (&mover.declared().spec, mover.state());
    for phase in Phase::ALL {
        let is = f64::from(u8::from(phase == state.phase));
        gauge!(metric::ROLLOUT_PHASE, "model" => model.clone(), "phase" => phase.name()).set(is);
    }
    let differs = matches!(state.phase, Phase::Promoted | Phase::RolledBack);
    gauge!(metric::ROLLOUT_STAGE, "model" => model.clone()).set(state.stage as f64);
    gauge!(metric::ROLLOUT_SHARE, "model" => model.clone()).set(shares(spec, state).0.fraction());
    gauge!(metric::ROLLOUT_DIFFERS, "model" => model.clone()).set(f64::from(u8::from(differs)));
    gauge!(metric::ROLLOUT_CUT_OFF, "model" => model.clone()).set(f64::from(u8::from(mover.is_cut_off())));
    for verdict in mover.verdicts() {
        let known = match verdict.known {
            Known::Pass => 1.0,
            Known::Unknown => 0.0,
            Known::Fail => -1.0,
        };
        rule(metric::ROLLOUT_RULE, &model, verdict.metric.clone(), verdict.candidate.unwrap_or(f64::NAN));
        rule(metric::ROLLOUT_RULE_STATE, &model, verdict.metric, known);
    }
    let counted = mover.counted();
    let variant = |variant: &'static str, counts: &Counts| {
        for (outcome, count) in [("ok", counts.answered), ("failed", counts.failed)] {
            let labels = [("model", model.clone()), ("variant", variant.to_owned()), ("outcome", outcome.to_owned())];
            counter!(metric::VARIANT_REQUESTS, &labels).increment(count);
        }
    };
    variant("stable", &counted.stable);
    variant("candidate", &counted.candidate);
    let shadow = &counted.shadow;
    let agreed = shadow.compared.saturating_sub(shadow.disagreed);
    for (name, outcome, count) in [
        (metric::SHADOW_ROWS, "agreed", agreed),
        (metric::SHADOW_ROWS, "disagreed", shadow.disagreed),
        (metric::SHADOW_REQUESTS, "failed", shadow.failed),
        (metric::SHADOW_REQUESTS, "dropped", shadow.dropped),
    ] {
        counter!(name, "model" => model.clone(), "outcome" => outcome).increment(count);
    }
    counter!(metric::FALLBACKS, "model" => model).increment(mover.fallen());
}

fn rule(series: &'static str, model: &str, rule: String, value: f64) {
    gauge!(series, "model" => model.to_owned(), "rule" => rule).set(value);
}

/// Clears those of a rollout that is declared no more.
pub(crate) fn gone(mover: &Mover) {
    let model = mover.model().to_string();
    for phase in Phase::ALL {
        gauge!(metric::ROLLOUT_PHASE, "model" => model.clone(), "phase" => phase.name()).set(0.0);
    }
    for name in [metric::ROLLOUT_STAGE, metric::ROLLOUT_SHARE, metric::ROLLOUT_DIFFERS, metric::ROLLOUT_CUT_OFF] {
        gauge!(name, "model" => model.clone()).set(0.0);
    }
    for verdict in mover.verdicts() {
        rule(metric::ROLLOUT_RULE, &model, verdict.metric.clone(), f64::NAN);
        rule(metric::ROLLOUT_RULE_STATE, &model, verdict.metric, 0.0);
    }
}
