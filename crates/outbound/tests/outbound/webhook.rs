//! Events reach receivers that fail in every way: in order, signed, the same each time; and whoever hangs holds up nobody else.

use std::net::TcpListener;
use std::time::Duration;

use crate::receiver::{Act, Got, Receiver, event, hook, start};
use sluicegate_core::Code;
use sluicegate_outbound::Secret;
use sluicegate_outbound::webhook::event::CONTENT_TYPE;
use sluicegate_outbound::webhook::key::Keys;
use sluicegate_outbound::webhook::{Event, Hook, Hooks, Kind, Pace, QUEUE};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn nothing_is_lost_and_the_order_kept_while_a_receiver_fails_in_every_way() {
    let script = [
        Act::Answer(500, ""),
        Act::Answer(429, "retry-after: 1\r\n"),
        Act::Close,
        Act::Hang,
        Act::Answer(200, ""),
        Act::Answer(408, ""),
        Act::Answer(503, "retry-after: Thu, 31 Dec 2099 23:59:59 GMT\r\n"),
        Act::Answer(204, ""),
        Act::Close,
    ];
    let receiver = Receiver::start(&script);
    // Of the one that hangs; the others are to answer within it on a busy machine too.
    let timeout = Duration::from_secs(3);
    let started = start(vec![Hook { secret: Some(Secret::new(SECRET)), timeout, ..receiver.hook() }]);
    started.emit(3);
    started.wait_counts(0, &[("delivered", 3), ("retries", 7)]);

    let got = receiver.got();
    let ids: Vec<&str> = got.iter().map(Got::id).collect();
    assert_eq!(ids, [&["fraud-0"; 5][..], &["fraud-1"; 3], &["fraud-2"; 2]].concat());
    let keys = Keys::read(&Secret::new(SECRET)).expect("a key");
    for one in &got {
        let first = got.iter().find(|other| other.id() == one.id()).expect("itself");
        assert_eq!(one.body, first.body, "{one:?}");
        assert_eq!(one.headers["content-type"], CONTENT_TYPE);
        assert_eq!(one.path, "/events?token=T0K3N");
        let seconds = one.headers["webhook-timestamp"].parse().expect("seconds");
        assert_eq!(one.headers["webhook-signature"], keys.sign(one.id(), seconds, &one.body));
        let cloud: serde_json::Value = serde_json::from_slice(&one.body).expect("JSON");
        assert_eq!(cloud["id"], one.id());
    }
}

#[test]
fn a_receiver_that_hangs_holds_up_no_other_and_no_caller() {
    let (hanging, well) = (Receiver::start(&[Act::Hang]), Receiver::start(&[]));
    let started = start(vec![hanging.hook(), well.hook()]);
    started.emit(5);
    started.wait_counts(1, &[("delivered", 5)]);
    assert_eq!(well.wait(5).iter().map(Got::id).collect::<Vec<_>>(), [0, 1, 2, 3, 4].map(|n| format!("fraud-{n}")));
    started.wait_counts(0, &[("queue", 5)]);
}

#[test]
fn what_is_refused_is_not_tried_again_and_the_next_one_is() {
    let script = [400, 401, 404, 410, 422].map(|status| Act::Answer(status, ""));
    let receiver = Receiver::start(&script);
    let started = start(vec![receiver.hook()]);
    started.emit(6);
    started.wait_counts(0, &[("delivered", 1), ("refused", 5)]);
    assert_eq!(receiver.got().len(), 6);
}

#[test]
fn a_redirect_is_refused_and_gives_a_stranger_nothing() {
    let stranger = Receiver::start(&[]);
    let location: &'static str = format!("location: http://{}/\r\n", stranger.address).leak();
    let receiver = Receiver::start(&[Act::Answer(302, location), Act::Answer(307, location)]);
    let started = start(vec![receiver.hook()]);
    started.emit(3);
    started.wait_counts(0, &[("delivered", 1), ("refused", 2)]);
    assert!(stranger.got().is_empty());
}

#[test]
fn an_event_is_given_up_after_its_attempts_and_the_next_one_is_tried() {
    let receiver = Receiver::start(&[Act::Answer(500, ""); 3]);
    let started = start(vec![Hook { max_attempts: 3.try_into().expect("not 0"), ..receiver.hook() }]);
    started.emit(2);
    started.wait_counts(0, &[("delivered", 1), ("given_up", 1), ("retries", 2)]);
    assert_eq!(receiver.got().iter().map(Got::id).collect::<Vec<_>>(), ["fraud-0", "fraud-0", "fraud-0", "fraud-1"]);
}

#[test]
fn a_receiver_that_asks_for_time_gets_it_within_the_bound() {
    let asks = [Act::Answer(429, "retry-after: 3600\r\n")];
    let (patient, hasty) = (Receiver::start(&asks), Receiver::start(&asks));
    let other = Receiver::start(&[Act::Answer(500, ""); 19]);
    let day = Pace { most: Duration::from_secs(24 * 3600), ..hook("http://localhost").pace };
    let started = start(vec![Hook { pace: day, ..patient.hook() }, hasty.hook(), other.hook()]);
    started.emit(1);
    started.wait_counts(1, &[("delivered", 1), ("retries", 1)]);
    patient.wait(1);
    // Another one with the same first wait is tried twenty times meanwhile.
    started.wait_counts(2, &[("delivered", 1), ("retries", 19)]);
    assert_eq!(patient.got().len(), 1);
    started.wait_counts(0, &[("queue", 1)]);
}

#[test]
fn a_full_queue_drops_what_comes_and_counts_it() {
    let receiver = Receiver::start(&[Act::Hang]);
    let started = start(vec![receiver.hook()]);
    started.emit(QUEUE + 5);
    started.wait_counts(0, &[("dropped", 5), ("queue", QUEUE as u64)]);
}

#[test]
fn a_receiver_gets_the_kinds_that_it_names() {
    let (all, some) = (Receiver::start(&[]), Receiver::start(&[]));
    let events = vec![Kind::RolloutPromoted, Kind::RolloutRolledBack];
    let started = start(vec![all.hook(), Hook { events, ..some.hook() }]);
    for (number, kind) in Kind::ALL.iter().enumerate() {
        started.hooks.emit(&Event { kind: *kind, ..event(number) });
    }
    started.wait_counts(0, &[("delivered", Kind::ALL.len() as u64)]);
    started.wait_counts(1, &[("delivered", 2)]);
    let types =
        some.got().into_iter().map(|got| serde_json::from_slice::<serde_json::Value>(&got.body).expect("JSON")["type"].clone());
    assert_eq!(types.collect::<Vec<_>>(), ["io.sluicegate.rollout.promoted", "io.sluicegate.rollout.rolled_back"]);
}

#[test]
fn a_name_and_a_password_of_the_address_are_sent_as_they_are_meant() {
    let receiver = Receiver::start(&[]);
    let started = start(vec![hook(&format!("http://me:s%40fe@{}/", receiver.address))]);
    started.emit(1);
    let got = receiver.wait(1);
    assert_eq!(got[0].headers["authorization"], "Basic bWU6c0BmZQ==");
    assert_eq!(got[0].headers["host"], receiver.address.to_string());
    assert!(!got[0].headers.contains_key("webhook-signature"), "there is no secret to sign with");
}

#[test]
fn the_end_waits_for_what_a_receiver_takes() {
    let receiver = Receiver::start(&[]);
    let started = start(vec![receiver.hook()]);
    started.emit(20);
    started.hooks.stop(Duration::from_secs(60));
    assert_eq!(started.counts(0), [("delivered".to_owned(), 20)].into());
    assert_eq!(receiver.got().len(), 20);
    started.emit(1);
    assert_eq!(started.counts(0), [("abandoned".to_owned(), 1), ("delivered".to_owned(), 20)].into());
}

#[test]
fn the_end_waits_for_nobody_who_does_not_take_it() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let day = Pace { first: Duration::from_secs(24 * 3600), most: Duration::from_secs(24 * 3600) };
    let hanging = Receiver::start(&[Act::Hang]);
    let started = start(vec![Hook { pace: day, ..hook(&format!("http://{closed}/")) }, hanging.hook()]);
    started.emit(4);
    hanging.wait(1);
    // The first one waits for a day and the second one for a minute: only what ends both is seen to the end here.
    started.hooks.stop(Duration::from_millis(300));
    assert_eq!(started.counts(0), [("abandoned".to_owned(), 4)].into());
    assert_eq!(started.counts(1), [("abandoned".to_owned(), 4)].into());
}

#[test]
fn an_event_that_cannot_be_written_is_counted_for_those_who_want_it() {
    let receiver = Receiver::start(&[]);
    let started = start(vec![receiver.hook(), Hook { events: vec![Kind::ModelFailed], ..receiver.hook() }]);
    started.hooks.emit(&Event { id: "a.b".to_owned(), ..event(0) });
    assert_eq!((started.counts(0), started.counts(1)), ([("dropped".to_owned(), 1)].into(), [].into()));
}

#[test]
fn hooks_that_cannot_work_are_refused_at_the_start() {
    let error = |hooks| Hooks::start(hooks, "/sluicegate").expect_err("refused");
    let short = error(vec![Hook { secret: Some(Secret::new("s3cret")), ..hook("http://localhost") }]);
    assert_eq!(short.code(), Code::BadConfig);
    assert!(short.to_string().contains("24 to 64") && !short.to_string().contains("s3cret"), "{short}");
    assert!(error(vec![hook("http://localhost"); 33]).to_string().contains("33 webhooks are declared, and 32 is the most"));
}
