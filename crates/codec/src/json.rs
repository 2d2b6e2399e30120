//! The JSON of the Open Inference Protocol: requests straight into typed tensors, responses into one buffer.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use sluicegate_core::shape::MAX_RANK;
use sluicegate_core::{Code, DType, Error, Problem, Request, Response, Result, Shape, Tensor};
use smallvec::SmallVec;

use super::binary::{self, Raw};
use super::elements::{self, Elements, Fill, Name};

/// Which outputs travel as raw bytes.
#[derive(Debug, Default)]
pub struct Binary {
    all: bool,
    /// By name, for those outputs that the request speaks of.
    each: Vec<(String, bool)>,
}

impl Binary {
    /// All of them, as the answer to a raw request.
    pub fn all() -> Self {
        Self { all: true, each: Vec::new() }
    }

    fn is(&self, name: &str) -> bool {
        self.each.iter().find(|(each, _)| each == name).map_or(self.all, |(_, binary)| *binary)
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default, borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default, borrow)]
    outputs: Vec<OutputRequest<'a>>,
}

#[derive(Deserialize)]
struct OutputRequest<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: Parameters,
}

/// The parameters that mean something here. Others are for models and routers, and pass.
#[derive(Default)]
struct Parameters {
    binary_data_size: Option<u64>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
    priority: Option<u64>,
    timeout: Option<u64>,
    /// The first one that is not served.
    unserved: Option<&'static str>,
}

/// Parameters of the protocol that nothing here honours: better refused than ignored.
const UNSERVED: [&str; 6] =
    ["sequence_id", "sequence_start", "sequence_end", "shared_memory_region", "shared_memory_byte_size", "classification"];

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut parameters = Parameters::default();
                while let Some(Name(key)) = map.next_key()? {
                    match &*key {
                        "binary_data_size" => parameters.binary_data_size = Some(map.next_value()?),
                        "binary_data" => parameters.binary_data = Some(map.next_value()?),
                        "binary_data_output" => parameters.binary_data_output = Some(map.next_value()?),
                        "priority" => parameters.priority = Some(map.next_value()?),
                        "timeout" => parameters.timeout = Some(map.next_value()?),
                        key if key.starts_with("triton_") => {
                            return Err(A::Error::custom(format!("parameter `{key}`: the prefix `triton_` is reserved")));
                        }
                        key => {
                            let unserved = UNSERVED.into_iter().find(|&name| name == key);
                            match map.next_value::<serde_json::Value>()? {
                                // What clients send by default and what asks for nothing.
                                serde_json::Value::Bool(false) => {}
                                serde_json::Value::Number(zero) if zero.as_u64() == Some(0) => {}
                                serde_json::Value::Array(_) | serde_json::Value::Object(_) | serde_json::Value::Null => {
                                    return Err(A::Error::custom(format!("parameter `{key}` is no string, number or boolean")));
                                }
                                _ => parameters.unserved = parameters.unserved.or(unserved),
                            }
                        }
                    }
                }
                Ok(parameters)
            }
        }
        deserializer.deserialize_map(Read)
    }
}

struct Input<'a> {
    name: Cow<'a, str>,
    dtype: DType,
    shape: Result<Shape>,
    parameters: Parameters,
    data: Option<Elements>,
    /// Data that came before its type was known.
    early: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Input<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Input<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tensor with name, datatype, shape and data")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Input<'de>, A::Error> {
                let (mut name, mut dtype, mut shape) = (None, None, None);
                let (mut parameters, mut data, mut early) = (Parameters::default(), None, None);
                while let Some(Name(key)) = map.next_key()? {
                    match &*key {
                        "name" => name = Some(map.next_value::<Name<'de>>()?.0),
                        "datatype" => dtype = Some(map.next_value_seed(TypeName)?),
                        "shape" => shape = Some(map.next_value_seed(Sizes)?),
                        "parameters" => parameters = map.next_value()?,
                        // The order of every client: the elements are read at once, without a tree of values.
                        "data" => match dtype {
                            Some(dtype) => {
                                let room = match &shape {
                                    Some(Ok(shape)) => Shape::elements(shape).unwrap_or_default().min(ROOM),
                                    _ => 0,
                                };
                                let mut elements = Elements::new(dtype, room);
                                map.next_value_seed(Fill::new(&mut elements))?;
                                data = Some(elements);
                            }
                            None => early = Some(map.next_value::<&'de RawValue>()?),
                        },
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                let missing = A::Error::missing_field;
                Ok(Input {
                    name: name.ok_or_else(|| missing("name"))?,
                    dtype: dtype.ok_or_else(|| missing("datatype"))?,
                    shape: shape.ok_or_else(|| missing("shape"))?,
                    parameters,
                    data,
                    early,
                })
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// Most elements for which room is made on the word of a shape alone.
const ROOM: usize = 1 << 16;

struct TypeName;

impl<'de> DeserializeSeed<'de> for TypeName {
    type Value = DType;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<DType, D::Error> {
        let Name(name) = Name::deserialize(deserializer)?;
        DType::from_name(&name).ok_or_else(|| {
            let known = DType::ALL.map(DType::name).join(", ");
            D::Error::custom(format!("datatype `{name}` is not one of {known}"))
        })
    }
}

/// Reads a list of integers; whether it is a shape is told later, with the input's name.
struct Sizes;

impl<'de> DeserializeSeed<'de> for Sizes {
    type Value = Result<Shape>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Result<Shape>, D::Error> {
        SmallVec::<[i64; MAX_RANK]>::deserialize(deserializer).map(|sizes| shape(&sizes))
    }
}

fn shape(sizes: &[i64]) -> Result<Shape> {
    let bad = |why: String| Error::new(Code::InvalidShape, why);
    if sizes.len() > MAX_RANK {
        return Err(bad(format!("a shape has at most {MAX_RANK} dimensions, got {}", sizes.len())));
    }
    let size = |size: &i64| usize::try_from(*size).map_err(|_| bad(format!("a size of {size} in a shape: expected 0 or more")));
    let shape = sizes.iter().map(size).collect::<Result<Shape>>()?;
    match shape.elements() {
        Some(_) => Ok(shape),
        None => Err(bad(format!("shape {shape} has more elements than can be addressed"))),
    }
}

/// Reads a request: its JSON head and, where there are any, its raw tensors.
///
/// # Errors
/// [`Code::Malformed`] with the byte position where the JSON is not what it should be, and those of [`Raw::take`].
pub fn read(head: &Bytes, mut raw: Option<Raw>) -> Result<(Request, Binary)> {
    // Looked through once as a whole, and not string by string. What is no UTF-8 fails where it is.
    let body: Result<Body<'_>, _> = match std::str::from_utf8(head) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(head),
    };
    let body = body.map_err(|error| malformed(head, &error, "inference request"))?;
    let mut inputs = Vec::with_capacity(body.inputs.len());
    let mut unserved = body.parameters.unserved;
    for input in body.inputs {
        unserved = unserved.or(input.parameters.unserved);
        let name: Arc<str> = (&*input.name).into();
        let tensor = tensor(input, raw.as_mut())?;
        inputs.push((name, tensor));
    }
    if let Some(raw) = raw {
        raw.end()?;
    }
    let mut binary = Binary { all: body.parameters.binary_data_output.unwrap_or(false), each: Vec::new() };
    let mut outputs = Vec::with_capacity(body.outputs.len());
    for output in body.outputs {
        unserved = unserved.or(output.parameters.unserved);
        let name = output.name.into_owned();
        if let Some(each) = output.parameters.binary_data {
            binary.each.push((name.clone(), each));
        }
        outputs.push(name);
    }
    if let Some(name) = unserved {
        return Err(Error::new(Code::Unsupported, format!("parameter `{name}` asks for something that is not served here")));
    }
    let request = Request {
        id: body.id.map(Cow::into_owned),
        inputs,
        outputs,
        priority: body.parameters.priority.unwrap_or(0),
        timeout: body.parameters.timeout.filter(|&timeout| timeout > 0).map(Duration::from_micros),
        ..Request::default()
    };
    Ok((request, binary))
}

fn tensor(input: Input<'_>, raw: Option<&mut Raw>) -> Result<Tensor> {
    let Input { name, dtype, shape, parameters, mut data, early } = input;
    let bad = |message: &str| Error::new(Code::Malformed, format!("input `{name}` {message}"));
    let shape = shape.map_err(|error| error.at(format!("input `{name}`")))?;
    if let Some(early) = early {
        let mut elements = Elements::new(dtype, 0);
        Fill::new(&mut elements)
            .deserialize(&mut serde_json::Deserializer::from_str(early.get()))
            .map_err(|error| Error::new(Code::Malformed, format!("input `{name}`: data: {error}")))?;
        data = Some(elements);
    }
    match (data, parameters.binary_data_size, raw) {
        (Some(_), Some(_), _) => Err(bad("has both `data` and `binary_data_size`; send one of them")),
        (None, None, _) => Err(bad("has neither `data` nor `binary_data_size`")),
        (None, Some(_), None) => {
            let message = format!("input `{name}` has binary_data_size, but the header {} is missing", binary::HEADER_LENGTH);
            Err(Error::new(Code::BadHeader, message))
        }
        (None, Some(size), Some(raw)) => raw.take(&name, dtype, shape, size),
        (Some(_), None, _) if matches!(dtype, DType::Fp16 | DType::Bf16) => Err(Error::new(
            Code::InvalidTensor,
            format!("input `{name}`: {dtype} has no JSON form; use the binary tensor data extension"),
        )),
        (Some(elements), None, _) => elements.tensor(shape).map_err(|error| error.at(format!("input `{name}`"))),
    }
}

/// A body that a parser did not take for what it should be.
pub(crate) fn malformed(head: &[u8], error: &serde_json::Error, what: &str) -> Error {
    let position = position(head, error);
    let (kind, msg) =
        if error.is_data() { ("value_error", error.to_string()) } else { ("json_invalid", "JSON decode error".to_owned()) };
    let ctx = Some(serde_json::json!({ "error": error.to_string() }));
    let problem = Problem { kind, loc: vec!["body".into(), position.into()], msg, input: None, ctx };
    Error::new(Code::Malformed, format!("the body is no {what}: {error}")).with_problems(vec![problem])
}

/// The byte at which a parser stopped.
pub fn position(text: &[u8], error: &serde_json::Error) -> usize {
    let before = text.split_inclusive(|&byte| byte == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len).sum::<usize>();
    (before + error.column().saturating_sub(1)).min(text.len())
}

/// A response on the wire.
#[derive(Debug)]
pub struct Encoded {
    /// JSON, and raw tensors behind it.
    pub body: Vec<u8>,
    /// The length of the JSON, where a tensor is raw.
    pub json: Option<usize>,
}

/// Writes a response.
///
/// # Errors
/// [`Code::InvalidTensor`] where an output has no JSON form and was not asked for as binary.
pub fn write(response: &Response, id: &str, binary: &Binary) -> Result<Encoded> {
    let mut body = Vec::with_capacity(256 + 128 * response.outputs.len() + 2 * response.payload());
    body.extend_from_slice(b"{\"model_name\":");
    elements::text(&mut body, response.model.as_str().as_bytes());
    // Writing to memory does not fail.
    let _ = write!(body, ",\"model_version\":\"{}\",\"id\":", response.version);
    elements::text(&mut body, id.as_bytes());
    let mut lost = 0;
    for (place, output) in response.outputs.iter().enumerate() {
        body.extend_from_slice(if place == 0 { b",\"outputs\":[{\"name\":" } else { b",{\"name\":" });
        let (dtype, tensor) = (output.tensor.dtype(), &output.tensor);
        elements::text(&mut body, output.name.as_bytes());
        body.extend_from_slice(b",\"datatype\":\"");
        body.extend_from_slice(dtype.name().as_bytes());
        body.extend_from_slice(b"\",\"shape\":");
        let _ = serde_json::to_writer(&mut body, tensor.shape().sizes());
        if binary.is(&output.name) {
            let _ = write!(body, ",\"parameters\":{{\"binary_data_size\":{}}}}}", tensor.payload());
        } else if matches!(dtype, DType::Fp16 | DType::Bf16) {
            let message = format!("output `{}`: {dtype} has no JSON form; ask for it with binary_data", output.name);
            return Err(Error::new(Code::InvalidTensor, message));
        } else {
            body.extend_from_slice(b",\"data\":[");
            lost += elements::write(&mut body, tensor, 0..tensor.elements());
            body.extend_from_slice(b"]}");
        }
    }
    body.extend_from_slice(if response.outputs.is_empty() { b",\"outputs\":[]" } else { b"]" });
    if lost > 0 {
        let _ = write!(body, ",\"parameters\":{{\"nonfinite_count\":{lost}}}");
    }
    body.push(b'}');
    let json = body.len();
    let raw = response.outputs.iter().filter(|output| binary.is(&output.name));
    let any = raw.fold(false, |_, output| {
        binary::encode(&mut body, &output.tensor);
        true
    });
    Ok(Encoded { body, json: any.then_some(json) })
}

#[cfg(test)]
mod tests;
