//! What a rollout costs: a split, a shadow, and a candidate that fails, each beside the same model without a rollout, in one run.

use sluicegate_loadtests::{Figure, machine, publish, table, wrk};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, repository, wait_for};

const ROUNDS: usize = 7;
const SECONDS: u64 = 3;

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
    let ratio = |with: &Figure, without: &Figure| format!("{:.0} %", 100.0 * with.median() / without.median());
    let line =
        |name: &str, without: &Figure, with: &Figure| vec![name.into(), without.show(0), with.show(0), ratio(with, without)];
    let page = format!(
        "# What a rollout costs\n\n{}. wrk on the same machine, {ROUNDS} rounds of {SECONDS} s each, the two sides of a line in turn; medians with the \
         smallest and the largest. 30 numbers as JSON, gradient boosting; for the last two lines a look into a table, which the \
         candidate fails on every request, so that one in twenty is answered by stable after it.\n\n{}\n\
         Errors: {errors}. Copies compared: {}, dropped because there was no room: {}.\n",
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
    );
    publish("rollouts", &page);
}
