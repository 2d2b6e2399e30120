//! Three times as much as a model can do: those who are answered are answered in time, the others are refused at once.

use std::collections::BTreeMap;
use std::time::Duration;

use sluicegate_loadtests::open::{Offer, offer};
use sluicegate_loadtests::{Figure, wrk};
use sluicegate_testkit::client::Request;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::Gateway;

use super::{Section, config, row};

const ROUNDS: usize = 5;
const SECONDS: u64 = 4;
const WIDTH: usize = 128;
const STEPS: usize = 4000;
const TIMEOUT: Duration = Duration::from_millis(500);
const BATCHING: &str = "max_rows: 4, queue_rows: 64, queue_timeout: 500ms";
/// Enough that some always wait for their turn: the queue, a run, and those that are being refused.
const CONNECTIONS: usize = 192;
/// Callers that keep the model busy and its queue from overflowing.
const PEAK: usize = 32;

pub(super) fn run() -> Section {
    let folder = Folder::default();
    folder.publish("m", 1, &onnx::slow(WIDTH, STEPS));
    let models = format!("models: [ {{ name: m, batching: {{ {BATCHING} }} }} ]");
    let gateway = Gateway::start(&folder, &config(&folder.models(), &models));
    let url = format!("http://{}/models/m/predict", gateway.http());
    let body = row(WIDTH);
    let request = Request::post("/models/m/predict", body.clone()).header("content-type", "application/json");
    let mebibytes = || gateway.resident() as f64 / f64::from(1 << 20);
    wrk(&url, &body, PEAK, 1, folder.path());

    let mut figures: [Figure; 8] = Default::default();
    let [peak, kept, answered, p50, p99, refused, refused_p99, late] = &mut figures;
    let (mut others, mut errors, mut resident) = (BTreeMap::new(), 0, Vec::new());
    for _ in 0..ROUNDS {
        let most = wrk(&url, &body, PEAK, SECONDS, folder.path());
        errors += most.errors;
        let offer_now = Offer { rate: 3.0 * most.rate, time: Duration::from_secs(SECONDS), connections: CONNECTIONS };
        let heard = offer(gateway.http(), &request, offer_now);
        peak.add(most.rate);
        answered.add(heard.rate(200));
        kept.add(heard.rate(200) / most.rate);
        p50.add(heard.quantile(200, 0.5) / 1e3);
        p99.add(heard.quantile(200, 0.99) / 1e3);
        refused.add(heard.rate(429));
        refused_p99.add(heard.quantile(429, 0.99) / 1e3);
        late.add(heard.late.quantile(0.99) / 1e3);
        for (status, figure) in heard.by_status.iter().filter(|(status, _)| !matches!(status, 200 | 429)) {
            *others.entry(*status).or_insert(0) += figure.len();
        }
        resident.push(mebibytes());
    }
    let (first, last) = (resident.first().copied().unwrap_or_default(), resident.last().copied().unwrap_or_default());
    let text = format!(
        "{STEPS} products of {WIDTH} by {WIDTH}, one instance, `{BATCHING}`: some milliseconds a run, so that the model's own thread has a \
         core and the callers leave it to it. The peak is what {PEAK} connections of wrk get in a closed loop, {} answers/s; three times \
         that comes at a constant rate over {CONNECTIONS} connections, latencies counted from when a request was due. {ROUNDS} rounds of \
         {SECONDS} s each. Answered: {} a second, p50 {} ms. Refused with 429: {} a second. Of another status: {}; errors at \
         the peak: {errors}. Requests that were sent late because every connection waited, p99: {} ms.",
        peak.show(0),
        answered.show(0),
        p50.show(0),
        refused.show(0),
        if others.is_empty() { "none".to_owned() } else { format!("{others:?}") },
        late.show(1),
    );
    let figures = vec![
        ["answers/s under 3 times the load, times the peak".into(), "at least 0.9".into(), kept.show(2)],
        ["p99 of those answered, ms".into(), format!("at most {}", TIMEOUT.as_millis()), p99.show(0)],
        ["p99 of those refused, ms".into(), "at once".into(), refused_p99.show(1)],
        [
            "resident memory after the first and the last round, MiB".into(),
            "flat".into(),
            format!("{first:.1}, {last:.1} ({:+.1} %)", 100.0 * (last - first) / first),
        ],
    ];
    Section { title: "Overload", text, figures }
}
