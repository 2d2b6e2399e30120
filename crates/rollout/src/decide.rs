//! What happens now: a pure function of what is declared, how far it came, what was counted, and the time.

use serde::{Deserialize, Serialize};
use sluicegate_core::split::Share;
use sluicegate_core::tally::Numbers;

use crate::analysis::{self, Known, Queried, SPLIT, Verdict};
use crate::bound;
use crate::evidence::Evidence;
use crate::spec::{Outcome, Spec, Stage};
use crate::state::{Command, Phase, State};

/// What is seen of a rollout at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Whether both versions are loaded.
    pub ready: bool,
    /// Whether nobody can be asked what others decided. Then it may only become safer.
    pub cut_off: bool,
    /// What was counted in this stage, by all replicas.
    pub evidence: Evidence,
    /// What was counted of late: about the last minute.
    pub recent: Numbers,
    /// What queries of Prometheus gave, by the place of their rules.
    pub queried: Queried,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// What it is called in events.
    pub kind: Kind,
    /// How far it is now.
    pub next: State,
    /// Why, for people.
    pub sentence: String,
    /// What was known of each rule.
    pub verdicts: Vec<Verdict>,
}

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Both versions are ready, and the first stage begins.
    Started,
    /// The next stage begins.
    Step,
    /// It waits for a person.
    Paused,
    /// A person let it go on.
    Resumed,
    /// The candidate answers.
    Promoted,
    /// Stable answers.
    RolledBack,
}

impl Kind {
    /// As events have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "rollout.started",
            Self::Step => "rollout.step",
            Self::Paused => "rollout.paused",
            Self::Resumed => "rollout.resumed",
            Self::Promoted => "rollout.promoted",
            Self::RolledBack => "rollout.rolled_back",
        }
    }
}

/// The candidate's share, and the share of requests that are copied for it.
pub fn shares(spec: &Spec, state: &State) -> (Share, Share) {
    let stage = stage(spec, state);
    match state.phase {
        Phase::RolledBack => (Share::NONE, Share::NONE),
        Phase::Promoted => (Share::ALL, Share::NONE),
        // Nobody is asked before both are ready.
        Phase::Running | Phase::Paused if state.since_ms.is_none() => (Share::NONE, Share::NONE),
        Phase::Running | Phase::Paused => (stage.share, stage.mirrored),
    }
}

/// The stage that it is in.
pub fn stage(spec: &Spec, state: &State) -> Stage {
    let stages = spec.stages();
    stages[state.stage.min(stages.len() - 1)]
}

/// What is known of every rule now.
pub fn verdicts(spec: &Spec, state: &State, look: &Look) -> Vec<Verdict> {
    let seconds = state.since_ms.map_or(0.0, |since| look.now_ms.saturating_sub(since) as f64 / 1e3);
    analysis::analyse(spec, &stage(spec, state), &look.evidence, seconds, &look.queried)
}

/// What happens now, if anything does.
pub fn decide(spec: &Spec, state: &State, look: &Look) -> Option<Decision> {
    if matches!(state.phase, Phase::Promoted | Phase::RolledBack) {
        return None;
    }
    let Some(since) = state.since_ms else {
        let is_time = look.ready && !look.cut_off && state.phase == Phase::Running;
        return is_time.then(|| {
            moved(state, Kind::Started, Phase::Running, 0, Some(look.now_ms), "both versions are ready".to_owned(), Vec::new())
        });
    };
    let verdicts = verdicts(spec, state, look);
    if let Some(sentence) = beyond_limits(spec, &look.recent) {
        return Some(end(state, Phase::RolledBack, sentence, verdicts));
    }
    let broken = verdicts.iter().find(|verdict| verdict.known == Known::Fail && verdict.metric != SPLIT);
    if let Some(broken) = broken {
        let sentence = format!("{}: {}", broken.metric, broken.sentence);
        match spec.on_failure {
            Outcome::Rollback => return Some(end(state, Phase::RolledBack, sentence, verdicts)),
            Outcome::Hold if state.phase == Phase::Running && !look.cut_off => return Some(pause(state, sentence, verdicts)),
            Outcome::Hold | Outcome::Promote => {}
        }
    }
    // Whatever else happens is an advance, which takes all who know of the rollout and both versions.
    if state.phase == Phase::Paused || look.cut_off || !look.ready {
        return None;
    }
    if let Some(split) = verdicts.iter().find(|verdict| verdict.known == Known::Fail && verdict.metric == SPLIT) {
        let sentence = split.sentence.clone();
        return Some(pause(state, sentence, verdicts));
    }
    let stage = stage(spec, state);
    let waited = look.now_ms.saturating_sub(since);
    if waited < stage.hold_ms {
        return None;
    }
    let unknown = verdicts.iter().find(|verdict| verdict.known != Known::Pass);
    match unknown {
        None if stage.pause => Some(pause(state, "the stage is done, and waits for a person".to_owned(), verdicts)),
        None => Some(advance(spec, state, look.now_ms, "every rule holds".to_owned(), verdicts)),
        Some(_) if waited < stage.hold_ms.saturating_add(spec.patience_ms) => None,
        Some(unknown) => {
            let sentence = format!("not known in time: {}: {}", unknown.metric, unknown.sentence);
            Some(match spec.on_inconclusive {
                Outcome::Rollback => end(state, Phase::RolledBack, sentence, verdicts),
                Outcome::Hold => pause(state, sentence, verdicts),
                Outcome::Promote if stage.pause => pause(state, sentence, verdicts),
                Outcome::Promote => advance(spec, state, look.now_ms, sentence, verdicts),
            })
        }
    }
}

/// What a person's word changes.
///
/// # Errors
/// A sentence, where it does not fit how far it came.
pub fn command(spec: &Spec, state: &State, command: Command, look: &Look, by: &str) -> Result<Decision, String> {
    let verdicts = if state.since_ms.is_some() { verdicts(spec, state, look) } else { Vec::new() };
    let unchanged = "what was decided holds until the declared rollout changes";
    let sentence = by.to_owned();
    Ok(match (command, state.phase) {
        (Command::Rollback, Phase::RolledBack) => return Err("it is rolled back already".to_owned()),
        (_, Phase::RolledBack) => return Err(format!("it was rolled back, and {unchanged}")),
        (Command::Rollback, _) => end(state, Phase::RolledBack, sentence, verdicts),
        (Command::Promote, Phase::Promoted) => return Err("it is promoted already".to_owned()),
        (Command::Promote, _) if !look.ready => return Err("a version of it is not loaded; see /status".to_owned()),
        (Command::Promote, _) => end(state, Phase::Promoted, sentence, verdicts),
        (_, Phase::Promoted) => return Err(format!("it was promoted, and {unchanged}; it may be rolled back")),
        (Command::Pause, Phase::Paused) => return Err("it is paused already".to_owned()),
        (Command::Pause, Phase::Running) => pause(state, sentence, verdicts),
        (Command::Resume, Phase::Running) => {
            return Err("it is not paused; to end a stage before its time, promote".to_owned());
        }
        (Command::Resume, Phase::Paused) if verdicts.iter().any(|verdict| verdict.known == Known::Fail) => {
            let broken = verdicts.iter().find(|verdict| verdict.known == Known::Fail).map(|verdict| verdict.sentence.as_str());
            let broken = broken.unwrap_or_default();
            return Err(format!("it would be held again at once: {broken}; promote it, roll it back, or declare it anew"));
        }
        (Command::Resume, Phase::Paused) => match state.since_ms {
            // It waited for a person to end the stage.
            Some(since) if stage(spec, state).pause && look.now_ms.saturating_sub(since) >= stage(spec, state).hold_ms => {
                advance(spec, state, look.now_ms, sentence, verdicts)
            }
            _ => moved(state, Kind::Resumed, Phase::Running, state.stage, state.since_ms, sentence, verdicts),
        },
    })
}

/// What waits for no hold: a limit that the last minute shows to be passed. A minute is few requests, of which the slowest, or two that
/// fail, say little.
fn beyond_limits(spec: &Spec, recent: &Numbers) -> Option<String> {
    let (limits, candidate, alpha) = (&spec.limits, &recent.candidate, spec.alpha_of_one());
    if candidate.tried() < limits.min_samples.max(1) {
        return None;
    }
    let rate = bound::least(candidate.failed, candidate.tried(), alpha);
    if let Some(limit) = limits.error_rate.filter(|&limit| rate > limit) {
        return Some(format!(
            "limit: the candidate failed {} of its last {} requests, which shows more than {} %",
            candidate.failed,
            candidate.tried(),
            limit * 100.0
        ));
    }
    let (p99, _) = bound::quantile(&candidate.times, 0.99, alpha);
    limits.latency_p99.filter(|&limit| p99 > limit).map(|limit| {
        format!(
            "limit: the p99 of the candidate's last {} answers is shown to be above {p99:.3} s, which is more than {limit} s",
            candidate.answered
        )
    })
}

fn moved(
    state: &State,
    kind: Kind,
    phase: Phase,
    stage: usize,
    since_ms: Option<u64>,
    sentence: String,
    verdicts: Vec<Verdict>,
) -> Decision {
    let next =
        State { digest: state.digest.clone(), phase, stage, since_ms, revision: state.revision + 1, reason: sentence.clone() };
    Decision { kind, next, sentence, verdicts }
}

fn end(state: &State, phase: Phase, sentence: String, verdicts: Vec<Verdict>) -> Decision {
    let kind = if phase == Phase::Promoted { Kind::Promoted } else { Kind::RolledBack };
    moved(state, kind, phase, state.stage, state.since_ms, sentence, verdicts)
}

fn pause(state: &State, sentence: String, verdicts: Vec<Verdict>) -> Decision {
    moved(state, Kind::Paused, Phase::Paused, state.stage, state.since_ms, sentence, verdicts)
}

fn advance(spec: &Spec, state: &State, now_ms: u64, sentence: String, verdicts: Vec<Verdict>) -> Decision {
    if state.stage + 1 >= spec.stages().len() {
        return end(state, Phase::Promoted, sentence, verdicts);
    }
    moved(state, Kind::Step, Phase::Running, state.stage + 1, Some(now_ms), sentence, verdicts)
}
