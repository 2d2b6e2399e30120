//! Triton's `generate`: text in, text out.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluicegate_codec::elements::{Elements, Scalar};
use sluicegate_codec::parameters::Parameters;
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{Code, DType, Dim, Error, Request, Response, Result, Shape, Signature, Tensor};

/// The names of the input and of the output that clients know.
const INPUT: &str = "text_input";
const OUTPUT: &str = "text_output";

/// Reads a request: `text_input` goes to the model's input of text, other keys to the inputs that have their names.
///
/// # Errors
/// [`Code::Malformed`]; [`Code::WrongDtype`] and [`Code::WrongShape`] where the model does not take and give text.
pub fn read(signature: &Signature, body: &[u8]) -> Result<Request> {
    let malformed = |why: String| Error::new(Code::Malformed, why);
    let said: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| malformed(format!("the body is no object with text_input: {error}")))?;
    let text = one_of(signature.inputs(), INPUT, "takes")?;
    let output = one_of(signature.outputs(), OUTPUT, "gives")?;
    let parameters = match said.get("parameters") {
        None => Parameters::default(),
        Some(parameters) => Parameters::deserialize(parameters).map_err(|error| malformed(error.to_string()))?,
    };
    parameters.served()?;
    let mut inputs: Vec<(Arc<str>, Tensor)> = Vec::with_capacity(signature.inputs().len());
    for spec in signature.inputs() {
        let key = if spec.name == text.name { INPUT } else { &spec.name };
        // An input that is not sent is told with all else that does not fit.
        if let Some(value) = said.get(key) {
            inputs.push((spec.name.clone(), element(spec, key, value)?));
        } else if key == INPUT {
            return Err(Error::new(Code::MissingInput, "`text_input` is missing: the text that the model is to answer"));
        }
    }
    let id = match said.get("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(other) => return Err(malformed(format!("`id` is {other}, expected a string"))),
    };
    Ok(Request {
        id,
        inputs,
        outputs: vec![output.name.to_string()],
        priority: parameters.priority.unwrap_or(0),
        timeout: parameters.timeout(),
        ..Request::default()
    })
}

/// Writes an answer: an object, or a stream of one event, as no model here gives its answer in parts.
pub fn write(response: &Response, stream: bool) -> Vec<u8> {
    let answer = json!({
        "id": response.id,
        "model_name": response.model,
        "model_version": response.version.to_string(),
        OUTPUT: said(response),
    });
    if stream { format!("data: {answer}\n\n") } else { answer.to_string() }.into_bytes()
}

/// The text of an answer: one where there is one, else a list.
fn said(response: &Response) -> Value {
    let texts = response.outputs.first().and_then(|output| output.tensor.strings()).unwrap_or_default();
    let text = |text: &Bytes| Value::from(String::from_utf8_lossy(text));
    match texts {
        [only] => text(only),
        all => all.iter().map(text).collect(),
    }
}

/// The tensor of text that is called so, or the only one.
fn one_of<'a>(specs: &'a [TensorSpec], name: &str, does: &str) -> Result<&'a TensorSpec> {
    let texts: Vec<&TensorSpec> = specs.iter().filter(|spec| spec.dtype == DType::Bytes).collect();
    match (texts.iter().find(|spec| &*spec.name == name), &texts[..]) {
        (Some(spec), _) => Ok(spec),
        (None, [only]) => Ok(only),
        (None, several) => {
            let why = format!(
                "the model cannot be asked by generate: it {does} {} tensors of text, expected one, or one called `{name}`; use infer",
                several.len()
            );
            Err(Error::new(Code::WrongDtype, why))
        }
    }
}

/// One element under the shape that the input must have.
fn element(spec: &TensorSpec, key: &str, value: &Value) -> Result<Tensor> {
    let size = |dim: &Dim| dim.fixed().unwrap_or(1);
    let shape: Shape = spec.dims.iter().map(size).collect();
    if shape.elements() != Some(1) {
        let why = format!("the model cannot be asked by generate: input `{}` takes more than one element; use infer", spec.name);
        return Err(Error::new(Code::WrongShape, why));
    }
    let scalar = match value {
        Value::Bool(flag) => Some(Scalar::Bool(*flag)),
        Value::String(text) => Some(Scalar::Text(text)),
        Value::Number(number) => {
            let float = || number.as_f64().map(Scalar::Float);
            number.as_u64().map(Scalar::Uint).or_else(|| number.as_i64().map(Scalar::Int)).or_else(float)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let mut elements = Elements::new(spec.dtype, 1);
    if !scalar.is_some_and(|scalar| elements.push(scalar)) {
        return Err(Error::new(Code::InvalidTensor, format!("`{key}` is no {}", spec.dtype)));
    }
    elements.tensor(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(inputs: &[(&str, DType)], outputs: &[(&str, DType)]) -> Signature {
        let spec = |(name, dtype): &(&str, DType)| TensorSpec::new(name, *dtype, vec![Dim::Free(None), Dim::Fixed(1)]);
        Signature::new(inputs.iter().map(spec).collect(), outputs.iter().map(spec).collect(), None).expect("a good signature")
    }

    #[test]
    fn the_text_goes_to_the_input_of_text_and_other_keys_to_inputs_of_their_names() {
        let model = signature(&[("temperature", DType::Fp32), ("prompt", DType::Bytes)], &[("reply", DType::Bytes)]);
        let body = br#"{"text_input":"hi","temperature":0.5,"id":"7","parameters":{"priority":1},"max_tokens":20}"#;
        let request = read(&model, body).expect("a good request");
        let names: Vec<&str> = request.inputs.iter().map(|(name, _)| &**name).collect();
        assert_eq!((names, request.id.as_deref(), request.priority), (vec!["temperature", "prompt"], Some("7"), 1));
        assert_eq!(request.inputs[1].1.shape().sizes(), [1, 1]);
        assert_eq!(request.outputs, ["reply"]);
    }

    #[test]
    fn a_model_that_does_not_take_and_give_text_is_told_so() {
        let body = br#"{"text_input":"hi"}"#;
        for (inputs, outputs, words) in [
            (&[("x", DType::Fp32)][..], &[("y", DType::Bytes)][..], "takes 0 tensors of text"),
            (&[("x", DType::Bytes)], &[("y", DType::Fp32)], "gives 0 tensors of text"),
            (&[("x", DType::Bytes), ("z", DType::Bytes)], &[("y", DType::Bytes)], "takes 2 tensors of text"),
        ] {
            let error = read(&signature(inputs, outputs), body).expect_err("no model of text");
            assert!(error.code() == Code::WrongDtype && error.message().contains(words), "{error}");
        }
        let named = signature(&[("text_input", DType::Bytes), ("stop", DType::Bytes)], &[("text_output", DType::Bytes)]);
        assert_eq!(read(&named, body).expect("one has the name").inputs.len(), 1);
        for (body, code) in [
            ("{}", Code::MissingInput),
            ("[]", Code::Malformed),
            (r#"{"text_input":1}"#, Code::InvalidTensor),
            (r#"{"text_input":["a"]}"#, Code::InvalidTensor),
            (r#"{"text_input":"a","id":1}"#, Code::Malformed),
            (r#"{"text_input":"a","parameters":{"triton_x":1}}"#, Code::Malformed),
            (r#"{"text_input":"a","parameters":{"sequence_id":1}}"#, Code::Unsupported),
        ] {
            assert_eq!(read(&named, body.as_bytes()).expect_err(body).code(), code, "{body}");
        }
    }
}
