//! The JSON of the Open Inference Protocol: requests straight into typed tensors, responses into one buffer.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sluicegate_core::shape::MAX_RANK;
use sluicegate_core::{Code, DType, Error, Problem, Request, Response, Result, Shape, Tensor};
use smallvec::SmallVec;

use super::binary::{self, Raw};
use super::elements::{self, Elements, Fill, Name};
use super::parameters::Parameters;

/// How outputs are to travel: as raw bytes, or as the best of their classes.
#[derive(Debug, Default)]
pub struct Outputs {
    binary: bool,
    /// For those outputs that the request speaks of.
    each: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    name: String,
    binary: Option<bool>,
    classes: usize,
}

impl Outputs {
    /// All of them as raw bytes or not, where nothing else is said of one.
    pub fn new(binary: bool) -> Self {
        Self { binary, each: Vec::new() }
    }

    /// Says how one is to travel.
    pub fn ask(&mut self, name: &str, parameters: &Parameters) {
        let Parameters { binary_data: binary, classification, .. } = *parameters;
        let classes = classification.map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX));
        if binary.is_some() || classes > 0 {
            self.each.push(Asked { name: name.to_owned(), binary, classes });
        }
    }

    /// How many of its classes are wanted instead of its elements; 0 for the elements.
    pub fn classes(&self, name: &str) -> usize {
        self.find(name).map_or(0, |asked| asked.classes)
    }

    /// Whether classes of any are wanted.
    pub fn any_classes(&self) -> bool {
        self.each.iter().any(|asked| asked.classes > 0)
    }

    fn is_binary(&self, name: &str) -> bool {
        self.find(name).and_then(|asked| asked.binary).unwrap_or(self.binary)
    }

    fn find(&self, name: &str) -> Option<&Asked> {
        self.each.iter().find(|asked| asked.name == name)
    }
}

struct Body<'a> {
    id: Option<Cow<'a, str>>,
    parameters: Parameters,
    inputs: Vec<Input<'a>>,
    outputs: Vec<OutputRequest<'a>>,
}

/// Reads a [`Body`]. The cell has how many more elements room may be made for on the word of shapes alone: no more than the
/// text can have, and so a few words about large tensors take no memory.
struct Read<'r>(&'r Cell<usize>);

impl<'de> DeserializeSeed<'de> for Read<'_> {
    type Value = Body<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Body<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Read<'_> {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an inference request with inputs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
        let (mut id, mut parameters, mut inputs, mut outputs) = (None, None, None, None);
        while let Some(Name(key)) = map.next_key()? {
            match &*key {
                "id" => once(&mut id, &key, map.next_value::<Option<Name<'de>>>()?)?,
                "parameters" => once(&mut parameters, &key, map.next_value()?)?,
                "inputs" => once(&mut inputs, &key, map.next_value_seed(Inputs(self.0))?)?,
                "outputs" => once(&mut outputs, &key, map.next_value()?)?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Body {
            id: id.flatten().map(|Name(id)| id),
            parameters: parameters.unwrap_or_default(),
            inputs: inputs.ok_or_else(|| A::Error::missing_field("inputs"))?,
            outputs: outputs.unwrap_or_default(),
        })
    }
}

/// Sets what a key says, where it was not there before: of two readers of the same body, one could go by the first and the
/// other by the last.
fn once<T, E: serde::de::Error>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom(format!("`{key}` is there twice"))),
    }
}

struct Inputs<'r>(&'r Cell<usize>);

impl<'de> DeserializeSeed<'de> for Inputs<'_> {
    type Value = Vec<Input<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Input<'de>>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Inputs<'_> {
    type Value = Vec<Input<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tensors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Input<'de>>, A::Error> {
        let mut inputs = Vec::new();
        while let Some(input) = items.next_element_seed(InputSeed(self.0))? {
            inputs.push(input);
        }
        Ok(inputs)
    }
}

#[derive(Deserialize)]
struct OutputRequest<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: Parameters,
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

struct InputSeed<'r>(&'r Cell<usize>);

impl<'de> DeserializeSeed<'de> for InputSeed<'_> {
    type Value = Input<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Input<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for InputSeed<'_> {
    type Value = Input<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor with name, datatype, shape and data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Input<'de>, A::Error> {
        let (mut name, mut dtype, mut shape) = (None, None, None);
        let (mut parameters, mut data, mut early) = (None, None, None);
        while let Some(Name(key)) = map.next_key()? {
            match &*key {
                "name" => once(&mut name, &key, map.next_value::<Name<'de>>()?.0)?,
                "datatype" => once(&mut dtype, &key, map.next_value_seed(TypeName)?)?,
                "shape" => once(&mut shape, &key, map.next_value_seed(Sizes)?)?,
                "parameters" => once(&mut parameters, &key, map.next_value()?)?,
                // The order of every client: the elements are read at once, without a tree of values.
                "data" => match dtype {
                    Some(dtype) => {
                        let mut elements = Elements::new(dtype, self.room(shape.as_ref()));
                        map.next_value_seed(Fill::new(&mut elements))?;
                        once(&mut data, &key, elements)?;
                    }
                    None => once(&mut early, &key, map.next_value::<&'de RawValue>()?)?,
                },
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if data.is_some() && early.is_some() {
            return Err(A::Error::custom("`data` is there twice"));
        }
        let missing = A::Error::missing_field;
        Ok(Input {
            name: name.ok_or_else(|| missing("name"))?,
            dtype: dtype.ok_or_else(|| missing("datatype"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
            parameters: parameters.unwrap_or_default(),
            data,
            early,
        })
    }
}

impl InputSeed<'_> {
    fn room(&self, shape: Option<&Result<Shape>>) -> usize {
        let asked = shape.and_then(|shape| shape.as_ref().ok()).and_then(Shape::elements).unwrap_or_default();
        let room = asked.min(self.0.get());
        self.0.set(self.0.get() - room);
        room
    }
}

struct TypeName;

impl<'de> DeserializeSeed<'de> for TypeName {
    type Value = DType;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<DType, D::Error> {
        let Name(name) = Name::deserialize(deserializer)?;
        DType::from_name(&name).ok_or_else(|| D::Error::custom(no_datatype(&name)))
    }
}

/// A name that no element type has.
pub(crate) fn no_datatype(name: &str) -> Error {
    let known = DType::ALL.map(DType::name).join(", ");
    Error::new(Code::Malformed, format!("datatype `{name}` is not one of {known}"))
}

/// Reads a list of integers; whether it is a shape is told later, with the input's name.
struct Sizes;

impl<'de> DeserializeSeed<'de> for Sizes {
    type Value = Result<Shape>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Result<Shape>, D::Error> {
        SmallVec::<[i64; MAX_RANK]>::deserialize(deserializer).map(|sizes| shape(&sizes))
    }
}

/// A shape of sizes as they are on the wire.
///
/// # Errors
/// [`Code::InvalidShape`].
pub(crate) fn shape(sizes: &[i64]) -> Result<Shape> {
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
pub fn read(head: &Bytes, mut raw: Option<Raw>) -> Result<(Request, Outputs)> {
    // An element is a byte of text and a comma at least.
    let room = Cell::new(head.len() / 2);
    // Looked through once as a whole, and not string by string. What is no UTF-8 fails where it is.
    let body = match std::str::from_utf8(head) {
        Ok(text) => whole(serde_json::Deserializer::from_str(text), &room),
        Err(_) => whole(serde_json::Deserializer::from_slice(head), &room),
    };
    let body = body.map_err(|error| malformed(head, &error, "inference request"))?;
    let mut inputs = Vec::with_capacity(body.inputs.len());
    body.parameters.served()?;
    for input in body.inputs {
        input.parameters.served()?;
        let name: Arc<str> = (&*input.name).into();
        let tensor = tensor(input, raw.as_mut())?;
        inputs.push((name, tensor));
    }
    if let Some(raw) = raw {
        raw.end()?;
    }
    let mut asked = Outputs::new(body.parameters.binary_data_output.unwrap_or(false));
    let mut outputs = Vec::with_capacity(body.outputs.len());
    for output in body.outputs {
        output.parameters.served_of_output()?;
        asked.ask(&output.name, &output.parameters);
        outputs.push(output.name.into_owned());
    }
    let request = Request {
        id: body.id.map(Cow::into_owned),
        inputs,
        outputs,
        priority: body.parameters.priority.unwrap_or(0),
        timeout: body.parameters.timeout(),
        ..Request::default()
    };
    Ok((request, asked))
}

fn whole<'de, R: serde_json::de::Read<'de>>(
    mut deserializer: serde_json::Deserializer<R>,
    room: &Cell<usize>,
) -> Result<Body<'de>, serde_json::Error> {
    let body = Read(room).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(body)
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
pub fn malformed(head: &[u8], error: &serde_json::Error, what: &str) -> Error {
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
pub fn write(response: &Response, id: &str, asked: &Outputs) -> Result<Encoded> {
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
        if asked.is_binary(&output.name) {
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
    let raw = response.outputs.iter().filter(|output| asked.is_binary(&output.name));
    let any = raw.fold(false, |_, output| {
        binary::encode(&mut body, &output.tensor);
        true
    });
    Ok(Encoded { body, json: any.then_some(json) })
}

#[cfg(test)]
mod tests;
