//! A process that writes is killed in the middle of whatever it does.

use std::time::Duration;
use std::{mem, thread};

use crate::child::{Child, judge, start};
use crate::cluster::Cluster;
use crate::open;
use crate::places::{Kept, each};

/// Kills a writer so many times: half of them while it starts and makes the tables, the others while it writes.
fn kill(times: u32, anew: impl Fn() -> Kept) {
    let mut random = fastrand::Rng::with_seed(20_260);
    let (mut kept, mut written, mut seen) = (anew(), 0, 0);
    for time in 0..times {
        let mut writer = start(&kept, "writer", "write");
        if time % 2 == 0 {
            assert_eq!(writer.hear(), "ready");
        }
        thread::sleep(Duration::from_micros(random.u64(0..40_000)));
        writer.kill();
        let revision = judge(&mut open(&kept.place, "judge"), "writer");
        assert!(revision >= seen, "{revision} after {seen}: what was there is gone");
        (written, seen) = (written + revision - seen, revision);
        if time % 20 == 19 {
            (kept, seen) = (anew(), 0);
        }
    }
    eprintln!("{written} changes in {times} lives");
    assert!(written > u64::from(times) / 4, "the writers hardly wrote: {written}");
}

#[test]
fn killed_200_times_at_random_points_it_leaves_a_legal_state_in_sqlite() {
    kill(200, Kept::sqlite);
}

#[test]
fn killed_60_times_at_random_points_it_leaves_a_legal_state_in_postgres() {
    if let Some(cluster) = Cluster::shared() {
        kill(60, || Kept::postgres(cluster));
    }
}

#[test]
fn of_three_replicas_that_are_killed_in_turn_no_change_is_lost_or_done_twice() {
    each(|kept| {
        let names = ["one", "two", "three"];
        let replica = |name: &str| {
            let mut child = start(kept, name, "write");
            assert_eq!(child.hear(), "ready");
            child
        };
        let (mut random, mut replicas) = (fastrand::Rng::with_seed(3), names.map(replica));
        for _ in 0..20 {
            thread::sleep(Duration::from_micros(random.u64(0..40_000)));
            let at = random.usize(0..names.len());
            let next = replica(names[at]);
            mem::replace(&mut replicas[at], next).kill();
        }
        replicas.into_iter().for_each(Child::kill);
        let revisions = names.map(|name| judge(&mut open(&kept.place, "judge"), name));
        assert!(revisions[0] > 20, "the replicas hardly wrote: {revisions:?}");
    });
}
