//! tract: ONNX in pure Rust, where the ONNX Runtime library is not found.
//!
//! A run uses the calling thread alone, whatever threads were asked for, and computes every output, whichever are wanted.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use half::f16;
use sluicegate_core::dtype::{Bit, Element};
use sluicegate_core::signature::{Kind, TensorSpec};
use sluicegate_core::{Code, DType, Dim, Error, Result, Shape, Tensor, for_dtype};
use tract_onnx::Onnx;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, IntoTValue, SpecialOps, Symbol, TDim,
    TValue, TVec, Tensor as TractTensor, TractError, TractResult, TypedFact, TypedModel, TypedRunnableModel,
};
use tract_onnx::tract_core::internal::bail;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::infer::Factoid;

use crate::graph::{Graph, What, dim_name, dtype};
use crate::sentence::sentence;
use crate::{Device, Engine, EngineChoice, ModelFile, Opened, Options, caught};

/// Outputs up to this many bytes are copied: that costs less than to keep tract's tensor alive for them.
const COPIED: usize = 4096;

/// One user of a plan that all instances share.
struct Instance {
    plan: Arc<TypedRunnableModel>,
    outputs: Arc<[DType]>,
}

/// Loads a model once; the instances share it.
pub(crate) fn open(model: &ModelFile<'_>, graph: &Graph, options: &Options) -> Result<Opened> {
    if let Device::Cuda(_) = options.device {
        return Err(Error::new(
            Code::NoEngine,
            format!("tract runs on the processor alone, and {} was asked for", options.device),
        ));
    }
    let loaded = caught(|| load(model, graph)).unwrap_or_else(|panic| Err(refused(format!("tract panicked: {panic}"))));
    let (plan, inputs, outputs) = loaded?;
    let types: Arc<[DType]> = outputs.iter().map(|output| output.dtype).collect();
    let instance = || -> Box<dyn Engine> { Box::new(Instance { plan: plan.clone(), outputs: types.clone() }) };
    let instances = (0..options.instances.get()).map(|_| instance()).collect();
    Ok(Opened {
        engine: EngineChoice::Tract,
        fallback: None,
        remark: None,
        device: "cpu".to_owned(),
        inputs,
        outputs,
        example: None,
        text: false,
        instances,
    })
}

type Loaded = (Arc<TypedRunnableModel>, Vec<TensorSpec>, Vec<TensorSpec>);

fn load(model: &ModelFile<'_>, graph: &Graph) -> Result<Loaded> {
    let onnx = tract_onnx::onnx();
    check_operators(&onnx, graph)?;
    if graph.one_score_for_two {
        // tract 0.23 loads it and gives the other label of the two: a wrong answer is worse than none.
        return Err(refused("tract gives wrong labels for a TreeEnsembleClassifier of two classes that scores only one of them"));
    }
    for declared in graph.required_inputs().chain(&graph.outputs) {
        if let What::Tensor { element, .. } = declared.what
            && let Some(known @ (DType::Bytes | DType::Bf16)) = dtype(element)
        {
            return Err(refused(format!("tract does not serve {known}, the type of `{}`", declared.name)));
        }
    }
    let refuse = |error: TractError| refused(sentence(&format!("{error:#}")));
    let mut bytes = &*graph.without_zipmaps(model.bytes);
    let proto = onnx.proto_model_for_read(&mut bytes).map_err(refuse)?;
    let folder = model.path.parent().and_then(|folder| folder.to_str());
    let parsed = onnx.parse(&proto, folder).map_err(refuse)?;
    drop(proto);
    if let Some(name) = parsed.unresolved_inputs.first() {
        return Err(refused(format!("nothing in the model gives `{name}`, which a node takes")));
    }
    let mut inferred = parsed.model;
    let made_up = name_free_dimensions(&mut inferred).map_err(refuse)?;
    let typed = typed(inferred, graph).map_err(refuse)?;
    let inputs = specs(graph.required_inputs(), |place| typed.input_fact(place), &made_up).map_err(refuse)?;
    let mut outputs = specs(graph.outputs.iter(), |place| typed.output_fact(place), &made_up).map_err(refuse)?;
    for output in &mut outputs {
        if let Some(labels) = graph.zipped_labels(&output.name) {
            output.kind = Kind::Probability;
            output.labels = labels.to_vec();
        }
    }
    let plan = typed.into_runnable().map_err(refuse)?;
    Ok((plan, inputs, outputs))
}

/// The model with its types worked out. tract counts with symbols where ONNX has INT64, and takes liberties with the widths of integers:
/// outputs become what the file declares.
fn typed(inferred: InferenceModel, graph: &Graph) -> TractResult<TypedModel> {
    let mut model = inferred.into_typed()?;
    let mut outlets = model.output_outlets()?.to_vec();
    for (outlet, declared) in outlets.iter_mut().zip(&graph.outputs) {
        let given = model.outlet_fact(*outlet)?.datum_type;
        let wanted = match declared.what {
            What::Tensor { element, .. } => dtype(element).or_else(|| dtype_of(given)).and_then(datum),
            What::Other(_) => None,
        };
        let Some(wanted) = wanted.filter(|wanted| *wanted != given) else { continue };
        if !(given == DatumType::TDim || given.is_integer()) || !wanted.is_integer() {
            bail!("output `{}` is declared as {wanted:?} and computed as {given:?}", declared.name);
        }
        *outlet = model.wire_node(format!("{} as declared", declared.name), cast(wanted), &[*outlet])?[0];
    }
    model.select_output_outlets(&outlets)?;
    model.into_optimized()
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Code::LoadFailed, message)
}

/// tract knows operators by name alone, so that one of a foreign domain would be taken for the standard one of that name.
fn check_operators(onnx: &Onnx, graph: &Graph) -> Result<()> {
    let known = |(domain, name): &(String, String)| {
        matches!(&**domain, "" | "ai.onnx.ml") && onnx.op_register.0.contains_key(name) || name == "ZipMap"
    };
    let missing: Vec<_> = graph
        .operators
        .iter()
        .filter(|operator| !known(operator))
        .map(|(domain, name)| if domain.is_empty() { name.clone() } else { format!("{name} of domain {domain}") })
        .collect();
    match &*missing {
        [] => Ok(()),
        [one] => Err(refused(format!("tract does not implement the operator {one}"))),
        many => Err(refused(format!("tract does not implement the operators {}", many.join(", ")))),
    }
}

/// Gives each free dimension of an input a symbol, which tract needs to type the model. Nameless first dimensions share one, for
/// they count rows; the other nameless ones differ. Gives the symbols that it made up.
fn name_free_dimensions(model: &mut InferenceModel) -> TractResult<HashSet<Symbol>> {
    let rows = model.symbols.new_with_prefix("rows");
    let mut made_up = HashSet::from([rows.clone()]);
    for input in 0..model.inputs.len() {
        let fact = model.input_fact(input)?.clone();
        let Some(element) = fact.datum_type.concretize() else { continue };
        let mut dims: TVec<TDim> = TVec::new();
        for (axis, dim) in fact.shape.dims().enumerate() {
            let named =
                dim.concretize().filter(|dim| !matches!(dim, TDim::Sym(symbol) if dim_name(&symbol.to_string()).is_none()));
            dims.push(match (named, axis) {
                (Some(dim), _) => dim,
                (None, 0) => TDim::Sym(rows.clone()),
                (None, _) => {
                    let symbol = model.symbols.new_with_prefix("free");
                    made_up.insert(symbol.clone());
                    TDim::Sym(symbol)
                }
            });
        }
        model.set_input_fact(input, InferenceFact::dt_shape(element, dims))?;
    }
    Ok(made_up)
}

fn specs<'a>(
    declared: impl Iterator<Item = &'a crate::graph::Declared>,
    fact: impl Fn(usize) -> TractResult<&'a TypedFact>,
    made_up: &HashSet<Symbol>,
) -> TractResult<Vec<TensorSpec>> {
    let one = |(place, declared): (usize, &crate::graph::Declared)| {
        let fact = fact(place)?;
        let dtype = match declared.what {
            What::Tensor { element, .. } => dtype(element),
            What::Other(_) => None,
        };
        let dtype = dtype.or_else(|| dtype_of(fact.datum_type));
        let Some(dtype) = dtype else {
            bail!("`{}` has elements of type {:?}, which is not served", declared.name, fact.datum_type);
        };
        let dims = fact.shape.iter().map(|dim| match dim {
            TDim::Val(size) => Dim::Fixed(usize::try_from(*size).unwrap_or(0)),
            TDim::Sym(symbol) if made_up.contains(symbol) => Dim::Free(None),
            other => Dim::Free(dim_name(&other.to_string())),
        });
        Ok(TensorSpec::new(&declared.name, dtype, dims.collect()))
    };
    declared.enumerate().map(one).collect()
}

fn dtype_of(datum: DatumType) -> Option<DType> {
    Some(match datum {
        DatumType::Bool => DType::Bool,
        DatumType::U8 => DType::Uint8,
        DatumType::U16 => DType::Uint16,
        DatumType::U32 => DType::Uint32,
        DatumType::U64 => DType::Uint64,
        DatumType::I8 => DType::Int8,
        DatumType::I16 => DType::Int16,
        DatumType::I32 => DType::Int32,
        DatumType::I64 | DatumType::TDim => DType::Int64,
        DatumType::F16 => DType::Fp16,
        DatumType::F32 => DType::Fp32,
        DatumType::F64 => DType::Fp64,
        _ => return None,
    })
}

impl Engine for Instance {
    fn run(&mut self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>> {
        caught(|| self.run_once(inputs, wanted)).unwrap_or_else(|panic| Err(failed(&format!("tract panicked: {panic}"))))
    }
}

impl Instance {
    fn run_once(&self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>> {
        let refuse = |error: TractError| failed(&format!("{error:#}"));
        let inputs: TVec<TValue> =
            inputs.iter().map(|tensor| input(tensor).map(IntoTValue::into_tvalue)).collect::<TractResult<_>>().map_err(refuse)?;
        let outputs = self.plan.run(inputs).map_err(refuse)?;
        let chosen = wanted.iter().map(|&place| match (outputs.get(place), self.outputs.get(place)) {
            (Some(value), Some(&dtype)) => output(value, dtype),
            _ => Err(failed(&format!("the model has {} outputs, not one number {place}", outputs.len()))),
        });
        chosen.collect()
    }
}

fn failed(message: &str) -> Error {
    Error::new(Code::RunFailed, sentence(message))
}

fn input(tensor: &Tensor) -> TractResult<TractTensor> {
    let sizes = tensor.shape().sizes();
    for_dtype!(tensor.dtype(), T => T::tensor(sizes, tensor), BYTES => bail!("tract does not serve BYTES"))
}

fn output(value: &TValue, dtype: DType) -> Result<Tensor> {
    let shape = Shape::new(value.shape());
    if datum(dtype) != Some(value.datum_type()) {
        return Err(failed(&format!("the model gave {:?} where its signature has {dtype}", value.datum_type())));
    }
    let bytes = value.as_bytes();
    let bytes = if bytes.len() <= COPIED { Bytes::copy_from_slice(bytes) } else { Bytes::from_owner(Held(value.clone())) };
    Tensor::fixed(dtype, shape, bytes).map_err(|error| failed(error.message()))
}

/// Keeps tract's memory for as long as somebody has a view of it.
struct Held(TValue);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn datum(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::Bool => DatumType::Bool,
        DType::Uint8 => DatumType::U8,
        DType::Uint16 => DatumType::U16,
        DType::Uint32 => DatumType::U32,
        DType::Uint64 => DatumType::U64,
        DType::Int8 => DatumType::I8,
        DType::Int16 => DatumType::I16,
        DType::Int32 => DatumType::I32,
        DType::Int64 => DatumType::I64,
        DType::Fp16 => DatumType::F16,
        DType::Fp32 => DatumType::F32,
        DType::Fp64 => DatumType::F64,
        DType::Bf16 | DType::Bytes => return None,
    })
}

/// A fixed-width element type, as tract takes it.
trait Known: Element {
    fn tensor(sizes: &[usize], tensor: &Tensor) -> TractResult<TractTensor>;
}

macro_rules! known {
    ($($type:ty),*) => {$(
        impl Known for $type {
            fn tensor(sizes: &[usize], tensor: &Tensor) -> TractResult<TractTensor> {
                TractTensor::from_shape(sizes, &tensor.values::<Self>().unwrap_or_default())
            }
        }
    )*};
}
known!(u8, u16, u32, u64, i8, i16, i32, i64, f16, f32, f64);

impl Known for Bit {
    fn tensor(sizes: &[usize], tensor: &Tensor) -> TractResult<TractTensor> {
        let bits = tensor.values::<Self>().unwrap_or_default();
        TractTensor::from_shape(sizes, &bits.iter().map(|bit| bit.0 != 0).collect::<Vec<_>>())
    }
}

impl Known for half::bf16 {
    fn tensor(_: &[usize], _: &Tensor) -> TractResult<TractTensor> {
        bail!("tract does not serve BF16")
    }
}
