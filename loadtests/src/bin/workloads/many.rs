//! A thousand models loaded and one of them called, beside a gateway that has that one alone.

use std::time::Instant;

use sluicegate_loadtests::{Figure, both, table, wrk};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::Gateway;

use super::{Section, config, row};

const MODELS: usize = 1000;
const ROUNDS: usize = 21;
const SECONDS: u64 = 1;
const WIDTH: usize = 8;

pub(super) fn run() -> Section {
    let start = |models: usize| {
        let folder = Folder::default();
        (0..models).for_each(|number| folder.publish(&format!("m{number}"), 1, &onnx::add_constant(number as f32, WIDTH)));
        let began = Instant::now();
        let gateway = Gateway::begin(&folder, &config(&folder.models(), ""));
        // Longer than a test may take to start.
        while !gateway.is_ready() {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        (folder, gateway, began.elapsed().as_secs_f64())
    };
    let (folder, many, many_start) = start(MODELS);
    let (_one_folder, one, one_start) = start(1);
    let body = row(WIDTH);
    let load = |gateway: &Gateway, model: usize, connections| {
        let url = format!("http://{}/models/m{model}/predict", gateway.http());
        wrk(&url, &body, connections, SECONDS, folder.path())
    };
    let mut figures: [Figure; 7] = Default::default();
    let [ratio, many_p50, one_p50, many_p99, one_p99, many_rate, one_rate] = &mut figures;
    let mut errors = 0;
    for round in 0..ROUNDS {
        let (a, b) = both(round, || load(&many, MODELS / 2, 1), || load(&one, 0, 1));
        ratio.add(a.p50 / b.p50);
        many_p50.add(a.p50);
        one_p50.add(b.p50);
        many_p99.add(a.p99);
        one_p99.add(b.p99);
        let (c, d) = both(round, || load(&many, MODELS / 2, 16), || load(&one, 0, 16));
        many_rate.add(c.rate);
        one_rate.add(d.rate);
        errors += [a, b, c, d].iter().map(|load| load.errors).sum::<u64>();
    }
    let mebibytes = |gateway: &Gateway| format!("{:.0}", gateway.resident() as f64 / f64::from(1 << 20));
    let text = format!(
        "{MODELS} models that add a constant to {WIDTH} columns. wrk, one row as typed JSON, {ROUNDS} rounds of {SECONDS} s. Errors: \
         {errors}.\n\n{}",
        table(
            &["figure", &format!("{MODELS} models"), "1 model"],
            &[
                vec!["1 connection, p50, us".into(), many_p50.show(0), one_p50.show(0)],
                vec!["1 connection, p99, us".into(), many_p99.show(0), one_p99.show(0)],
                vec!["16 connections, answers/s".into(), many_rate.show(0), one_rate.show(0)],
                vec!["resident memory, MiB".into(), mebibytes(&many), mebibytes(&one)],
                vec!["from the start to ready, s".into(), format!("{many_start:.1}"), format!("{one_start:.1}")],
            ]
        ),
    );
    let figures = vec![[format!("p50 with {MODELS} models, times that with one"), "at most 1.05".into(), ratio.show(3)]];
    Section { title: "Many models", text, figures }
}
