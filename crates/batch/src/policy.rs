//! Who runs next, and together with whom: a pure function of what waits, the limits and the time.
//!
//! Entries are ordered by *virtual arrival*: the time of arrival plus [`PATIENCE`] for each level of priority below the
//! most urgent. An urgent entry so overtakes those that came less than its lead earlier, and none waits for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use smallvec::SmallVec;

/// How much later an entry of the next lower priority is served; small beside a queue timeout, large beside a run.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// Levels of priority; 0 is the most urgent.
pub const LEVELS: usize = 8;

/// The level of a request that names none.
pub const DEFAULT_LEVEL: usize = 3;

/// Most entries looked at for company to the first one, so that choosing stays cheap however long the queue is.
const LOOKAHEAD: usize = 256;

/// What bounds the batches and the queue of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most rows in one run; larger requests come in pieces of this size.
    pub max_rows: usize,
    /// How long the first entry may wait for company while an instance idles; zero runs it at once.
    pub max_delay: Duration,
    /// Most rows that may wait.
    pub queue_rows: usize,
}

/// The level for the protocol's `priority`: 0 is the default, 1 the most urgent.
pub fn level(priority: u64) -> usize {
    match usize::try_from(priority) {
        Ok(0) => DEFAULT_LEVEL,
        Ok(priority) => (priority - 1).min(LEVELS - 1),
        Err(_) => LEVELS - 1,
    }
}

/// What makes entries mergeable: the same wanted outputs and the same shapes but for the rows.
pub type Key = SmallVec<[usize; 8]>;

/// One waiting entry.
#[derive(Debug)]
pub struct Entry<T> {
    /// Rows that it brings; at most [`Limits::max_rows`], or it runs alone.
    pub rows: usize,
    /// Only entries with equal keys share a run.
    pub key: Key,
    /// When it came.
    pub arrived: Instant,
    /// When it is no longer worth running.
    pub deadline: Instant,
    /// Its priority, 0 to [`LEVELS`] - 1.
    pub level: usize,
    /// What it stands for.
    pub payload: T,
}

impl<T> Entry<T> {
    /// Until when it may wait for company: never for more than half of its time, so that none is late while an instance idles.
    fn due(&self, limits: &Limits) -> Instant {
        self.arrived + limits.max_delay.min(self.deadline.saturating_duration_since(self.arrived) / 2)
    }
}

/// What to do now.
#[derive(Debug)]
pub enum Next<T> {
    /// Nothing waits.
    Empty,
    /// Company may still come: ask again then, or when more has come.
    Wait(Instant),
    /// Run these together.
    Run(Batch<T>),
}

/// Entries that run together.
#[derive(Debug)]
pub struct Batch<T> {
    /// In the order of their rows.
    pub entries: SmallVec<[Entry<T>; 1]>,
    /// Why no more are in it, and why it did not wait for more.
    pub left: Left,
    /// Rows that stay in the queue.
    pub behind: usize,
}

/// Why a batch left as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// It has as many rows as a run may have.
    Full,
    /// It has a size that the model prefers.
    Preferred,
    /// The next one of its kind would not have fitted.
    NextTooLarge,
    /// An instance was idle, and it took all that waited.
    TookAll,
    /// An instance was idle, and what else waited is of another kind: other shapes, or other outputs.
    TookAllOfItsKind,
    /// It had waited for company as long as it may, and all that waited is in it.
    Delayed,
    /// So much waits that no more was looked through.
    LookedEnough,
    /// The batch that it was in failed, and it runs again by itself.
    Again,
}

impl Left {
    /// As it is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Preferred => "preferred",
            Self::NextTooLarge => "next_too_large",
            Self::TookAll => "took_all",
            Self::TookAllOfItsKind => "took_all_of_its_kind",
            Self::Delayed => "delayed",
            Self::LookedEnough => "looked_enough",
            Self::Again => "again",
        }
    }
}

/// What waits for one version.
#[derive(Debug)]
pub struct Waiting<T> {
    levels: [VecDeque<Entry<T>>; LEVELS],
    rows: usize,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { levels: std::array::from_fn(|_| VecDeque::new()), rows: 0 }
    }
}

impl<T> Waiting<T> {
    /// Rows that wait.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(VecDeque::is_empty)
    }

    /// Whether so many more rows may wait. An empty queue takes any request, or one larger than the queue never could run.
    pub fn has_room(&self, rows: usize, limits: &Limits) -> bool {
        self.is_empty() || self.rows.saturating_add(rows) <= limits.queue_rows
    }

    /// Adds an entry behind those of its level.
    pub fn push(&mut self, entry: Entry<T>) {
        self.rows += entry.rows;
        self.levels[entry.level.min(LEVELS - 1)].push_back(entry);
    }

    /// Chooses the next batch. Entries for which `gone` holds are taken out on the way and handed to `drop`.
    ///
    /// `preferred` are sizes at which a batch leaves without more company, none above `max_rows`: of what waits, the largest that
    /// whole entries make up, in their order. Where they make up none, all that fits leaves when its delay is over.
    pub fn next(
        &mut self,
        now: Instant,
        limits: &Limits,
        preferred: &[usize],
        gone: impl Fn(&Entry<T>) -> bool,
        mut drop: impl FnMut(Entry<T>),
    ) -> Next<T> {
        let gone = |entry: &Entry<T>| entry.deadline <= now || gone(entry);
        let first = loop {
            let Some(level) = self.first_level() else { return Next::Empty };
            match self.levels[level].front() {
                Some(front) if gone(front) => drop(self.remove(level, 0)),
                _ => break level,
            }
        };
        let (due, company) = self.company(first, limits);
        let target = if preferred.is_empty() { None } else { self.preferred(first, limits, preferred, gone) };
        if now < due && company < limits.max_rows && target.is_none() {
            return Next::Wait(due);
        }
        let most = target.unwrap_or(limits.max_rows);
        let head = self.remove(first, 0);
        let (mut rows, key) = (head.rows, head.key.clone());
        let mut entries = SmallVec::from_buf([head]);
        let mut left = None;
        let mut looked = 0;
        'levels: for level in 0..LEVELS {
            let mut place = 0;
            while let Some(entry) = self.levels[level].get(place) {
                looked += 1;
                if rows >= most {
                    break 'levels;
                }
                if looked > LOOKAHEAD {
                    left = Some(Left::LookedEnough);
                    break 'levels;
                }
                if gone(entry) {
                    drop(self.remove(level, place));
                } else if entry.key != key {
                    place += 1;
                } else if rows + entry.rows > most {
                    // Stepping over it would let later entries of its own kind overtake it.
                    left = Some(Left::NextTooLarge);
                    break;
                } else {
                    rows += entry.rows;
                    entries.push(self.remove(level, place));
                }
            }
        }
        let left = match (left, self.is_empty()) {
            _ if rows >= limits.max_rows => Left::Full,
            _ if target.is_some() => Left::Preferred,
            (Some(left), _) => left,
            _ if !limits.max_delay.is_zero() => Left::Delayed,
            (None, true) => Left::TookAll,
            (None, false) => Left::TookAllOfItsKind,
        };
        Next::Run(Batch { entries, left, behind: self.rows })
    }

    /// Takes everything out, for a version that closes.
    pub fn drain(&mut self) -> impl Iterator<Item = Entry<T>> + '_ {
        self.rows = 0;
        self.levels.iter_mut().flat_map(|level| level.drain(..))
    }

    /// The level whose front has the earliest virtual arrival; the more urgent one where two are equal.
    fn first_level(&self) -> Option<usize> {
        let fronts = self.levels.iter().enumerate().filter_map(|(level, entries)| Some((level, entries.front()?)));
        fronts
            .min_by_key(|(level, front)| front.arrived + PATIENCE * u32::try_from(*level).unwrap_or(u32::MAX))
            .map(|(level, _)| level)
    }

    /// Until when an idle instance may wait for company, and how many rows could go with the first entry by now.
    fn company(&self, first: usize, limits: &Limits) -> (Instant, usize) {
        let front = &self.levels[first][0];
        if limits.max_delay.is_zero() {
            return (front.arrived, front.rows);
        }
        let (mut due, mut rows) = (front.due(limits), 0);
        for entry in self.levels.iter().flatten().take(LOOKAHEAD) {
            due = due.min(entry.due(limits));
            if entry.key == front.key {
                rows += entry.rows;
            }
        }
        (due, rows)
    }

    /// The largest preferred size that the first entry and those after it make up, as [`Self::next`] would take them.
    fn preferred(&self, first: usize, limits: &Limits, preferred: &[usize], gone: impl Fn(&Entry<T>) -> bool) -> Option<usize> {
        let head = self.levels[first].front()?;
        let mut rows = head.rows;
        let mut best = preferred.contains(&rows).then_some(rows);
        let mut looked = 0;
        for (level, entries) in self.levels.iter().enumerate() {
            for entry in entries.iter().skip(usize::from(level == first)) {
                looked += 1;
                if rows >= limits.max_rows || looked > LOOKAHEAD {
                    return best;
                }
                if entry.key != head.key || gone(entry) {
                    continue;
                }
                if rows + entry.rows > limits.max_rows {
                    break;
                }
                rows += entry.rows;
                if preferred.contains(&rows) {
                    best = Some(rows);
                }
            }
        }
        best
    }

    fn remove(&mut self, level: usize, place: usize) -> Entry<T> {
        let entry = self.levels[level].remove(place).expect("the caller has just seen the entry at this place");
        self.rows -= entry.rows;
        entry
    }
}

#[cfg(test)]
mod tests;
