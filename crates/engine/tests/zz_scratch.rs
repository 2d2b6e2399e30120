//! throwaway
#![allow(clippy::all)]
use sluicegate_core::*;
use sluicegate_engine::*;
use sluicegate_testkit::onnx::{self, *};
use std::path::Path;
use std::time::Instant;

fn engines() -> Engines {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Engines::find(&Search { fetched: root.join(".onnxruntime"), ..Search::default() }).unwrap()
}

#[test]
fn messages() {
    let e = engines();
    println!("{}", e.describe());
    let show = |label: &str, bytes: &[u8], options: &Options| match e
        .open(&ModelFile { path: Path::new("model.onnx"), bytes }, options)
    {
        Ok(o) => println!("{label}: OK {:?} {:?}", o.engine, o.fallback),
        Err(x) => println!("{label}: {:?} {x}", x.code()),
    };
    for engine in [EngineChoice::OnnxRuntime, EngineChoice::Tract, EngineChoice::Auto] {
        let o = Options { engine, ..Options::default() };
        println!("--- {engine:?}");
        show("unknown", &onnx::unknown_operator(), &o);
        let base = || Model::new(17).input("x", DType::Fp32, &[rows()]).output("y", DType::Fp32, &[rows()]);
        show("unknown standard", &base().node("Frobnicate", &["x"], &["y"], &[]).build(), &o);
        show(
            "opset99",
            &Model::new(99)
                .input("x", DType::Fp32, &[rows()])
                .output("y", DType::Fp32, &[rows()])
                .node("Identity", &["x"], &["y"], &[])
                .build(),
            &o,
        );
        show("absent", &base().node("Add", &["x", "absent"], &["y"], &[]).build(), &o);
        show("nothing", &base().build(), &o);
        show(
            "int erf",
            &Model::new(17)
                .input("x", DType::Uint16, &[rows()])
                .output("y", DType::Uint16, &[rows()])
                .node("Abs", &["x"], &["y"], &[])
                .build(),
            &o,
        );
        show(
            "bf16 add",
            &Model::new(17)
                .input("x", DType::Bf16, &[rows()])
                .output("y", DType::Bf16, &[rows()])
                .node("Softmax", &["x"], &["y"], &[])
                .build(),
            &o,
        );
        show(
            "types",
            &Model::new(17)
                .input("x", DType::Fp32, &[rows()])
                .output("y", DType::Int64, &[rows()])
                .node("Identity", &["x"], &["y"], &[])
                .build(),
            &o,
        );
        show(
            "mismatch",
            &Model::new(17)
                .input("x", DType::Fp32, &[rows()])
                .input("z", DType::Int64, &[rows()])
                .output("y", DType::Fp32, &[rows()])
                .node("Add", &["x", "z"], &["y"], &[])
                .build(),
            &o,
        );
        show(
            "external",
            &base().external_constant("w", DType::Fp32, &[3], "../w").node("Add", &["x", "w"], &["y"], &[]).build(),
            &o,
        );
        show("cuda", &onnx::add_constant(1.0, 2), &Options { device: Device::Cuda(0), ..o.clone() });
        for name in ["fraud/1", "fraud/2", "fraud/3", "digits/1", "diabetes/1", "breast-cancer/1", "penguins/1"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name).join("model.onnx");
            let bytes = std::fs::read(&path).unwrap();
            let t = Instant::now();
            match e.open(&ModelFile { path: &path, bytes: &bytes }, &o) {
                Ok(op) => println!(
                    "{name}: {:?} {:?} in {:?} out {:?}",
                    op.engine,
                    t.elapsed(),
                    op.inputs.iter().map(|i| (&i.name, i.dtype, &i.dims)).collect::<Vec<_>>(),
                    op.outputs.iter().map(|i| (&i.name, i.dtype, &i.dims, &i.labels)).collect::<Vec<_>>()
                ),
                Err(x) => println!("{name}: {x}"),
            }
        }
        if engine != EngineChoice::Auto {
            let f = onnx::fails_on_some();
            let mut op = e.open(&ModelFile { path: Path::new("model.onnx"), bytes: &f }, &o).unwrap();
            println!("{}", op.instances[0].run(&[Tensor::from_vec(Shape::new(&[1]), vec![7i64]).unwrap()], &[0]).unwrap_err());
            let f = onnx::add_constant(1.0, 2);
            let mut op = e.open(&ModelFile { path: Path::new("model.onnx"), bytes: &f }, &o).unwrap();
            println!(
                "{}",
                op.instances[0].run(&[Tensor::from_vec(Shape::new(&[1, 3]), vec![7f32; 3]).unwrap()], &[0]).unwrap_err()
            );
            println!(
                "{}",
                op.instances[0].run(&[Tensor::from_vec(Shape::new(&[1, 2]), vec![7i64; 2]).unwrap()], &[0]).unwrap_err()
            );
            println!("{}", op.instances[0].run(&[], &[0]).unwrap_err());
        }
    }
}

#[test]
fn timing() {
    let e = engines();
    for name in ["fraud/1", "fraud/2", "digits/1", "breast-cancer/1"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name).join("model.onnx");
        let bytes = std::fs::read(&path).unwrap();
        for engine in [EngineChoice::OnnxRuntime, EngineChoice::Tract] {
            let o = Options { engine, ..Options::default() };
            let t = Instant::now();
            let Ok(mut op) = e.open(&ModelFile { path: &path, bytes: &bytes }, &o) else { continue };
            let load = t.elapsed();
            let wanted: Vec<usize> = (0..op.outputs.len()).collect();
            for rows in [1usize, 8, 32, 128] {
                let sizes: Vec<usize> = op.inputs[0]
                    .dims
                    .iter()
                    .enumerate()
                    .map(|(i, d)| if i == 0 { rows } else { d.fixed().unwrap_or(1) })
                    .collect();
                let n: usize = sizes.iter().product();
                let x = Tensor::from_vec(Shape::new(&sizes), (0..n).map(|i| (i * 37 % 101) as f32).collect()).unwrap();
                let inputs = [x];
                for (what, wanted) in [("all", &wanted[..]), ("last", &wanted[wanted.len() - 1..])] {
                    for _ in 0..200 {
                        op.instances[0].run(&inputs, wanted).unwrap();
                    }
                    let mut best = f64::MAX;
                    for _ in 0..10 {
                        let t = Instant::now();
                        for _ in 0..300 {
                            std::hint::black_box(op.instances[0].run(&inputs, wanted).unwrap());
                        }
                        best = best.min(t.elapsed().as_secs_f64() / 300.0);
                    }
                    println!("{name} {engine:?} load {load:?} rows {rows} {what}: {:.2} us", best * 1e6);
                }
            }
        }
    }
}
