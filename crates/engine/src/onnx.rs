//! ONNX Runtime, through its shared library.

mod library;
mod value;

use ort::ep::CUDA;
use ort::session::builder::AutoDevicePolicy;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, ValueType};
use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::{Code, DType, Dim, Error, Result, Tensor};
use smallvec::SmallVec;

use crate::graph::Graph;
use crate::sentence::{of_load, sentence};
use crate::{Device, Engine, EngineChoice, ModelFile, Opened, Options, caught};

pub(crate) use library::{Library, find};

/// Choices of outputs whose run options are kept; callers choose, so there has to be an end.
const KEPT_CHOICES: usize = 16;

/// One session: an instance.
struct Instance {
    session: Session,
    outputs: Vec<TensorSpec>,
    choices: Vec<(SmallVec<[usize; 4]>, RunOptions<ort::session::HasSelectedOutputs>)>,
}

/// Loads a model, once an instance.
pub(crate) fn open(library: &Library, model: &ModelFile<'_>, graph: &Graph, options: &Options) -> Result<Opened> {
    let bytes = graph.without_zipmaps(model.bytes);
    let mut instances: Vec<Box<dyn Engine>> = Vec::with_capacity(options.instances.get());
    let mut described = None;
    for _ in 0..options.instances.get() {
        let session = caught(|| session(library, model, &bytes, options))
            .unwrap_or_else(|panic| Err(Error::new(Code::LoadFailed, format!("ONNX Runtime panicked: {panic}"))))?;
        if described.is_none() {
            described = Some((
                session.inputs().iter().map(spec).collect::<Result<Vec<_>>>()?,
                session.outputs().iter().map(|outlet| output_spec(outlet, graph)).collect::<Result<Vec<_>>>()?,
            ));
        }
        let outputs = described.as_ref().map(|(_, outputs)| outputs.clone()).unwrap_or_default();
        instances.push(Box::new(Instance { session, outputs, choices: Vec::new() }));
    }
    let (inputs, outputs) = described.unwrap_or_default();
    let device = match options.device {
        Device::Auto | Device::Cpu => "cpu".to_owned(),
        Device::Cuda(_) => options.device.to_string(),
    };
    Ok(Opened { engine: EngineChoice::OnnxRuntime, fallback: None, device, inputs, outputs, instances })
}

fn session(library: &Library, model: &ModelFile<'_>, bytes: &[u8], options: &Options) -> Result<Session> {
    let refuse = |error: ort::Error| Error::new(Code::LoadFailed, of_load(error.message(), &library.version));
    let build = || -> ort::Result<_> {
        let builder = Session::builder(&library.environment)?
            .with_auto_device(AutoDevicePolicy::PreferCPU)?
            .with_intra_threads(options.threads.get())?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?;
        match model.path.parent().and_then(|folder| folder.to_str()) {
            Some(folder) => Ok(builder.with_config_entry("session.model_external_initializers_file_folder_path", folder)?),
            None => Ok(builder),
        }
    };
    let mut builder = build().map_err(refuse)?;
    if let Device::Cuda(number) = options.device {
        let number = i32::try_from(number).map_err(|_| no_cuda(options.device, "there is no device of that number"))?;
        let provider = CUDA::default().with_device_id(number).build().error_on_failure();
        builder = builder.with_execution_providers([provider]).map_err(|error| no_cuda(options.device, error.message()))?;
    }
    builder.commit_from_memory(bytes).map_err(refuse)
}

fn no_cuda(device: Device, why: &str) -> Error {
    Error::new(Code::NoEngine, format!("{device} was asked for and cannot be used: {}", sentence(why)))
}

fn spec(outlet: &Outlet) -> Result<TensorSpec> {
    let name = outlet.name();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Err(Error::new(Code::LoadFailed, format!("`{name}` is a {}: only tensors are served", outlet.dtype())));
    };
    let Some(dtype) = dtype(*ty) else {
        return Err(Error::new(Code::LoadFailed, format!("`{name}` has elements of type {ty}, which is not served")));
    };
    let dims = shape.iter().zip(dimension_symbols.iter()).map(|(&size, symbol)| match usize::try_from(size) {
        Ok(size) => Dim::Fixed(size),
        Err(_) => Dim::Free(crate::graph::dim_name(symbol)),
    });
    Ok(TensorSpec::new(name, dtype, dims.collect()))
}

fn output_spec(outlet: &Outlet, graph: &Graph) -> Result<TensorSpec> {
    let mut spec = spec(outlet)?;
    if let Some(labels) = graph.zipped_labels(&spec.name) {
        spec.kind = Kind::Probability;
        spec.labels = labels.to_vec();
    }
    Ok(spec)
}

fn dtype(element: ort::value::TensorElementType) -> Option<DType> {
    use ort::value::TensorElementType as Element;
    Some(match element {
        Element::Bool => DType::Bool,
        Element::Uint8 => DType::Uint8,
        Element::Uint16 => DType::Uint16,
        Element::Uint32 => DType::Uint32,
        Element::Uint64 => DType::Uint64,
        Element::Int8 => DType::Int8,
        Element::Int16 => DType::Int16,
        Element::Int32 => DType::Int32,
        Element::Int64 => DType::Int64,
        Element::Float16 => DType::Fp16,
        Element::Bfloat16 => DType::Bf16,
        Element::Float32 => DType::Fp32,
        Element::Float64 => DType::Fp64,
        Element::String => DType::Bytes,
        _ => return None,
    })
}

impl Engine for Instance {
    fn run(&mut self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        caught(|| self.run_once(inputs, wanted))
            .unwrap_or_else(|panic| Err(value::failed(&format!("ONNX Runtime panicked: {panic}"))))
    }
}

impl Instance {
    fn run_once(&mut self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>> {
        let aligned: SmallVec<[_; 4]> = inputs.iter().map(value::aligned).collect();
        let values: SmallVec<[SessionInputValue<'_>; 4]> =
            aligned.iter().map(|tensor| value::input(tensor)).collect::<Result<_>>()?;
        let all = wanted.len() == self.outputs.len() && wanted.iter().enumerate().all(|(place, &output)| place == output);
        let outputs = if all {
            self.session.run(&values[..])
        } else {
            let choice = choice(&mut self.choices, &self.outputs, wanted)?;
            self.session.run_with_options(&values[..], &self.choices[choice].1)
        };
        let outputs = outputs.map_err(|error| value::failed(error.message()))?;
        let typed = outputs.into_iter().zip(wanted).map(|((_, value), &output)| value::output(value, self.outputs[output].dtype));
        typed.collect()
    }
}

/// The place of the run options that choose exactly these outputs.
fn choice(
    choices: &mut Vec<(SmallVec<[usize; 4]>, RunOptions<ort::session::HasSelectedOutputs>)>,
    outputs: &[TensorSpec],
    wanted: &[usize],
) -> Result<usize> {
    if let Some(known) = choices.iter().position(|(chosen, _)| &chosen[..] == wanted) {
        return Ok(known);
    }
    let mut selector = OutputSelector::no_default();
    for &output in wanted {
        let Some(spec) = outputs.get(output) else {
            return Err(value::failed(&format!("the model has {} outputs, not one number {output}", outputs.len())));
        };
        selector = selector.with(&*spec.name);
    }
    let options = RunOptions::new().map_err(|error| value::failed(error.message()))?.with_outputs(selector);
    if choices.len() == KEPT_CHOICES {
        choices.remove(0);
    }
    choices.push((wanted.into(), options));
    Ok(choices.len() - 1)
}
