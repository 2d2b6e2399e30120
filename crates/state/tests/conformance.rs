//! One suite for both databases: each test runs on SQLite, and on a real PostgreSQL where one is installed. With
//! `SLUICEGATE_REQUIRE_POSTGRES=1` it has to be.

use std::sync::Barrier;
use std::thread;

use sluicegate_core::Code;
use sluicegate_state::{DOCUMENT, EVENTS, Event, EvidenceKey, Incarnation, Next, Place, REPLICAS, Row, Store};

#[path = "suite/child.rs"]
mod child;
#[path = "suite/cluster.rs"]
mod cluster;
#[path = "suite/file.rs"]
mod file;
#[path = "suite/killed.rs"]
mod killed;
#[path = "suite/outage.rs"]
mod outage;
#[path = "suite/places.rs"]
mod places;
#[path = "suite/tls.rs"]
mod tls;

use places::each;

fn open(place: &Place, replica: &str) -> Store {
    Store::open(place, Incarnation::new(replica).expect("a name")).unwrap_or_else(|error| panic!("{place:?}: {error}"))
}

fn next(document: &str) -> Next<'_> {
    Next { digest: "sha256:1", document }
}

fn event(id: impl Into<String>) -> Event {
    let id = id.into();
    Event { document: format!(r#"{{"id":"{id}"}}"#), id, at_ms: 7 }
}

fn key(stage: u64) -> EvidenceKey {
    EvidenceKey { model: "fraud".to_owned(), digest: "sha256:1".to_owned(), stage }
}

fn ids(store: &mut Store, after: Option<u64>, limit: usize) -> Vec<String> {
    store.events("fraud", after, limit).expect("events").into_iter().map(|stored| stored.event.id).collect()
}

#[test]
fn a_row_is_what_was_written_last_and_its_revision_counts() {
    each(|kept| {
        let mut store = open(&kept.place, "a");
        assert_eq!(store.load("fraud").expect("no row"), None);
        assert!(store.advance("fraud", None, next("{}"), &[event("1")]).expect("written"));
        let document = "\u{1F680} '\"\\ {\"step\": 2}";
        assert!(store.advance("fraud", Some(1), Next { digest: "sha256:2", document }, &[event("2")]).expect("written"));
        assert!(store.advance("digits", None, next(""), &[]).expect("written"));

        // Another process, or the same one after a restart.
        let mut store = open(&kept.place, "b");
        let row = Row { model: "fraud".into(), digest: "sha256:2".into(), revision: 2, document: document.into() };
        assert_eq!(store.load("fraud").expect("a row"), Some(row.clone()));
        let all = store.load_all().expect("rows");
        assert_eq!((all.len(), &*all[0].model, &all[1]), (2, "digits", &row));
    });
}

#[test]
fn who_expects_another_revision_writes_nothing() {
    each(|kept| {
        let mut store = open(&kept.place, "a");
        for wrong in [Some(0), Some(1), Some(7)] {
            assert!(!store.advance("fraud", wrong, next("wrong"), &[event("wrong")]).expect("an answer"), "{wrong:?}");
        }
        assert!(store.advance("fraud", None, next("right"), &[]).expect("an answer"));
        for wrong in [None, Some(0), Some(2)] {
            assert!(!store.advance("fraud", wrong, next("wrong"), &[event("wrong")]).expect("an answer"), "{wrong:?}");
        }
        assert_eq!(store.load("fraud").expect("a row").map(|row| (row.revision, row.document)), Some((1, "right".to_owned())));
        assert!(ids(&mut store, None, 10).is_empty());
    });
}

#[test]
fn of_8_processes_that_expect_the_same_revision_exactly_one_wins() {
    each(|kept| {
        const ROUNDS: u64 = 20;
        let mut racers: Vec<_> = (0..8).map(|number| child::start(kept, &format!("racer-{number}"), "race")).collect();
        racers.iter_mut().for_each(|racer| assert_eq!(racer.hear(), "ready"));
        let mut winners = Vec::new();
        for round in 0..ROUNDS {
            racers.iter_mut().for_each(|racer| racer.tell(&round.to_string()));
            let heard: Vec<String> = racers.iter_mut().map(child::Child::hear).collect();
            let won: Vec<usize> = (0..heard.len()).filter(|&at| heard[at] == "won").collect();
            assert_eq!(won.len(), 1, "{heard:?}");
            assert!(heard.iter().all(|said| said == "won" || said == "lost"), "{heard:?}");
            winners.push(format!("{round} racer-{}", won[0]));
        }
        let mut store = open(&kept.place, "judge");
        assert_eq!(store.load("fraud").expect("a row").map(|row| row.revision), Some(ROUNDS));
        assert_eq!(ids(&mut store, None, 100), winners);
    });
}

#[test]
fn events_have_an_order_and_the_revision_that_they_came_with() {
    each(|kept| {
        let mut store = open(&kept.place, "a");
        store.advance("fraud", None, next("{}"), &[event("1"), event("2")]).expect("written");
        store.record("fraud", &[event("3")]).expect("written");
        store.record("digits", &[event("1")]).expect("written");
        store.advance("fraud", Some(1), next("{}"), &[event("4")]).expect("written");
        let stored = store.events("fraud", None, 100).expect("events");
        let seen: Vec<_> = stored.iter().map(|stored| (&*stored.event.id, stored.revision)).collect();
        assert_eq!(seen, [("1", Some(1)), ("2", Some(1)), ("3", None), ("4", Some(2))]);
        assert!(stored.windows(2).all(|two| two[0].sequence < two[1].sequence));
        assert_eq!(stored[0].event, event("1"));

        assert_eq!(ids(&mut store, None, 2), ["3", "4"], "the newest");
        assert_eq!(ids(&mut store, Some(0), 2), ["1", "2"], "the first after");
        assert_eq!(ids(&mut store, Some(stored[1].sequence), 100), ["3", "4"]);
        assert!(ids(&mut store, Some(stored[3].sequence), 100).is_empty());
    });
}

#[test]
fn an_event_that_is_written_again_is_kept_once() {
    each(|kept| {
        let mut store = open(&kept.place, "a");
        store.record("fraud", &[event("1"), event("2")]).expect("written");
        store.record("fraud", &[event("2"), event("3")]).expect("written");
        store.advance("fraud", None, next("{}"), &[event("3"), event("4")]).expect("written");
        assert_eq!(ids(&mut store, None, 100), ["1", "2", "3", "4"]);
    });
}

#[test]
fn only_the_newest_events_of_a_model_are_kept() {
    each(|kept| {
        let mut store = open(&kept.place, "a");
        store.record("digits", &[event("0")]).expect("written");
        let many = |from: u64, to: u64| (from..to).map(|number| event(number.to_string())).collect::<Vec<_>>();
        store.record("fraud", &many(0, EVENTS)).expect("written");
        store.record("fraud", &many(EVENTS, EVENTS + 5)).expect("written");
        let kept: Vec<String> = (5..EVENTS + 5).map(|number| number.to_string()).collect();
        assert_eq!(ids(&mut store, None, usize::MAX), kept);
        assert_eq!(store.events("digits", None, 9).expect("events").len(), 1);
    });
}

#[test]
fn a_replica_overwrites_its_own_evidence_and_no_other() {
    each(|kept| {
        let (mut a, mut b) = (open(&kept.place, "a"), open(&kept.place, "b"));
        a.put_evidence(&[(key(0), "a0".into()), (key(1), "a1".into())], 1).expect("written");
        b.put_evidence(&[(key(0), "b0".into())], 2).expect("written");
        a.put_evidence(&[(key(0), "a0 later".into())], 3).expect("written");
        b.put_evidence(&[], 4).expect("nothing to write");
        let all = |store: &mut Store, stage| {
            let found = store.evidence(&key(stage)).expect("evidence").into_iter();
            found.map(|evidence| (evidence.replica.to_string(), evidence.at_ms, evidence.document)).collect::<Vec<_>>()
        };
        assert_eq!(all(&mut b, 0), [("a".into(), 3, "a0 later".into()), ("b".into(), 2, "b0".into())]);
        assert_eq!(all(&mut b, 1), [("a".into(), 1, "a1".into())]);
        assert_eq!(all(&mut a, 2), []);
    });
}

#[test]
fn evidence_is_answered_whole_or_not_at_all() {
    each(|kept| {
        let mut store = open(&kept.place, "a");
        let many = format!(
            "WITH RECURSIVE life(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM life WHERE number < {REPLICAS}) \
             INSERT INTO sluicegate_evidence SELECT 'fraud', 'sha256:1', 0, 'life-' || number, 1, '{{}}' FROM life"
        );
        kept.run(&many);
        assert_eq!(store.evidence(&key(0)).expect("evidence").len(), REPLICAS);
        store.put_evidence(&[(key(0), "{}".into())], 1).expect("written");
        let error = store.evidence(&key(0)).expect_err("one too many");
        assert!(error.code() == Code::Io && error.message().contains("restart again and again"), "{error}");
    });
}

#[test]
fn pruning_leaves_the_evidence_that_is_still_needed() {
    each(|kept| {
        let mut store = open(&kept.place, "a");
        let other = |model: &str, digest: &str| EvidenceKey { model: model.into(), digest: digest.into(), stage: 1 };
        let (old, foreign) = (other("fraud", "sha256:0"), other("digits", "sha256:0"));
        let all = [key(0), key(1), key(2), old.clone(), foreign.clone()].map(|key| (key, "{}".to_owned()));
        store.put_evidence(&all, 1).expect("written");
        assert_eq!(store.prune("fraud", Some(("sha256:1", 1))).expect("pruned"), 2);
        let count = |store: &mut Store, key: &EvidenceKey| store.evidence(key).expect("evidence").len();
        assert_eq!([&key(0), &key(1), &key(2), &old, &foreign].map(|key| count(&mut store, key)), [0, 1, 1, 0, 1]);
        assert_eq!(store.prune("fraud", None).expect("pruned"), 2);
        assert_eq!([&key(1), &foreign].map(|key| count(&mut store, key)), [0, 1]);
    });
}

#[test]
fn what_a_database_could_not_keep_is_refused_and_the_store_goes_on() {
    each(|kept| {
        let mut store = open(&kept.place, "a");
        let long = "x".repeat(DOCUMENT + 1);
        for (model, digest, document) in
            [("", "d", ""), (&*long, "d", ""), ("m\0", "d", ""), ("m", "", ""), ("m", "d", &*long), ("m", "d", "\0")]
        {
            let error = store.advance(model, None, Next { digest, document }, &[]).expect_err("refused");
            assert_eq!(error.code(), Code::Internal, "{error}");
        }
        store.advance("m", Some(u64::MAX - 1), next("{}"), &[]).expect_err("no database counts that far");
        store.record("m", &[event("")]).expect_err("an event without a name");
        let largest = &long[1..];
        assert!(store.advance("m", None, next(largest), &[]).expect("written"));
        assert_eq!(store.load("m").expect("a row").expect("a row").document.len(), DOCUMENT);
    });
}

#[test]
fn replicas_that_start_at_once_make_the_tables_once() {
    each(|kept| {
        for place in kept.fresh(5) {
            let start = Barrier::new(8);
            thread::scope(|scope| {
                for number in 0..8 {
                    let (place, start) = (&place, &start);
                    scope.spawn(move || {
                        start.wait();
                        open(place, &number.to_string()).record("fraud", &[event(number.to_string())]).expect("written");
                    });
                }
            });
            assert_eq!(ids(&mut open(&place, "judge"), None, 100).len(), 8);
        }
    });
}

#[test]
fn tables_of_a_newer_program_are_refused_and_left_alone() {
    each(|kept| {
        open(&kept.place, "a").advance("fraud", None, next("kept"), &[]).expect("written");
        kept.run("UPDATE sluicegate_schema SET version = version + 1");
        let error = Store::open(&kept.place, Incarnation::new("b").expect("a name")).expect_err("refused");
        assert_eq!(error.code(), Code::BadConfig);
        assert!(error.message().contains("version 2") && error.message().contains("versions up to 1"), "{error}");
        kept.run("UPDATE sluicegate_schema SET version = version - 1");
        let row = open(&kept.place, "c").load("fraud").expect("a row").expect("a row");
        assert_eq!((row.revision, &*row.document), (1, "kept"));
    });
}
