//! The engines of this machine, and how a model is opened with one.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;
use sluicegate_core::{Code, DType, Shape, Tensor};
use sluicegate_engine::{Device, Engine, EngineChoice, Engines, ModelFile, Opened, Options, Search};
use sluicegate_testkit::onnx;
use sluicegate_testkit::safetensors;

#[allow(clippy::disallowed_methods, reason = "a test's switch; the product reads no environment here")]
pub(crate) fn engines() -> Engines {
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
pub(crate) fn each() -> Vec<EngineChoice> {
    let found = engines().onnxruntime().map(|_| EngineChoice::OnnxRuntime);
    found.into_iter().chain([EngineChoice::Tract]).collect()
}

/// Those, and candle.
pub(crate) fn every() -> Vec<EngineChoice> {
    let candle = cfg!(feature = "candle").then_some(EngineChoice::Candle);
    each().into_iter().chain(candle).collect()
}

/// A model of this engine's own format that adds 1 to each of so many columns of any number of rows.
pub(crate) fn add_one(engine: EngineChoice, width: usize, instances: usize) -> Opened {
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

/// The device that was asked for, where this engine knows others than the processor.
#[allow(clippy::disallowed_methods, reason = "a test's switch; the product reads no environment here")]
pub(crate) fn device(engine: EngineChoice) -> Device {
    match std::env::var("SLUICEGATE_TEST_DEVICE") {
        Ok(device) if engine == EngineChoice::OnnxRuntime || cfg!(feature = "cuda") && engine == EngineChoice::Candle => {
            device.parse().expect("a device")
        }
        _ => Device::Cpu,
    }
}

/// How far answers in FP32 may be apart, as a part of the larger of 1 and the number.
pub(crate) fn tolerance() -> f32 {
    if device(EngineChoice::OnnxRuntime) == Device::Cpu { 1e-5 } else { 1e-3 }
}

pub(crate) fn options(engine: EngineChoice) -> Options {
    Options { engine, device: device(engine), ..Options::default() }
}

pub(crate) fn open(bytes: &[u8], engine: EngineChoice) -> sluicegate_core::Result<Opened> {
    engines().open(&ModelFile { path: Path::new("model.onnx"), bytes }, &options(engine))
}

pub(crate) fn instance(bytes: &[u8], engine: EngineChoice) -> Box<dyn Engine> {
    opened(bytes, engine).instances.remove(0)
}

pub(crate) fn opened(bytes: &[u8], engine: EngineChoice) -> Opened {
    open(bytes, engine).unwrap_or_else(|error| panic!("{engine:?}: {error}"))
}

pub(crate) fn refusal(bytes: &[u8], engine: EngineChoice) -> String {
    let error = open(bytes, engine).err().unwrap_or_else(|| panic!("{engine:?} loaded it"));
    assert_eq!(error.code(), Code::LoadFailed, "{engine:?}: {error}");
    one_line(error.message());
    error.message().to_owned()
}

pub(crate) fn one_line(message: &str) {
    assert!(!message.contains('\n') && !message.contains(".cc") && message.len() < 1000, "{message}");
}

pub(crate) fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::new(shape), values.to_vec()).expect("fits")
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.values::<f32>().expect("FP32").into_owned()
}

/// Rows of elements that every type has: bytes of 0 and 1, or short texts.
pub(crate) fn sample(dtype: DType, rows: usize) -> Tensor {
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
