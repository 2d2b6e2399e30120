//! The protobuf messages of the Open Inference Protocol: requests into tensors, responses back, raw contents without a copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use sluicegate_core::dtype::{Bit, Element};
use sluicegate_core::{Code, DType, Data, Error, Request, Response, Result, Shape, Tensor};
use sluicegate_proto::inference::infer_parameter::ParameterChoice;
use sluicegate_proto::inference::model_infer_request::InferInputTensor;
use sluicegate_proto::inference::model_infer_response::InferOutputTensor;
use sluicegate_proto::inference::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};

use crate::binary;
use crate::elements::Scalar;
use crate::json::{self, Outputs};
use crate::parameters::Parameters;

/// What a request says of the form of its answer.
#[derive(Debug, Default)]
pub struct Form {
    /// Elements in the fields of their type, where the request had its own so and asked for it with `typed_output`: tools that
    /// show messages to people want it. Clients read the raw contents alone.
    pub typed: bool,
    /// What it says of single outputs.
    pub outputs: Outputs,
}

/// Asks for typed contents.
const TYPED: &str = "typed_output";

/// What clients of Triton set on streams. Every answer of a stream is the final one of its request, and says so.
const EMPTY_FINAL: &str = "triton_enable_empty_final_response";

/// Most fields of a message, each entry of a list counted. An input without a word in it is two bytes, and three hundred in memory.
const MAX_FIELDS: usize = 4096;

/// Checks that a message is not of more parts than any request needs, before memory is taken for them.
///
/// # Errors
/// [`Code::Malformed`]. What is no message is left to its decoder.
pub fn few_fields(mut message: &[u8]) -> Result<()> {
    for _ in 0..MAX_FIELDS {
        if message.is_empty() {
            return Ok(());
        }
        let field = decode_key(&mut message);
        if field.and_then(|(tag, wire)| skip_field(wire, tag, &mut message, DecodeContext::default())).is_err() {
            return Ok(());
        }
    }
    if message.is_empty() {
        return Ok(());
    }
    Err(Error::new(Code::Malformed, format!("expected at most {MAX_FIELDS} inputs, outputs and parameters, got more")))
}

/// Takes a request over.
///
/// # Errors
/// [`Code::Malformed`] where its parts contradict each other, [`Code::Unsupported`] where a parameter asks for what is not
/// served, and those of shapes and tensors with the name of the input.
pub fn read(message: ModelInferRequest) -> Result<(Request, Form)> {
    let ModelInferRequest { id, parameters, inputs, outputs, raw_input_contents: raw, .. } = message;
    let typed = parameters.get(TYPED).is_some_and(|asked| asked.parameter_choice == Some(ParameterChoice::BoolParam(true)));
    let asked = take(&parameters)?;
    asked.served()?;
    if !raw.is_empty() && raw.len() != inputs.len() {
        let message = format!("raw_input_contents has {} entries for {} inputs: expected one for each", raw.len(), inputs.len());
        return Err(Error::new(Code::Malformed, message));
    }
    let mut form = Form { typed: typed && raw.is_empty(), outputs: Outputs::default() };
    let mut raw = raw.into_iter();
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        take(&input.parameters)?.served()?;
        let name: Arc<str> = input.name.as_str().into();
        let tensor = tensor(input, raw.next()).map_err(|error| error.at(format!("input `{name}`")))?;
        tensors.push((name, tensor));
    }
    let mut names = Vec::with_capacity(outputs.len());
    for output in outputs {
        let asked = take(&output.parameters)?;
        asked.served_of_output()?;
        form.outputs.ask(&output.name, &asked);
        names.push(output.name);
    }
    let request = Request {
        id: (!id.is_empty()).then_some(id),
        inputs: tensors,
        outputs: names,
        priority: asked.priority.unwrap_or(0),
        timeout: asked.timeout(),
        ..Request::default()
    };
    Ok((request, form))
}

fn take(sent: &BTreeMap<String, InferParameter>) -> Result<Parameters> {
    let mut parameters = Parameters::default();
    for (key, parameter) in sent.iter().filter(|(key, _)| *key != EMPTY_FINAL) {
        let value = match &parameter.parameter_choice {
            None => continue,
            Some(ParameterChoice::BoolParam(flag)) => Scalar::Bool(*flag),
            Some(ParameterChoice::Int64Param(number)) => Scalar::Int(*number),
            Some(ParameterChoice::Uint64Param(number)) => Scalar::Uint(*number),
            Some(ParameterChoice::DoubleParam(number)) => Scalar::Float(*number),
            Some(ParameterChoice::StringParam(text)) => Scalar::Text(text),
        };
        parameters.take(key, value).map_err(|why| Error::new(Code::Malformed, why))?;
    }
    Ok(parameters)
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor> {
    let dtype = DType::from_name(&input.datatype).ok_or_else(|| json::no_datatype(&input.datatype))?;
    let shape = json::shape(&input.shape)?;
    match (raw, input.contents) {
        (Some(_), Some(contents)) if contents != InferTensorContents::default() => {
            Err(Error::new(Code::Malformed, "has both `contents` and an entry in raw_input_contents; send one of them"))
        }
        (Some(raw), _) => binary::decode(dtype, shape, raw),
        (None, contents) => typed(dtype, shape, contents.unwrap_or_default()),
    }
}

/// The field that has the elements of a type; `None` where there is none.
fn field(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::Bool => "bool_contents",
        DType::Int8 | DType::Int16 | DType::Int32 => "int_contents",
        DType::Int64 => "int64_contents",
        DType::Uint8 | DType::Uint16 | DType::Uint32 => "uint_contents",
        DType::Uint64 => "uint64_contents",
        DType::Fp32 => "fp32_contents",
        DType::Fp64 => "fp64_contents",
        DType::Bytes => "bytes_contents",
        DType::Fp16 | DType::Bf16 => return None,
    })
}

fn typed(dtype: DType, shape: Shape, contents: InferTensorContents) -> Result<Tensor> {
    let Some(field) = field(dtype) else {
        return Err(Error::new(Code::InvalidTensor, format!("{dtype} has no typed contents; send it in raw_input_contents")));
    };
    let given = [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ];
    if let Some((other, _)) = given.iter().find(|(name, count)| *name != field && *count > 0) {
        return Err(Error::new(Code::Malformed, format!("expected the elements of {dtype} in {field}, got {other}")));
    }
    match dtype {
        DType::Bool => {
            Tensor::from_vec(shape, contents.bool_contents.into_iter().map(|bit| Bit(u8::from(bit))).collect::<Vec<_>>())
        }
        DType::Int8 => narrow::<i8, _>(shape, contents.int_contents),
        DType::Int16 => narrow::<i16, _>(shape, contents.int_contents),
        DType::Int32 => Tensor::from_vec(shape, contents.int_contents),
        DType::Int64 => Tensor::from_vec(shape, contents.int64_contents),
        DType::Uint8 => narrow::<u8, _>(shape, contents.uint_contents),
        DType::Uint16 => narrow::<u16, _>(shape, contents.uint_contents),
        DType::Uint32 => Tensor::from_vec(shape, contents.uint_contents),
        DType::Uint64 => Tensor::from_vec(shape, contents.uint64_contents),
        DType::Fp32 => Tensor::from_vec(shape, contents.fp32_contents),
        DType::Fp64 => Tensor::from_vec(shape, contents.fp64_contents),
        DType::Bytes | DType::Fp16 | DType::Bf16 => Tensor::text(shape, contents.bytes_contents),
    }
}

/// Elements that travel in a wider type.
fn narrow<T: Element + TryFrom<W>, W: Copy + std::fmt::Display>(shape: Shape, wide: Vec<W>) -> Result<Tensor> {
    let one = |wide: W| {
        T::try_from(wide).map_err(|_| Error::new(Code::InvalidTensor, format!("{wide} is not a value of {}", T::DTYPE)))
    };
    Tensor::from_vec(shape, wide.into_iter().map(one).collect::<Result<Vec<T>>>()?)
}

/// Makes an answer. Fixed-width tensors are not copied.
///
/// # Errors
/// [`Code::InvalidTensor`] where typed contents were asked for and an output has none.
pub fn write(response: Response, id: String, form: &Form) -> Result<ModelInferResponse> {
    let mut message = ModelInferResponse {
        model_name: response.model.as_str().to_owned(),
        model_version: response.version.to_string(),
        id,
        outputs: Vec::with_capacity(response.outputs.len()),
        ..ModelInferResponse::default()
    };
    for output in response.outputs {
        let (dtype, tensor) = (output.tensor.dtype(), output.tensor);
        let mut contents = None;
        if form.typed {
            if field(dtype).is_none() {
                let message = format!("output `{}`: {dtype} has no typed contents; ask without typed_output", output.name);
                return Err(Error::new(Code::InvalidTensor, message));
            }
            contents = Some(spread(&tensor));
        } else {
            message.raw_output_contents.push(raw(&tensor));
        }
        message.outputs.push(InferOutputTensor {
            name: output.name.as_ref().to_owned(),
            datatype: dtype.name().to_owned(),
            // A size is at most that of memory, which is less than half of 64 bits.
            shape: tensor.shape().sizes().iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect(),
            parameters: BTreeMap::new(),
            contents,
        });
    }
    Ok(message)
}

fn raw(tensor: &Tensor) -> Bytes {
    match tensor.data() {
        Data::Fixed(bytes) => bytes.clone(),
        Data::Text(_) => {
            let mut bytes = Vec::with_capacity(tensor.payload());
            binary::encode(&mut bytes, tensor);
            bytes.into()
        }
    }
}

/// A tensor's elements in the field of their type.
fn spread(tensor: &Tensor) -> InferTensorContents {
    fn all<T: Element, W: From<T>>(tensor: &Tensor) -> Vec<W> {
        tensor.values::<T>().map(|values| values.iter().map(|&value| value.into()).collect()).unwrap_or_default()
    }
    let mut contents = InferTensorContents::default();
    match tensor.dtype() {
        DType::Bool => {
            let bits = tensor.values::<Bit>().unwrap_or_default();
            contents.bool_contents = bits.iter().map(|bit| bit.0 != 0).collect();
        }
        DType::Int8 => contents.int_contents = all::<i8, _>(tensor),
        DType::Int16 => contents.int_contents = all::<i16, _>(tensor),
        DType::Int32 => contents.int_contents = all::<i32, _>(tensor),
        DType::Int64 => contents.int64_contents = all::<i64, _>(tensor),
        DType::Uint8 => contents.uint_contents = all::<u8, _>(tensor),
        DType::Uint16 => contents.uint_contents = all::<u16, _>(tensor),
        DType::Uint32 => contents.uint_contents = all::<u32, _>(tensor),
        DType::Uint64 => contents.uint64_contents = all::<u64, _>(tensor),
        DType::Fp32 => contents.fp32_contents = all::<f32, _>(tensor),
        DType::Fp64 => contents.fp64_contents = all::<f64, _>(tensor),
        DType::Bytes => contents.bytes_contents = tensor.strings().unwrap_or_default().to_vec(),
        DType::Fp16 | DType::Bf16 => {}
    }
    contents
}

#[cfg(test)]
mod tests;
