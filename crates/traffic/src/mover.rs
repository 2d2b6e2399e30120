//! One model's rollout: what was counted since the last look, what is decided from it, and the split that follows.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate_core::split::Sticky;
use sluicegate_core::tally::{Numbers, Tally};
use sluicegate_core::{Code, Error, ModelName, Result, VersionRef};
use sluicegate_gateway::{Mirror, Split, Splits};
use sluicegate_outbound::webhook::{Event, Kind as EventKind};
use sluicegate_registry::Table;
use sluicegate_rollout::analysis::Verdict;
use sluicegate_rollout::decide::{self, Decision, Kind, shares, stage, verdicts};
use sluicegate_rollout::record::Record;
use sluicegate_rollout::{Command, Evidence, Look, Phase, Spec, State, decide as decide_now};

use crate::journal::{Entry, Journal};
use crate::queries::Queries;
use crate::{Placement, view};

/// How long what was counted is of late, for limits, in milliseconds.
const RECENT: u64 = 60_000;

/// How often replicas tell each other what they counted, in milliseconds.
const EXCHANGE: u64 = 1_000;

/// What is declared of a model's rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// The model.
    pub model: ModelName,
    /// The rollout.
    pub spec: Spec,
    /// What keeps a caller on one variant.
    pub sticky: Option<Sticky>,
    /// The part of a request's time after which stable answers instead of the candidate; `None` where its failures are told.
    pub fallback: Option<f64>,
    /// Whether callers may choose a variant.
    pub allow_override: bool,
    /// How far the shadow's numbers may lie apart from stable's, and whether disagreements are kept with their inputs.
    pub compare: (f64, bool),
}

/// One model's rollout.
pub(crate) struct Mover {
    declared: Declared,
    splits: Splits,
    state: State,
    /// Where this stage is counted. A request counts for the stage whose share it was drawn with.
    tally: Ledger,
    /// Where the stage before was, for requests that were under way when it ended.
    before: Ledger,
    mirror: Arc<Mirror>,
    /// What was counted between the last two, and how many requests stable answered for the candidate.
    counted: Numbers,
    fallen: u64,
    /// What was counted in this stage, here and by others.
    own: Evidence,
    others: Evidence,
    recent: VecDeque<(u64, Numbers)>,
    queries: Option<Queries>,
    exchanged_ms: u64,
    /// Why nobody can be asked what others decided.
    cut_off: Option<String>,
    /// Whether another declaration moves the model on other replicas.
    superseded: bool,
    look: Look,
}

/// A tally, and what of it was seen.
#[derive(Default)]
struct Ledger {
    tally: Arc<Tally>,
    seen: Numbers,
    fallen: u64,
}

impl Ledger {
    /// What was counted since the last time, and how many requests stable answered for the candidate.
    fn settle(&mut self) -> (Numbers, u64) {
        let (numbers, fallen) = (self.tally.numbers(), self.tally.fallen());
        let slice = numbers.since(&self.seen);
        self.seen = numbers;
        (slice, fallen - std::mem::replace(&mut self.fallen, fallen))
    }
}

/// What was decided and must be told.
pub(crate) struct Moved {
    pub(crate) kind: Kind,
    pub(crate) sentence: String,
    pub(crate) event: Option<Event>,
}

impl Mover {
    pub(crate) fn new(declared: Declared, splits: Splits, journal: &mut Journal, now_ms: u64) -> Self {
        let digest = declared.spec.digest();
        let queries = Queries::start(&declared.spec);
        let mut mover = Self {
            state: State::new(digest.clone(), 0),
            mirror: Arc::new(Mirror::new(declared.compare.0, declared.compare.1)),
            declared,
            splits,
            tally: Ledger::default(),
            before: Ledger::default(),
            counted: Numbers::default(),
            fallen: 0,
            own: Evidence::default(),
            others: Evidence::default(),
            recent: VecDeque::new(),
            queries,
            exchanged_ms: 0,
            cut_off: None,
            superseded: false,
            look: Look { now_ms, ..Look::default() },
        };
        match journal.load(mover.declared.model.as_str()) {
            Ok(Some(kept)) if kept.digest == digest => mover.state = kept,
            Ok(Some(kept)) => mover.state = State::new(digest, kept.revision),
            Ok(None) => {}
            Err(error) => mover.cut_off = Some(error.message().to_owned()),
        }
        mover
    }

    pub(crate) fn mirror(&self) -> &Arc<Mirror> {
        &self.mirror
    }

    pub(crate) fn model(&self) -> &ModelName {
        &self.declared.model
    }

    pub(crate) fn declared(&self) -> &Declared {
        &self.declared
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// What was counted between the last two looks.
    pub(crate) fn counted(&self) -> &Numbers {
        &self.counted
    }

    /// Requests between the last two looks that stable answered for the candidate.
    pub(crate) fn fallen(&self) -> u64 {
        self.fallen
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.is_some()
    }

    /// Stable stays beside a promoted candidate, so that to go back takes no load.
    pub(crate) fn placement(&self) -> Placement {
        let Spec { stable, candidate, .. } = self.declared.spec;
        match self.state.phase {
            Phase::Running | Phase::Paused => Placement { answers: stable, beside: Some(candidate), candidate: Some(candidate) },
            Phase::Promoted => Placement { answers: candidate, beside: Some(stable), candidate: None },
            Phase::RolledBack => Placement { answers: stable, beside: None, candidate: None },
        }
    }

    /// Sets the split to what was decided.
    pub(crate) fn apply(&self) {
        let Declared { model, spec, sticky, fallback, allow_override, .. } = &self.declared;
        let (share, mirrored) = shares(spec, &self.state);
        let split = Split {
            salt: self.state.digest.as_str().into(),
            stable: spec.stable,
            candidate: spec.candidate,
            share,
            mirrored,
            mirror: spec.mirror.map(|_| self.mirror.clone()),
            sticky: sticky.clone(),
            fallback: *fallback,
            // Who was taken out is not to be chosen.
            allow_override: *allow_override && self.state.phase != Phase::RolledBack,
            tally: self.tally.tally.clone(),
        };
        // Also after the end: the versions are named until the registry has what is decided as the one that answers.
        self.splits.set(model, Some(&split));
    }

    /// The model has no rollout any more.
    pub(crate) fn withdraw(&self) {
        self.splits.set(&self.declared.model, None);
    }

    /// Looks once: counts, exchanges, decides.
    pub(crate) fn look(&mut self, journal: &mut Journal, table: &Table, now_ms: u64) -> Option<Moved> {
        let version = |number| table.find(self.declared.model.as_str(), Some(&VersionRef::Number(number))).is_ok();
        let ready = version(self.declared.spec.stable) && version(self.declared.spec.candidate);
        self.count(now_ms);
        let caught_up = self.catch_up(journal, now_ms);
        self.look = Look {
            now_ms,
            ready,
            cut_off: self.cut_off.is_some() || self.superseded,
            evidence: self.own.plus(&self.others),
            recent: self.recent.iter().fold(Numbers::default(), |sum, (_, slice)| sum.plus(slice)),
            queried: self.queries.as_ref().map(Queries::latest).unwrap_or_default(),
        };
        let decision = decide_now(&self.declared.spec, &self.state, &self.look);
        match decision {
            Some(decision) => self.take(journal, &decision, None).ok().flatten().or(caught_up),
            None => caught_up,
        }
    }

    /// What a person says. Unlike what is decided here, it is refused where it cannot be kept, unless it makes things safer.
    pub(crate) fn command(
        &mut self,
        journal: &mut Journal,
        command: Command,
        by: Option<String>,
        reason: Option<String>,
        now_ms: u64,
    ) -> Result<Moved> {
        self.look.now_ms = now_ms;
        self.exchanged_ms = 0;
        self.catch_up(journal, now_ms);
        let who = by.map_or_else(|| "by hand".to_owned(), |by| format!("by {by}"));
        let said = reason.map_or_else(|| who.clone(), |reason| format!("{who}: {reason}"));
        let decided = decide::command(&self.declared.spec, &self.state, command, &self.look, &said);
        let decision = decided.map_err(|message| Error::new(Code::Conflict, message))?;
        if let Some(why) = self.cut_off.as_ref().filter(|_| command != Command::Rollback) {
            return Err(Error::new(Code::Io, format!("nothing but a rollback is decided while the state cannot be kept: {why}")));
        }
        let lost = || Error::new(Code::Conflict, "another replica decided meanwhile; look again");
        self.take(journal, &decision, Some(command))?.ok_or_else(lost)
    }

    /// Adds what was counted since the last look.
    fn count(&mut self, now_ms: u64) {
        let ((slice, fallen), (late, more)) = (self.tally.settle(), self.before.settle());
        self.counted = slice.plus(&late);
        self.fallen = fallen + more;
        if slice != Numbers::default() {
            self.own.settle(&slice);
            self.recent.push_back((now_ms, slice));
        }
        while self.recent.front().is_some_and(|(at, _)| at + RECENT < now_ms) {
            self.recent.pop_front();
        }
    }

    /// Reads what others decided and counted.
    fn catch_up(&mut self, journal: &mut Journal, now_ms: u64) -> Option<Moved> {
        if now_ms < self.exchanged_ms + EXCHANGE {
            return None;
        }
        self.exchanged_ms = now_ms;
        let model = self.declared.model.as_str().to_owned();
        let met = journal.load(&model).and_then(|kept| {
            let others = journal.exchange(&model, &self.state, &self.own, now_ms)?;
            Ok((kept, others))
        });
        match met {
            Err(error) => {
                if self.cut_off.is_none() {
                    tracing::warn!(
                        model,
                        error = error.message(),
                        "state of rollouts cannot be reached; traffic stays as it is, or becomes safer"
                    );
                }
                self.cut_off = Some(error.message().to_owned());
                None
            }
            Ok((kept, others)) => {
                if self.cut_off.take().is_some() {
                    tracing::info!(model, "state of rollouts is reached again");
                }
                self.others = others;
                self.meet(journal, kept)
            }
        }
    }

    /// What is kept and what is known here become one.
    fn meet(&mut self, journal: &mut Journal, kept: Option<State>) -> Option<Moved> {
        let kept = kept?;
        if kept.digest != self.state.digest {
            // Never written: this declaration is the newer one. Written before: another replica has one that came later.
            let is_new = self.state.since_ms.is_none() && self.state.phase == Phase::Running;
            self.superseded = !is_new && kept.revision > self.state.revision;
            if is_new {
                self.state.revision = kept.revision;
            }
            return None;
        }
        self.superseded = false;
        let joined = self.state.join(&kept);
        if joined.phase == Phase::RolledBack && kept.phase != Phase::RolledBack {
            // What was taken back while nobody could be asked is told to all now.
            let sentence = self.state.reason.clone();
            // Decided as any other is, so that it is decided again from its record.
            let decision = decide::command(&self.declared.spec, &kept, Command::Rollback, &self.look, &sentence).ok()?;
            let before = std::mem::replace(&mut self.state, kept);
            return match self.take(journal, &decision, Some(Command::Rollback)) {
                Ok(Some(moved)) => Some(moved),
                _ => {
                    self.state = before;
                    None
                }
            };
        }
        if joined == self.state {
            return None;
        }
        let (kind, sentence) = (Kind::Step, joined.reason.clone());
        self.enter(joined);
        // Another replica decided, and has told.
        Some(Moved { kind, sentence, event: None })
    }

    /// Keeps a decision and goes on by it. `None` where somebody else decided first, which is read at the next look.
    fn take(&mut self, journal: &mut Journal, decision: &Decision, command: Option<Command>) -> Result<Option<Moved>> {
        let (model, spec) = (self.declared.model.clone(), &self.declared.spec);
        let record = Record {
            spec: spec.clone(),
            state: self.state.clone(),
            look: self.look.clone(),
            command,
            decision: decision.clone(),
        };
        let letters: String = model.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let id = format!("{letters}-{}-{}", &decision.next.digest[..12], decision.next.revision);
        let entry = Entry {
            id: id.clone(),
            at_ms: self.look.now_ms,
            kind: decision.kind.name().to_owned(),
            sentence: decision.sentence.clone(),
            record,
        };
        let before = self.state.clone();
        let is_safer = decision.next.phase == Phase::RolledBack;
        if is_safer {
            // It takes effect before it is kept: no database holds up who is to be rescued. The revision stays that of what is kept.
            self.enter(State { revision: before.revision, ..decision.next.clone() });
        }
        let unkept = format!("{id}-unkept");
        match journal.advance(model.as_str(), &before, &entry) {
            Ok(true) => {}
            Ok(false) => {
                self.exchanged_ms = 0;
                // It is told to all when they are met.
                return Ok(is_safer.then(|| self.moved(decision, unkept)));
            }
            Err(error) => {
                self.cut_off = Some(error.message().to_owned());
                return if is_safer { Ok(Some(self.moved(decision, unkept))) } else { Err(error) };
            }
        }
        self.enter(decision.next.clone());
        if let Err(error) = journal.prune(model.as_str(), &self.state) {
            tracing::warn!(%model, error = error.message(), "what is no longer needed of a rollout stays");
        }
        Ok(Some(self.moved(decision, id)))
    }

    fn enter(&mut self, next: State) {
        if next.stage != self.state.stage || next.since_ms != self.state.since_ms {
            self.own = Evidence::default();
            self.others = Evidence::default();
            self.before = std::mem::take(&mut self.tally);
        }
        self.state = next;
        self.apply();
    }

    fn moved(&self, decision: &Decision, id: String) -> Moved {
        let spec = &self.declared.spec;
        let kind = match decision.kind {
            Kind::Started => EventKind::RolloutStarted,
            Kind::Step => EventKind::RolloutStep,
            Kind::Paused => EventKind::RolloutPaused,
            Kind::Resumed => EventKind::RolloutResumed,
            Kind::Promoted => EventKind::RolloutPromoted,
            Kind::RolledBack => EventKind::RolloutRolledBack,
        };
        let data = json!({
            "model": self.declared.model,
            "strategy": spec.strategy,
            "stable": spec.stable.to_string(),
            "candidate": spec.candidate.to_string(),
            "phase": decision.next.phase,
            "stage": decision.next.stage,
            "share": shares(spec, &decision.next).0,
            "revision": decision.next.revision,
            "reason": decision.sentence,
            "verdicts": decision.verdicts,
        });
        let event = Event { id, kind, model: self.declared.model.to_string(), time_ms: self.look.now_ms, data };
        Moved { kind: decision.kind, sentence: decision.sentence.clone(), event: Some(event) }
    }

    /// What is known of each rule, and of the split; nothing before it begins.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        if self.state.since_ms.is_some() { verdicts(&self.declared.spec, &self.state, &self.look) } else { Vec::new() }
    }

    /// What is told of it.
    pub(crate) fn view(&self, now_ms: u64) -> Value {
        let spec = &self.declared.spec;
        let known = self.verdicts();
        let held = stage(spec, &self.state);
        let facts = view::Facts {
            declared: &self.declared,
            state: &self.state,
            stage: held,
            verdicts: &known,
            evidence: &self.look.evidence,
            ready: self.look.ready,
            cut_off: self.cut_off.as_deref(),
            superseded: self.superseded,
            now_ms,
        };
        facts.told()
    }
}
