//! Who moves pods asks the gateway how its models are: Argo Rollouts for an analysis, Flagger at each of its webhooks.

use serde_json::{Value, json};
use sluicegate_testkit::client::{Client, Request, Response};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, wait_for, write_config};
use sluicegate_tests::rollout::{command, kept, rollout, said, two_versions, view, wait_for_phase, wait_for_share, x};

/// Every type of webhook that Flagger has.
const TYPES: [&str; 8] = [
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
    "post-rollout",
    "rollback",
    "event",
];

/// What Flagger posts.
fn body(metadata: &Value) -> Value {
    json!({ "name": "gateway", "namespace": "serving", "phase": "Progressing", "checksum": "85d557f47b", "metadata": metadata })
}

fn hook(gateway: &Gateway, kind: &str, body: &str) -> Response {
    let request = Request::post(&format!("/hooks/flagger/{kind}"), body.to_owned());
    Client::new(gateway.ops()).request(&request).expect("an answer")
}

/// The types to which Flagger hears a yes.
fn yes(gateway: &Gateway, metadata: &Value) -> Vec<&'static str> {
    let is_yes = |kind: &&str| {
        let response = hook(gateway, kind, &body(metadata).to_string());
        assert!(matches!(response.status, 200 | 409), "{kind}: {}", response.text());
        response.status == 200
    };
    TYPES.into_iter().filter(is_yes).collect()
}

fn analysis(gateway: &Gateway) -> Value {
    let response = gateway.client().get("/models/m/analysis").expect("an answer");
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["data"].clone()
}

fn ask(gateway: &Gateway, times: usize) {
    let mut client = gateway.client();
    (0..times).for_each(|_| drop(said(&client.request(&x()).expect("an answer"))));
}

/// A canary at half of the traffic, with this rule.
fn canary(rule: &str) -> String {
    rollout(&format!("strategy: canary, on_failure: hold, steps: [ {{ weight: 50%, hold: 10m }} ], analysis: [ {rule} ]"))
}

const ALL_BUT_ROLLBACK: [&str; 7] =
    ["confirm-rollout", "pre-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion", "post-rollout", "event"];

#[test]
fn a_rollout_whose_rules_are_not_known_yet_is_inconclusive_and_passes_when_they_hold() {
    let folder = two_versions();
    let gateway = Gateway::start(&folder, &canary("{ metric: error_rate, max: 60%, min_samples: 30 }"));
    wait_for_share(&gateway, "50%");
    let before = wait_for("it has begun", || Some(analysis(&gateway)).filter(|told| told["reason"] != "it has not begun"));
    assert_eq!((&before["ok"], &before["verdict"], &before["n"]), (&json!(false), &json!("inconclusive"), &json!(0)), "{before}");
    assert_eq!(yes(&gateway, &json!({ "model": "m" })), ["pre-rollout", "rollout", "post-rollout", "event"]);
    let after = wait_for("it passes", || {
        ask(&gateway, 20);
        Some(analysis(&gateway)).filter(|told| told["ok"] == true)
    });
    assert_eq!((&after["verdict"], &after["phase"], &after["candidate"]), (&json!("pass"), &json!("running"), &json!("2")));
    assert!(after["n"].as_u64().is_some_and(|n| n >= 30), "{after}");
    let going = ["pre-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion", "post-rollout", "event"];
    assert_eq!(yes(&gateway, &json!({ "model": "m" })), going, "but none begins beside it");
    assert_eq!(command(&gateway, "promote").status, 200);
    assert_eq!(yes(&gateway, &json!({ "model": "m" })), ALL_BUT_ROLLBACK);
    assert_eq!((&analysis(&gateway)["verdict"], &analysis(&gateway)["phase"]), (&json!("pass"), &json!("promoted")));
}

#[test]
fn a_broken_rule_halts_and_rolls_back_and_so_does_a_rollback() {
    let folder = two_versions();
    let gateway = Gateway::start(&folder, &canary("{ metric: latency_p50, max: 0ms, min_samples: 10 }"));
    wait_for_share(&gateway, "50%");
    let broken = wait_for("it is held", || {
        ask(&gateway, 20);
        Some(analysis(&gateway)).filter(|told| told["verdict"] == "fail")
    });
    wait_for_phase(&gateway, "paused");
    let reason = broken["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("latency_p50: the candidate's p50 is "), "{broken}");
    let halted = ["pre-rollout", "post-rollout", "rollback", "event"];
    assert_eq!(yes(&gateway, &json!({ "model": "m" })), halted);
    let answer = hook(&gateway, "rollback", &body(&json!({ "model": "m" })).to_string()).json();
    assert!(
        answer["reason"].as_str().is_some_and(|reason| reason.starts_with("the rollout of m is paused: latency_p50")),
        "{answer}"
    );
    assert_eq!(command(&gateway, "rollback").status, 200);
    let back = analysis(&gateway);
    assert_eq!((&back["ok"], &back["phase"], &back["reason"]), (&json!(false), &json!("rolled_back"), &json!("by ada: tested")));
    assert_eq!(yes(&gateway, &json!({ "model": "m" })), halted);
    // Without `metadata`, or without a model in it, all of the gateway are meant.
    for metadata in [json!(null), json!({ "cmd": "hey" })] {
        assert_eq!(yes(&gateway, &metadata), halted, "{metadata}");
    }
}

#[test]
fn the_last_rollout_is_told_once_it_is_no_longer_declared_and_halts_nobody() {
    let folder = two_versions();
    let gateway = Gateway::start(&folder, &(kept(&folder) + &canary("{ metric: error_rate, max: 60% }")));
    wait_for_share(&gateway, "50%");
    let none = gateway.client().get("/models/n/analysis").expect("an answer");
    assert_eq!((none.status, &none.json()["code"]), (404, &json!("unknown_model")));
    assert_eq!(command(&gateway, "rollback").status, 200);
    write_config(&folder, &(kept(&folder) + "models:\n  - name: m\n    version: 1\n"));
    let last = wait_for("it is gone", || Some(analysis(&gateway)).filter(|told| told["declared"] == false));
    assert_eq!((&last["verdict"], &last["stable"], &last["candidate"]), (&json!("fail"), &json!("1"), &json!("2")), "{last}");
    assert_eq!(yes(&gateway, &json!({ "model": "m" })), ALL_BUT_ROLLBACK);
}

#[test]
fn a_rollout_that_waits_for_its_candidate_is_inconclusive_and_a_shadow_is_judged_by_its_copies() {
    let folder = two_versions();
    let config = canary("{ metric: error_rate, max: 60% }");
    let gateway = Gateway::start(&folder, &config);
    write_config(&folder, &config.replace("candidate: 2", "candidate: 9"));
    let waits = wait_for("it waits", || Some(analysis(&gateway)).filter(|told| told["candidate"] == "9"));
    assert_eq!(
        (&waits["verdict"], &waits["reason"]),
        (&json!("inconclusive"), &json!("a version of it is not ready")),
        "{waits}"
    );
    let keys = "strategy: shadow, on_failure: hold, shadow: { share: 100%, tolerance: 1% }, analysis: [ { metric: disagreement, max: 1% } ]";
    write_config(&folder, &rollout(keys));
    wait_for("copies are made", || (view(&gateway)["mirrored"] == "100%").then_some(()));
    let judged = wait_for("it fails", || {
        ask(&gateway, 20);
        Some(analysis(&gateway)).filter(|told| told["verdict"] == "fail")
    });
    assert!(judged["n"].as_u64().is_some_and(|n| n > 0), "{judged}");
    assert!(
        judged["reason"].as_str().is_some_and(|reason| reason.starts_with("disagreement: the shadow disagreed on ")),
        "{judged}"
    );
}

#[test]
fn a_model_without_a_rollout_has_no_analysis_and_halts_nobody() {
    let folder = two_versions();
    let gateway = Gateway::start(&folder, "models:\n  - name: m\n    version: 1\n");
    let response = gateway.client().get("/models/m/analysis").expect("an answer");
    assert_eq!(response.status, 404);
    assert!(response.text().contains("give its entry in the configuration a `rollout`"), "{}", response.text());
    assert_eq!(yes(&gateway, &json!(null)), ALL_BUT_ROLLBACK);
    assert_eq!(hook(&gateway, "event", "").status, 200, "whoever tries it by hand sends nothing");
}

#[test]
fn a_model_that_does_not_answer_holds_the_pods_before_they_get_traffic() {
    let folder = Folder::default();
    folder.publish("other", 1, &onnx::add_constant(1.0, 2));
    let config = "models:\n  - name: other\n  - name: m\n    version: 1\n";
    let gateway = Gateway::begin(&folder, config);
    let refused = wait_for("a gateway without m", || {
        let request = Request::post("/hooks/flagger/pre-rollout", body(&json!(null)).to_string());
        Client::new(gateway.ops()).request(&request).ok().filter(|response| response.status == 409)
    });
    assert!(refused.text().contains("no version of m answers yet; /status says why"), "{}", refused.text());
}

#[test]
fn what_flagger_does_not_say_is_refused_with_what_it_would() {
    let folder = two_versions();
    let gateway = Gateway::start(&folder, "models:\n  - name: m\n    version: 1\n");
    for (kind, body, status, words) in [
        ("rollbak", body(&json!(null)).to_string(), 404, "confirm-traffic-increase, confirm-promotion, post-rollout, rollback"),
        ("rollout", "[]".to_owned(), 422, "the body is no JSON object"),
        ("rollout", "{".to_owned(), 422, "the body is no JSON object"),
        ("rollout", body(&json!("m")).to_string(), 422, "expected an object as `metadata`, got \\\"m\\\""),
        ("rollout", body(&json!({ "model": 7 })).to_string(), 422, "expected the name of a model as `metadata.model`, got 7"),
        ("rollback", body(&json!({ "model": "mm" })).to_string(), 404, "no model is called `mm`"),
    ] {
        let response = hook(&gateway, kind, &body);
        assert_eq!(response.status, status, "{kind} {body}: {}", response.text());
        assert!(response.text().contains(words), "{kind} {body}: {}", response.text());
    }
    let get = Client::new(gateway.ops()).get("/hooks/flagger/rollout").expect("an answer");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    // It is for operators alone.
    let outside = gateway.client().request(&Request::post("/hooks/flagger/event", body(&json!(null)).to_string()));
    assert_eq!(outside.expect("an answer").status, 404);
}
