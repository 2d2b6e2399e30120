//! Instances that share a session run at the same time, for long, on every sample model: each row gets its own answer.

use std::num::NonZeroUsize;
use std::path::Path;

use sluicegate_core::{DType, Shape, Tensor};
use sluicegate_engine::{Engines, ModelFile, Options, Search};

const THREADS: usize = 4;
const RUNS: usize = 1500;

/// Rows that differ from each other, of the inner sizes that a model takes.
fn rows(seed: usize, count: usize, inner: &[usize]) -> Tensor {
    let number = |i: usize| ((seed * 31 + i * 7) % 97) as f32 / 3.0;
    let shape: Shape = std::iter::once(count).chain(inner.iter().copied()).collect();
    let elements = shape.elements().expect("few");
    Tensor::from_vec(shape, (0..elements).map(number).collect()).expect("fits")
}

#[test]
fn runs_at_the_same_time_do_not_mix() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let engines = Engines::find(&Search { fetched: repository.join(".onnxruntime"), ..Search::default() }).expect("engines");
    let mut seen = 0;
    for path in ["fraud/2", "fraud/3", "breast-cancer/1", "digits/1", "diabetes/1"] {
        let file = repository.join("models").join(path).join("model.onnx");
        let bytes = std::fs::read(&file).expect("a sample model");
        let instances = NonZeroUsize::new(THREADS).expect("not zero");
        let options = Options { instances, threads: NonZeroUsize::new(2).expect("not zero"), ..Options::default() };
        let mut opened = engines.open(&ModelFile { path: &file, bytes: &bytes }, &options).expect("loads");
        let [input] = &opened.inputs[..] else { continue };
        let inner: Option<Vec<usize>> = input.dims.iter().skip(1).map(sluicegate_core::Dim::fixed).collect();
        let Some(inner) = inner.filter(|_| input.dtype == DType::Fp32) else { continue };
        seen += 1;
        let wanted: Vec<usize> = (0..opened.outputs.len()).collect();
        // What each request gives when nobody else runs.
        let requests: Vec<Tensor> = (0..40).map(|seed| rows(seed, seed % 9 + 1, &inner)).collect();
        let mut alone = |request: &Tensor| opened.instances[0].run(std::slice::from_ref(request), &wanted).expect("runs");
        let expected: Vec<Vec<Tensor>> = requests.iter().map(&mut alone).collect();
        // tract's trees take a thousand times as long.
        let runs = if engines.onnxruntime().is_some() { RUNS } else { RUNS / 50 };
        std::thread::scope(|scope| {
            for (thread, mut instance) in opened.instances.into_iter().enumerate() {
                let (requests, expected, wanted) = (&requests, &expected, &wanted);
                scope.spawn(move || {
                    for run in 0..runs {
                        let place = (run * (2 * thread + 1)) % requests.len();
                        let got = instance.run(std::slice::from_ref(&requests[place]), wanted).expect("runs");
                        assert!(got == expected[place], "{path}: run {run} of thread {thread} got what another one asked for");
                    }
                });
            }
        });
    }
    assert!(seen >= 4, "{seen} of the samples take plain rows");
}
