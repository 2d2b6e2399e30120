//! What batching is worth: 64 callers of one row on a model for which 32 rows cost little more than one.

use std::path::Path;
use std::time::Instant;

use sluicegate_core::{Shape, Tensor};
use sluicegate_engine::{Engines, ModelFile, Options, Search};
use sluicegate_loadtests::{Figure, both, table, wrk};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, repository};

use super::{Section, config, row};

const ROUNDS: usize = 7;
const SECONDS: u64 = 3;
/// One caller alone is where a small difference counts: more and shorter rounds.
const ROUNDS_ALONE: usize = 21;
const CALLERS: usize = 64;
const WIDTH: usize = 32;
const STEPS: usize = 1500;
/// Runs of each size for the engine's own cost.
const RUNS: usize = 200;

pub(super) fn run() -> Section {
    let model = onnx::slow(WIDTH, STEPS);
    let costs: Vec<Figure> = [1, 32, 64].iter().map(|&rows| cost(&model, rows)).collect();
    let start = |batching: &str| {
        let folder = Folder::default();
        folder.publish("m", 1, &model);
        let models = format!("models: [ {{ name: m, batching: {{ {batching} }} }} ]");
        let gateway = Gateway::start(&folder, &config(&folder.models(), &models));
        (folder, gateway)
    };
    let (folder, batched) = start("");
    let (_single_folder, single) = start("max_rows: 1");
    let body = row(WIDTH);
    let load = |gateway: &Gateway, connections, seconds| {
        wrk(&format!("http://{}/models/m/predict", gateway.http()), &body, connections, seconds, folder.path())
    };
    let mut figures: [Figure; 8] = Default::default();
    let [gain, alone, rate, single_rate, p99, single_p99, one, single_one] = &mut figures;
    let (mut errors, mut rows_per_run) = (0, Figure::default());
    for round in 0..ROUNDS_ALONE {
        let (a, b) = both(round, || load(&batched, 1, 1), || load(&single, 1, 1));
        alone.add(a.p50 / b.p50);
        one.add(a.p50);
        single_one.add(b.p50);
        errors += a.errors + b.errors;
    }
    for round in 0..ROUNDS {
        let before = runs(&batched);
        let (a, b) = both(round, || load(&batched, CALLERS, SECONDS), || load(&single, CALLERS, SECONDS));
        let after = runs(&batched);
        rows_per_run.add((after.1 - before.1) / (after.0 - before.0).max(1.0));
        gain.add(a.rate / b.rate);
        rate.add(a.rate);
        single_rate.add(b.rate);
        p99.add(a.p99);
        single_p99.add(b.p99);
        errors += a.errors + b.errors;
    }
    let ratio = costs[1].median() / costs[0].median();
    let text = format!(
        "{STEPS} products of {WIDTH} by {WIDTH}; the engine's own call takes {} us for one row, {} us for 32 and {} us for 64, medians of \
         {RUNS}. wrk, one row as typed JSON, {ROUNDS} rounds of {SECONDS} s, and \
         {ROUNDS_ALONE} of 1 s on one connection. With the default, a run had {} rows. Errors: {errors}.\n\n{}",
        costs[0].median().round(),
        costs[1].median().round(),
        costs[2].median().round(),
        rows_per_run.show(1),
        table(
            &["figure", "max_rows: 64", "max_rows: 1"],
            &[
                vec![format!("{CALLERS} connections, answers/s"), rate.show(0), single_rate.show(0)],
                vec![format!("{CALLERS} connections, p99, us"), p99.show(0), single_p99.show(0)],
                vec!["1 connection, p50, us".into(), one.show(0), single_one.show(0)],
            ]
        ),
    );
    let figures = vec![
        ["32 rows in the engine, times one row".into(), "at most 4".into(), format!("{ratio:.2}")],
        [format!("{CALLERS} callers, answers/s, times `max_rows: 1`"), "at least 3".into(), gain.show(2)],
        ["1 caller, p50, times `max_rows: 1`".into(), "0.95 to 1.05".into(), alone.show(3)],
    ];
    Section { title: "Batching", text, figures }
}

/// Runs of the engine, and rows in them.
fn runs(gateway: &Gateway) -> (f64, f64) {
    (gateway.metric("sluicegate_batch_rows_count", &[]), gateway.metric("sluicegate_batch_rows_sum", &[]))
}

/// The engine's own call in microseconds.
fn cost(model: &[u8], rows: usize) -> Figure {
    let search = Search { fetched: repository().join(".onnxruntime"), ..Search::default() };
    let engines = Engines::find(&search).expect("nothing was asked for");
    let file = ModelFile { path: Path::new("model.onnx"), bytes: model };
    let mut opened = engines.open(&file, &Options::default()).expect("the model loads");
    let input = Tensor::from_vec(Shape::new(&[rows, WIDTH]), vec![0f32; rows * WIDTH]).expect("as many elements");
    let mut run = || {
        let began = Instant::now();
        opened.instances[0].run(std::slice::from_ref(&input), &[0]).expect("the model runs");
        began.elapsed().as_secs_f64() * 1e6
    };
    (0..RUNS / 10).for_each(|_| _ = run());
    Figure::from((0..RUNS).map(|_| run()).collect::<Vec<f64>>())
}
