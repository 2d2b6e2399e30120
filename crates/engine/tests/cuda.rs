//! What a CUDA device gives beside the processor, and what `auto` makes of it; where `SLUICEGATE_TEST_DEVICE` names one.

use std::path::{Path, PathBuf};

use sluicegate_core::{Code, DType, Dim, Shape, Tensor};
use sluicegate_engine::{Device, EngineChoice, Engines, Gpus, ModelFile, Options, Search};
use sluicegate_testkit::onnx::Model;

#[allow(clippy::disallowed_methods, reason = "a test's switch; the product reads no environment here")]
fn device() -> Option<(Device, Engines)> {
    let Ok(device) = std::env::var("SLUICEGATE_TEST_DEVICE") else {
        eprintln!("skipped: SLUICEGATE_TEST_DEVICE names no device");
        return None;
    };
    let environment = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let engines = Engines::find(&Search { environment, ..Search::default() }).expect("the library");
    Some((device.parse().expect("a device"), engines))
}

#[test]
fn cuda_that_is_there_is_taken_by_auto_and_answers_as_the_processor_does() {
    let Some((cuda, engines)) = device() else { return };
    let square = |dtype| {
        let dims = [Dim::Fixed(16), Dim::Fixed(16)];
        Model::new(17).input("x", dtype, &dims).output("y", dtype, &dims).node("MatMul", &["x", "x"], &["y"], &[]).build()
    };
    let numbers: Vec<f32> = (0..256u16).map(|place| f32::from(place * 37 % 101) / 50.0 - 1.0).collect();
    let halves: Vec<half::f16> = numbers.iter().map(|&number| half::f16::from_f32(number)).collect();
    let shape = || Shape::new(&[16, 16]);
    let full = Tensor::from_vec(shape(), numbers).expect("fits");
    let half = Tensor::from_vec(shape(), halves).expect("fits");
    for (dtype, x, tolerance) in [(DType::Fp32, full, 1e-3), (DType::Fp16, half, 1e-2)] {
        let bytes = square(dtype);
        let on = |device, wanted: &str| {
            let options = Options { device, engine: EngineChoice::OnnxRuntime, ..Options::default() };
            let mut opened = engines.open(&ModelFile { path: Path::new("model.onnx"), bytes: &bytes }, &options).expect("loads");
            assert_eq!((&*opened.device, opened.fallback), (wanted, None));
            let got = opened.instances[0].run(std::slice::from_ref(&x), &[0]).expect("runs").remove(0);
            match dtype {
                DType::Fp16 => got.values::<half::f16>().expect("FP16").iter().map(|value| value.to_f32()).collect::<Vec<f32>>(),
                _ => got.values::<f32>().expect("FP32").into_owned(),
            }
        };
        let wanted = on(Device::Cpu, "cpu");
        for got in [on(cuda, &cuda.to_string()), on(Device::Auto, "cuda:0")] {
            assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= tolerance * b.abs().max(1.0)), "{got:?} {wanted:?}");
        }
    }
    let Device::Cuda(gpus) = cuda else { panic!("{cuda} is no GPU") };
    let first = gpus.of_instance(0);
    let taken = sluicegate_engine::memory_taken_on(first);
    assert!(taken.is_some_and(|bytes| bytes > 1 << 20), "the driver says {taken:?} of cuda:{first}, which this process uses");
    // Trees have no kernels there.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/fraud/1/model.onnx");
    let bytes = std::fs::read(&root).expect("a sample model");
    let opened = engines.open(&ModelFile { path: &root, bytes: &bytes }, &Options::default()).expect("loads");
    assert_eq!(opened.device, "cpu");
    let far = Options { device: Device::Cuda(Gpus::new([63]).expect("a number")), ..Options::default() };
    let error = engines.open(&ModelFile { path: &root, bytes: &bytes }, &far).err().expect("no such device");
    assert_eq!(error.code(), Code::NoEngine, "{error}");
}
