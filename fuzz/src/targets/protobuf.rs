//! A message of the protocol over gRPC: what is read and written, raw or typed, is read again the same.

use bytes::Bytes;
use prost::Message;
use sluicegate_codec::protobuf::{Form, few_fields, read, write};
use sluicegate_core::{DType, Request};
use sluicegate_proto::inference::ModelInferRequest;
use sluicegate_proto::inference::model_infer_request::InferInputTensor;

use super::{accepted, echo, kinds, refused};
use crate::Memory;

/// Names of types and parameters; tags with their wire types, and lengths.
pub(super) const WORDS: &[&str] = &[
    "BOOL",
    "INT8",
    "INT32",
    "UINT16",
    "UINT64",
    "FP16",
    "FP32",
    "BYTES",
    "priority",
    "timeout",
    "typed_output",
    "sequence_id",
    "triton_x",
    "\x0a\x00",
    "\x1a\x01",
    "\x22\x02",
    "\x2a\x00",
    "\x32\x00",
    "\x3a\x00",
    "\x2a\x7f",
    "\x1a\x04",
    "\x08\x01",
    "\x10\x7f",
    "\x0b",
    "\x7f\x7f\x7f\x7f\x0f",
];

pub(super) fn check(input: &[u8], memory: &mut Memory) -> Result<String, String> {
    if let Err(error) = memory.of(|| few_fields(input)) {
        return refused(input, &error);
    }
    let bytes = Bytes::copy_from_slice(input);
    let message = match memory.of(|| ModelInferRequest::decode(bytes)) {
        Ok(message) => message,
        Err(error) => return Ok(format!("no message: {error}")),
    };
    match memory.of(|| read(message)) {
        Ok((request, _)) => {
            for typed in [false, true] {
                again(&request, &Form { typed, ..Form::default() })?;
            }
            Ok(accepted(kinds(&request)))
        }
        Err(error) => refused(input, &error),
    }
}

/// An answer with these tensors, sent and read as a request, has them.
fn again(request: &Request, form: &Form) -> Result<(), String> {
    let id = request.id.clone().unwrap_or_default();
    let answer = match write(echo(request), id, form) {
        Ok(answer) => answer,
        Err(error) => {
            let half = request.inputs.iter().any(|(_, tensor)| matches!(tensor.dtype(), DType::Fp16 | DType::Bf16));
            return if form.typed && half { Ok(()) } else { Err(format!("cannot be written: {error}")) };
        }
    };
    let inputs = answer.outputs.into_iter().map(|output| InferInputTensor {
        name: output.name,
        datatype: output.datatype,
        shape: output.shape,
        parameters: output.parameters,
        contents: output.contents,
    });
    let message = ModelInferRequest {
        id: answer.id,
        inputs: inputs.collect(),
        raw_input_contents: answer.raw_output_contents,
        ..ModelInferRequest::default()
    };
    let sent = ModelInferRequest::decode(Bytes::from(message.encode_to_vec())).map_err(|error| format!("sent: {error}"))?;
    let (second, _) = read(sent).map_err(|error| format!("{error} in what was written: {message:?}"))?;
    if second.id == request.id && second.inputs == request.inputs {
        Ok(())
    } else {
        Err(format!("{:?} is read as {:?}", request.inputs, second.inputs))
    }
}
