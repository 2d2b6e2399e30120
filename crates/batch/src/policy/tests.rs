//! What the policy promises, for any traffic: the clock and the traffic are parameters.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Push { rows: usize, key: usize, level: usize, patience_ms: u64 },
    Take,
    Pass { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let push = (1..20usize, 0..3usize, 0..LEVELS, 1..400u64).prop_map(|(rows, key, level, patience_ms)| Step::Push {
        rows,
        key,
        level,
        patience_ms,
    });
    prop::collection::vec(prop_oneof![5 => push, 3 => Just(Step::Take), 2 => (0..40u64).prop_map(|ms| Step::Pass { ms })], 1..200)
}

struct Seen {
    rows: usize,
    arrived: Instant,
    deadline: Instant,
    level: usize,
    key: usize,
}

proptest! {
    #[test]
    fn every_entry_leaves_once_in_order_within_bounds_and_never_late(
        steps in steps(), max_rows in 1..40usize, delay_ms in prop_oneof![Just(0u64), 1..30u64],
        sizes in prop::collection::vec(1..40usize, 0..3),
    ) {
        let preferred: Vec<usize> = sizes.into_iter().filter(|&size| size <= max_rows).collect();
        let limits = Limits { max_rows, max_delay: Duration::from_millis(delay_ms), queue_rows: usize::MAX };
        let start = Instant::now();
        let mut now = start;
        let mut waiting = Waiting::default();
        let mut known: Vec<Seen> = Vec::new();
        let mut left: HashMap<usize, bool> = HashMap::new();
        let mut last: HashMap<(usize, usize), usize> = HashMap::new();
        let mut rows_in = 0;

        let mut all = steps;
        // At the end time passes and everything is taken, so that nothing can hide in the queue.
        for _ in 0..400 { all.push(Step::Pass { ms: 5 }); all.push(Step::Take); }
        for step in all {
            match step {
                Step::Pass { ms } => now += Duration::from_millis(ms),
                Step::Push { rows, key, level, patience_ms } => {
                    let deadline = now + Duration::from_millis(patience_ms);
                    waiting.push(Entry {
                        rows, key: SmallVec::from_slice(&[key]), arrived: now, deadline, level, payload: known.len(),
                    });
                    known.push(Seen { rows, arrived: now, deadline, level, key });
                    rows_in += rows;
                }
                Step::Take => {
                    let mut dropped = Vec::new();
                    let next = waiting.next(now, &limits, &preferred, |_| false, |entry| dropped.push(entry));
                    for entry in dropped {
                        prop_assert!(entry.deadline <= now, "only what is late is dropped");
                        prop_assert!(left.insert(entry.payload, false).is_none());
                        rows_in -= entry.rows;
                    }
                    match next {
                        Next::Empty => prop_assert!(waiting.is_empty()),
                        Next::Wait(until) => {
                            prop_assert!(delay_ms > 0 && until > now);
                            prop_assert!(until <= now + limits.max_delay);
                            let ahead = |seen: &Seen| seen.arrived + PATIENCE * seen.level as u32;
                            let waits = known.iter().enumerate().filter(|(id, _)| !left.contains_key(id));
                            if let Some((_, head)) = waits.min_by_key(|(_, seen)| (ahead(seen), seen.level)) {
                                prop_assert!(!preferred.contains(&head.rows), "a preferred size is there, and an instance idles");
                            }
                            for (id, seen) in known.iter().enumerate() {
                                prop_assert!(left.contains_key(&id) || seen.deadline > until, "entry {} is late and an instance idles", id);
                            }
                        }
                        Next::Run(batch) => {
                            let why = batch.left;
                            let batch = batch.entries;
                            let rows: usize = batch.iter().map(|e| e.rows).sum();
                            prop_assert!(batch.len() == 1 || rows <= max_rows);
                            prop_assert_eq!(why == Left::Full, rows >= max_rows);
                            prop_assert!(why != Left::Preferred || preferred.contains(&rows));
                            prop_assert!(why != Left::TookAll || waiting.is_empty());
                            prop_assert!(why != Left::TookAllOfItsKind || !waiting.is_empty());
                            for entry in &batch {
                                prop_assert_eq!(&entry.key, &batch[0].key);
                                prop_assert!(entry.deadline > now, "nothing late is run");
                                prop_assert!(left.insert(entry.payload, true).is_none(), "no entry leaves twice");
                                let before = last.insert((entry.key[0], entry.level), entry.payload);
                                prop_assert!(before.is_none_or(|b| b < entry.payload), "first in, first out");
                                rows_in -= entry.rows;
                            }
                            let head = &known[batch[0].payload];
                            for (id, seen) in known.iter().enumerate() {
                                // No starvation: whoever is ahead by virtual arrival is not passed over as head.
                                let ahead = seen.arrived + PATIENCE * seen.level as u32 + PATIENCE * LEVELS as u32;
                                let waits = !left.contains_key(&id) && seen.deadline > now && seen.key != head.key;
                                prop_assert!(!(waits && ahead < head.arrived), "entry {} starves", id);
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(waiting.rows(), rows_in);
        }
        prop_assert_eq!(left.len(), known.len(), "every entry left");
    }
}

fn entry(rows: usize, key: usize, now: Instant) -> Entry<()> {
    Entry { rows, key: SmallVec::from_slice(&[key]), arrived: now, deadline: now + Duration::from_secs(1), level: 0, payload: () }
}

#[test]
fn an_idle_instance_takes_what_waits_at_once_when_there_is_no_delay() {
    let (now, limits) = (Instant::now(), Limits { max_rows: 8, max_delay: Duration::ZERO, queue_rows: 64 });
    let mut waiting = Waiting::default();
    waiting.push(entry(1, 0, now));
    assert!(matches!(waiting.next(now, &limits, &[], |_| false, drop), Next::Run(batch) if batch.entries.len() == 1));
}

#[test]
fn a_delay_ends_early_when_the_batch_is_full() {
    let (now, limits) = (Instant::now(), Limits { max_rows: 4, max_delay: Duration::from_secs(1), queue_rows: 64 });
    let mut waiting = Waiting::default();
    waiting.push(entry(2, 0, now));
    assert!(matches!(waiting.next(now, &limits, &[], |_| false, drop), Next::Wait(_)));
    waiting.push(entry(2, 0, now));
    assert!(matches!(waiting.next(now, &limits, &[], |_| false, drop), Next::Run(batch) if batch.entries.len() == 2));
}

#[test]
fn callers_who_left_are_dropped_before_the_run() {
    let (now, limits) = (Instant::now(), Limits { max_rows: 8, max_delay: Duration::ZERO, queue_rows: 64 });
    let mut waiting = Waiting::default();
    waiting.push(entry(1, 0, now));
    waiting.push(entry(2, 0, now));
    let mut dropped = 0;
    let next = waiting.next(now, &limits, &[], |e| e.rows == 1, |_| dropped += 1);
    assert!(matches!(next, Next::Run(batch) if batch.entries.len() == 1 && batch.entries[0].rows == 2));
    assert_eq!(dropped, 1);
}

#[test]
fn a_full_queue_has_no_room_and_an_empty_one_takes_any_request() {
    let (now, limits) = (Instant::now(), Limits { max_rows: 8, max_delay: Duration::ZERO, queue_rows: 10 });
    let mut waiting = Waiting::default();
    assert!(waiting.has_room(1000, &limits));
    waiting.push(entry(8, 0, now));
    assert!(waiting.has_room(2, &limits));
    assert!(!waiting.has_room(3, &limits));
}

/// What leaves, until nothing does: rows and why.
fn leave(waiting: &mut Waiting<()>, now: Instant, limits: &Limits, preferred: &[usize]) -> Vec<(usize, Left)> {
    std::iter::from_fn(|| match waiting.next(now, limits, preferred, |_| false, drop) {
        Next::Run(batch) => Some((batch.entries.iter().map(|entry| entry.rows).sum(), batch.left)),
        Next::Wait(_) | Next::Empty => None,
    })
    .collect()
}

#[test]
fn a_batch_leaves_at_a_preferred_size_and_what_is_left_over_when_its_delay_is_over() {
    let (now, delay) = (Instant::now(), Duration::from_millis(20));
    let limits = Limits { max_rows: 16, max_delay: delay, queue_rows: 64 };
    let preferred = [4, 8];
    for (waits, at_once, later) in [
        (&[1, 1, 1][..], &[][..], &[(3, Left::Delayed)][..]),
        (&[1; 4], &[(4, Left::Preferred)], &[]),
        (&[1; 7], &[(4, Left::Preferred)], &[(3, Left::Delayed)]),
        (&[1; 13], &[(8, Left::Preferred), (4, Left::Preferred)], &[(1, Left::Delayed)]),
        // Whole requests do not make up four.
        (&[3, 3], &[], &[(6, Left::Delayed)]),
        (&[3, 3, 2], &[(8, Left::Preferred)], &[]),
        (&[16], &[(16, Left::Full)], &[]),
    ] {
        let mut waiting = Waiting::default();
        waits.iter().for_each(|&rows| waiting.push(entry(rows, 0, now)));
        assert_eq!(leave(&mut waiting, now, &limits, &preferred), at_once, "{waits:?}");
        assert_eq!(leave(&mut waiting, now + delay, &limits, &preferred), later, "{waits:?}");
        assert!(waiting.is_empty());
    }
}

#[test]
fn preferred_sizes_count_rows_of_one_kind() {
    let (now, delay) = (Instant::now(), Duration::from_millis(20));
    let limits = Limits { max_rows: 16, max_delay: delay, queue_rows: 64 };
    let mut waiting = Waiting::default();
    [0, 1, 0, 1].iter().for_each(|&key| waiting.push(entry(1, key, now)));
    assert_eq!(leave(&mut waiting, now, &limits, &[4]), []);
    assert_eq!(leave(&mut waiting, now, &limits, &[2]), [(2, Left::Preferred), (2, Left::Preferred)]);
}
