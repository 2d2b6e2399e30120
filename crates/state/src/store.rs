//! Rows, evidence and events: what is kept, and by which rules it changes.

use sluicegate_core::{Code, Error, Result};

use crate::database::{Access, Columns, Database, Given, Statements};
use crate::place::{Incarnation, Place};
use crate::postgres::Postgres;
use crate::sqlite::Sqlite;

/// Most bytes of a document.
pub const DOCUMENT: usize = 1 << 20;

/// Most bytes of a model's name, a digest, a replica's name and an event's id.
pub const WORD: usize = 200;

/// How many events of a model are kept: older ones go when newer ones come.
pub const EVENTS: u64 = 1_000;

/// Most documents of evidence for one stage. More lives of replicas than that in one stage are an error, and no decision on a part.
pub const REPLICAS: usize = 1_024;

/// Where the rollout of a model stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The served name.
    pub model: String,
    /// The digest of the spec that it follows.
    pub digest: String,
    /// One more with each change, from 1. It never goes back.
    pub revision: u64,
    /// Its state.
    pub document: String,
}

/// What a row becomes.
#[derive(Clone, Copy, Debug)]
pub struct Next<'a> {
    /// The digest of the spec that it follows.
    pub digest: &'a str,
    /// Its state.
    pub document: &'a str,
}

/// Something that happened. It is kept once, however often it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name, which no other event of the model has.
    pub id: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub document: String,
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place among the events of its model. A higher number came later; numbers may be missing.
    pub sequence: u64,
    /// The revision that its row had from then on; none where it came without a change.
    pub revision: Option<u64>,
    /// The event.
    pub event: Event,
}

/// What evidence is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EvidenceKey {
    /// The served name.
    pub model: String,
    /// The digest of the spec.
    pub digest: String,
    /// The stage of the rollout; later ones have higher numbers.
    pub stage: u64,
}

/// What one life of a replica has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Who counted.
    pub replica: Incarnation,
    /// When it was written, in milliseconds since 1970, by that replica's clock.
    pub at_ms: u64,
    /// The counters.
    pub document: String,
}

/// The state of rollouts, for one replica. Times are the caller's, in milliseconds since 1970.
#[derive(Debug)]
pub struct Store {
    kept: Kept,
    replica: Incarnation,
}

enum Kept {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite(_) => "Sqlite",
            Self::Postgres(_) => "Postgres",
        })
    }
}

impl Store {
    /// Opens the place, and makes or renews its tables. The code of an error says whether trying again helps: [`Code::Io`] where the
    /// place cannot be reached or read, [`Code::BadConfig`] where a person has to change something.
    pub fn open(place: &Place, replica: Incarnation) -> Result<Self> {
        let kept = match place {
            Place::Sqlite(path) => Kept::Sqlite(Sqlite::open(path)?),
            Place::Postgres(url) => Kept::Postgres(Box::new(Postgres::open(url.clone())?)),
        };
        Ok(Self { kept, replica })
    }

    /// Whose evidence it writes.
    pub fn replica(&self) -> &Incarnation {
        &self.replica
    }

    /// The row of a model.
    pub fn load(&mut self, model: &str) -> Result<Option<Row>> {
        let sql = "SELECT model, digest, revision, document FROM sluicegate_rollout WHERE model = $1";
        let rows = self.query(sql, &[Given::Text(word("a model", model)?)])?;
        rows.into_iter().next().map(row).transpose()
    }

    /// The rows of all models, by name.
    pub fn load_all(&mut self) -> Result<Vec<Row>> {
        let rows = self.query("SELECT model, digest, revision, document FROM sluicegate_rollout ORDER BY model", &[])?;
        rows.into_iter().map(row).collect()
    }

    /// Writes the row and its events where the row still has the revision `expected`, or is not there where that is `None`; it has
    /// the next revision then. False, and nothing written, where somebody was first.
    pub fn advance(&mut self, model: &str, expected: Option<u64>, next: Next<'_>, events: &[Event]) -> Result<bool> {
        let revision = expected.unwrap_or(0).saturating_add(1);
        let (digest, text) = (Given::Text(word("a digest", next.digest)?), Given::Text(document(next.document)?));
        let (name, new) = (Given::Text(word("a model", model)?), Given::Int(number(revision)?));
        checked(events)?;
        self.write(|statements| {
            let written = match expected {
                None => {
                    let sql = "INSERT INTO sluicegate_rollout (model, digest, revision, document) VALUES ($1, $2, $3, $4) \
                               ON CONFLICT (model) DO NOTHING";
                    statements.execute(sql, &[name, digest, new, text])?
                }
                Some(expected) => {
                    let sql = "UPDATE sluicegate_rollout SET digest = $1, revision = $2, document = $3 \
                               WHERE model = $4 AND revision = $5";
                    statements.execute(sql, &[digest, new, text, name, Given::Int(number(expected)?)])?
                }
            };
            if written > 0 {
                append(statements, model, revision, events)?;
            }
            Ok(written > 0)
        })
    }

    /// Keeps events that come without a change of a row.
    pub fn record(&mut self, model: &str, events: &[Event]) -> Result<()> {
        word("a model", model)?;
        checked(events)?;
        self.write(|statements| append(statements, model, 0, events))
    }

    /// Writes what this replica has counted, in place of what it wrote before under the same keys.
    pub fn put_evidence(&mut self, evidence: &[(EvidenceKey, String)], at_ms: u64) -> Result<()> {
        let replica = self.replica.clone();
        let (replica, at) = (Given::Text(replica.as_str()), Given::Int(number(at_ms)?));
        let mut rows = Vec::with_capacity(evidence.len());
        for (key, text) in evidence {
            let (model, digest) = (word("a model", &key.model)?, word("a digest", &key.digest)?);
            let stage = Given::Int(number(key.stage)?);
            rows.push([Given::Text(model), Given::Text(digest), stage, replica, at, Given::Text(document(text)?)]);
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.write(|statements| {
            let sql = "INSERT INTO sluicegate_evidence (model, digest, stage, replica, at_ms, document) \
                       VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (model, digest, stage, replica) \
                       DO UPDATE SET at_ms = excluded.at_ms, document = excluded.document";
            rows.iter().try_for_each(|row| statements.execute(sql, row).map(drop))
        })
    }

    /// What all lives of all replicas have counted, by their names: whole, or an error where there are more than [`REPLICAS`].
    pub fn evidence(&mut self, key: &EvidenceKey) -> Result<Vec<Evidence>> {
        let sql = "SELECT replica, at_ms, document FROM sluicegate_evidence \
                   WHERE model = $1 AND digest = $2 AND stage = $3 ORDER BY replica LIMIT $4";
        let (model, digest) = (Given::Text(word("a model", &key.model)?), Given::Text(word("a digest", &key.digest)?));
        let rows = self.query(sql, &[model, digest, Given::Int(number(key.stage)?), Given::Int(REPLICAS as i64 + 1)])?;
        if rows.len() > REPLICAS {
            let message = format!(
                "state: more than {REPLICAS} lives of replicas have evidence for stage {} of model `{}`; replicas that restart again \
                 and again leave one each: mend that, and begin the rollout anew",
                key.stage, key.model
            );
            return Err(Error::new(Code::Io, message));
        }
        let evidence = |mut row: Columns| {
            Ok(Evidence { replica: Incarnation::new(row.text()?)?, at_ms: row.count()?, document: row.text()? })
        };
        rows.into_iter().map(evidence).collect()
    }

    /// Events of a model in their order, at most `limit` and [`EVENTS`] of them: the first ones after the sequence `after`, or the
    /// last ones where that is `None`. Who reads on after the last one that was seen misses none that are still kept.
    pub fn events(&mut self, model: &str, after: Option<u64>, limit: usize) -> Result<Vec<StoredEvent>> {
        let model = Given::Text(word("a model", model)?);
        let limit = Given::Int(limit.min(EVENTS as usize) as i64);
        let mut rows = match after {
            Some(after) => {
                let sql = "SELECT sequence, revision, id, at_ms, document FROM sluicegate_event \
                           WHERE model = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
                self.query(sql, &[model, Given::Int(number(after)?), limit])?
            }
            None => {
                let sql = "SELECT sequence, revision, id, at_ms, document FROM sluicegate_event \
                           WHERE model = $1 ORDER BY sequence DESC LIMIT $2";
                self.query(sql, &[model, limit])?
            }
        };
        if after.is_none() {
            rows.reverse();
        }
        let event = |mut row: Columns| {
            let (sequence, revision) = (row.count()?, row.count()?);
            let event = Event { id: row.text()?, at_ms: row.count()?, document: row.text()? };
            Ok(StoredEvent { sequence, revision: (revision > 0).then_some(revision), event })
        };
        rows.into_iter().map(event).collect()
    }

    /// Removes evidence of a model that no decision needs any more: all but that for the spec `digest` from stage `from` on, or all where
    /// `keep` is `None`. How much that was.
    pub fn prune(&mut self, model: &str, keep: Option<(&str, u64)>) -> Result<u64> {
        let model = Given::Text(word("a model", model)?);
        match keep {
            None => self.write(|statements| statements.execute("DELETE FROM sluicegate_evidence WHERE model = $1", &[model])),
            Some((digest, from)) => {
                let (digest, from) = (Given::Text(word("a digest", digest)?), Given::Int(number(from)?));
                let sql = "DELETE FROM sluicegate_evidence WHERE model = $1 AND (digest <> $2 OR stage < $3)";
                self.write(|statements| statements.execute(sql, &[model, digest, from]))
            }
        }
    }

    fn query(&mut self, sql: &str, given: &[Given<'_>]) -> Result<Vec<Columns>> {
        self.transaction(Access::Read, |statements| statements.query(sql, given))
    }

    fn write<T>(&mut self, work: impl Fn(&mut dyn Statements) -> Result<T>) -> Result<T> {
        self.transaction(Access::Write, work)
    }

    fn transaction<T>(&mut self, access: Access, work: impl Fn(&mut dyn Statements) -> Result<T>) -> Result<T> {
        let mut answer = None;
        let mut run = |statements: &mut dyn Statements| {
            answer = Some(work(statements)?);
            Ok(())
        };
        match &mut self.kept {
            Kept::Sqlite(sqlite) => sqlite.transaction(access, &mut run)?,
            Kept::Postgres(postgres) => postgres.transaction(access, &mut run)?,
        }
        answer.ok_or_else(|| Error::new(Code::Internal, "state: a transaction ended well, and its work was not done"))
    }
}

/// Gives the events their numbers, and lets those go for which there is no room any more.
fn append(statements: &mut dyn Statements, model: &str, revision: u64, events: &[Event]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let (name, count) = (Given::Text(model), events.len() as i64);
    let sql = "INSERT INTO sluicegate_feed (model, last) VALUES ($1, $2) \
               ON CONFLICT (model) DO UPDATE SET last = sluicegate_feed.last + excluded.last RETURNING last";
    let last = statements.query(sql, &[name, Given::Int(count)])?.pop().map_or(Ok(count), |mut row| row.int())?;
    let sql = "INSERT INTO sluicegate_event (model, sequence, id, revision, at_ms, document) VALUES ($1, $2, $3, $4, $5, $6) \
               ON CONFLICT (model, id) DO NOTHING";
    for (sequence, event) in (last - count + 1..).zip(events) {
        let (at, revision) = (Given::Int(number(event.at_ms)?), Given::Int(number(revision)?));
        let (id, text) = (Given::Text(&event.id), Given::Text(&event.document));
        statements.execute(sql, &[name, Given::Int(sequence), id, revision, at, text])?;
    }
    let sql = "DELETE FROM sluicegate_event WHERE model = $1 AND sequence <= $2";
    statements.execute(sql, &[name, Given::Int(last - EVENTS as i64)])?;
    Ok(())
}

fn row(mut row: Columns) -> Result<Row> {
    Ok(Row { model: row.text()?, digest: row.text()?, revision: row.count()?, document: row.text()? })
}

fn checked(events: &[Event]) -> Result<()> {
    if events.len() as u64 > EVENTS {
        return Err(unfit("events at once", events.len(), &format!("{EVENTS} at most")));
    }
    events.iter().try_for_each(|event| {
        word("the id of an event", &event.id)?;
        document(&event.document).map(drop)
    })
}

/// A name that is a key of a table.
fn word<'a>(what: &str, text: &'a str) -> Result<&'a str> {
    match (1..=WORD).contains(&text.len()) && !text.contains('\0') {
        true => Ok(text),
        false => Err(unfit(what, text.len(), &format!("1 to {WORD} bytes without a zero"))),
    }
}

fn document(text: &str) -> Result<&str> {
    match text.len() <= DOCUMENT && !text.contains('\0') {
        true => Ok(text),
        false => Err(unfit("a document", text.len(), &format!("{DOCUMENT} bytes at most, without a zero"))),
    }
}

/// A number as databases know them: those from 2^63 on are not.
fn number(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::new(Code::Internal, format!("state: {value} is larger than a database can hold")))
}

fn unfit(what: &str, got: usize, expected: &str) -> Error {
    Error::new(Code::Internal, format!("state: {what} of {got} is not kept; {expected}"))
}
