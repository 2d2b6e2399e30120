//! The database goes and comes back: calls fail cleanly, then work, and nothing is lost or doubled.

use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sluicegate_core::Code;
use sluicegate_state::{Incarnation, Place, Secret, Store};

use crate::child::{judge, write};
use crate::cluster::Cluster;
use crate::{event, ids, next, open};

#[test]
fn a_database_that_stops_and_starts_again_loses_and_doubles_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    let place = Place::Postgres(Secret::Text(cluster.url(&cluster.database())));
    let mut store = open(&place, "a");
    store.advance("fraud", None, next("1"), &[event("1")]).expect("written");
    for (revision, mode) in [(1, "fast"), (2, "immediate")] {
        cluster.down(mode);
        for _ in 0..3 {
            let error = store.advance("fraud", Some(revision), next("lost"), &[event("lost")]).expect_err("no database");
            assert_eq!(error.code(), Code::Io, "{error}");
            assert!(error.message().starts_with("state.postgres: "), "{error}");
            store.load("fraud").expect_err("no database");
        }
        Store::open(&place, Incarnation::new("b").expect("a name")).expect_err("no database");
        cluster.up();
        // The first call after it works.
        let id = (revision + 1).to_string();
        assert!(store.advance("fraud", Some(revision), next(&id), &[event(&*id)]).expect("written"));
    }
    assert_eq!(ids(&mut store, None, 10), ["1", "2", "3"]);
}

#[test]
fn a_session_that_was_cut_while_idle_is_opened_again_in_the_same_call() {
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.database();
    let mut store = open(&Place::Postgres(Secret::Text(cluster.url(&database))), "a");
    store.advance("fraud", None, next("1"), &[]).expect("written");
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert_eq!(cluster.psql(&database, cut).trim(), "1");
    assert!(store.advance("fraud", Some(1), next("2"), &[]).expect("written"));
}

#[test]
fn a_server_that_dies_again_and_again_under_a_writer_leaves_a_legal_state() {
    let Some(cluster) = Cluster::start() else { return };
    let place = Place::Postgres(Secret::Text(cluster.url(&cluster.database())));
    let mut store = open(&place, "writer");
    let (over, mut random) = (AtomicBool::new(false), fastrand::Rng::with_seed(4));
    let (done, failed) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut done, mut failed) = (0_u64, 0_u64);
            while !over.load(Ordering::Relaxed) {
                match write(&mut store) {
                    Ok(()) => done += 1,
                    Err(_) => failed += 1,
                }
            }
            (done, failed)
        });
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(random.u64(50..300)));
            cluster.down("immediate");
            cluster.up();
        }
        over.store(true, Ordering::Relaxed);
        writer.join().expect("a writer")
    });
    println!("{done} calls were done, {failed} failed");
    let revision = judge(&mut open(&place, "judge"), "writer");
    assert!(done > 0 && failed > 0 && revision >= done, "{done} done, {failed} failed, revision {revision}");
}

#[test]
fn a_row_that_another_session_holds_is_waited_for_within_bounds() {
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.database();
    let mut store = open(&Place::Postgres(Secret::Text(cluster.url(&database))), "a");
    store.advance("fraud", None, next("1"), &[]).expect("written");
    thread::scope(|scope| {
        let hold = "BEGIN; SELECT 1 FROM sluicegate_rollout FOR UPDATE; SELECT pg_sleep(8); COMMIT";
        scope.spawn(|| cluster.psql(&database, hold));
        let holds = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        while cluster.psql(&database, holds).trim() != "1" {}
        let error = store.advance("fraud", Some(1), next("2"), &[event("2")]).expect_err("a bound");
        assert!(error.message().contains("timeout"), "{error}");
        assert_eq!(store.load("fraud").expect("reading waits for nobody").map(|row| row.revision), Some(1));
    });
    assert!(store.advance("fraud", Some(1), next("2"), &[event("2")]).expect("written"));
    assert_eq!(ids(&mut store, None, 10), ["2"]);
}

#[test]
fn a_server_that_takes_the_connection_and_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let url = format!("postgres://u:hunter2@127.0.0.1:{port}/s");
    let error = Store::open(&Place::Postgres(Secret::Text(url)), Incarnation::new("a").expect("a name")).expect_err("silence");
    assert!(error.code() == Code::Io && error.message().contains("did not answer in time"), "{error}");
    assert!(!error.message().contains("hunter2"), "{error}");
}

#[test]
fn a_secret_in_a_file_is_read_anew_for_each_session_and_never_shown() {
    let Some(cluster) = Cluster::shared() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("url");
    let place = Place::Postgres(Secret::File(path.clone()));
    let opened = || Store::open(&place, Incarnation::new("a").expect("a name"));
    let error = opened().expect_err("no file");
    assert!(error.code() == Code::Io && error.message().contains(&*path.to_string_lossy()), "{error}");
    fs::write(&path, "postgres://u:hunter2@localhost:x/s").expect("a file");
    let error = opened().expect_err("no URL");
    assert!(error.code() == Code::BadConfig && !error.message().contains("hunter2"), "{error}");
    fs::write(&path, format!("{}\n", cluster.url(&cluster.database()))).expect("a file");
    assert_eq!(opened().expect("a store").load("fraud").expect("no row"), None);
    let text = Place::Postgres(Secret::Text("postgres://u:hunter2@db/s".into()));
    assert!(!format!("{text:?}").contains("hunter2"));
}
