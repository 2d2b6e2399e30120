//! One suite for every engine: each test runs on all that are on this machine, and on candle where it is built in and the test is no
//! matter of ONNX. With `SLUICEGATE_TEST_DEVICE=cuda:0` ONNX Runtime runs on that device. `graphs` is what is asked of engines of ONNX.

#[path = "suite/graphs.rs"]
mod graphs;
#[path = "suite/machine.rs"]
mod machine;

use std::path::Path;

use bytes::Bytes;
use sluicegate_core::{Code, DType, Dim, Shape, Tensor};
use sluicegate_engine::{Device, EngineChoice, Engines, Gpus, ModelFile, Opened, Options};
use sluicegate_testkit::onnx::{self, rows};

use machine::{
    add_one, device, each, engines, every, floats, instance, one_line, opened, options, refusal, sample, tolerance, values,
};

#[test]
fn every_type_comes_back_as_it_went_in_or_is_refused_by_name() {
    for engine in each() {
        for dtype in DType::ALL {
            let model = onnx::identity(dtype, &[rows(), Dim::Fixed(3)]);
            if engine == EngineChoice::Tract && matches!(dtype, DType::Bytes | DType::Bf16) {
                assert!(refusal(&model, engine).contains(dtype.name()));
                continue;
            }
            let mut opened = opened(&model, engine);
            assert_eq!((opened.inputs[0].dtype, opened.outputs[0].dtype), (dtype, dtype), "{engine:?}");
            for rows in [1, 7, 2000] {
                let sent = sample(dtype, rows);
                let got = opened.instances[0].run(std::slice::from_ref(&sent), &[0]).expect("runs");
                assert_eq!(got, [sent], "{engine:?} {dtype} {rows}");
            }
        }
    }
}

#[test]
fn what_was_opened_says_what_runs_it_and_where() {
    for engine in every() {
        let opened = add_one(engine, 2, 3);
        assert_eq!((opened.engine, &opened.device, opened.fallback), (engine, &device(engine).to_string(), None));
        assert_eq!((&*opened.inputs[0].name, opened.inputs[0].dtype, &*opened.outputs[0].name), ("x", DType::Fp32, "y"));
        assert_eq!((opened.inputs[0].dims[0].fixed(), &opened.inputs[0].dims[1]), (None, &Dim::Fixed(2)), "{engine:?}");
        assert_eq!(opened.instances.len(), 3);
    }
}

#[test]
fn one_model_runs_batches_of_any_size_none_included() {
    for engine in every() {
        let mut instance = add_one(engine, 2, 1).instances.remove(0);
        for rows in [1, 7, 0, 64, 1] {
            let sent: Vec<f32> = (0..rows * 2).map(|place| place as f32).collect();
            let got = instance.run(&[floats(&[rows, 2], &sent)], &[0]).unwrap_or_else(|e| panic!("{engine:?} {rows}: {e}"));
            assert_eq!(got[0].shape(), &Shape::new(&[rows, 2]), "{engine:?}");
            assert_eq!(values(&got[0]), sent.iter().map(|value| value + 1.0).collect::<Vec<_>>(), "{engine:?}");
        }
    }
}

#[test]
fn exactly_the_wanted_outputs_come_back_in_the_order_wanted() {
    for engine in each() {
        let mut instance = instance(&onnx::two_outputs(2), engine);
        let x = floats(&[1, 2], &[3.0, 5.0]);
        let (more, twice) = (vec![4.0, 6.0], vec![6.0, 10.0]);
        let choices: [(&[usize], Vec<_>); 5] = [
            (&[0, 1], vec![more.clone(), twice.clone()]),
            (&[1, 0], vec![twice.clone(), more.clone()]),
            (&[1], vec![twice]),
            (&[0], vec![more]),
            (&[], vec![]),
        ];
        for (wanted, expected) in choices.iter().chain(&choices) {
            let got = instance.run(std::slice::from_ref(&x), wanted).expect("runs");
            assert_eq!(&got.iter().map(values).collect::<Vec<_>>(), expected, "{engine:?} {wanted:?}");
        }
        let error = instance.run(&[x], &[2]).expect_err("there is no third output");
        assert_eq!(error.code(), Code::RunFailed);
    }
}

#[test]
fn a_run_that_fails_says_why_and_the_next_one_works() {
    for engine in each() {
        let mut instance = instance(&onnx::fails_on_some(), engine);
        let mut run = |index: i64| instance.run(&[Tensor::from_vec(Shape::new(&[1]), vec![index]).expect("fits")], &[0]);
        assert_eq!(values(&run(2).expect("within")[0]), [30.0]);
        if device(engine) != Device::Cpu {
            // Its kernel on CUDA looks at no bounds: it gives zeros for what is outside.
            assert_eq!(values(&run(7).expect("outside")[0]), [0.0]);
            continue;
        }
        let error = run(7).expect_err("outside");
        assert_eq!(error.code(), Code::RunFailed, "{engine:?}");
        one_line(error.message());
        assert!(error.message().contains('7') || engine == EngineChoice::Tract, "{engine:?}: {error}");
        assert_eq!(values(&run(0).expect("within again")[0]), [10.0]);
    }
}

#[test]
fn inputs_that_do_not_fit_fail_the_run_and_nothing_else() {
    for engine in every() {
        let mut instance = add_one(engine, 2, 1).instances.remove(0);
        let right = floats(&[1, 2], &[1.0, 2.0]);
        let whole = Tensor::from_vec(Shape::new(&[1, 2]), vec![1_i64, 2]).expect("fits");
        for wrong in [vec![floats(&[1, 3], &[0.0; 3])], vec![whole], vec![], vec![right.clone(), right.clone()]] {
            let error = instance.run(&wrong, &[0]).expect_err("does not fit");
            assert_eq!(error.code(), Code::RunFailed, "{engine:?}");
            one_line(error.message());
            assert!(!error.message().contains("panicked"), "{engine:?}: {error}");
        }
        let error = instance.run(std::slice::from_ref(&right), &[1]).expect_err("there is one output");
        assert_eq!(error.code(), Code::RunFailed, "{engine:?}");
        assert_eq!(instance.run(std::slice::from_ref(&right), &[]).expect("runs"), []);
        assert_eq!(values(&instance.run(&[right], &[0]).expect("fits")[0]), [2.0, 3.0]);
    }
}

#[test]
fn instances_on_two_threads_do_not_mix() {
    for engine in every() {
        let opened = add_one(engine, 16, 2);
        std::thread::scope(|scope| {
            for mut instance in opened.instances {
                scope.spawn(move || {
                    for round in 0..200u16 {
                        let rows = usize::from(round % 5 + 1);
                        let value = f32::from(round);
                        let got = instance.run(&[floats(&[rows, 16], &vec![value; rows * 16])], &[0]).expect("runs");
                        let right = |got: f32| (got - value - 1.0).abs() <= (value + 1.0) * tolerance();
                        assert!(values(&got[0]).into_iter().all(right), "{engine:?}");
                    }
                });
            }
        });
    }
}

#[test]
fn bytes_that_are_not_aligned_are_read_right() {
    for engine in each() {
        for dtype in [DType::Fp32, DType::Fp64, DType::Int64, DType::Fp16, DType::Bool] {
            let mut instance = instance(&onnx::identity(dtype, &[rows(), Dim::Fixed(3)]), engine);
            let aligned = sample(dtype, 5);
            let bytes = aligned.bytes().expect("fixed width");
            for offset in 0..8 {
                let moved = Bytes::from([&[9u8; 8][..offset], bytes].concat()).slice(offset..);
                let moved = Tensor::fixed(dtype, aligned.shape().clone(), moved).expect("fits");
                assert_eq!(
                    instance.run(&[moved], &[0]).expect("runs"),
                    std::slice::from_ref(&aligned),
                    "{engine:?} {dtype} {offset}"
                );
            }
        }
    }
    for engine in every() {
        let mut instance = add_one(engine, 2, 1).instances.remove(0);
        let aligned = floats(&[1, 2], &[1.0, 2.0]);
        for offset in 0..8 {
            let moved = Bytes::from([&[9u8; 8][..offset], aligned.bytes().expect("fixed width")].concat()).slice(offset..);
            let moved = Tensor::fixed(DType::Fp32, aligned.shape().clone(), moved).expect("fits");
            assert_eq!(values(&instance.run(&[moved], &[0]).expect("runs")[0]), [2.0, 3.0], "{engine:?} {offset}");
        }
    }
}

#[test]
fn outputs_outlive_the_runs_and_the_instance_that_made_them() {
    for engine in every() {
        let mut instance = add_one(engine, 400, 1).instances.remove(0);
        let first = instance.run(&[floats(&[1, 400], &[1.0; 400])], &[0]).expect("runs");
        let second = instance.run(&[floats(&[1, 400], &[2.0; 400])], &[0]).expect("runs");
        drop(instance);
        sluicegate_engine::release_memory();
        assert!(values(&first[0]).iter().all(|&value| value == 2.0), "{engine:?}");
        assert!(values(&second[0].rows(0..1)).iter().all(|&value| value == 3.0), "{engine:?}");
    }
}

#[test]
fn cuda_that_is_asked_for_and_missing_is_an_error_and_never_the_processor() {
    for engine in [EngineChoice::Auto, EngineChoice::TensorRt, EngineChoice::Tract] {
        let options = Options { device: Device::Cuda(Gpus::FIRST), ..options(engine) };
        let model = onnx::add_constant(1.0, 2);
        if let Err(error) = engines().open(&ModelFile { path: Path::new("model.onnx"), bytes: &model }, &options) {
            assert_eq!(error.code(), Code::NoEngine, "{error}");
            one_line(error.message());
        } else {
            assert_ne!(engine, EngineChoice::Tract, "tract has no CUDA");
        }
    }
}

#[test]
fn auto_takes_the_second_engine_where_the_first_cannot_and_says_why() {
    let model = onnx::add_constant(1.0, 2);
    let opened = Engines::tract_only()
        .open(&ModelFile { path: Path::new("model.onnx"), bytes: &model }, &Options::default())
        .expect("tract serves");
    assert_eq!(opened.engine, EngineChoice::Tract);
    assert!(opened.fallback.expect("a reason").contains("not on this machine"));

    let message = refusal(&onnx::unknown_operator(), EngineChoice::Auto);
    assert!(message.contains("onnxruntime: ") && message.contains("tract: "), "{message}");
    if engines().onnxruntime().is_some() {
        assert_eq!(self::opened(&model, EngineChoice::Auto).engine, EngineChoice::OnnxRuntime);
    }
    let asked = Engines::tract_only()
        .open(&ModelFile { path: Path::new("model.onnx"), bytes: &model }, &options(EngineChoice::OnnxRuntime))
        .err();
    assert_eq!(asked.expect("not there").code(), Code::NoEngine);
}

#[test]
fn the_sample_models_give_the_same_on_every_engine_that_loads_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let all = ["fraud/1", "fraud/2", "fraud/3", "digits/1", "diabetes/1", "breast-cancer/1", "penguins/1"];
    let mut compared = 0;
    for name in all {
        let path = root.join(name).join("model.onnx");
        let bytes = std::fs::read(&path).expect("a sample model");
        let loaded: Vec<_> = each()
            .into_iter()
            .filter_map(|engine| engines().open(&ModelFile { path: &path, bytes: &bytes }, &options(engine)).ok())
            .collect();
        assert!(!loaded.is_empty() || engines().onnxruntime().is_none(), "{name}");
        let Ok([mut first, mut second]) = <[Opened; 2]>::try_from(loaded) else { continue };
        assert_eq!(first.inputs.len(), second.inputs.len(), "{name}");
        let names = |opened: &Opened| opened.outputs.iter().map(|o| (o.name.clone(), o.dtype, o.dims.len())).collect::<Vec<_>>();
        assert_eq!(names(&first), names(&second), "{name}");
        for rows in [1, 9] {
            let inputs: Vec<_> = first.inputs.iter().map(|input| plausible(&input.dims, rows)).collect();
            let wanted: Vec<_> = (0..first.outputs.len()).collect();
            let first = first.instances[0].run(&inputs, &wanted).expect("runs");
            let second = second.instances[0].run(&inputs, &wanted).expect("runs");
            for (a, b) in first.iter().zip(&second) {
                assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()), "{name}");
                match a.dtype() {
                    DType::Fp32 => assert!(
                        values(a).iter().zip(values(b)).all(|(a, b)| (a - b).abs() <= tolerance() * b.abs().max(1.0)),
                        "{name}: {a:?} {b:?}"
                    ),
                    _ => assert_eq!(a, b, "{name}"),
                }
            }
        }
        compared += 1;
    }
    if engines().onnxruntime().is_some() {
        assert!(compared >= 5, "only {compared} sample models load on both engines");
    }
}

/// Rows of numbers that look like anything.
fn plausible(dims: &[Dim], rows: usize) -> Tensor {
    let sizes: Shape =
        dims.iter().enumerate().map(|(axis, dim)| if axis == 0 { rows } else { dim.fixed().unwrap_or(1) }).collect();
    let elements = sizes.elements().expect("small");
    let values = (0..elements).map(|place| ((place * 37 % 101) as f32 - 30.0) * 0.7).collect();
    Tensor::from_vec(sizes, values).expect("fits")
}
