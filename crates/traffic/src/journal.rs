//! What is kept of rollouts: how far each came, what was counted, and what was decided. In a database, or in memory alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluicegate_core::{Code, Error, Result};
use sluicegate_rollout::record::Record;
use sluicegate_rollout::{Evidence, State};
use sluicegate_state::{Event, EvidenceKey, Incarnation, Next, Place, Store};

/// Events of a model that are kept in memory, where there is no database.
const KEPT: usize = 1_000;

/// How many times as long as it took to fail a database is left alone, so that one that hangs has no more than a twentieth of the
/// thread's time.
const REST: u32 = 20;

/// Longest that it is left alone, so that one that is back is found.
const LONGEST: Duration = Duration::from_secs(20);

/// Where it is kept.
pub struct Journal {
    /// `None` where a database could not be reached yet.
    kept: Option<Kept>,
    /// Where that is.
    place: Option<(Place, Incarnation)>,
    /// Until when a database that failed is left alone, and how it failed.
    resting: Option<(Instant, Error)>,
}

enum Kept {
    Store(Box<Store>),
    Memory { rows: BTreeMap<String, State>, events: BTreeMap<String, VecDeque<(u64, Entry)>> },
}

/// A decision, as it is kept and told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, the same on every replica.
    pub id: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// What was decided, as `rollout.promoted`.
    pub kind: String,
    /// Why.
    pub sentence: String,
    /// All that it follows from: what `sluicegate report replay` decides again.
    pub record: Record,
}

fn unreadable(what: &str, error: &serde_json::Error) -> Error {
    Error::new(Code::Io, format!("{what} that was kept cannot be read: {error}; was it written by a later release?"))
}

fn document(what: &impl Serialize) -> Result<String> {
    serde_json::to_string(what).map_err(|error| Error::new(Code::Internal, format!("it has no JSON: {error}")))
}

impl Journal {
    /// In a database. One that cannot be reached is tried again whenever it is needed, and nothing is decided meanwhile.
    ///
    /// # Errors
    /// [`Code::BadConfig`] where a person has to change something.
    pub fn open(place: Place, replica: Incarnation) -> Result<Self> {
        let mut journal = Self { kept: None, place: Some((place, replica)), resting: None };
        match journal.with(|_| Ok(())) {
            Err(error) if error.code() == Code::Io => {
                tracing::warn!(error = error.message(), "state of rollouts cannot be reached yet; stable versions serve");
                Ok(journal)
            }
            opened => opened.map(|()| journal),
        }
    }

    /// Works with what is open, after one try where nothing was. A database that just failed is left alone for a while.
    fn with<T>(&mut self, work: impl FnOnce(&mut Kept) -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        if let Some((_, error)) = self.resting.as_ref().filter(|(until, _)| begun < *until) {
            return Err(error.clone());
        }
        let outcome = self.opened().and_then(work);
        let failed = outcome.as_ref().err().filter(|error| error.code() == Code::Io);
        self.resting = failed.map(|error| (begun + begun.elapsed().saturating_mul(REST).min(LONGEST), error.clone()));
        outcome
    }

    fn opened(&mut self) -> Result<&mut Kept> {
        let opened = match (self.kept.take(), &self.place) {
            (Some(kept), _) => kept,
            (None, Some((place, replica))) => Kept::Store(Box::new(Store::open(place, replica.clone())?)),
            (None, None) => Kept::Memory { rows: BTreeMap::new(), events: BTreeMap::new() },
        };
        Ok(self.kept.insert(opened))
    }

    /// In memory: a restart begins anew.
    pub fn forgetful() -> Self {
        Self { kept: None, place: None, resting: None }
    }

    /// How far a model's rollout came, with the revision of what is kept. It may be of another declaration.
    ///
    /// # Errors
    /// [`Code::Io`] where it cannot be read.
    pub fn load(&mut self, model: &str) -> Result<Option<State>> {
        self.with(|kept| match kept {
            Kept::Memory { rows, .. } => Ok(rows.get(model).cloned()),
            Kept::Store(store) => {
                let Some(row) = store.load(model)? else { return Ok(None) };
                let state: State = serde_json::from_str(&row.document).map_err(|error| unreadable("a rollout", &error))?;
                Ok(Some(State { revision: row.revision, ..state }))
            }
        })
    }

    /// Keeps a decision, where nobody decided meanwhile: false where somebody did.
    ///
    /// # Errors
    /// [`Code::Io`] where it cannot be kept. It may have been, all the same: who asks again finds out.
    pub fn advance(&mut self, model: &str, before: &State, entry: &Entry) -> Result<bool> {
        let next = &entry.record.decision.next;
        self.with(|kept| match kept {
            Kept::Memory { rows, events } => {
                if rows.get(model).map_or(0, |row| row.revision) != before.revision {
                    return Ok(false);
                }
                rows.insert(model.to_owned(), next.clone());
                let events = events.entry(model.to_owned()).or_default();
                events.push_back((next.revision, entry.clone()));
                if events.len() > KEPT {
                    events.pop_front();
                }
                Ok(true)
            }
            Kept::Store(store) => {
                let expected = (before.revision > 0).then_some(before.revision);
                let (text, told) = (document(next)?, document(entry)?);
                let event = Event { id: entry.id.clone(), at_ms: entry.at_ms, document: told };
                store.advance(model, expected, Next { digest: &next.digest, document: &text }, &[event])
            }
        })
    }

    /// Keeps what this replica counted in a stage, and gives what all the others did.
    ///
    /// # Errors
    /// [`Code::Io`] where the database cannot be reached.
    pub fn exchange(&mut self, model: &str, state: &State, own: &Evidence, at_ms: u64) -> Result<Evidence> {
        self.with(|kept| {
            let Kept::Store(store) = kept else { return Ok(Evidence::default()) };
            let key = EvidenceKey { model: model.to_owned(), digest: state.digest.clone(), stage: state.stage as u64 };
            store.put_evidence(&[(key.clone(), document(own)?)], at_ms)?;
            let me = store.replica().clone();
            let mut others = Evidence::default();
            for evidence in store.evidence(&key)?.into_iter().filter(|evidence| evidence.replica != me) {
                let theirs: Evidence =
                    serde_json::from_str(&evidence.document).map_err(|error| unreadable("evidence", &error))?;
                others = others.plus(&theirs);
            }
            Ok(others)
        })
    }

    /// Lets go of what was counted for decisions that are made.
    ///
    /// # Errors
    /// [`Code::Io`] where the database cannot be reached.
    pub fn prune(&mut self, model: &str, state: &State) -> Result<()> {
        self.with(|kept| match kept {
            Kept::Memory { .. } => Ok(()),
            Kept::Store(store) => store.prune(model, Some((&state.digest, state.stage as u64))).map(drop),
        })
    }

    /// Decisions of a model after a place among them, oldest first; the last ones where `after` is 0.
    ///
    /// # Errors
    /// [`Code::Io`] where the database cannot be reached.
    pub fn events(&mut self, model: &str, after: u64, limit: u32) -> Result<Vec<Value>> {
        let told = |sequence: u64, mut entry: Value| {
            entry["sequence"] = sequence.into();
            entry
        };
        let limit = limit as usize;
        self.with(|kept| match kept {
            Kept::Memory { events, .. } => {
                let all = events.get(model).into_iter().flatten().filter(|(sequence, _)| *sequence > after);
                let all: Vec<_> =
                    all.filter_map(|(sequence, entry)| Some(told(*sequence, serde_json::to_value(entry).ok()?))).collect();
                let from = if after == 0 { all.len().saturating_sub(limit) } else { 0 };
                Ok(all.into_iter().skip(from).take(limit).collect())
            }
            Kept::Store(store) => {
                let events = store.events(model, (after > 0).then_some(after), limit)?.into_iter();
                let read = |stored: sluicegate_state::StoredEvent| {
                    let entry = serde_json::from_str(&stored.event.document).map_err(|error| unreadable("an event", &error))?;
                    Ok(told(stored.sequence, entry))
                };
                events.map(read).collect()
            }
        })
    }
}
