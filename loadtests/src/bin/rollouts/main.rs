//! What a rollout costs: a split, a shadow, and candidates that fail, hang or are slow, each beside the same model without a rollout, in one run.

mod rollbacks;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use sluicegate_core::DType;
use sluicegate_loadtests::processors::{self, on};
use sluicegate_loadtests::{Asked, Figure, both, in_phases, in_turn, machine, publish, table};
use sluicegate_testkit::client::{Client, Request};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, repository, wait_for};

// What a machine shared with others takes away lasts for seconds: within a round the sides of a ratio have many short turns.
const ROUNDS: usize = 8;
const CONNECTIONS: usize = 16;
/// Where wrk has a processor of its own: so many that the gateway has always more to do.
const MORE: usize = 64;
/// The first ones of those that are asked in phases, which have a run for each request: those are asked apart, too.
const SINGLE: usize = 4;
/// How long a wrk asks a model before it asks the other one, and how often in a round.
const PHASE: Duration = Duration::from_millis(50);
const PAIRS: u32 = 25;
/// Turns of a tenth of a second that a shadow and the model without one have in a round: what it has to do runs on when its phase is over.
const TURNS: usize = 10;
/// How often callers ask each of two models in a round, and for how long.
const CALLS: usize = 6;
const CALL: Duration = Duration::from_millis(250);

/// Callers whose times are told, and what each waits between two requests: cores are free, so that a caller waits for the gateway
/// and not for another caller.
const CALLERS: usize = 2;
const PAUSE: Duration = Duration::from_micros(500);

/// The columns of a model that takes its time, and the steps of one that takes too much.
const WIDTH: usize = 64;
const STEPS: usize = 3_000;

/// Versions that have one thread each, which can be stopped; a candidate's callers wait for a 40th of the time.
const OWN: &str = ", batching: { execution: threads, instances: 1, queue_timeout: 200ms }";

/// The engine that can be made to panic.
const TRACT: &str = ", engine: tract";

/// A thread that stands still within a run of its model until this is dropped, as one of an engine does that hangs: it takes no processor, gives no
/// answer and no error, and holds no lock of the gateway's.
struct Hung(Pid);

impl Hung {
    /// Stops the thread of this name that runs what is asked.
    fn new(gateway: &Gateway, thread: &str, path: &str, body: &str) -> Self {
        let says = |task: &Path, file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_default();
        // Threads are started when there is something to run.
        let named = || -> Vec<PathBuf> {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).expect("it runs");
            tasks.filter_map(|task| Some(task.ok()?.path())).filter(|task| says(task, "comm").trim_end() == thread).collect()
        };
        let is_caught = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = gateway.client();
                // Who asks a candidate by its number and hangs with it, is told that it was too late.
                while !is_caught.load(Ordering::Relaxed) {
                    client.request(&Request::post(path, body)).expect("an answer");
                }
            });
            // Twice, a part of a run apart: what runs both times is not on its way to the run, nor on its way back.
            let runs = |task: &PathBuf| says(task, "stat").contains(") R ");
            let twice = |task: &PathBuf| {
                let first = runs(task);
                thread::sleep(Duration::from_micros(if first { 500 } else { 20 }));
                first && runs(task)
            };
            let until = Instant::now() + Duration::from_secs(20);
            let task = loop {
                if let Some(found) = named().into_iter().find(twice) {
                    break found;
                }
                assert!(Instant::now() < until, "{thread} does not run");
            };
            let id = task.file_name().and_then(|id| id.to_str()?.parse().ok()).map(Pid::from_raw).expect("a thread's number");
            ptrace::seize(id, ptrace::Options::empty()).expect("a child's threads may be stopped");
            ptrace::interrupt(id).expect("it is ours");
            waitpid(id, Some(WaitPidFlag::__WALL)).expect("it stops");
            is_caught.store(true, Ordering::Relaxed);
            Self(id)
        })
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // A process that has ended has none left.
        let _ = ptrace::detach(self.0, None);
    }
}

/// A row for the tabular model, as a caller of its typed route sends it.
fn row() -> String {
    let numbers: Vec<String> = (0..30_u16).map(|place| format!("{}.5", place * 7 % 20)).collect();
    format!(r#"{{"X":[{}]}}"#, numbers.join(","))
}

/// Latencies in microseconds.
#[derive(Default)]
struct Callers {
    /// Of those that were given to stable, or asked a model without a rollout.
    stable: Vec<f64>,
    /// Of those that were given to the candidate, whoever answered them.
    candidate: Vec<f64>,
    lost: u64,
}

impl Callers {
    fn add(&mut self, more: Self) {
        self.stable.extend(more.stable);
        self.candidate.extend(more.candidate);
        self.lost += more.lost;
    }
}

/// What callers do at the moment: nothing, ask the first model, ask the second, or leave.
const REST: u8 = 2;
const LEAVE: u8 = 3;

/// Callers who ask two models in turn, each over one connection for both: one differs from another for as long as it lives.
fn call(gateway: &Gateway, models: [&str; 2], body: &str, settle: impl Fn()) -> [Callers; 2] {
    let now = AtomicU8::new(REST);
    let one = || {
        let mut client = gateway.client();
        let requests = models.map(|model| Request::post(&format!("/models/{model}/predict"), body));
        let mut seen = <[Callers; 2]>::default();
        let mut ask = |request: &Request| {
            let sent = Instant::now();
            (client.request(request).expect("an answer"), sent.elapsed().as_secs_f64() * 1e6)
        };
        requests.iter().for_each(|request| drop(ask(request)));
        loop {
            match now.load(Ordering::Relaxed) {
                LEAVE => break,
                REST => {}
                which => {
                    let seen = &mut seen[usize::from(which)];
                    let (response, took) = ask(&requests[usize::from(which)]);
                    let tried =
                        response.header("x-model-fallback").is_some() || response.header("x-model-variant") == Some("candidate");
                    if tried { &mut seen.candidate } else { &mut seen.stable }.push(took);
                    seen.lost += u64::from(response.status != 200);
                }
            }
            thread::sleep(PAUSE);
        }
        seen
    };
    let turn = |which| {
        now.store(which, Ordering::Relaxed);
        thread::sleep(CALL);
        now.store(REST, Ordering::Relaxed);
    };
    let mut sum = <[Callers; 2]>::default();
    thread::scope(|scope| {
        let all: Vec<_> = (0..CALLERS).map(|_| scope.spawn(one)).collect();
        thread::sleep(CALL);
        for round in 0..CALLS {
            both(
                round,
                || turn(0),
                || {
                    turn(1);
                    settle();
                },
            );
        }
        now.store(LEAVE, Ordering::Relaxed);
        for one in all {
            sum.iter_mut().zip(one.join().expect("it ends")).for_each(|(sum, seen)| sum.add(seen));
        }
    });
    sum
}

/// Waits until a shadow has nothing left to do, and returns its answers: what it compared is told at once, and a copy that fails is done as soon as it is tried.
fn settle(gateway: &Gateway, model: &str) -> u64 {
    let mut before = shadow_answered(gateway, model);
    wait_for("the shadow has seen all copies", || {
        thread::sleep(Duration::from_millis(50));
        let now = shadow_answered(gateway, model);
        (std::mem::replace(&mut before, now) == now).then_some(now)
    })
}

/// The answers of a model's shadow, by now.
fn shadow_answered(gateway: &Gateway, model: &str) -> u64 {
    let told = Client::new(gateway.ops()).get(&format!("/models/{model}/shadow")).expect("an answer").json();
    told["requests"].as_u64().expect("it has a shadow")
}

/// A figure without a rollout and with one, measured in turn.
#[derive(Default)]
struct Pair {
    without: Figure,
    with: Figure,
    ratio: Figure,
}

impl Pair {
    fn add(&mut self, without: f64, with: f64) {
        self.without.add(without);
        self.with.add(with);
        self.ratio.add(100.0 * with / without);
    }

    fn show(&self) -> Vec<String> {
        vec![self.without.quartiles(0), self.with.quartiles(0), format!("{} %", self.ratio.quartiles(1))]
    }
}

/// What the machine spent, and what of it others took, in ticks of all cores.
fn ticks() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let all: Vec<f64> = first.filter_map(|word| word.parse().ok()).collect();
    (all.iter().take(8).sum(), all.get(7).copied().unwrap_or_default())
}

/// The same model beside a rollout of it, as stable's callers see both.
struct Beside {
    models: [&'static str; 2],
    says: &'static str,
    body: String,
    /// What callers without and with it saw, in each round.
    rounds: Vec<[Callers; 2]>,
}

impl Beside {
    fn new(models: [&'static str; 2], says: &'static str, body: &str) -> Self {
        Self { models, says, body: body.to_owned(), rounds: Vec::new() }
    }

    /// How many requests were lost.
    fn round(&mut self, gateway: &Gateway) -> u64 {
        let rolled = self.models[1];
        let settled = || {
            if rolled.ends_with("-shadow") {
                settle(gateway, rolled);
            }
        };
        let seen = call(gateway, self.models, &self.body, settled);
        let lost = seen.iter().map(|seen| seen.lost).sum();
        self.rounds.push(seen);
        lost
    }

    /// A quantile without and with it, of all rounds but one.
    fn quantiles(&self, q: f64, but: Option<usize>) -> [f64; 2] {
        let rounds = || self.rounds.iter().enumerate().filter(|(place, _)| Some(*place) != but).map(|(_, round)| round);
        [0, 1].map(|side| {
            Figure::from(rounds().flat_map(|round| round[side].stable.iter().copied()).collect::<Vec<_>>()).quantile(q)
        })
    }

    /// A quantile without and with it, and their ratio with its standard error, by the jackknife over rounds.
    fn show(&self, q: f64) -> Vec<String> {
        let ratio = |but| {
            let [without, with] = self.quantiles(q, but);
            100.0 * with / without
        };
        let all: Vec<f64> = (0..self.rounds.len()).map(|round| ratio(Some(round))).collect();
        let count = all.len() as f64;
        let mean = all.iter().sum::<f64>() / count;
        let error = ((count - 1.0) / count * all.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>()).sqrt();
        let [without, with] = self.quantiles(q, None);
        vec![format!("{without:.0}"), format!("{with:.0}"), format!("{:.1} +- {error:.1} %", ratio(None))]
    }

    /// What the candidate's callers waited, in the median.
    fn candidate(&self) -> String {
        let all: Vec<f64> = self.rounds.iter().flat_map(|round| round[1].candidate.iter().copied()).collect();
        if all.is_empty() { "-".to_owned() } else { format!("{:.0}", Figure::from(all).median()) }
    }
}

/// What is asked in phases: a name, and for each phase the model of most requests and that of every twentieth.
const PHASES: [(&str, [[&str; 2]; 2]); 9] = [
    ("a run for each request: a copy of the model", [["single"; 2], ["single-again"; 2]]),
    ("a run for each request: 5 % sent to a copy, no rollout", [["single"; 2], ["single", "single-again"]]),
    ("a run for each request: split at 5 %", [["single"; 2], ["single-split"; 2]]),
    ("a run for each request: split at 5 %, beside 5 % sent to a copy", [["single", "single-again"], ["single-split"; 2]]),
    ("batches: a copy of the model", [["plain"; 2], ["plain-again"; 2]]),
    ("batches: 5 % sent to a copy, no rollout", [["plain"; 2], ["plain", "plain-again"]]),
    ("batches: split at 5 %", [["plain"; 2], ["plain-split"; 2]]),
    ("batches: split at 5 %, beside 5 % sent to a copy", [["plain", "plain-again"], ["plain-split"; 2]]),
    ("batches: split at 50 %", [["plain"; 2], ["halved"; 2]]),
];

/// Asks what is asked in phases. Returns how many errors there were.
fn ask(gateway: &Gateway, pairs: &mut [Pair], row: &str, connections: usize, scratch: &Path) -> u64 {
    let mut errors = 0;
    for (pair, (_, models)) in pairs.iter_mut().zip(PHASES) {
        let paths = models.map(|models| models.map(|model| format!("wrk.format(nil, '/models/{model}/predict')")).join(", "));
        let script = format!(
            "function prepare() asks = {{ {{ {} }}, {{ {} }} }} end\n\
             function make(phase, asked) return asks[phase][asked % 20 == 0 and 2 or 1] end\n",
            paths[0], paths[1]
        );
        let asked = post(gateway, models[0][0], row);
        let ([without, with], wrong) = in_phases(&asked, &script, PHASE, PAIRS, connections, scratch);
        errors += wrong;
        pair.add(without, with);
    }
    errors
}

fn post(gateway: &Gateway, model: &str, row: &str) -> Asked {
    Asked::post(format!("http://{}/models/{model}/predict", gateway.http()), row)
}

fn view(gateway: &Gateway, model: &str) -> serde_json::Value {
    gateway.client().get(&format!("/models/{model}/rollout")).expect("an answer").json()
}

/// Whether every rollout is where it is to be measured.
fn all_run(gateway: &Gateway) -> bool {
    let share = |model: &str, share: &str| view(gateway, model)["share"] == share;
    let mirrored = |model: &str| view(gateway, model)["mirrored"] == "100%";
    let canaries = ["plain-split", "single-split", "table-canary", "panic-canary", "mean-canary", "hung-canary"];
    let shadows = ["plain-shadow", "table-shadow", "panic-shadow", "mean-shadow", "hung-shadow"];
    share("halved", "50%") && canaries.iter().all(|model| share(model, "5%")) && shadows.iter().all(|model| mirrored(model))
}

fn main() {
    let folder = Folder::default();
    let tabular = std::fs::read(repository().join("models/breast-cancer/1/model.onnx")).expect("the sample model is there");
    for model in ["plain", "plain-again", "plain-split", "halved", "plain-shadow", "single", "single-again", "single-split"] {
        (1..=2).for_each(|version| folder.publish(model, version, &tabular));
    }
    let index = r#"{"index":7}"#;
    let wide = format!(r#"{{"x":[{}]}}"#, vec!["0.5"; WIDTH].join(","));
    let row = row();
    // tract panics where it divides by zero.
    let panics = r#"{"x":7,"by":0}"#;
    let mut beside = [
        Beside::new(["plain", "plain-again"], "another copy of the model", &row),
        Beside::new(["plain", "plain-split"], "a candidate that is as good, at 5 %", &row),
        Beside::new(["plain", "plain-shadow"], "a shadow of all requests that is as good", &row),
        Beside::new(["table", "table-canary"], "a candidate that fails each time, at 5 %", index),
        Beside::new(["table", "table-shadow"], "a shadow of all requests that fails each time", index),
        Beside::new(["panic", "panic-canary"], "a candidate that panics each time, at 5 %", panics),
        Beside::new(["panic", "panic-shadow"], "a shadow of all requests that panics each time", panics),
        Beside::new(["hung", "hung-again"], "another copy of a model that has a thread of its own", &wide),
        Beside::new(["hung", "hung-canary"], "a candidate that hangs, at 5 %", &wide),
        Beside::new(["hung", "hung-shadow"], "a shadow of all requests that hangs", &wide),
        Beside::new(["mean", "mean-canary"], "a candidate that has 3,000 steps in place of one, at 5 %", &wide),
        Beside::new(["mean", "mean-shadow"], "a shadow of all requests that has 3,000 steps in place of one", &wide),
    ];
    for model in ["panic", "panic-canary", "panic-shadow"] {
        // It is warmed up with what it can divide.
        let example = b"signature: { example: { x: 7, by: 2 } }\n";
        for (version, op) in [(1, "Sub"), (2, "Div")] {
            folder.write(model, version, &[("model.onnx", &onnx::of_two(op, DType::Int64)), ("model.yaml", example)]);
        }
    }
    for model in ["table", "table-canary", "table-shadow"] {
        folder.publish(model, 1, &onnx::big(1));
        folder.publish(model, 2, &onnx::fails_on_some());
    }
    for model in ["mean", "mean-canary", "mean-shadow", "hung", "hung-again", "hung-canary", "hung-shadow"] {
        folder.publish(model, 1, &onnx::slow(WIDTH, 1));
        folder.publish(model, 2, &onnx::slow(WIDTH, STEPS));
    }
    let model = |name: &str, keys: &str| format!("  - {{ name: {name}, version: 1{keys} }}\n");
    let rollout = |name: &str, rollout: &str, keys: &str| model(name, &format!(", rollout: {{ candidate: 2, {rollout} }}{keys}"));
    // Nothing ends these by itself: they are to be measured.
    let canary = "strategy: canary, steps: [ { weight: 5%, pause: true } ], analysis: [ { metric: error_rate, max: 100% } ]";
    let shadow = "strategy: shadow, shadow: { share: 100% }";
    let late = &format!("{canary}, fallback_after: 2.5%");
    let single = ", batching: { max_rows: 1 }";
    let mut models = vec![
        model("plain", ""),
        model("plain-again", ""),
        rollout("plain-split", canary, ""),
        rollout("halved", &canary.replace("5%", "50%"), ""),
        rollout("plain-shadow", shadow, ""),
        model("single", single),
        model("single-again", single),
        rollout("single-split", canary, single),
        model("table", ""),
        rollout("table-canary", canary, ""),
        rollout("table-shadow", shadow, ""),
        model("panic", TRACT),
        rollout("panic-canary", canary, TRACT),
        rollout("panic-shadow", shadow, TRACT),
        model("hung", OWN),
        model("hung-again", OWN),
        rollout("hung-canary", late, OWN),
        rollout("hung-shadow", shadow, OWN),
        model("mean", ""),
        rollout("mean-canary", canary, ""),
        rollout("mean-shadow", shadow, ""),
    ];
    let mut pairs: [Pair; PHASES.len()] = Default::default();
    let mut apart: [Pair; SINGLE] = Default::default();
    let mut shadowed = Pair::default();
    let (mut errors, mut lost, mut compared, mut dropped) = (0, 0, 0, 0);
    let before = ticks();
    for _ in 0..ROUNDS {
        // Anew in each round, in an order by chance: two copies of one model differ by some percent for as long as they live, and which is
        // better off goes with which was there first.
        fastrand::shuffle(&mut models);
        let start = || {
            let gateway = Gateway::start(&folder, &format!("models:\n{}", models.concat()));
            wait_for("the rollouts run", || all_run(&gateway).then_some(()));
            gateway
        };
        if let [rest @ .., last] = &processors::all()[..]
            && !rest.is_empty()
        {
            let gateway = on(rest, start);
            errors += on(&[*last], || ask(&gateway, &mut apart, &row, MORE, folder.path()));
        }
        let gateway = start();
        errors += ask(&gateway, &mut pairs, &row, CONNECTIONS, folder.path());
        let loads =
            in_turn(&["plain", "plain-shadow"].map(|model| post(&gateway, model, &row)), CONNECTIONS, TURNS, folder.path());
        errors += loads.iter().map(|load| load.errors).sum::<u64>();
        shadowed.add(loads[0].rate, loads[1].rate);
        settle(&gateway, "plain-shadow");
        let hung = [("hung-canary@2", "/models/hung-canary@2/predict"), ("shadow", "/models/hung-shadow/predict")]
            .map(|(thread, path)| Hung::new(&gateway, thread, path, &wide));
        let before_it_hung = settle(&gateway, "hung-shadow");
        lost += beside.iter_mut().map(|beside| beside.round(&gateway)).sum::<u64>();
        assert!(all_run(&gateway), "a rollout ended while it was measured");
        assert_eq!(shadow_answered(&gateway, "hung-shadow"), before_it_hung, "the shadow that hangs has answered");
        let failed = |model: &str, side: &str| view(&gateway, model)["numbers"][side]["failed"].as_u64().unwrap_or_default();
        assert!(failed("panic-canary", "candidate") > 0 && failed("panic-shadow", "shadow") > 0, "nothing panicked");
        drop(hung);
        let shadow = &view(&gateway, "plain-shadow")["numbers"]["shadow"];
        compared += shadow["compared"].as_u64().unwrap_or_default();
        dropped += shadow["dropped"].as_u64().unwrap_or_default();
    }
    let after = ticks();
    let stolen = (after.1 - before.1) / (after.0 - before.0);
    assert!(errors == 0 && lost == 0, "{errors} errors and {lost} lost requests: the figures are of something else");
    let back = rollbacks::measured(&tabular, &row, index);
    let line = |name: &str, pair: &Pair| [vec![name.into()], pair.show(), vec![format!("{} %", pair.ratio.mean(1))]].concat();
    let shadow = line("shadow of all requests", &shadowed);
    let lines = |pairs: &[Pair]| PHASES.iter().zip(pairs).map(|((name, ..), pair)| line(name, pair)).collect::<Vec<_>>();
    let rates = [lines(&pairs), vec![shadow]].concat();
    let its = |beside: &Beside, q: f64, name: String, last: String| [vec![name], beside.show(q), vec![last]].concat();
    let both = |beside: &Beside| {
        let p50 = its(beside, 0.5, format!("{}: p50", beside.says), beside.candidate());
        [p50, its(beside, 0.99, "the same: p99".into(), String::new())]
    };
    let seen: Vec<_> = beside.iter().flat_map(both).collect();
    let page = format!(
        "# What a rollout costs\n\n{}. Load generators on the same machine, {ROUNDS} rounds with new gateways. One wrk asks the model alone for 50 ms and as the line says for the next 50 ms, over \
         the same connections, {PAIRS} times in each round; a shadow and the model without one have {TURNS} turns of a tenth of a second. Medians with the quartiles, those of the ratios too, which are taken within \
         a round; means of the ratios with their standard errors. The machine is one that others have a part of: they took {:.1} % of its time. 30 numbers as JSON, gradient boosting, wrk. \
         The gateway and wrk on all processors, {CONNECTIONS} connections:\n\n{}\n\
         wrk on a processor of its own, and the gateway on the rest, {MORE} connections: what a rollout takes of the gateway.\n\n{}\n\
         Errors: 0. Copies compared: {}, dropped because there was no room: {}.\n\n\
         ## What callers see\n\n{CALLERS} callers that wait {} ms between two requests ask the model without a rollout for {} ms and the one with it for as long, over one connection each, {CALLS} times in each \
         round. Latencies in microseconds of those that the split gave to stable, over all rounds; ratios with their standard errors, by the jackknife over rounds; the last column has the median of those \
         that it gave to the candidate. Panics are those of tract, which divides by zero; what hangs is a thread that is stopped in its run. No request was lost.\n\n{}\n\
         ## Rollbacks\n\n{back}",
        machine(),
        100.0 * stolen,
        table(&["answers/s", "alone", "so", "ratio", "mean of the ratios"], &rates),
        table(&["answers/s", "alone", "so", "ratio", "mean of the ratios"], &lines(&apart)),
        compared,
        dropped,
        PAUSE.as_secs_f64() * 1e3,
        CALL.as_millis(),
        table(&["rollout", "without", "with", "ratio", "the candidate's callers, p50"], &seen),
    );
    publish("rollouts", &page);
}
