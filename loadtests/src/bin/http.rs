//! What the gateway adds: one tabular row by typed JSON, beside an empty handler and the bare engine call, in one run.

use std::time::Instant;

use sluicegate_core::{DType, Shape, Tensor};
use sluicegate_engine::{Engines, ModelFile, Options, Search};
use sluicegate_loadtests::{Figure, child, machine, publish, table, wrk};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::process::{Gateway, repository};

const ROUNDS: usize = 7;
const SECONDS: u64 = 3;
const MODEL: &str = "breast-cancer";

fn main() {
    let scratch = Folder::default();
    let models = repository().join("models");
    let config = format!("registries: {{ local: {{ type: directory, path: '{}' }} }}", models.display());
    let gateway = Gateway::start(&scratch, &config);
    let (_empty, empty) = child("empty");
    let example = gateway.client().get(&format!("/models/{MODEL}")).expect("an answer").json()["example"].to_string();
    let path = format!("/models/{MODEL}/predict");
    let ours = format!("http://{}{path}", gateway.http());
    let empty = format!("http://{empty}{path}");

    let mut figures: [Figure; 9] = Default::default();
    let [one_rate, one_p50, empty_one_p50, many, many_p50, many_p99, empty_many, empty_p99, wide] = &mut figures;
    let mut errors = 0;
    for _ in 0..ROUNDS {
        let load = |url: &str, connections| wrk(url, &example, connections, SECONDS, scratch.path());
        empty_one_p50.add(load(&empty, 1).p50);
        let one = load(&ours, 1);
        one_rate.add(one.rate);
        one_p50.add(one.p50);
        let bound = load(&empty, 16);
        empty_many.add(bound.rate);
        empty_p99.add(bound.p99);
        let sixteen = load(&ours, 16);
        many.add(sixteen.rate);
        many_p50.add(sixteen.p50);
        many_p99.add(sixteen.p99);
        let more = load(&ours, 64);
        wide.add(more.rate);
        errors += one.errors + sixteen.errors + more.errors;
    }
    let bare = bare(&models.join(MODEL).join("1/model.onnx"));
    let added = one_p50.median() - bare.median();
    let over = one_p50.median() - empty_one_p50.median() - bare.median();
    let page = format!(
        "# One tabular row over HTTP\n\n{}. wrk on the same machine, {ROUNDS} rounds of {SECONDS} s each, interleaved; medians with the \
         smallest and the largest. `{MODEL}`: 30 named numbers as JSON, gradient boosting, ONNX Runtime.\n\n{}\n\
         Errors: {errors}. Over the bare engine call, one request on one connection takes {added:.0} us more, sockets and load \
         generator included; over the empty handler and the engine call together, {over:.0} us. At 16 connections the gateway answers {:.0} % of \
         what the empty handler does.\n",
        machine(),
        table(
            &["figure", "gateway", "empty axum handler"],
            &[
                vec!["1 connection, p50, us".into(), one_p50.show(0), empty_one_p50.show(0)],
                vec!["1 connection, answers/s".into(), one_rate.show(0), String::new()],
                vec!["16 connections, answers/s".into(), many.show(0), empty_many.show(0)],
                vec!["16 connections, p50, us".into(), many_p50.show(0), String::new()],
                vec!["16 connections, p99, us".into(), many_p99.show(0), empty_p99.show(0)],
                vec!["64 connections, answers/s".into(), wide.show(0), String::new()],
                vec!["bare engine call in process, us".into(), bare.show(1), String::new()],
            ]
        ),
        100.0 * many.median() / empty_many.median(),
    );
    publish("http", &page);
}

/// The engine's own call for one row, in microseconds.
fn bare(model: &std::path::Path) -> Figure {
    let search = Search { fetched: repository().join(".onnxruntime"), ..Search::default() };
    let engines = Engines::find(&search).expect("nothing was asked for");
    let bytes = std::fs::read(model).expect("the sample model is there");
    let mut opened =
        engines.open(&ModelFile { path: model, bytes: &bytes }, &Options::default()).expect("the sample model loads");
    let row = Tensor::from_vec(Shape::new(&[1, 30]), vec![1f32; 30]).expect("30 elements");
    debug_assert_eq!(row.dtype(), DType::Fp32);
    let wanted: Vec<usize> = (0..opened.outputs.len()).collect();
    let mut figure = Figure::default();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..10_000 {
            opened.instances[0].run(std::slice::from_ref(&row), &wanted).expect("the sample model runs");
        }
        figure.add(began.elapsed().as_secs_f64() * 1e6 / 10_000.0);
    }
    figure
}
