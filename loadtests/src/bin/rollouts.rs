//! What a rollout costs: a split, a shadow, and a candidate that fails, each beside the same model without a rollout, in one run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use sluicegate_loadtests::{Figure, machine, publish, table, wrk};
use sluicegate_testkit::client::{Client, Request};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, repository, wait_for, write_config};

const ROUNDS: usize = 7;
const SECONDS: u64 = 3;

/// Rollbacks that are timed.
const ROLLBACKS: usize = 30;

/// Microseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// From each decision to the moment at which the last request that the candidate answered was sent, in milliseconds; 0 where none was
/// sent after it. Four connections ask all the time; the state is in SQLite.
fn rollbacks(tabular: &[u8]) -> (Figure, u64, u64) {
    let folder = Folder::default();
    (1..=2).for_each(|version| folder.publish("m", version, tabular));
    let config = |round: usize| {
        let keys = format!("strategy: canary, patience: {}m, steps: [ {{ weight: 50%, pause: true }} ]", round + 1);
        let path = folder.path().join("state.db");
        format!(
            "state: {{ path: {} }}\nmodels: [ {{ name: m, version: 1, rollout: {{ candidate: 2, {keys} }} }} ]\n",
            path.display()
        )
    };
    let gateway = Gateway::start(&folder, &config(0));
    let get = |path: &str| gateway.client().get(path).expect("an answer").json();
    let record = get("/models/m")["example"].to_string();
    let (over, last, answers, lost) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let mut figure = Figure::default();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (mut client, request) = (gateway.client(), Request::post("/models/m/predict", record.clone()));
                while !over.load(Ordering::Relaxed) {
                    let sent = now();
                    let response = client.request(&request).expect("an answer");
                    answers.fetch_add(1, Ordering::Relaxed);
                    lost.fetch_add(u64::from(response.status != 200), Ordering::Relaxed);
                    if response.header("x-model-variant") == Some("candidate") {
                        last.fetch_max(sent, Ordering::Relaxed);
                    }
                }
            });
        }
        for round in 0..ROLLBACKS {
            write_config(&folder, &config(round));
            wait_for("the candidate has its half", || {
                let view = get("/models/m/rollout");
                (view["phase"] == "paused" && view["share"] == "50%").then_some(())
            });
            let before = answers.load(Ordering::Relaxed);
            wait_for("there is traffic", || (answers.load(Ordering::Relaxed) > before + 200).then_some(()));
            let command = Request::new("POST", "/models/m/rollout/rollback");
            assert_eq!(Client::new(gateway.ops()).request(&command).expect("an answer").status, 200);
            let before = answers.load(Ordering::Relaxed);
            wait_for("there is more", || (answers.load(Ordering::Relaxed) > before + 200).then_some(()));
            let events = get("/models/m/events");
            let decided = events["events"].as_array().and_then(|events| events.last()?["at_ms"].as_u64()).expect("a decision");
            figure.add(last.load(Ordering::Relaxed).saturating_sub(decided * 1_000) as f64 / 1e3);
        }
        over.store(true, Ordering::Relaxed);
    });
    (figure, answers.into_inner(), lost.into_inner())
}

fn main() {
    let folder = Folder::default();
    let tabular = std::fs::read(repository().join("models/breast-cancer/1/model.onnx")).expect("the sample model is there");
    for model in ["plain", "split", "shadow"] {
        (1..=2).for_each(|version| folder.publish(model, version, &tabular));
    }
    for model in ["calm", "failing"] {
        folder.publish(model, 1, &onnx::big(1));
        folder.publish(model, 2, &onnx::fails_on_some());
    }
    let rollout = |name: &str, keys: &str| format!("  - {{ name: {name}, version: 1, rollout: {{ candidate: 2, {keys} }} }}\n");
    let config = [
        "models:\n  - { name: plain, version: 1 }\n  - { name: calm, version: 1 }\n".to_owned(),
        rollout(
            "split",
            "strategy: canary, steps: [ { weight: 50%, pause: true } ], analysis: [ { metric: error_rate, max: 50% } ]",
        ),
        rollout("shadow", "strategy: shadow, shadow: { share: 100% }"),
        rollout("failing", "strategy: canary, steps: [ { weight: 5%, pause: true } ]"),
    ];
    let gateway = Gateway::start(&folder, &config.concat());
    let view = |model: &str| gateway.client().get(&format!("/models/{model}/rollout")).expect("an answer").json();
    wait_for("the rollouts run", || {
        (view("split")["share"] == "50%" && view("failing")["share"] == "5%" && view("shadow")["mirrored"] == "100%")
            .then_some(())
    });
    let url = |model: &str| format!("http://{}/models/{model}/predict", gateway.http());
    let row = gateway.client().get("/models/plain").expect("an answer").json()["example"].to_string();
    // The candidate fails it, stable does not.
    let index = r#"{"index":7}"#;

    let mut figures: [Figure; 12] = Default::default();
    let [plain, split, plain_p99, split_p99, alone, shadowed, many, many_shadowed, calm, failing, calm_p99, failing_p99] =
        &mut figures;
    let mut errors = 0;
    for round in 0..ROUNDS {
        let load = |model: &str, body: &str, connections| wrk(&url(model), body, connections, SECONDS, folder.path());
        let mut beside = |other: &str, than: &str, body: &str, connections| {
            let (one, two) =
                sluicegate_loadtests::both(round, || load(than, body, connections), || load(other, body, connections));
            errors += one.errors + two.errors;
            (one, two)
        };
        let (without, with) = beside("split", "plain", &row, 16);
        plain.add(without.rate);
        split.add(with.rate);
        plain_p99.add(without.p99);
        split_p99.add(with.p99);
        let (without, with) = beside("shadow", "plain", &row, 1);
        alone.add(without.p50);
        shadowed.add(with.p50);
        let (without, with) = beside("shadow", "plain", &row, 16);
        many.add(without.rate);
        many_shadowed.add(with.rate);
        let (without, with) = beside("failing", "calm", index, 4);
        calm.add(without.p50);
        failing.add(with.p50);
        calm_p99.add(without.p99);
        failing_p99.add(with.p99);
    }
    let shadow = view("shadow")["numbers"]["shadow"].clone();
    let (back, answers, lost) = rollbacks(&tabular);
    let ratio = |with: &Figure, without: &Figure| format!("{:.0} %", 100.0 * with.median() / without.median());
    let line =
        |name: &str, without: &Figure, with: &Figure| vec![name.into(), without.show(0), with.show(0), ratio(with, without)];
    let page = format!(
        "# What a rollout costs\n\n{}. wrk on the same machine, {ROUNDS} rounds of {SECONDS} s each, the two sides of a line in turn; medians with the \
         smallest and the largest. 30 numbers as JSON, gradient boosting; for the last two lines a look into a table, which the \
         candidate fails on every request, so that one in twenty is answered by stable after it.\n\n{}\n\
         Errors: {errors}. Copies compared: {}, dropped because there was no room: {}.\n\n\
         {ROLLBACKS} rollbacks by hand of a candidate that has half of the requests, four connections asking all the time, the state in SQLite: \
         the last request that the candidate answered was sent {} ms after the decision (median, smallest and largest; a decision's time has whole milliseconds). \
         {answers} requests, {lost} of them lost.\n",
        machine(),
        table(
            &["figure", "without a rollout", "with one", "ratio"],
            &[
                line("split at 50 %, 16 connections, answers/s", plain, split),
                line("the same, p99, us", plain_p99, split_p99),
                line("shadow of all requests, 1 connection, p50, us", alone, shadowed),
                line("the same, 16 connections, answers/s", many, many_shadowed),
                line("a candidate that fails, at 5 %, 4 connections, p50, us", calm, failing),
                line("the same, p99, us", calm_p99, failing_p99),
            ]
        ),
        shadow["compared"],
        shadow["dropped"],
        back.show(1),
    );
    publish("rollouts", &page);
}
