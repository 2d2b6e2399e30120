//! How long a candidate goes on answering after it was decided that it goes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use sluicegate_loadtests::Figure;
use sluicegate_testkit::client::{Client, Request};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, wait_for, write_config};

/// Rollbacks of each kind.
const ROLLBACKS: usize = 30;
const CONNECTIONS: usize = 4;

/// Microseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// What is measured of both kinds: those by hand of a model that is asked with `row`, and those of a candidate that fails.
///
/// # Panics
/// A request was lost.
pub(crate) fn measured(tabular: &[u8], row: &str, index: &str) -> String {
    let folder = Folder::default();
    (1..=2).for_each(|version| folder.publish("m", version, tabular));
    let (by_hand, asked) = rollbacks(&folder, "", row, true);
    let folder = Folder::default();
    folder.publish("m", 1, &onnx::big(1));
    folder.publish("m", 2, &onnx::fails_on_some());
    let (by_itself, more) = rollbacks(&folder, ", limits: { error_rate: 20%, min_samples: 200 }", index, false);
    format!(
        "{ROLLBACKS} of each kind of a candidate that has half of the requests, {CONNECTIONS} connections asking all the time, the state in SQLite. The last request that was given to the candidate was sent \
         {} ms after a person's command to roll it back was (median, smallest and largest), and {} ms after the gateway decided by itself to roll back one that fails (a decision's time has whole milliseconds, and is \
         when what it was decided by was counted). {} requests, none of them lost.\n",
        by_hand.show(1),
        by_itself.show(1),
        asked + more
    )
}

/// From each decision to the moment at which the last request that the candidate was given was sent, in milliseconds; 0 where none was
/// sent after it. How many were asked, too.
fn rollbacks(folder: &Folder, keys: &str, body: &str, is_by_hand: bool) -> (Figure, u64) {
    let config = |round: usize| {
        let (state, patience) = (folder.path().join("state.db"), round + 1);
        let keys = format!("strategy: canary, patience: {patience}m, steps: [ {{ weight: 50%, pause: true }} ]{keys}");
        format!(
            "state: {{ path: {} }}\nmodels: [ {{ name: m, version: 1, rollout: {{ candidate: 2, {keys} }} }} ]\n",
            state.display()
        )
    };
    let gateway = Gateway::start(folder, &config(0));
    let get = |path: &str| gateway.client().get(path).expect("an answer").json();
    let (over, last, answers, lost) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let ask_more = || {
        let before = answers.load(Ordering::Relaxed);
        wait_for("there is traffic", || (answers.load(Ordering::Relaxed) > before + 200).then_some(()));
    };
    let (mut figure, mut declared) = (Figure::default(), serde_json::Value::Null);
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let (mut client, request) = (gateway.client(), Request::post("/models/m/predict", body));
                while !over.load(Ordering::Relaxed) {
                    let sent = now();
                    let response = client.request(&request).expect("an answer");
                    answers.fetch_add(1, Ordering::Relaxed);
                    lost.fetch_add(u64::from(response.status != 200), Ordering::Relaxed);
                    // Stable answers what the candidate fails, and says so.
                    let is_candidate = response.header("x-model-variant") == Some("candidate");
                    if is_candidate || response.header("x-model-fallback").is_some() {
                        last.fetch_max(sent, Ordering::Relaxed);
                    }
                }
            });
        }
        for round in 0..ROLLBACKS {
            write_config(folder, &config(round));
            let decided = if is_by_hand {
                wait_for("the candidate has its half", || {
                    let view = get("/models/m/rollout");
                    (view["phase"] == "paused" && view["share"] == "50%").then_some(())
                });
                ask_more();
                let told = now();
                let command = Request::new("POST", "/models/m/rollout/rollback");
                assert_eq!(Client::new(gateway.ops()).request(&command).expect("an answer").status, 200);
                told
            } else {
                wait_for("it is rolled back", || {
                    let view = get("/models/m/rollout");
                    let is_next = view["phase"] == "rolled_back" && view["digest"] != declared;
                    is_next.then(|| declared = view["digest"].clone())
                });
                let events = get("/models/m/events");
                events["events"].as_array().and_then(|events| events.last()?["at_ms"].as_u64()).expect("a decision") * 1_000
            };
            ask_more();
            figure.add(last.load(Ordering::Relaxed).saturating_sub(decided) as f64 / 1e3);
        }
        over.store(true, Ordering::Relaxed);
    });
    let lost = lost.into_inner();
    assert!(lost == 0, "{lost} requests were lost in rollbacks");
    (figure, answers.into_inner())
}
