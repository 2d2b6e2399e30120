//! ONNX Runtime, through its shared library.

mod cuda;
mod division;
mod library;
mod session;
mod spawner;
mod tensorrt;
mod value;

use std::sync::Arc;

use ort::session::builder::AutoDevicePolicy;
use ort::value::{Outlet, ValueType};
use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::{Code, DType, Dim, Error, Result, Tensor};

use crate::graph::Graph;
use crate::sentence::of_load;
use crate::{Device, Engine, EngineChoice, Gpus, ModelFile, Opened, Options, caught};

use session::Session;

pub(crate) use library::{Library, find};

/// One user of a session.
struct Instance(Arc<Session>);

/// Loads a model: once for all instances on the processor, where they share its weights and its threads; once for each
/// instance on other devices.
pub(crate) fn open(library: &Library, model: &ModelFile<'_>, graph: &Graph, options: &Options) -> Result<Opened> {
    let on = |device| open_on(library, model, graph, &Options { device, ..options.clone() });
    if options.engine == EngineChoice::TensorRt && options.device == Device::Auto {
        return on(Device::Cuda(Gpus::FIRST));
    }
    // Trees and linear models have no kernels for CUDA: there, they would only be copied to and fro.
    if options.device != Device::Auto || graph.operators.iter().any(|(domain, _)| domain == "ai.onnx.ml") {
        return on(options.device);
    }
    let why = match library.cuda_for_auto() {
        None => return on(Device::Cpu),
        Some(Err(why)) => why,
        Some(Ok(())) => match on(Device::Cuda(Gpus::FIRST)) {
            Ok(opened) => return Ok(opened),
            Err(error) => {
                if error.code() == Code::NoEngine {
                    library.without_cuda(error.message());
                }
                error.message().to_owned()
            }
        },
    };
    let opened = on(Device::Cpu)?;
    Ok(Opened { fallback: Some(format!("runs on the processor: {why}")), ..opened })
}

fn open_on(library: &Library, model: &ModelFile<'_>, graph: &Graph, options: &Options) -> Result<Opened> {
    let bytes = &*graph.without_zipmaps(model.bytes);
    let source = Source { library, model, bytes, graph, options };
    let (sessions, device, (inputs, outputs)) = match options.device {
        Device::Auto | Device::Cpu => {
            let (session, specs) = source.load(None)?;
            (vec![session; options.instances.get()], "cpu".to_owned(), specs)
        }
        Device::Cuda(gpus) => {
            let loaded = options.on(gpus).map(|gpu| source.load(Some(gpu))).collect::<Result<Vec<_>>>()?;
            let (sessions, mut specs): (Vec<_>, Vec<_>) = loaded.into_iter().unzip();
            (sessions, options.device.to_string(), specs.pop().unwrap_or_default())
        }
    };
    let instances = sessions.into_iter().map(|session| -> Box<dyn Engine> { Box::new(Instance(session)) }).collect();
    let (engine, remark) = match options.engine {
        EngineChoice::TensorRt => (EngineChoice::TensorRt, tensorrt::remark(graph).map(str::to_owned)),
        _ => (EngineChoice::OnnxRuntime, None),
    };
    Ok(Opened { engine, fallback: None, remark, device, inputs, outputs, example: None, text: false, instances })
}

/// What sessions are made of.
struct Source<'a> {
    library: &'a Library,
    model: &'a ModelFile<'a>,
    /// The model's own, or those without what cannot be served as tensors.
    bytes: &'a [u8],
    graph: &'a Graph,
    options: &'a Options,
}

/// A session, and its inputs and outputs.
type Loaded = (Arc<Session>, (Vec<TensorSpec>, Vec<TensorSpec>));

impl Source<'_> {
    /// Makes one on the processor, or on a device.
    fn load(&self, gpu: Option<u32>) -> Result<Loaded> {
        let load = || {
            let session = self.commit(gpu)?;
            let inputs = session.inputs().iter().map(spec).collect::<Result<Vec<_>>>()?;
            let outputs = session.outputs().iter().map(|outlet| output_spec(outlet, self.graph)).collect::<Result<Vec<_>>>()?;
            Ok((Arc::new(Session::new(session, &outputs)?), (inputs, outputs)))
        };
        caught(load).unwrap_or_else(|panic| Err(Error::new(Code::LoadFailed, format!("ONNX Runtime panicked: {panic}"))))
    }

    fn commit(&self, gpu: Option<u32>) -> Result<ort::session::Session> {
        let Self { library, model, bytes, graph, options } = self;
        let refuse = |error: ort::Error| Error::new(Code::LoadFailed, of_load(error.message(), &library.version));
        let build = || -> ort::Result<_> {
            let builder = ort::session::Session::builder(&library.environment)?
                .with_auto_device(AutoDevicePolicy::PreferCPU)?
                .with_intra_threads(options.threads.get())?
                .with_inter_threads(1)?
                .with_parallel_execution(false)?
                .with_intra_op_spinning(false)?
                .with_inter_op_spinning(false)?
                // A pattern is kept for each combination of sizes that ever came, which callers choose where inner dimensions are
                // free.
                .with_memory_pattern(!graph.has_free_inner_dimensions())?;
            let builder = match &library.spawner {
                Some(spawner) if options.threads.get() > 1 => builder.with_thread_manager(spawner.clone())?,
                _ => builder,
            };
            match model.path.parent().and_then(|folder| folder.to_str()) {
                Some(folder) => Ok(builder.with_config_entry("session.model_external_initializers_file_folder_path", folder)?),
                None => Ok(builder),
            }
        };
        let mut builder = build().map_err(refuse)?;
        let Some(gpu) = gpu else { return builder.commit_from_memory(bytes).map_err(refuse) };
        let no_cuda = |why: &str| cuda::unusable(gpu, why, &library.path);
        let tensorrt = (options.engine == EngineChoice::TensorRt).then(|| tensorrt::provider(gpu, graph, options.max_rows.get()));
        let providers: Vec<_> =
            tensorrt.into_iter().chain([cuda::provider(gpu)]).map(ort::ep::ExecutionProviderDispatch::error_on_failure).collect();
        builder = builder.with_execution_providers(providers).map_err(|error| no_cuda(error.message()))?;
        builder.commit_from_memory(bytes).map_err(|error| match error.message() {
            message if cuda::is_of_device(message) => no_cuda(message),
            _ => refuse(error),
        })
    }
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
        caught(|| self.0.run(inputs, wanted))
            .unwrap_or_else(|panic| Err(value::failed(&format!("ONNX Runtime panicked: {panic}"))))
    }
}
