//! The last batches of a version, for whoever asks why they are as they are.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use sluicegate_core::meter::Total;

use crate::policy::Left;

/// How many are kept: enough to see a pattern, few enough to read.
pub const KEPT: usize = 64;

/// Counts of rows that are told apart.
pub const SIZES: usize = 1024;

/// One engine run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// When it began.
    pub at: Instant,
    /// Rows in it.
    pub rows: usize,
    /// Requests in it, or pieces of large ones.
    pub requests: usize,
    /// Why it had not more, and did not wait for more.
    pub left: Left,
    /// How long the first of them had waited.
    pub waited: Duration,
    /// How long the run took.
    pub compute: Duration,
    /// Rows that it left behind in the queue.
    pub behind: usize,
    /// Whether it failed; each request was then run again by itself.
    pub failed: bool,
}

/// What the runs of a version come to that did not fail, from its first one on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// Rows in them.
    pub rows: u64,
    /// When the last one began.
    pub last: Option<SystemTime>,
    /// Runs and their time by their rows; the first [`SIZES`] counts of rows that were seen.
    pub sizes: BTreeMap<usize, Total>,
}

/// The last [`KEPT`] runs, and what all come to. Its lock is this version's own, and held for one push.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<(VecDeque<Ran>, Totals)>);

impl Journal {
    pub(crate) fn add(&self, ran: Ran) {
        let now = SystemTime::now();
        let (runs, totals) = &mut *self.0.lock();
        if !ran.failed {
            totals.runs += 1;
            totals.rows += ran.rows as u64;
            totals.last = Some(now);
            if totals.sizes.len() < SIZES || totals.sizes.contains_key(&ran.rows) {
                let size = totals.sizes.entry(ran.rows).or_default();
                size.count += 1;
                size.ns += u64::try_from(ran.compute.as_nanos()).unwrap_or(u64::MAX);
            }
        }
        if runs.len() == KEPT {
            runs.pop_front();
        }
        runs.push_back(ran);
    }

    /// The newest first.
    pub(crate) fn runs(&self) -> Vec<Ran> {
        self.0.lock().0.iter().rev().cloned().collect()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.0.lock().1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_their_rows_and_failed_ones_not_at_all() {
        let journal = Journal::default();
        let ran = |rows, failed| Ran {
            at: Instant::now(),
            rows,
            requests: 1,
            left: Left::TookAll,
            waited: Duration::ZERO,
            compute: Duration::from_nanos(10),
            behind: 0,
            failed,
        };
        for (rows, failed) in [(3, false), (3, false), (1, false), (8, true)] {
            journal.add(ran(rows, failed));
        }
        let totals = journal.totals();
        assert_eq!((totals.runs, totals.rows, totals.last.is_some()), (3, 7, true));
        let sizes: Vec<_> = totals.sizes.iter().map(|(rows, total)| (*rows, total.count, total.ns)).collect();
        assert_eq!(sizes, [(1, 1, 10), (3, 2, 20)]);
        (0..2 * SIZES).for_each(|rows| journal.add(ran(rows, false)));
        assert_eq!(journal.totals().sizes.len(), SIZES, "memory is bounded, whatever the sizes");
        assert_eq!(journal.totals().runs, 3 + 2 * SIZES as u64);
    }
}
