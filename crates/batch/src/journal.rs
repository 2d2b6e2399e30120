//! The last batches of a version, for whoever asks why they are as they are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::policy::Left;

/// How many are kept: enough to see a pattern, few enough to read.
pub const KEPT: usize = 64;

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

/// The last [`KEPT`] runs. Its lock is this version's own, and held for one push.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<VecDeque<Ran>>);

impl Journal {
    pub(crate) fn add(&self, ran: Ran) {
        let mut runs = self.0.lock();
        if runs.len() == KEPT {
            runs.pop_front();
        }
        runs.push_back(ran);
    }

    /// The newest first.
    pub(crate) fn runs(&self) -> Vec<Ran> {
        self.0.lock().iter().rev().cloned().collect()
    }
}
