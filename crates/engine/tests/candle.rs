//! Models in safetensors: nets that are declared, and what is refused. What every engine promises is in `conformance.rs`.

#![cfg(feature = "candle")]

use std::path::Path;

use serde_json::{Value, json};
use sluicegate_core::signature::Kind;
use sluicegate_core::{Code, Dim, Error, Shape, Tensor};
use sluicegate_engine::{Device, EngineChoice, Engines, Gpus, ModelFile, Opened, Options};
use sluicegate_testkit::safetensors::{self, Named};

fn open(folder: &Path) -> sluicegate_core::Result<Opened> {
    let path = folder.join("config.json");
    let bytes = std::fs::read(&path).expect("a configuration");
    Engines::tract_only().open(&ModelFile { path: &path, bytes: &bytes }, &Options::default())
}

fn refusal(folder: &Path) -> String {
    let error = open(folder).err().expect("it is refused");
    assert!(error.code() == Code::LoadFailed && !error.message().contains('\n') && error.message().len() < 1000, "{error}");
    error.message().to_owned()
}

fn run(config: &Value, tensors: &[Named<'_>], shape: &[usize], values: &[f32]) -> Tensor {
    let folder = tempfile::tempdir().expect("a directory");
    safetensors::version(folder.path(), config, tensors);
    let mut opened = open(folder.path()).unwrap_or_else(|error: Error| panic!("{error}"));
    let rows = Tensor::from_vec(Shape::new(shape), values.to_vec()).expect("fits");
    opened.instances[0].run(&[rows], &[0]).expect("runs").remove(0)
}

fn close(got: &Tensor, shape: &[usize], expected: &[f32]) {
    assert_eq!(got.shape(), &Shape::new(shape));
    let got = got.values::<f32>().expect("FP32");
    assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-5), "{got:?} is not {expected:?}");
}

fn net(shape: &[usize], layers: &Value) -> Value {
    json!({ "model_type": "feed_forward", "input": { "name": "x", "shape": shape }, "output": { "name": "y" }, "layers": layers })
}

#[test]
fn a_net_of_linear_layers_answers_as_its_weights_say() {
    let mut config = net(
        &[2],
        &json!([{ "type": "linear", "name": "0" }, { "type": "relu" }, { "type": "linear", "name": "2" }, { "type": "softmax" }]),
    );
    config["output"]["labels"] = json!(["no", "yes"]);
    let tensors = [
        ("0.weight", &[3, 2][..], vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        ("0.bias", &[3], vec![0.0, 0.0, -10.0]),
        ("2.weight", &[2, 3], vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
    ];
    // Rows (1, 2) and (-1, 0): the hidden layer is (1, 2, 0) and (0, 0, 0).
    let got = run(&config, &tensors, &[2, 2], &[1.0, 2.0, -1.0, 0.0]);
    let of_one = 1.0 / (1.0 + 1f32.exp());
    close(&got, &[2, 2], &[of_one, 1.0 - of_one, 0.5, 0.5]);

    let folder = tempfile::tempdir().expect("a directory");
    safetensors::version(folder.path(), &config, &tensors);
    let opened = open(folder.path()).expect("loads");
    assert_eq!((opened.engine, &*opened.device, opened.fallback), (EngineChoice::Candle, "cpu", None));
    assert_eq!(opened.inputs[0].dims, [Dim::Free(Some("batch".into())), Dim::Fixed(2)]);
    assert_eq!((opened.outputs[0].kind, &*opened.outputs[0].labels), (Kind::Probability, &["no".to_owned(), "yes".into()][..]));
}

#[test]
fn a_net_of_convolutions_normalises_pools_and_flattens() {
    let layers = json!([
        { "type": "conv2d", "name": "c", "padding": 1 },
        { "type": "batch_norm", "name": "n", "eps": 0.0 },
        { "type": "max_pool2d", "kernel": 2 },
        { "type": "flatten" },
        { "type": "layer_norm", "name": "l", "eps": 0.0 },
    ]);
    // The kernel looks at the middle alone, and doubles it; the norm takes 1 away and halves.
    let mut kernel = vec![0.0; 9];
    kernel[4] = 2.0;
    let tensors = [
        ("c.weight", &[1, 1, 3, 3][..], kernel),
        ("n.running_mean", &[1], vec![1.0]),
        ("n.running_var", &[1], vec![4.0]),
        ("n.num_batches_tracked", &[], vec![7.0]),
        ("l.weight", &[2], vec![1.0, 1.0]),
        ("l.bias", &[2], vec![0.0, 0.5]),
    ];
    let got = run(&net(&[1, 2, 4], &layers), &tensors, &[1, 1, 2, 4], &[1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]);
    // After pooling 4 and 8, doubled 8 and 16, normalised 3.5 and 7.5: one below and one above their mean.
    close(&got, &[1, 2], &[-1.0, 1.5]);
}

#[test]
fn what_does_not_fit_is_named_with_what_was_expected() {
    let linear = json!([{ "type": "linear", "name": "a" }]);
    let weight = |shape: &'static [usize]| ("a.weight", shape, vec![1.0; shape.iter().product()]);
    for (config, tensors, told) in [
        (
            net(&[3], &linear),
            vec![weight(&[2, 4])],
            "layer 0: tensor `a.weight` has the shape [2, 4], expected one size and then [3]",
        ),
        (net(&[3], &linear), vec![], "layer 0: the weights have no tensor `a.weight`"),
        (
            net(&[3], &linear),
            vec![weight(&[2, 3]), ("a.bias", &[3], vec![0.0; 3])],
            "tensor `a.bias` has the shape [3], expected [2]",
        ),
        (net(&[3], &linear), vec![weight(&[2, 3]), ("b.weight", &[1], vec![0.0])], "no use for: `b.weight`"),
        (net(&[3], &json!([{ "type": "conv2d", "name": "a" }])), vec![weight(&[2, 3])], "it takes channels, height and width"),
        (net(&[3], &json!([{ "type": "lstm" }])), vec![], "unknown variant `lstm`"),
        (net(&[3], &json!([])), vec![], "0 layers"),
        (net(&[], &linear), vec![], "those of one row"),
        (net(&[0], &linear), vec![], "no elements"),
        (net(&[1 << 20, 1 << 20], &linear), vec![], "no elements, or more than"),
        (json!({ "model_type": "llama" }), vec![], "model_type `llama` is not served; feed_forward, bert"),
        (json!({}), vec![], "no model_type"),
    ] {
        let folder = tempfile::tempdir().expect("a directory");
        safetensors::version(folder.path(), &config, &tensors);
        let refusal = refusal(folder.path());
        assert!(refusal.contains(told), "{refusal}");
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_the_engine_of_onnx_is_not_asked() {
    let folder = tempfile::tempdir().expect("a directory");
    let tensors = [("a.weight", &[1, 1][..], vec![3.0])];
    safetensors::version(folder.path(), &net(&[1], &json!([{ "type": "linear", "name": "a" }])), &tensors);
    let path = folder.path().join("config.json");
    let bytes = std::fs::read(&path).expect("a configuration");
    let open = |options: &Options| Engines::tract_only().open(&ModelFile { path: &path, bytes: &bytes }, options);
    let error = open(&Options { device: Device::Cuda(Gpus::FIRST), ..Options::default() }).err().expect("refused");
    assert_eq!(error.code(), Code::NoEngine, "{error}");
    let of_onnx = open(&Options { engine: EngineChoice::Tract, ..Options::default() }).expect("the choice is one for ONNX");
    assert_eq!(of_onnx.engine, EngineChoice::Candle);
    let onnx = ModelFile { path: Path::new("model.onnx"), bytes: b"" };
    let error = Engines::tract_only().open(&onnx, &Options { engine: EngineChoice::Candle, ..Options::default() }).err();
    assert_eq!(error.expect("refused").code(), Code::NoEngine);
}

#[test]
fn weights_that_lie_in_several_files_are_found_by_their_index() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = net(&[1], &json!([{ "type": "linear", "name": "a" }]));
    safetensors::version(folder.path(), &config, &[]);
    std::fs::remove_file(folder.path().join("model.safetensors")).expect("removed");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("written");
    write("one.safetensors", &safetensors::file(&[("a.weight", &[1, 1], vec![3.0])]));
    write("two.safetensors", &safetensors::file(&[("a.bias", &[1], vec![1.0])]));
    let index = |two: &str| json!({ "weight_map": { "a.weight": "one.safetensors", "a.bias": two } }).to_string();
    write("model.safetensors.index.json", index("two.safetensors").as_bytes());
    assert!(open(folder.path()).is_ok());
    for outside in ["../two.safetensors", "/etc/passwd", "three.safetensors"] {
        write("model.safetensors.index.json", index(outside).as_bytes());
        assert!(refusal(folder.path()).contains("no file beside it"), "{outside}");
    }
}

#[test]
fn a_broken_file_is_refused_with_a_reason_and_takes_no_memory() {
    let good = safetensors::file(&[("a.weight", &[1, 1], vec![3.0])]);
    let head = |shape: &str, dtype: &str, offsets: &str| {
        safetensors::with_head(
            &format!(r#"{{"a.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#),
            &[0; 4],
        )
    };
    let two =
        r#"{"a.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let huge = u64::MAX.to_le_bytes();
    let cases: Vec<Vec<u8>> = vec![
        vec![],
        vec![1, 2, 3],
        good[..good.len() - 1].to_vec(),
        good[..12].to_vec(),
        [&good[..], b"more"].concat(),
        [&huge[..], &good[8..]].concat(),
        [&(1_u64 << 40).to_le_bytes()[..], &good[8..]].concat(),
        [&0_u64.to_le_bytes()[..], &good[8..]].concat(),
        safetensors::with_head("", &[]),
        safetensors::with_head("[]", &[]),
        safetensors::with_head("{", &[]),
        safetensors::with_head("{\"a.weight\":7}", &[0; 4]),
        safetensors::with_head(&"[".repeat(100_000), &[0; 4]),
        safetensors::with_head(two, &[0; 4]),
        head("[1,1]", "F32", "[0,8]"),
        head("[1,1]", "F32", "[4,0]"),
        head("[1,1]", "F32", "[1,5]"),
        head("[1,1]", "F32", "[0,18446744073709551615]"),
        head("[1,1]", "F32", "[0]"),
        head("[2,2]", "F32", "[0,4]"),
        head("[4611686018427387904,4]", "F32", "[0,4]"),
        head("[18446744073709551615,1]", "F32", "[0,4]"),
        head("[-1,1]", "F32", "[0,4]"),
        head("[1.5,1]", "F32", "[0,4]"),
        head("\"no\"", "F32", "[0,4]"),
        head("[1,1]", "F33", "[0,4]"),
        head("[1,1]", "I32", "[0,4]"),
        head("[1,1]", "F64", "[0,4]"),
        head("[4,1]", "U8", "[0,4]"),
        head("[1,1,1]", "F32", "[0,4]"),
    ];
    assert!(cases.len() >= 30, "{}", cases.len());
    for (place, case) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir().expect("a directory");
        safetensors::version(folder.path(), &net(&[1], &json!([{ "type": "linear", "name": "a" }])), &[]);
        std::fs::write(folder.path().join("model.safetensors"), case).expect("written");
        assert!(!refusal(folder.path()).is_empty(), "case {place}");
    }
}
