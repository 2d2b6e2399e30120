//! The samples of `model_warmup`: what a version must answer before it is live.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use sluicegate_core::{DType, Result, Shape, Signature, Tensor};
use sluicegate_proto::inference::model_warmup::Input;
use sluicegate_proto::inference::model_warmup::input::InputDataType;
use sluicegate_proto::inference::{ModelConfig, ModelWarmup};

use super::{WARMUP, bad, inside, read, tensors};

/// The most samples, the most runs of one, and the most bytes of its inputs.
const MAX_SAMPLES: usize = 64;
const MAX_COUNT: u32 = 1000;
const MAX_BYTES: usize = 256 << 20;

/// One sample.
pub struct Sample {
    /// What the configuration calls it.
    pub name: String,
    /// Its inputs, in the order of the signature.
    pub inputs: Vec<Tensor>,
    /// Rows in it.
    pub rows: usize,
    /// How often it is run.
    pub count: u32,
}

/// The samples of a configuration. `directory` is the model's, where their data is.
///
/// # Errors
/// [`Code::BadManifest`](sluicegate_core::Code::BadManifest) naming the sample and what is wrong with it.
pub fn samples(config: &ModelConfig, directory: &Path, signature: &Signature) -> Result<Vec<Sample>> {
    if config.model_warmup.len() > MAX_SAMPLES {
        return Err(bad(format!("model_warmup: at most {MAX_SAMPLES} samples are run, got {}", config.model_warmup.len())));
    }
    // A sample without rows is left out, as Triton does.
    let run = config.model_warmup.iter().filter(|sample| sample.batch_size > 0);
    run.map(|sample| one(sample, config, directory, signature).map_err(|error| error.at(place(sample)))).collect()
}

fn place(sample: &ModelWarmup) -> String {
    format!("model_warmup `{}`", sample.name)
}

fn one(sample: &ModelWarmup, config: &ModelConfig, directory: &Path, signature: &Signature) -> Result<Sample> {
    let rows = sample.batch_size as usize;
    let most = usize::try_from(config.max_batch_size).unwrap_or(0).max(1);
    if rows > most {
        return Err(bad(format!("batch_size: expected 1 to {most}, got {rows}")));
    }
    if sample.count > MAX_COUNT {
        return Err(bad(format!("count: a sample is run at most {MAX_COUNT} times, got {}", sample.count)));
    }
    if let Some(unknown) = sample.inputs.keys().find(|name| signature.input(name).is_none()) {
        return Err(bad(format!("inputs: the model has no input `{unknown}`")));
    }
    let mut inputs = Vec::with_capacity(signature.inputs().len());
    for spec in signature.inputs() {
        let input = sample.inputs.get(&*spec.name).ok_or_else(|| bad(format!("inputs: `{}` is missing", spec.name)))?;
        let tensor = tensor(input, rows, config.max_batch_size > 0, directory)
            .map_err(|error| error.at(format!("input `{}`", spec.name)))?;
        let sizes = tensor.shape().sizes();
        let fits = sizes.len() == spec.dims.len() && spec.dims.iter().zip(sizes).all(|(dim, &size)| dim.admits(size));
        if tensor.dtype() != spec.dtype || !fits {
            let expected = format!("{} {}", spec.dtype, sluicegate_core::shape::Dims(&spec.dims));
            return Err(bad(format!("input `{}`: expected {expected}, got {} {}", spec.name, tensor.dtype(), tensor.shape())));
        }
        inputs.push(tensor);
    }
    Ok(Sample { name: sample.name.clone(), inputs, rows, count: sample.count.max(1) })
}

/// The data is that of one row, which comes as often as the sample has rows.
fn tensor(input: &Input, rows: usize, batched: bool, directory: &Path) -> Result<Tensor> {
    let dtype = tensors::dtype(input.data_type()).ok_or_else(|| bad("expected a data_type, got none"))?;
    let size = |&dim: &i64| usize::try_from(dim).map_err(|_| bad(format!("dims: expected sizes, got {dim}")));
    let row: Vec<usize> = input.dims.iter().map(size).collect::<Result<_>>()?;
    let elements = Shape::new(&row).elements();
    let bytes = elements.and_then(|count| count.checked_mul(dtype.size().unwrap_or(4))?.checked_mul(rows));
    let (Some(elements), Some(_)) = (elements, bytes.filter(|&bytes| bytes <= MAX_BYTES)) else {
        return Err(bad(format!("dims: a sample has at most {MAX_BYTES} bytes, got {:?} with {rows} rows", input.dims)));
    };
    let shape: Shape = batched.then_some(rows).into_iter().chain(row).collect();
    let times = if batched { rows } else { 1 };
    match &input.input_data_type {
        Some(InputDataType::InputDataFile(name)) => {
            let path = inside(&directory.join(WARMUP), "input_data_file", name)?;
            from_file(dtype, shape, elements, times, read(&path, MAX_BYTES as u64)?)
        }
        Some(InputDataType::RandomData(true)) => random(dtype, shape, elements * times),
        _ => zeros(dtype, shape, elements * times),
    }
}

fn zeros(dtype: DType, shape: Shape, elements: usize) -> Result<Tensor> {
    match dtype.size() {
        Some(size) => Tensor::fixed(dtype, shape, vec![0; elements * size].into()),
        None => Tensor::text(shape, vec![Bytes::new(); elements]),
    }
}

/// Numbers from 0 up to 1, whole ones 0 or 1: an index is in every table. The same ones each time, so that loading is repeatable.
fn random(dtype: DType, shape: Shape, elements: usize) -> Result<Tensor> {
    let mut state = 0x5eed_u64;
    let mut next = move || {
        // splitmix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    if dtype == DType::Bytes {
        return Tensor::text(shape, (0..elements).map(|_| Bytes::from(format!("{:08x}", next() >> 32))).collect());
    }
    let mut bytes = Vec::with_capacity(elements * dtype.size().unwrap_or(1));
    for _ in 0..elements {
        let draw = next() >> 40;
        let number = if dtype.is_float() { draw as f64 / f64::from(1 << 24) } else { (draw & 1) as f64 };
        dtype.push(number, &mut bytes);
    }
    Tensor::fixed(dtype, shape, bytes.into())
}

/// Little-endian elements; texts with their length before them, as four bytes.
fn from_file(dtype: DType, shape: Shape, elements: usize, times: usize, mut bytes: Vec<u8>) -> Result<Tensor> {
    let short = |expected: String, got: usize| bad(format!("input_data_file: expected {expected}, got {got} bytes"));
    if let Some(size) = dtype.size() {
        let needed = elements * size;
        if bytes.len() < needed {
            return Err(short(format!("{needed} bytes"), bytes.len()));
        }
        bytes.truncate(needed);
        return Tensor::fixed(dtype, shape, bytes.repeat(times).into());
    }
    let length = bytes.len();
    let mut rest = BytesMut::from(&bytes[..]).freeze();
    let mut texts = Vec::new();
    while texts.len() < elements {
        let head: Option<[u8; 4]> = rest.get(..4).and_then(|head| head.try_into().ok());
        let size = head.and_then(|head| usize::try_from(u32::from_le_bytes(head)).ok());
        let Some(size) = size.filter(|size| rest.len() - 4 >= *size) else {
            return Err(short(format!("{elements} texts, each after its length in four bytes"), length));
        };
        let mut text = rest.split_off(4);
        rest = text.split_off(size);
        texts.push(text);
    }
    Tensor::text(shape, std::iter::repeat_n(texts, times).flatten().collect())
}

#[cfg(test)]
mod tests {
    use sluicegate_core::Dim;
    use sluicegate_core::signature::TensorSpec;
    use sluicegate_proto::config::from_text;

    use super::*;

    fn signature() -> Signature {
        let rows = || Dim::Free(None);
        let x = TensorSpec::new("x", DType::Fp32, vec![rows(), Dim::Fixed(2)]);
        let s = TensorSpec::new("s", DType::Bytes, vec![rows(), Dim::Fixed(1)]);
        Signature::new(vec![x, s], vec![TensorSpec::new("y", DType::Fp32, vec![rows()])], None).expect("a good signature")
    }

    fn read_samples(directory: &Path, x: &str, s: &str, rows: u32) -> Result<Vec<Sample>> {
        let text = format!(
            "max_batch_size: 4 model_warmup [ {{ name: \"w\" batch_size: {rows}
             inputs {{ key: \"x\" value: {{ data_type: TYPE_FP32 dims: [ 2 ] {x} }} }}
             inputs {{ key: \"s\" value: {{ data_type: TYPE_STRING dims: [ 1 ] {s} }} }} }} ]"
        );
        samples(&from_text(&text).expect("a configuration"), directory, &signature())
    }

    #[test]
    fn a_row_comes_as_often_as_the_sample_has_rows() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join(WARMUP)).expect("made");
        let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(WARMUP).join(name), bytes).expect("written");
        write("x.bin", &[1f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
        write("s.bin", b"\x02\0\0\0ab");
        let all = read_samples(directory.path(), "input_data_file: \"x.bin\"", "input_data_file: \"s.bin\"", 2).expect("fits");
        assert_eq!((all.len(), all[0].rows, all[0].count), (1, 2, 1));
        assert_eq!(&*all[0].inputs[0].values::<f32>().expect("FP32"), [1.0, 2.0, 1.0, 2.0]);
        assert_eq!(all[0].inputs[1].strings().expect("text"), ["ab", "ab"]);
        write("s.bin", b"\x03\0\0\0ab");
        for (x, s, rows, words) in [
            ("zero_data: true", "input_data_file: \"s.bin\"", 1, "expected 1 texts"),
            ("input_data_file: \"s.bin\"", "zero_data: true", 1, "expected 8 bytes, got 6 bytes"),
            ("input_data_file: \"none\"", "zero_data: true", 1, "none"),
            ("input_data_file: \"../x\"", "zero_data: true", 1, "not inside"),
            ("zero_data: true", "zero_data: true", 5, "expected 1 to 4, got 5"),
        ] {
            let error = read_samples(directory.path(), x, s, rows).err().expect(words);
            assert!(error.message().contains(words) && error.message().contains("model_warmup `w`"), "{error}");
        }
    }

    #[test]
    fn random_data_is_in_bounds_and_the_same_each_time() {
        let tensors = || DType::ALL.map(|dtype| random(dtype, Shape::new(&[3, 2]), 6).expect("fits"));
        assert_eq!(tensors(), tensors());
        let numbers = random(DType::Fp32, Shape::new(&[100]), 100).expect("fits");
        assert!(numbers.values::<f32>().expect("FP32").iter().all(|number| (0.0..1.0).contains(number)));
        let indices = random(DType::Int64, Shape::new(&[100]), 100).expect("fits");
        assert!(indices.values::<i64>().expect("INT64").iter().all(|index| [0, 1].contains(index)));
    }
}
