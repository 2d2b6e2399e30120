//! What a configuration says of inputs and outputs, checked against those of the model.

use std::path::Path;

use sluicegate_core::shape::Dims;
use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::{Code, DType, Dim, Error, Result, Signature};
use sluicegate_proto::inference::{DataType, ModelConfig, ModelOutput};

use super::{FILE, MAX_BYTES, bad, inside, read};

/// One tensor of the configuration.
struct Said<'a> {
    side: &'static str,
    name: &'a str,
    data_type: DataType,
    dims: &'a [i64],
}

/// The signature of a model that has these inputs and outputs. `directory` is the model's, where its labels are.
///
/// # Errors
/// [`Code::BadSignature`] with expected and got where they contradict each other; [`Code::BadManifest`] where labels cannot be
/// read.
pub fn sign(config: &ModelConfig, directory: &Path, inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Result<Signature> {
    let (mut inputs, mut outputs) = (inputs, outputs);
    let batched = config.max_batch_size > 0;
    if batched {
        inputs.iter_mut().chain(&mut outputs).try_for_each(|spec| open_rows(spec, config.max_batch_size))?;
    }
    for said in said(config) {
        let specs = if said.side == "input" { &mut inputs } else { &mut outputs };
        let have = specs.iter().map(|spec| format!("`{}`", spec.name)).collect::<Vec<_>>().join(", ");
        let spec = specs.iter_mut().find(|spec| &*spec.name == said.name).ok_or_else(|| {
            let message = format!("{FILE} has {} `{}`, which the model does not have; it has {have}", said.side, said.name);
            Error::new(Code::BadSignature, message)
        })?;
        said.lay_over(spec, batched)?;
    }
    for output in &config.output {
        if let Some(spec) = outputs.iter_mut().find(|spec| *spec.name == output.name) {
            label(output, directory, spec)?;
        }
    }
    close(config, inputs, outputs)
}

/// The signature of a model that is nothing but its configuration.
///
/// # Errors
/// [`Code::BadManifest`] where a type or dimension is missing, and as [`Signature::new`] has it.
pub fn alone(config: &ModelConfig, directory: &Path) -> Result<Signature> {
    let batched = config.max_batch_size > 0;
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for said in said(config) {
        let dtype = dtype(said.data_type).ok_or_else(|| said.bad("expected a data_type, got none"))?;
        let rows = batched.then_some(Dim::Free(None));
        let dims = rows.into_iter().chain(said.dims()?.into_iter().map(|size| size.map_or(Dim::Free(None), Dim::Fixed)));
        let specs = if said.side == "input" { &mut inputs } else { &mut outputs };
        specs.push(TensorSpec::new(said.name, dtype, dims.collect()));
    }
    for (output, spec) in config.output.iter().zip(&mut outputs) {
        label(output, directory, spec)?;
    }
    close(config, inputs, outputs)
}

/// Requests of a model without batches do not share a run. One that says nothing of its tensors leaves that to the model.
fn close(config: &ModelConfig, inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Result<Signature> {
    let says_nothing = config.input.is_empty() && config.output.is_empty();
    if config.max_batch_size > 0 || says_nothing {
        Signature::new(inputs, outputs, None)
    } else {
        Signature::apart(inputs, outputs, None)
    }
}

/// The element type of a data type; none for one that is not set.
pub fn dtype(data_type: DataType) -> Option<DType> {
    match data_type {
        DataType::TypeInvalid => None,
        DataType::TypeString => Some(DType::Bytes),
        other => DType::from_name(other.as_str_name().trim_start_matches("TYPE_")),
    }
}

fn said(config: &ModelConfig) -> impl Iterator<Item = Said<'_>> {
    let inputs = config.input.iter().map(|input| Said {
        side: "input",
        name: &input.name,
        data_type: input.data_type(),
        dims: &input.dims,
    });
    let outputs = config.output.iter().map(|output| Said {
        side: "output",
        name: &output.name,
        data_type: output.data_type(),
        dims: &output.dims,
    });
    inputs.chain(outputs)
}

/// The first axis counts rows: `max_batch_size` says so, whatever the model calls it.
fn open_rows(spec: &mut TensorSpec, max_batch_size: i32) -> Result<()> {
    match spec.dims.first_mut() {
        Some(rows @ Dim::Free(_)) => {
            *rows = Dim::Free(None);
            Ok(())
        }
        _ => Err(Error::new(
            Code::BadSignature,
            format!(
                "{FILE}: max_batch_size: {max_batch_size} needs a free first axis, `{}` has the shape {}; expected max_batch_size: 0",
                spec.name,
                Dims(&spec.dims)
            ),
        )),
    }
}

impl Said<'_> {
    fn bad(&self, message: impl std::fmt::Display) -> Error {
        bad(format!("{} `{}`: {message}", self.side, self.name))
    }

    /// Its sizes; none for a free one.
    fn dims(&self) -> Result<Vec<Option<usize>>> {
        let size = |&dim: &i64| match usize::try_from(dim) {
            Ok(size) => Ok(Some(size)),
            Err(_) if dim == -1 => Ok(None),
            Err(_) => Err(self.bad(format!("dims: expected sizes, or -1 for any size, got {dim}"))),
        };
        self.dims.iter().map(size).collect()
    }

    /// Checks it against the model's own, and fixes the free dimensions that it has a size for.
    fn lay_over(&self, spec: &mut TensorSpec, batched: bool) -> Result<()> {
        let differs = |expected: String, got: String| {
            let message = format!("{FILE} has {} `{}` as {got}, the model has it as {expected}", self.side, self.name);
            Err(Error::new(Code::BadSignature, message))
        };
        if let Some(dtype) = dtype(self.data_type).filter(|dtype| *dtype != spec.dtype) {
            return differs(spec.dtype.to_string(), dtype.to_string());
        }
        if self.dims.is_empty() {
            return Ok(());
        }
        let sizes = self.dims()?;
        let own = &mut spec.dims[usize::from(batched)..];
        let fits = |(own, size): (&Dim, &Option<usize>)| match (own, size) {
            (Dim::Free(_), _) => true,
            (Dim::Fixed(own), Some(size)) => own == size,
            (Dim::Fixed(_), None) => false,
        };
        if own.len() != sizes.len() || !own.iter().zip(&sizes).all(fits) {
            let rows = if batched { " after the rows" } else { "" };
            return differs(format!("{}{rows}", Dims(own)), format!("{:?}", self.dims));
        }
        for (own, size) in own.iter_mut().zip(sizes) {
            if let Some(size) = size {
                *own = Dim::Fixed(size);
            }
        }
        Ok(())
    }
}

/// Names for the classes of an output: one a line.
fn label(output: &ModelOutput, directory: &Path, spec: &mut TensorSpec) -> Result<()> {
    if output.label_filename.is_empty() {
        return Ok(());
    }
    let path = inside(directory, "label_filename", &output.label_filename)?;
    let place = |error: Error| error.at(format!("{FILE}: output `{}`: label_filename", output.name));
    let text = read(&path, MAX_BYTES).map_err(place)?;
    let text = std::str::from_utf8(&text).map_err(|_| place(Error::new(Code::BadManifest, "it is not UTF-8")))?;
    spec.labels = text.lines().map(|line| line.trim().to_owned()).collect();
    let is_index = spec.dtype.is_integer() || spec.dtype == DType::Bytes;
    spec.kind = if is_index { Kind::Label } else { Kind::Score };
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluicegate_proto::config::from_text;

    use super::*;

    fn free(name: &str) -> Dim {
        Dim::Free(Some(name.into()))
    }

    fn signed(text: &str, x: &[Dim], y: &[Dim]) -> Result<Signature> {
        let config = from_text(text).expect("a configuration");
        let specs = |name: &str, dims: &[Dim]| vec![TensorSpec::new(name, DType::Fp32, dims.to_vec())];
        sign(&config, Path::new("/nowhere"), specs("x", x), specs("y", y))
    }

    #[test]
    fn dims_are_those_of_a_row_where_there_are_batches_and_fix_what_is_free() {
        let text = "max_batch_size: 4 input [ { name: \"x\" data_type: TYPE_FP32 dims: [ 3, -1 ] } ]";
        let signature = signed(text, &[free("N"), free("A"), free("B")], &[free("M"), Dim::Fixed(2)]).expect("it fits");
        assert!(signature.is_batched(), "max_batch_size says so, whatever the axes are called");
        assert_eq!(signature.inputs()[0].dims, [Dim::Free(None), Dim::Fixed(3), free("B")]);
    }

    #[test]
    fn without_batches_dims_are_all_axes_and_requests_stay_apart() {
        let text = "input [ { name: \"x\" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]";
        let signature = signed(text, &[free("N"), Dim::Fixed(3)], &[free("N")]).expect("it fits");
        assert!(!signature.is_batched());
        let signature = signed("", &[free("N"), Dim::Fixed(3)], &[free("N")]).expect("it fits");
        assert!(signature.is_batched(), "one that says nothing of its tensors leaves it to the model");
    }

    #[test]
    fn what_contradicts_the_model_is_told_with_expected_and_got() {
        let row = [free("N"), Dim::Fixed(3)];
        for (text, words) in [
            ("input [ { name: \"z\" } ]", "input `z`, which the model does not have; it has `x`"),
            ("input [ { name: \"x\" data_type: TYPE_INT64 } ]", "as INT64, the model has it as FP32"),
            ("max_batch_size: 2 input [ { name: \"x\" dims: [ 4 ] } ]", "as [4], the model has it as [3] after the rows"),
            ("input [ { name: \"x\" dims: [ 3 ] } ]", "as [3], the model has it as [-1, 3]"),
            ("output [ { name: \"y\" dims: [ -2, 3 ] } ]", "got -2"),
        ] {
            let error = signed(text, &row, &row).expect_err(words);
            assert!(error.message().contains(words), "{error}");
        }
        let error = signed("max_batch_size: 2", &[Dim::Fixed(1), Dim::Fixed(3)], &row).expect_err("rows are fixed");
        assert!(error.message().contains("expected max_batch_size: 0"), "{error}");
    }

    #[test]
    fn labels_name_classes_and_lie_in_the_models_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("labels.txt"), "no\nyes\n").expect("written");
        let text = |file: &str| format!("output [ {{ name: \"y\" label_filename: \"{file}\" }} ]");
        let specs = |name: &str| vec![TensorSpec::new(name, DType::Fp32, vec![free("N"), Dim::Fixed(2)])];
        let sign = |file: &str| {
            let config = from_text(&text(file)).expect("a configuration");
            sign(&config, directory.path(), specs("x"), specs("y"))
        };
        let signature = sign("labels.txt").expect("it fits");
        assert_eq!(
            (&signature.outputs()[0].labels[..], signature.outputs()[0].kind),
            (&["no".into(), "yes".into()][..], Kind::Score)
        );
        for (file, words) in [("../labels.txt", "not inside"), ("/etc/passwd", "not inside"), ("none.txt", "none.txt")] {
            let error = sign(file).expect_err(words);
            assert!(error.message().contains(words), "{error}");
        }
    }
}
