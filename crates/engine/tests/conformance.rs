//! One suite for every engine: each test runs on all that are on this machine, and on candle where it is built in and the test is no
//! matter of ONNX. With `SLUICEGATE_TEST_DEVICE=cuda:0` ONNX Runtime runs on that device.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;
use sluicegate_core::signature::Kind;
use sluicegate_core::{Code, DType, Dim, Shape, Tensor};
use sluicegate_engine::{Device, Engine, EngineChoice, Engines, ModelFile, Opened, Options, Search};
use sluicegate_testkit::onnx::{self, Attr, Labels, Model, rows};
use sluicegate_testkit::safetensors;

#[allow(clippy::disallowed_methods, reason = "a test's switch; the product reads no environment here")]
fn engines() -> Engines {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let environment = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let engines = Engines::find(&Search { explicit: None, environment, fetched: root.join(".onnxruntime") }).expect("an engine");
    if engines.onnxruntime().is_none() {
        let required = std::env::var_os("SLUICEGATE_REQUIRE_ONNXRUNTIME").is_some_and(|value| value == "1");
        assert!(!required, "SLUICEGATE_REQUIRE_ONNXRUNTIME=1, and: {}", engines.describe());
        eprintln!("skipped for onnxruntime: {}", engines.describe());
    }
    engines
}

/// Every engine of ONNX that is on this machine.
fn each() -> Vec<EngineChoice> {
    let found = engines().onnxruntime().map(|_| EngineChoice::OnnxRuntime);
    found.into_iter().chain([EngineChoice::Tract]).collect()
}

/// Those, and candle.
fn every() -> Vec<EngineChoice> {
    let candle = cfg!(feature = "candle").then_some(EngineChoice::Candle);
    each().into_iter().chain(candle).collect()
}

/// A model of this engine's own format that adds 1 to each of so many columns of any number of rows.
fn add_one(engine: EngineChoice, width: usize, instances: usize) -> Opened {
    let options = Options { instances: NonZeroUsize::new(instances).expect("not zero"), ..options(engine) };
    let folder = tempfile::tempdir().expect("a folder");
    let (path, bytes) = if engine == EngineChoice::Candle {
        let path = folder.path().join(ModelFile::SAFETENSORS);
        let config = json!({
            "model_type": "feed_forward",
            "input": { "name": "x", "shape": [width] },
            "output": { "name": "y" },
            "layers": [{ "type": "linear", "name": "a" }],
        });
        let same = (0..width * width).map(|place| f32::from(u8::from(place / width == place % width))).collect();
        let tensors = [("a.weight", &[width, width][..], same), ("a.bias", &[width], vec![1.0; width])];
        safetensors::version(folder.path(), &config, &tensors);
        (path, config.to_string().into_bytes())
    } else {
        (folder.path().join("model.onnx"), onnx::add_constant(1.0, width))
    };
    let opened = engines().open(&ModelFile { path: &path, bytes: &bytes }, &options);
    opened.unwrap_or_else(|error| panic!("{engine:?}: {error}"))
}

/// The device that was asked for; only ONNX Runtime knows others than the processor.
#[allow(clippy::disallowed_methods, reason = "a test's switch; the product reads no environment here")]
fn device(engine: EngineChoice) -> Device {
    match std::env::var("SLUICEGATE_TEST_DEVICE") {
        Ok(device) if engine == EngineChoice::OnnxRuntime => device.parse().expect("a device"),
        _ => Device::Cpu,
    }
}

/// How far answers in FP32 may be apart, as a part of the larger of 1 and the number.
fn tolerance() -> f32 {
    if device(EngineChoice::OnnxRuntime) == Device::Cpu { 1e-5 } else { 1e-3 }
}

fn options(engine: EngineChoice) -> Options {
    Options { engine, device: device(engine), ..Options::default() }
}

fn open(bytes: &[u8], engine: EngineChoice) -> sluicegate_core::Result<Opened> {
    engines().open(&ModelFile { path: Path::new("model.onnx"), bytes }, &options(engine))
}

fn instance(bytes: &[u8], engine: EngineChoice) -> Box<dyn Engine> {
    opened(bytes, engine).instances.remove(0)
}

fn opened(bytes: &[u8], engine: EngineChoice) -> Opened {
    open(bytes, engine).unwrap_or_else(|error| panic!("{engine:?}: {error}"))
}

fn refusal(bytes: &[u8], engine: EngineChoice) -> String {
    let error = open(bytes, engine).err().unwrap_or_else(|| panic!("{engine:?} loaded it"));
    assert_eq!(error.code(), Code::LoadFailed, "{engine:?}: {error}");
    one_line(error.message());
    error.message().to_owned()
}

fn one_line(message: &str) {
    assert!(!message.contains('\n') && !message.contains(".cc") && message.len() < 1000, "{message}");
}

fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::new(shape), values.to_vec()).expect("fits")
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.values::<f32>().expect("FP32").into_owned()
}

/// Rows of elements that every type has: bytes of 0 and 1, or short texts.
fn sample(dtype: DType, rows: usize) -> Tensor {
    let shape = Shape::new(&[rows, 3]);
    match dtype.size() {
        Some(size) => {
            let bytes: Vec<u8> = (0..rows * 3 * size).map(|place| u8::from(place % 3 == 0)).collect();
            Tensor::fixed(dtype, shape, bytes.into()).expect("fits")
        }
        None => {
            let texts = ["", "plain", "größer\0als", "😀"].map(|text| Bytes::from_static(text.as_bytes()));
            Tensor::text(shape, texts.into_iter().cycle().take(rows * 3).collect()).expect("fits")
        }
    }
}

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

#[test]
fn cuda_that_is_asked_for_and_missing_is_an_error_and_never_the_processor() {
    for engine in [EngineChoice::Auto, EngineChoice::Tract] {
        let options = Options { device: Device::Cuda(0), ..options(engine) };
        let model = onnx::add_constant(1.0, 2);
        if let Err(error) = engines().open(&ModelFile { path: Path::new("model.onnx"), bytes: &model }, &options) {
            assert_eq!(error.code(), Code::NoEngine, "{error}");
            one_line(error.message());
        } else {
            assert_eq!(engine, EngineChoice::Auto, "tract has no CUDA");
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
