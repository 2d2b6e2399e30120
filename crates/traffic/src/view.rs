//! What is told of a rollout, as JSON.

use serde_json::{Value, json};
use sluicegate_rollout::analysis::Verdict;
use sluicegate_rollout::decide::shares;
use sluicegate_rollout::spec::Stage;
use sluicegate_rollout::{Evidence, Phase, State};

use crate::mover::Declared;

/// What there is to tell.
pub(crate) struct Facts<'a> {
    pub(crate) declared: &'a Declared,
    pub(crate) state: &'a State,
    pub(crate) stage: Stage,
    pub(crate) verdicts: &'a [Verdict],
    pub(crate) evidence: &'a Evidence,
    pub(crate) ready: bool,
    pub(crate) cut_off: Option<&'a str>,
    pub(crate) superseded: bool,
    pub(crate) now_ms: u64,
}

impl Facts<'_> {
    pub(crate) fn told(&self) -> Value {
        let (spec, state) = (&self.declared.spec, self.state);
        let numbers = &self.evidence.numbers;
        let side = |counts: &sluicegate_core::tally::Counts| json!({ "answered": counts.answered, "failed": counts.failed, "drawn": counts.drawn });
        let answers = if state.phase == Phase::Promoted { spec.candidate } else { spec.stable };
        let is_moving = matches!(state.phase, Phase::Running | Phase::Paused);
        let held_for = state.since_ms.filter(|_| is_moving).map(|since| self.now_ms.saturating_sub(since));
        let sentences: Vec<&str> =
            std::iter::once(state.reason.as_str()).chain(self.verdicts.iter().map(|verdict| verdict.sentence.as_str())).collect();
        json!({
            "model": self.declared.model,
            "strategy": spec.strategy,
            "stable": spec.stable.to_string(),
            "candidate": spec.candidate.to_string(),
            "answers": answers.to_string(),
            "phase": state.phase,
            "stage": state.stage,
            "stages": spec.stages().len(),
            "share": shares(spec, state).0,
            "mirrored": shares(spec, state).1,
            "hold_ms": self.stage.hold_ms,
            "held_ms": held_for,
            "waits_for_a_person": state.phase == Phase::Paused,
            "ready": self.ready,
            // What answers is not what the file says under `version`, or will not become what it says under `candidate`.
            "differs": matches!(state.phase, Phase::Promoted | Phase::RolledBack),
            "cut_off": self.cut_off,
            "superseded": self.superseded,
            "reason": state.reason,
            "sentences": sentences,
            "verdicts": self.verdicts,
            "numbers": { "stable": side(&numbers.stable), "candidate": side(&numbers.candidate), "shadow": numbers.shadow },
            "digest": state.digest,
            "revision": state.revision,
        })
    }
}
