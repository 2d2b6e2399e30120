//! Whether others on this thread are about to ask as well: a guess from what was seen lately, so that those of one turn share a run;
//! and the queues that they are in, so that the runs of one turn follow each other.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sluicegate_core::meter::{SHARDS, shard};
use smallvec::SmallVec;

use crate::queue::Shared;

/// Of so many in a row who were alone, two look whether others come along: the first may be the last one of its turn.
const LOOK: usize = 64;

static TURNS: [Turn; SHARDS] = [const { Turn::new() }; SHARDS];

/// Those of one thread who are to lead a run, of whatever queue: a reactor reads what all its sockets have before it goes on with those
/// who yielded. Threads of one shard share it; it is no worse a guess for that.
#[repr(align(64))]
pub(crate) struct Turn {
    waiting: AtomicUsize,
    came: AtomicUsize,
    /// How many in a row had nobody beside them.
    lonely: AtomicUsize,
}

/// One of them.
pub(crate) struct Place {
    beside: bool,
    number: usize,
}

impl Turn {
    const fn new() -> Self {
        Self { waiting: AtomicUsize::new(0), came: AtomicUsize::new(0), lonely: AtomicUsize::new(0) }
    }

    /// The calling thread's.
    pub(crate) fn here() -> &'static Self {
        &TURNS[shard()]
    }

    /// One more who is to lead.
    pub(crate) fn enter(&self) -> Place {
        let beside = self.waiting.fetch_add(1, Relaxed) > 0;
        Place { beside, number: self.came.fetch_add(1, Relaxed).wrapping_add(1) }
    }

    /// Whether to let others come along: somebody is here, or did come along lately, or nobody looked for a while.
    pub(crate) fn may_have_company(&self, place: &Place) -> bool {
        place.beside || self.lonely.load(Relaxed) % LOOK < 2
    }

    /// It leads now: whether it had company is what the next ones go by.
    pub(crate) fn led(&self, place: &Place) {
        let had_company = place.beside || self.came.load(Relaxed) != place.number;
        let lonely = if had_company { 0 } else { self.lonely.load(Relaxed).wrapping_add(1) };
        self.lonely.store(lonely, Relaxed);
    }

    /// One less.
    pub(crate) fn leave(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }
}

/// Queues of one turn that are known by name. Those who wait in others lead when they are polled.
const QUEUES: usize = 8;

thread_local!(static QUEUED: RefCell<SmallVec<[Arc<Shared>; QUEUES]>> = RefCell::default());

/// Somebody waits for the others of this turn in this queue.
pub(crate) fn wait_in(queue: &Arc<Shared>) {
    QUEUED.with_borrow_mut(|queued| {
        if queued.len() < QUEUES && !queued.iter().any(|known| Arc::ptr_eq(known, queue)) {
            queued.push(queue.clone());
        }
    });
}

/// The queues of the turn that is over, for the first one who is polled after it.
pub(crate) fn take_queues() -> SmallVec<[Arc<Shared>; QUEUES]> {
    QUEUED.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each of some who come in one turn would wait for the others.
    fn turn(turn: &Turn, many: usize) -> Vec<bool> {
        let places: Vec<(Place, bool)> = (0..many)
            .map(|_| {
                let place = turn.enter();
                let waits = turn.may_have_company(&place);
                if !waits {
                    turn.led(&place);
                    turn.leave();
                }
                (place, waits)
            })
            .collect();
        for (place, _) in places.iter().filter(|(_, waits)| *waits) {
            turn.led(place);
            turn.leave();
        }
        places.into_iter().map(|(_, waits)| waits).collect()
    }

    #[test]
    fn who_is_alone_goes_ahead_at_once_and_looks_now_and_then() {
        let here = Turn::new();
        let waited: Vec<bool> = (0..2 * LOOK + 1).flat_map(|_| turn(&here, 1)).collect();
        let looks: Vec<usize> = waited.iter().enumerate().filter(|(_, waits)| **waits).map(|(place, _)| place).collect();
        assert_eq!(looks, [0, 1, LOOK, LOOK + 1, 2 * LOOK]);
    }

    #[test]
    fn those_of_one_turn_wait_for_each_other_from_the_first_look_on_until_one_is_alone() {
        for (alone, many) in (0..LOOK).flat_map(|alone| (2..=9).map(move |many| (alone, many))) {
            let here = Turn::new();
            (0..alone).for_each(|_| drop(turn(&here, 1)));
            let turns: Vec<bool> = (0..LOOK).map(|_| turn(&here, many).iter().all(|&waits| waits)).collect();
            let first = turns.iter().position(|&all| all).expect("somebody looked");
            assert!(first <= LOOK / many + 1, "{many} after {alone}: not within {LOOK} who came, but after {first} turns");
            assert!(turns[first..].iter().all(|&all| all));
            let then: Vec<bool> = (0..4).flat_map(|_| turn(&here, 1)).collect();
            assert_eq!(then, [true, true, false, false]);
            assert_eq!(here.waiting.load(Relaxed), 0);
        }
    }
}
