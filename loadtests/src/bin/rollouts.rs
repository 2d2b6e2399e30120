//! What a rollout costs: a split, a shadow, and candidates that fail, hang or are slow, each beside the same model without a rollout, in one run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use sluicegate_loadtests::{Asked, Figure, both, in_phases, in_turn, machine, publish, table};
use sluicegate_testkit::client::{Client, Request};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, repository, wait_for, write_config};

// What a machine shared with others takes away lasts for seconds: within a round the sides of a ratio have many short turns.
const ROUNDS: usize = 12;
const CONNECTIONS: usize = 16;
/// How long a wrk asks two models in phases, in a round.
const SECONDS: u64 = 4;
/// Turns of a tenth of a second that a shadow and the model without one have in a round: what it has to do runs on when its phase is over.
const TURNS: usize = 10;
/// Turns of callers in a round, which are longer, because a shadow is waited for between them.
const CALLS: usize = 6;
const TURN: Duration = Duration::from_millis(200);

/// Callers whose times are told, and what each waits between two requests: cores are free, so that a caller waits for the gateway
/// and not for another caller.
const CALLERS: usize = 2;
const PAUSE: Duration = Duration::from_millis(1);

/// The columns of a model that takes its time, and the steps of one that takes too much.
const WIDTH: usize = 64;
const STEPS: usize = 3_000;

/// Versions that have one thread each, which can be stopped; a candidate's callers wait for a 40th of the time.
const OWN: &str = "batching: { execution: threads, instances: 1, queue_timeout: 200ms";

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
    let record = row();
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

/// A turn of callers.
fn call(gateway: &Gateway, model: &str, body: &str) -> Callers {
    let until = Instant::now() + TURN;
    let one = || {
        let (mut client, request) = (gateway.client(), Request::post(&format!("/models/{model}/predict"), body));
        let mut seen = Callers::default();
        while Instant::now() < until {
            let sent = Instant::now();
            let response = client.request(&request).expect("an answer");
            let took = sent.elapsed().as_secs_f64() * 1e6;
            let tried = response.header("x-model-fallback").is_some() || response.header("x-model-variant") == Some("candidate");
            if tried { &mut seen.candidate } else { &mut seen.stable }.push(took);
            seen.lost += u64::from(response.status != 200);
            thread::sleep(PAUSE);
        }
        seen
    };
    let mut sum = Callers::default();
    thread::scope(|scope| {
        let all: Vec<_> = (0..CALLERS).map(|_| scope.spawn(one)).collect();
        all.into_iter().for_each(|one| sum.add(one.join().expect("it ends")));
    });
    sum
}

/// Waits until a shadow has nothing left to do: what it compared is told at once, and a copy that fails is done as soon as it is tried.
fn settle(gateway: &Gateway, model: &str) {
    let mut operator = Client::new(gateway.ops());
    let mut compared = || {
        let told = operator.get(&format!("/models/{model}/shadow")).expect("an answer").json();
        told["requests"].as_u64().expect("it has a shadow")
    };
    let mut before = compared();
    wait_for("the shadow has seen all copies", || {
        thread::sleep(Duration::from_millis(50));
        let now = compared();
        (std::mem::replace(&mut before, now) == now).then_some(())
    });
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
    name: &'static str,
    says: &'static str,
    body: String,
    p50: Pair,
    p99: Pair,
    /// What the candidate's callers waited.
    candidate: Figure,
}

impl Beside {
    fn new(name: &'static str, says: &'static str, body: &str) -> Self {
        Self { name, says, body: body.to_owned(), p50: Pair::default(), p99: Pair::default(), candidate: Figure::default() }
    }

    fn round(&mut self, gateway: &Gateway) -> u64 {
        let quiet = self.name.split('-').next().unwrap_or_default();
        let (mut without, mut with) = (Callers::default(), Callers::default());
        for turn in 0..CALLS {
            let rolled = || {
                let seen = call(gateway, self.name, &self.body);
                if self.name.ends_with("-shadow") {
                    settle(gateway, self.name);
                }
                seen
            };
            let (one, other) = both(turn, || call(gateway, quiet, &self.body), rolled);
            without.add(one);
            with.add(other);
        }
        if !with.candidate.is_empty() {
            self.candidate.add(Figure::from(with.candidate).median());
        }
        let (one, other) = (Figure::from(without.stable), Figure::from(with.stable));
        self.p50.add(one.median(), other.median());
        self.p99.add(one.quantile(0.99), other.quantile(0.99));
        without.lost + with.lost
    }
}

/// Models that are asked in phases, the second of each beside the first.
const PHASES: [[&str; 2]; 5] = [
    ["single", "single-again"],
    ["single", "single-split"],
    ["plain", "plain-again"],
    ["plain", "plain-split"],
    ["plain", "halved"],
];

fn main() {
    let folder = Folder::default();
    let tabular = std::fs::read(repository().join("models/breast-cancer/1/model.onnx")).expect("the sample model is there");
    for model in ["plain", "plain-again", "plain-split", "halved", "plain-shadow", "single", "single-again", "single-split"] {
        (1..=2).for_each(|version| folder.publish(model, version, &tabular));
    }
    let index = r#"{"index":7}"#;
    let wide = format!(r#"{{"x":[{}]}}"#, vec!["0.5"; WIDTH].join(","));
    let row = row();
    let mut beside = [
        Beside::new("plain-split", "a candidate that is as good, at 5 %", &row),
        Beside::new("plain-shadow", "a shadow of all requests that is as good", &row),
        Beside::new("table-canary", "a candidate that fails each time, at 5 %", index),
        Beside::new("table-shadow", "a shadow of all requests that fails each time", index),
        Beside::new("hung-canary", "a candidate that hangs, at 5 %", &wide),
        Beside::new("hung-shadow", "a shadow of all requests that hangs", &wide),
        Beside::new("mean-canary", "a candidate that has 3,000 steps in place of one, at 5 %", &wide),
        Beside::new("mean-shadow", "a shadow of all requests that has 3,000 steps in place of one", &wide),
    ];
    for model in ["table", "table-canary", "table-shadow"] {
        folder.publish(model, 1, &onnx::big(1));
        folder.publish(model, 2, &onnx::fails_on_some());
    }
    for model in ["mean", "mean-canary", "mean-shadow", "hung", "hung-canary", "hung-shadow"] {
        folder.publish(model, 1, &onnx::slow(WIDTH, 1));
        folder.publish(model, 2, &onnx::slow(WIDTH, STEPS));
    }
    let rollout = |name: &str, keys: &str| format!("  - {{ name: {name}, version: 1, rollout: {{ candidate: 2, {keys} }} }}\n");
    // Nothing ends these by itself: they are to be measured.
    let canary = "strategy: canary, steps: [ { weight: 5%, pause: true } ], analysis: [ { metric: error_rate, max: 100% } ]";
    let shadow = "strategy: shadow, shadow: { share: 100% }";
    let mut models = [
        ["plain", "plain-again", "table", "mean"].map(|name| format!("  - {{ name: {name}, version: 1 }}\n")).to_vec(),
        ["single", "single-again"]
            .map(|name| format!("  - {{ name: {name}, version: 1, batching: {{ max_rows: 1 }} }}\n"))
            .to_vec(),
        vec![
            rollout("single-split", &format!("{canary} }}, batching: {{ max_rows: 1")),
            rollout("plain-split", canary),
            rollout("halved", &canary.replace("5%", "50%")),
            rollout("plain-shadow", shadow),
            rollout("table-canary", canary),
            rollout("table-shadow", shadow),
            format!("  - {{ name: hung, version: 1, {OWN} }} }}\n"),
            rollout("hung-canary", &format!("{canary}, fallback_after: 2.5% }}, {OWN}")),
            rollout("hung-shadow", &format!("{shadow} }}, {OWN}")),
            rollout("mean-canary", canary),
            rollout("mean-shadow", shadow),
        ],
    ]
    .concat();
    let mut pairs: [Pair; PHASES.len()] = Default::default();
    let mut shadowed = Pair::default();
    let (mut errors, mut lost, mut compared, mut dropped) = (0, 0, 0, 0);
    let before = ticks();
    for _ in 0..ROUNDS {
        // Anew in each round, in an order by chance: two copies of one model differ by some percent for as long as they live, and which is
        // better off goes with which was there first.
        fastrand::shuffle(&mut models);
        let gateway = Gateway::start(&folder, &format!("models:\n{}", models.concat()));
        let view = |model: &str| gateway.client().get(&format!("/models/{model}/rollout")).expect("an answer").json();
        let runs = || {
            let share = |model: &str, share: &str| view(model)["share"] == share;
            let mirrored = |model: &str| view(model)["mirrored"] == "100%";
            share("halved", "50%")
                && ["plain-split", "single-split", "table-canary", "mean-canary", "hung-canary"]
                    .iter()
                    .all(|model| share(model, "5%"))
                && ["plain-shadow", "table-shadow", "mean-shadow", "hung-shadow"].iter().all(|model| mirrored(model))
        };
        wait_for("the rollouts run", || runs().then_some(()));
        let post = |model: &str| Asked::post(format!("http://{}/models/{model}/predict", gateway.http()), &row);
        for (pair, [one, other]) in pairs.iter_mut().zip(PHASES) {
            let path = |model| format!("wrk.format(nil, '/models/{model}/predict')");
            let script = format!(
                "function prepare() paths = {{ {}, {} }} end\nfunction make(phase) return paths[phase] end\n",
                path(one),
                path(other)
            );
            let ([without, with], wrong) = in_phases(&post(one), &script, CONNECTIONS, SECONDS, folder.path());
            errors += wrong;
            pair.add(without, with);
        }
        let loads = in_turn(&["plain", "plain-shadow"].map(post), CONNECTIONS, TURNS, folder.path());
        errors += loads.iter().map(|load| load.errors).sum::<u64>();
        shadowed.add(loads[0].rate, loads[1].rate);
        settle(&gateway, "plain-shadow");
        let hung = [("hung-canary@2", "/models/hung-canary@2/predict"), ("shadow", "/models/hung-shadow/predict")]
            .map(|(thread, path)| Hung::new(&gateway, thread, path, &wide));
        lost += beside.iter_mut().map(|beside| beside.round(&gateway)).sum::<u64>();
        assert!(runs(), "a rollout ended while it was measured");
        assert!(view("hung-shadow")["numbers"]["shadow"]["compared"] == 0, "the shadow that hangs has answered");
        drop(hung);
        let shadow = &view("plain-shadow")["numbers"]["shadow"];
        compared += shadow["compared"].as_u64().unwrap_or_default();
        dropped += shadow["dropped"].as_u64().unwrap_or_default();
    }
    let after = ticks();
    let stolen = (after.1 - before.1) / (after.0 - before.0);
    assert!(errors == 0 && lost == 0, "{errors} errors and {lost} lost requests: the figures are of something else");
    let (back, answers, lost) = rollbacks(&tabular);
    assert!(lost == 0, "{lost} of {answers} requests were lost in rollbacks");
    let names = [
        "another copy of the model, a run for each request, answers/s",
        "split at 5 %, a run for each request, answers/s",
        "another copy of the model, with batches, answers/s",
        "split at 5 %, with batches, which the candidate's requests leave, answers/s",
        "split at 50 %, where each version has half as many requests to batch, answers/s",
    ];
    let line = |name: &str, pair: &Pair| [vec![name.into()], pair.show(), vec![format!("{} %", pair.ratio.mean(1))]].concat();
    let shadow = line("shadow of all requests, answers/s", &shadowed);
    let rates: Vec<_> = names.iter().zip(&pairs).map(|(name, pair)| line(name, pair)).chain([shadow]).collect();
    let line = |name: &str, pair: &Pair| [vec![name.into()], pair.show()].concat();
    let its_p50 = |beside: &Beside| {
        let candidate = if beside.candidate.is_empty() { "-".into() } else { beside.candidate.show(0) };
        [line(&format!("{}: p50", beside.says), &beside.p50), vec![candidate]].concat()
    };
    let its_p99 = |beside: &Beside| [line("the same: p99", &beside.p99), vec![String::new()]].concat();
    let seen: Vec<_> = beside.iter().flat_map(|beside| [its_p50(beside), its_p99(beside)]).collect();
    let page = format!(
        "# What a rollout costs\n\n{}. Load generators on the same machine, {CONNECTIONS} connections, {ROUNDS} rounds with new gateways. One wrk asks the model without a rollout for 50 ms and the one with it for the next 50 ms, over \
         the same connections, {SECONDS} s in each round; a shadow and the model without one have {TURNS} turns of a tenth of a second. Medians with the quartiles, those of the ratios too, which are taken within \
         a round; means of the ratios with their standard errors. The machine is one that others have a part of: they took {:.1} % of its time. 30 numbers as JSON, gradient boosting, wrk:\n\n{}\n\
         Errors: 0. Copies compared: {}, dropped because there was no room: {}.\n\n\
         ## What callers see\n\n{CALLERS} callers that wait {} ms between two requests, in turns of {} ms. Latencies in microseconds of those that the split gave to stable, \
         beside the same model without a rollout; the last column has the median of those that it gave to the candidate. No request was lost.\n\n{}\n\
         ## Rollbacks\n\n{ROLLBACKS} rollbacks by hand of a candidate that has half of the requests, four connections asking all the time, the state in SQLite: \
         the last request that the candidate answered was sent {} ms after the decision (median, smallest and largest; a decision's time has whole milliseconds). \
         {answers} requests, none of them lost.\n",
        machine(),
        100.0 * stolen,
        table(&["figure", "without a rollout", "with one", "ratio", "mean of the ratios"], &rates),
        compared,
        dropped,
        PAUSE.as_millis(),
        TURN.as_millis(),
        table(&["rollout", "without", "with", "ratio", "the candidate's callers, p50"], &seen),
        back.show(1),
    );
    publish("rollouts", &page);
}
