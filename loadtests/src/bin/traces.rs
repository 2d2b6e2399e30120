//! What traces cost: one tabular row over HTTP by a gateway that tells none, one that tells 1 % and one that tells all, in one run.

use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use prost::Message;
use sluicegate_loadtests::{Figure, in_turn, machine, publish, table};
use sluicegate_proto::otlp::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::process::{Gateway, repository};

const ROUNDS: usize = 25;
/// Turns of a tenth of a second that each has in a round.
const TURNS: usize = 15;
const CONNECTIONS: usize = 16;
/// Messages that are kept in a round, in which some seven hundred come.
const MESSAGES: usize = 10_000;
const MODEL: &str = "breast-cancer";

/// What is measured: a name, and the part of requests that is traced. The first two are alike, to show what chance does.
const CASES: [(&str, Option<&str>); 4] =
    [("no receiver named", None), ("the same once more", None), ("1 %", Some("0.01")), ("100 %", Some("1"))];

fn main() {
    let (keep, taken) = sync_channel(MESSAGES);
    let endpoint = format!("http://{}", receive(keep));
    let mut received = 0;
    let models = repository().join("models");
    let config = format!("registries: {{ local: {{ type: directory, path: '{}' }} }}", models.display());
    let mut rates: [Figure; CASES.len()] = Default::default();
    let mut ratios: [Figure; CASES.len()] = Default::default();
    let mut told = [(0.0, 0.0); CASES.len()];
    let mut errors = 0;
    for _ in 0..ROUNDS {
        // Anew in each round: two processes of the same program differ by some percent for as long as they live. In an order by chance too:
        // the one that is started first answers some percent more than those after it, whatever they do.
        let mut order: Vec<usize> = (0..CASES.len()).collect();
        fastrand::shuffle(&mut order);
        let mut gateways: Vec<_> = order.iter().map(|&case| (case, start(CASES[case].1, &endpoint, &config))).collect();
        gateways.sort_by_key(|(case, _)| *case);
        let gateways: Vec<_> = gateways.into_iter().map(|(_, started)| started).collect();
        let about = gateways[0].0.client().get(&format!("/models/{MODEL}")).expect("an answer").json();
        let mut measure = |mut cases: Vec<usize>| {
            fastrand::shuffle(&mut cases);
            let url = |&case: &usize| format!("http://{}/models/{MODEL}/predict", gateways[case].0.http());
            let urls: Vec<String> = cases.iter().map(url).collect();
            let loads = in_turn(&urls, &about["example"].to_string(), CONNECTIONS, TURNS, gateways[0].1.path());
            // What runs without a receiver, which is the first, or the first two.
            let quiet: Vec<f64> =
                cases.iter().zip(&loads).filter(|(case, _)| CASES[**case].1.is_none()).map(|(_, load)| load.rate).collect();
            let quiet = quiet.iter().sum::<f64>() / quiet.len() as f64;
            for (&case, load) in cases.iter().zip(&loads) {
                rates[case].add(load.rate);
                ratios[case].add(100.0 * load.rate / quiet);
                errors += load.errors;
            }
        };
        measure(vec![0, 1, 2]);
        // Apart, because what one leaves to be sent runs on into the next one's turn.
        measure(vec![0, 3]);
        for (told, (gateway, _)) in told.iter_mut().zip(&gateways) {
            let spans = |outcome| gateway.metric("sluicegate_trace_spans_total", &[("outcome", outcome)]);
            *told = (told.0 + spans("sent"), told.1 + spans("dropped"));
        }
        // Between the rounds: a receiver is elsewhere, and what it does with spans is not for the gateway to pay.
        received += taken.try_iter().map(spans).sum::<usize>();
    }
    let row = |case: usize| {
        let spans = format!("{:.0} / {:.0}", told[case].0, told[case].1);
        vec![CASES[case].0.to_owned(), rates[case].quartiles(0), ratios[case].quartiles(1), spans]
    };
    let page = format!(
        "# What traces cost\n\n{}. wrk on the same machine, {CONNECTIONS} connections, {ROUNDS} rounds with new gateways, in each {TURNS} turns of a tenth of a second for each; medians \
         with the quartiles, those of the ratios too, which are to the mean of those of the same round that name no receiver. `{MODEL}`: 30 named numbers as JSON, \
         gradient boosting. The receiver of traces is in the process of the measurement, and shares the machine too; it keeps what it gets, and reads it between the rounds.\n\n{}\n\
         Errors: {errors}. Spans received: {received}. Dropped are spans for which the queue of 2,048 had no room: a thread that gets no processor sends none.\n",
        machine(),
        table(
            &["traced", "answers/s", "% of those without", "spans sent / dropped"],
            &(0..CASES.len()).map(row).collect::<Vec<_>>()
        ),
    );
    publish("traces", &page);
}

fn spans(body: Bytes) -> usize {
    let request = ExportTraceServiceRequest::decode(body).expect("a request of OTLP");
    request.resource_spans.iter().flat_map(|spans| &spans.scope_spans).map(|spans| spans.spans.len()).sum()
}

fn start(ratio: Option<&str>, endpoint: &str, config: &str) -> (Gateway, Folder) {
    let scratch = Folder::default();
    let sampler = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", ratio.unwrap_or_default()),
    ];
    let gateway = Gateway::start_with(&scratch, config, if ratio.is_some() { &sampler } else { &[] });
    (gateway, scratch)
}

/// A receiver on a thread of its own, which keeps what it gets.
fn receive(taken: SyncSender<Bytes>) -> SocketAddr {
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let take = move |body: Bytes| async move { taken.try_send(body).expect("there is room") };
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            tell.send(listener.local_addr().expect("an address")).expect("the measurement waits for it");
            axum::serve(listener, Router::new().route("/v1/traces", post(take))).await.expect("it serves");
        });
    });
    told.recv().expect("a receiver")
}
