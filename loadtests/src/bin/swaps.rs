//! 1,000 swaps under load: what they cost the callers, whether any lost a request, and whether memory stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluicegate_loadtests::{Figure, machine, publish, table};
use sluicegate_testkit::client::Request;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::Gateway;

const SWAPS: u64 = 1000;
const CALLERS: usize = 4;
const QUIET: Duration = Duration::from_secs(10);

/// What one caller saw.
#[derive(Default)]
struct Seen {
    micros: Figure,
    failed: u64,
    mixed: u64,
}

fn main() {
    let folder = Folder::default();
    folder.publish("m", 1, &onnx::add_constant(1.0, 8));
    let config = format!(
        "registries: {{ local: {{ type: directory, path: '{}', poll: 10ms, settle: 10ms }} }}",
        folder.models().display()
    );
    let gateway = Gateway::start(&folder, &config);
    let before = quiet(&gateway);
    let mut resident = Vec::new();
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let callers = call(&gateway, &stop, &done);
    for version in 2..=SWAPS + 1 {
        folder.publish("m", version, &onnx::add_constant(version as f32, 8));
        gateway.wait_for_state("m", version, "live");
        gateway.wait_for_state("m", version - 1, "gone");
        folder.remove("m", version - 1);
        if version.is_multiple_of(100) {
            resident.push(gateway.resident() as f64 / f64::from(1 << 20));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let during = gather(callers);
    let after = quiet(&gateway);
    let row = |name: &str, seen: &Seen, at: &str| {
        let q = |q| format!("{:.0}", seen.micros.quantile(q));
        vec![
            name.into(),
            seen.micros.len().to_string(),
            q(0.5),
            q(0.99),
            q(0.999),
            seen.failed.to_string(),
            seen.mixed.to_string(),
            at.into(),
        ]
    };
    let (first, last) = (resident.first().copied().unwrap_or_default(), resident.last().copied().unwrap_or_default());
    let page = format!(
        "# {SWAPS} swaps under load\n\n{}. {CALLERS} callers on one connection each, one row of 8 numbers by typed JSON, without a pause. \
         Each swap publishes a new version, waits until it answers and the old one is freed.\n\n{}\n\
         Resident memory after the first hundred swaps: {first:.1} MiB, after the last: {last:.1} MiB ({:+.1} %).\n\
         p99 during swaps is {:.2} times that before.\n",
        machine(),
        table(
            &["when", "answers", "p50, us", "p99, us", "p99.9, us", "failed", "of two versions", "swaps"],
            &[row("before", &before, "0"), row("during", &during, &SWAPS.to_string()), row("after", &after, "0")]
        ),
        100.0 * (last - first) / first,
        during.micros.quantile(0.99) / before.micros.quantile(0.99),
    );
    publish("swaps", &page);
    assert_eq!((during.failed, during.mixed), (0, 0), "a swap must not lose or mix a request");
}

fn quiet(gateway: &Gateway) -> Seen {
    let stop = Arc::new(AtomicBool::new(false));
    let callers = call(gateway, &stop, &Arc::new(AtomicU64::new(0)));
    std::thread::sleep(QUIET);
    stop.store(true, Ordering::Relaxed);
    gather(callers)
}

fn call(gateway: &Gateway, stop: &Arc<AtomicBool>, done: &Arc<AtomicU64>) -> Vec<std::thread::JoinHandle<Seen>> {
    let caller = |_| {
        let (mut client, stop, done) = (gateway.client(), stop.clone(), done.clone());
        std::thread::spawn(move || {
            let request =
                Request::post("/models/m/predict", r#"{"x":[0,0,0,0,0,0,0,0]}"#).header("content-type", "application/json");
            let (mut seen, mut micros) = (Seen::default(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = client.request(&request).expect("an answer");
                micros.push(began.elapsed().as_secs_f64() * 1e6);
                done.fetch_add(1, Ordering::Relaxed);
                let version = answer.header("x-model-version").and_then(|version| version.parse::<f64>().ok());
                seen.failed += u64::from(answer.status != 200);
                seen.mixed += u64::from(answer.json()["y"][0].as_f64() != version);
            }
            seen.micros = Figure::from(micros);
            seen
        })
    };
    (0..CALLERS).map(caller).collect()
}

fn gather(callers: Vec<std::thread::JoinHandle<Seen>>) -> Seen {
    let mut all = Seen::default();
    let mut micros = Vec::new();
    for caller in callers {
        let seen = caller.join().expect("a caller does not panic");
        micros.extend(seen.micros.values());
        all.failed += seen.failed;
        all.mixed += seen.mixed;
    }
    all.micros = Figure::from(micros);
    all
}
