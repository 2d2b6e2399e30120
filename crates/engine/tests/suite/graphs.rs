//! What is asked of engines of ONNX alone: graphs that are odd, broken, or in need of more than one file.

use bytes::Bytes;
use sluicegate_core::dtype::Element;
use sluicegate_core::signature::Kind;
use sluicegate_core::{Code, DType, Dim, Shape, Tensor};
use sluicegate_engine::{EngineChoice, ModelFile};
use sluicegate_testkit::onnx::{self, Attr, Labels, Model, rows};

use crate::machine::{device, each, engines, floats, instance, one_line, open, opened, options, refusal, values};

#[test]
fn names_and_dimensions_are_those_of_the_model() {
    let dims = [rows(), Dim::Free(None), Dim::Fixed(2)];
    for engine in each() {
        let opened = opened(&onnx::identity(DType::Fp32, &dims), engine);
        assert_eq!((&*opened.inputs[0].name, &*opened.outputs[0].name), ("x", "y"));
        assert_eq!(opened.inputs[0].dims, dims, "{engine:?}");
        assert_eq!(opened.outputs[0].dims[0], rows(), "{engine:?}");
        assert_eq!(opened.outputs[0].dims[1].fixed(), None, "{engine:?}");
        assert_eq!(opened.engine, engine);
        assert_eq!(opened.device, device(engine).to_string());
        assert_eq!(opened.fallback, None);
        let scalar = self::opened(&onnx::identity(DType::Fp32, &[]), engine);
        assert!(scalar.inputs[0].dims.is_empty() && scalar.outputs[0].dims.is_empty(), "{engine:?}");
        let nameless = self::opened(&onnx::identity(DType::Fp32, &[Dim::Free(Some("unk__7".into()))]), engine);
        assert_eq!(nameless.inputs[0].dims, [Dim::Free(None)], "{engine:?}");
    }
}

#[test]
fn a_first_dimension_of_no_name_runs_batches_of_any_size_too() {
    for engine in each() {
        let dims = [Dim::Free(None), Dim::Fixed(2)];
        let model = Model::new(17)
            .input("x", DType::Fp32, &dims)
            .output("y", DType::Fp32, &dims)
            .node("Add", &["x", "x"], &["y"], &[])
            .build();
        let mut instance = instance(&model, engine);
        for rows in [1, 7, 0, 64, 1] {
            let sent: Vec<f32> = (0..rows * 2).map(|place| place as f32).collect();
            let got = instance.run(&[floats(&[rows, 2], &sent)], &[0]).unwrap_or_else(|e| panic!("{engine:?} {rows}: {e}"));
            assert_eq!(got[0].shape(), &Shape::new(&[rows, 2]), "{engine:?}");
            assert_eq!(values(&got[0]), sent.iter().map(|value| value * 2.0).collect::<Vec<_>>());
        }
    }
}

#[test]
fn text_that_is_not_utf8_fails_the_run_and_a_nul_ends_nothing() {
    if engines().onnxruntime().is_some() {
        let mut instance = instance(&onnx::identity(DType::Bytes, &[rows()]), EngineChoice::OnnxRuntime);
        let mut run = |text: &'static [u8]| {
            instance.run(&[Tensor::text(Shape::new(&[1]), vec![Bytes::from_static(text)]).expect("fits")], &[0])
        };
        assert_eq!(run(b"\xff").expect_err("not text").code(), Code::RunFailed);
        for text in [&b"text"[..], b"a\0b", b"\0"] {
            assert_eq!(run(text).expect("text")[0].strings(), Some(&[Bytes::from_static(text)][..]));
        }
    }
}

#[test]
fn whole_numbers_that_cannot_be_divided_end_no_process() {
    for engine in each() {
        quotients_and_remainders(engine, DType::Int32, [7, 2, 1, -1, 0, 3], i32::MIN);
        quotients_and_remainders(engine, DType::Int64, [7, 2, 1, -1, 0, 3], i64::MIN);
    }
}

fn quotients_and_remainders<T>(engine: EngineChoice, dtype: DType, [seven, two, one, minus_one, zero, three]: [T; 6], smallest: T)
where
    T: Element + PartialEq + std::fmt::Debug,
{
    for (op, of_seven, of_smallest) in [("Div", three, smallest), ("Mod", one, zero)] {
        let mut instance = instance(&onnx::of_two(op, dtype), engine);
        // One row, and enough for the threads of the engine's own.
        for rows in [1, 100_000] {
            let mut run = |x: T, by: T| {
                let tensor = |value| Tensor::from_vec(Shape::new(&[rows]), vec![value; rows]).expect("fits");
                let answers = instance.run(&[tensor(x), tensor(by)], &[0]);
                answers.map(|answers| answers[0].values::<T>().expect("of this type").into_owned())
            };
            assert_eq!(run(seven, two).expect("divided"), vec![of_seven; rows], "{engine:?} {dtype} {op}");
            assert_eq!(run(smallest, minus_one).expect("divided"), vec![of_smallest; rows], "{engine:?} {dtype} {op}");
            assert_eq!(run(one, zero).expect_err("by zero").code(), Code::RunFailed, "{engine:?} {dtype} {op}");
            assert_eq!(run(seven, two).expect("divided"), vec![of_seven; rows], "{engine:?} {dtype} {op}");
        }
    }
}

#[test]
fn an_unknown_operator_is_named_with_its_domain() {
    for engine in each() {
        let message = refusal(&onnx::unknown_operator(), engine);
        assert!(message.contains("operator Frobnicate of domain example.unknown"), "{engine:?}: {message}");
        let standard = Model::new(17).input("x", DType::Fp32, &[rows()]).output("y", DType::Fp32, &[rows()]);
        let message = refusal(&standard.node("Frobnicate", &["x"], &["y"], &[]).build(), engine);
        assert!(message.contains("operator Frobnicate"), "{engine:?}: {message}");
        let foreign = Model::new(17).input("x", DType::Fp32, &[rows()]).output("y", DType::Fp32, &[rows()]);
        let message = refusal(&foreign.node_of("example.unknown", "Add", &["x", "x"], &["y"], &[]).build(), engine);
        assert!(message.contains("operator Add of domain example.unknown"), "{engine:?}: {message}");
    }
}

/// A stump with one score for two classes, as exporters write binary gradient boosting. Its floats are left out: what is
/// asked here is whether tract is kept from it by the shape of the ensemble alone.
#[test]
fn an_ensemble_whose_labels_tract_gets_wrong_is_refused_by_tract() {
    let stump = |class_ids: &[i64]| {
        let attrs = [Attr::Ints("class_ids", class_ids), Attr::Ints("classlabels_int64s", &[0, 1])];
        Model::new(17)
            .input("x", DType::Fp32, &[rows(), Dim::Fixed(1)])
            .output("label", DType::Int64, &[rows()])
            .output("probabilities", DType::Fp32, &[rows(), Dim::Fixed(2)])
            .node_of("ai.onnx.ml", "TreeEnsembleClassifier", &["x"], &["label", "probabilities"], &attrs)
            .build()
    };
    let told = "scores only one of them";
    assert!(refusal(&stump(&[0, 0]), EngineChoice::Tract).contains(told));
    assert!(!refusal(&stump(&[0, 1]), EngineChoice::Tract).contains(told), "both classes have scores");
}

#[test]
fn an_opset_from_the_future_is_refused_or_served_but_never_fatal() {
    for engine in each() {
        let model = Model::new(99).input("x", DType::Fp32, &[rows()]).output("y", DType::Fp32, &[rows()]);
        if let Err(error) = open(&model.node("Identity", &["x"], &["y"], &[]).build(), engine) {
            assert_eq!(error.code(), Code::LoadFailed);
            one_line(error.message());
        }
    }
}

#[test]
fn a_file_that_is_no_model_is_refused_wherever_it_is_cut() {
    let model = onnx::two_outputs(2);
    for engine in each() {
        assert!(refusal(b"", engine).contains("empty"));
        assert!(refusal(b"<html>404</html>", engine).contains("no ONNX model"));
        for length in (1..model.len()).step_by(7) {
            if let Err(error) = open(&model[..length], engine) {
                assert_eq!(error.code(), Code::LoadFailed, "{engine:?} cut to {length}: {error}");
                one_line(error.message());
            }
        }
    }
}

#[test]
fn graphs_that_contradict_themselves_are_refused() {
    let nothing_gives_it = Model::new(17).input("x", DType::Fp32, &[rows()]).output("y", DType::Fp32, &[rows()]);
    let output_of_nothing = nothing_gives_it.clone();
    let other_type = Model::new(17).input("x", DType::Fp32, &[rows()]).output("y", DType::Int64, &[rows()]);
    let sequence = Model::new(17).input("x", DType::Fp32, &[rows()]).output_sequence("parts", DType::Fp32);
    for engine in each() {
        refusal(&nothing_gives_it.clone().node("Add", &["x", "absent"], &["y"], &[]).build(), engine);
        refusal(&output_of_nothing.clone().build(), engine);
        refusal(&other_type.clone().node("Identity", &["x"], &["y"], &[]).build(), engine);
        let message = refusal(&sequence.clone().node("SequenceConstruct", &["x"], &["parts"], &[]).build(), engine);
        assert!(message.contains("output `parts` is a sequence"), "{message}");
    }
}

#[test]
fn the_maps_of_a_zipmap_are_served_as_a_tensor_with_labels() {
    for engine in each() {
        for labels in [Labels::Ints(&[3, -7]), Labels::Texts(&["3", "-7"])] {
            let mut opened = opened(&onnx::zipmap(labels), engine);
            let output = &opened.outputs[0];
            assert_eq!(
                (output.dtype, output.kind, &*output.labels),
                (DType::Fp32, Kind::Probability, &["3".into(), "-7".into()][..])
            );
            assert_eq!(output.dims, [rows(), Dim::Fixed(2)], "{engine:?}");
            for rows in [0, 1, 3] {
                let x = floats(&[rows, 2], &[0.25, 0.75].repeat(rows));
                assert_eq!(opened.instances[0].run(std::slice::from_ref(&x), &[0]).expect("runs"), [x], "{engine:?}");
            }
        }
    }
}

#[test]
fn weights_beside_the_model_are_found_by_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let weights: Vec<u8> = (0..2000).flat_map(|value| (value as f32).to_le_bytes()).collect();
    std::fs::write(folder.path().join("weights.bin"), &weights).expect("a file");
    let dims = [rows(), Dim::Fixed(2000)];
    let model = |location: &str| {
        Model::new(17)
            .input("x", DType::Fp32, &dims)
            .output("y", DType::Fp32, &dims)
            .external_constant("weights", DType::Fp32, &[2000], location)
            .node("Add", &["x", "weights"], &["y"], &[])
            .build()
    };
    for engine in each() {
        let open = |bytes: &[u8]| engines().open(&ModelFile { path: &folder.path().join("model.onnx"), bytes }, &options(engine));
        let mut opened = open(&model("weights.bin")).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let got = opened.instances[0].run(&[floats(&[1, 2000], &[0.5; 2000])], &[0]).expect("runs");
        assert_eq!(values(&got[0])[1999], 1999.5, "{engine:?}");
        for elsewhere in ["absent.bin", "/etc/hostname", "../weights.bin"] {
            let error = open(&model(elsewhere)).err().unwrap_or_else(|| panic!("{engine:?} read {elsewhere}"));
            assert_eq!(error.code(), Code::LoadFailed, "{engine:?}");
            one_line(error.message());
        }
    }
}

#[test]
fn integers_computed_from_shapes_are_integers() {
    for engine in each() {
        let model = Model::new(17)
            .input("x", DType::Fp32, &[rows(), Dim::Fixed(3)])
            .output("sizes", DType::Int64, &[Dim::Fixed(2)])
            .node("Shape", &["x"], &["sizes"], &[Attr::Int("start", 0)])
            .build();
        let mut opened = opened(&model, engine);
        assert_eq!(opened.outputs[0].dtype, DType::Int64);
        let got = opened.instances[0].run(&[floats(&[4, 3], &[0.0; 12])], &[0]).expect("runs");
        assert_eq!(got[0].values::<i64>().expect("INT64"), &[4i64, 3][..], "{engine:?}");
    }
}
