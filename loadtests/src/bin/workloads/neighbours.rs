//! Two models, one of which is swapped all the time: what the callers of the other one notice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluicegate_loadtests::open::{Offer, offer};
use sluicegate_loadtests::threads::{Spent, Threads};
use sluicegate_loadtests::{Figure, Load, table, wrk};
use sluicegate_testkit::client::Request;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::process::{Gateway, repository};

use super::Section;

const ROUNDS: usize = 7;
const SECONDS: u64 = 4;
const CALLED: &str = "breast-cancer";
const PATH: &str = "/models/breast-cancer/predict";
const SWAPPED: &str = "fraud";
/// The thread that publishes, waits and removes. It is not the gateway's, and takes of the same cores.
const SWAPPER: &str = "(publisher)";
/// Callers in a closed loop: on two cores they leave nothing for the swaps to take.
const BUSY: usize = 4;
/// Requests a second over so many connections: about a tenth of what the machine could answer.
const CALM: Offer = Offer { rate: 1000.0, time: Duration::from_secs(SECONDS), connections: 4 };

/// Figures of one kind of load, without swaps and with.
#[derive(Default)]
struct Pair {
    p50: [Figure; 2],
    p99: [Figure; 2],
    p50_ratio: Figure,
    p99_ratio: Figure,
}

impl Pair {
    fn add(&mut self, quiet: (f64, f64), swapping: (f64, f64)) {
        for (place, (p50, p99)) in [quiet, swapping].into_iter().enumerate() {
            self.p50[place].add(p50);
            self.p99[place].add(p99);
        }
        self.p50_ratio.add(swapping.0 / quiet.0);
        self.p99_ratio.add(swapping.1 / quiet.1);
    }
}

/// What was seen in one state of the gateway.
struct Seen {
    busy: Load,
    calm: (f64, f64),
    failed: u64,
    spent: BTreeMap<String, Spent>,
}

pub(super) fn run() -> Section {
    let samples = repository().join("models");
    let read = |file: &str| std::fs::read(samples.join(file)).expect("a file of a sample model");
    let folder = Folder::default();
    let file = |name: &'static str| (name, read(&format!("{CALLED}/1/{name}")));
    let files = [file("model.onnx"), file("model.yaml")];
    folder.write(CALLED, 1, &files.each_ref().map(|(name, bytes)| (*name, bytes.as_slice())));
    let swapped = read(&format!("{SWAPPED}/1/model.onnx"));
    folder.publish(SWAPPED, 1, &swapped);
    let gateway = Gateway::start(
        &folder,
        &format!("registries: {{ local: {{ type: directory, path: '{}', poll: 10ms }} }}", folder.models().display()),
    );
    let detail = gateway.client().get(&format!("/models/{CALLED}")).expect("an answer").json();
    let body = detail["example"].to_string();
    let answer = gateway.client().request(&request(&body)).expect("an answer");
    assert_eq!(answer.status, 200, "the example is answered: {}", answer.text());

    let (mut busy, mut calm) = (Pair::default(), Pair::default());
    let (mut version, mut failed) = (1, 0);
    let mut spent: [BTreeMap<String, Spent>; 2] = Default::default();
    look(&gateway, &folder, &body);
    for _ in 0..ROUNDS {
        let quiet = look(&gateway, &folder, &body);
        let stop = AtomicBool::new(false);
        let swapping = std::thread::scope(|scope| {
            let swapper = std::thread::Builder::new().name(SWAPPER.into());
            let started = swapper.spawn_scoped(scope, || swap(&gateway, &folder, &swapped, &mut version, &stop));
            started.expect("the machine gives a thread");
            let seen = look(&gateway, &folder, &body);
            stop.store(true, Ordering::Relaxed);
            seen
        });
        busy.add((quiet.busy.p50, quiet.busy.p99), (swapping.busy.p50, swapping.busy.p99));
        calm.add(quiet.calm, swapping.calm);
        failed += quiet.failed + swapping.failed;
        for (sum, seen) in spent.iter_mut().zip([quiet.spent, swapping.spent]) {
            for (name, one) in seen {
                let sum = sum.entry(family(&name)).or_default();
                sum.ran += one.ran;
                sum.waited += one.waited;
                sum.turns += one.turns;
                sum.nice = sum.nice.max(one.nice);
            }
        }
    }
    let swaps = version - 1;
    let row = |name: &str, [quiet, swapping]: &[Figure; 2], ratio: &Figure| {
        vec![name.into(), quiet.show(0), swapping.show(0), ratio.show(2)]
    };
    let time = ROUNDS as f64 * 2.0 * SECONDS as f64;
    let text = format!(
        "`{CALLED}` is called, `{SWAPPED}` gets a new version as soon as the last one is live and the one before it is freed: {swaps} swaps, \
         {:.0} a second. {ROUNDS} rounds of {SECONDS} s for each cell. Busy: wrk with {BUSY} connections without a pause. Calm: {:.0} requests a \
         second over {} connections. Failed: {failed}.\n\n{}\n\
         Where the time goes: seconds that the gateway's threads, and the one that publishes, ran, and seconds that they were ready and waited for a core, of \
         {time:.0} s without swaps and as many with. Callers and swaps share the cores: what the loading threads run, the callers and \
         the serving threads cannot.\n\n{}",
        swaps as f64 / time,
        CALM.rate,
        CALM.connections,
        table(
            &["us", "quiet", "swapping", "times"],
            &[
                row("calm, p50", &calm.p50, &calm.p50_ratio),
                row("calm, p99", &calm.p99, &calm.p99_ratio),
                row("busy, p50", &busy.p50, &busy.p50_ratio),
                row("busy, p99", &busy.p99, &busy.p99_ratio),
            ]
        ),
        where_time_goes(&spent),
    );
    let figures = vec![
        ["p99 while the neighbour is swapped, times the quiet one, calm".into(), "at most 1.2".into(), calm.p99_ratio.show(2)],
        ["the same, busy".into(), "at most 1.2".into(), busy.p99_ratio.show(2)],
    ];
    Section { title: "Neighbours", text, figures }
}

fn request(body: &str) -> Request {
    Request::post(PATH, body).header("content-type", "application/json")
}

/// Both kinds of load, one after the other.
fn look(gateway: &Gateway, folder: &Folder, body: &str) -> Seen {
    let threads = || [gateway.id(), std::process::id()].map(Threads::of);
    let before = threads();
    let busy = wrk(&format!("http://{}{PATH}", gateway.http()), body, BUSY, SECONDS, folder.path());
    let heard = offer(gateway.http(), &request(body), CALM);
    let after = threads();
    let mut spent = after[0].since(&before[0]);
    spent.extend(after[1].since(&before[1]).remove_entry(SWAPPER));
    let others = heard.by_status.iter().filter(|(status, _)| **status != 200).map(|(_, figure)| figure.len() as u64);
    let failed = busy.errors + others.sum::<u64>();
    Seen { busy, calm: (heard.quantile(200, 0.5), heard.quantile(200, 0.99)), failed, spent }
}

/// Publishes version after version until it is told to stop.
fn swap(gateway: &Gateway, folder: &Folder, model: &[u8], version: &mut u64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        *version += 1;
        folder.publish(SWAPPED, *version, model);
        for (version, state) in [(*version, "live"), (*version - 1, "gone")] {
            // Asking takes of the cores too.
            while gateway.version(SWAPPED, version).0 != state {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        folder.remove(SWAPPED, *version - 1);
    }
}

/// The threads of one model are one line, whatever its version.
fn family(thread: &str) -> String {
    thread.split_once('@').map_or(thread, |(model, _)| model).to_owned()
}

fn where_time_goes([quiet, swapping]: &[BTreeMap<String, Spent>; 2]) -> String {
    let mut names: Vec<&String> = quiet.keys().chain(swapping.keys()).collect();
    names.sort();
    names.dedup();
    let of = |spent: &BTreeMap<String, Spent>, name: &String| spent.get(name).copied().unwrap_or_default();
    let line = |name: &String| {
        let (quiet, swapping) = (of(quiet, name), of(swapping, name));
        let seconds = [quiet.ran, swapping.ran, quiet.waited, swapping.waited].map(|seconds| format!("{seconds:.2}"));
        [&[name.clone(), quiet.nice.max(swapping.nice).to_string()], &seconds[..]].concat()
    };
    let shown = |name: &&String| of(quiet, name).ran + of(swapping, name).ran >= 0.01;
    let rows: Vec<Vec<String>> = names.into_iter().filter(shown).map(line).collect();
    table(&["threads", "nice", "ran, quiet", "ran, swapping", "waited, quiet", "waited, swapping"], &rows)
}
