//! What is told of rollouts as metrics, from numbers that are counted anyway.

use metrics::{counter, gauge};
use sluicegate_core::metric;
use sluicegate_core::tally::Counts;
use sluicegate_rollout::Phase;
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

/// Clears those of a rollout that is declared no more.
pub(crate) fn gone(mover: &Mover) {
    let model = mover.model().to_string();
    for phase in Phase::ALL {
        gauge!(metric::ROLLOUT_PHASE, "model" => model.clone(), "phase" => phase.name()).set(0.0);
    }
    for name in [metric::ROLLOUT_STAGE, metric::ROLLOUT_SHARE, metric::ROLLOUT_DIFFERS, metric::ROLLOUT_CUT_OFF] {
        gauge!(name, "model" => model.clone()).set(0.0);
    }
}
