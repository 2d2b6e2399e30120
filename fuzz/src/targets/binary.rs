//! A request with raw tensors. The first line of an input is the header with the length of the JSON, or `*` for its true length.

use bytes::Bytes;
use serde::de::IgnoredAny;
use sluicegate_codec::binary::{decode, encode, split};
use sluicegate_codec::json::{Outputs, read};
use sluicegate_core::{DType, Shape};

use super::json::again;
use super::{accepted, kinds, refused};
use crate::Memory;

pub(super) fn check(input: &[u8], memory: &mut Memory) -> Result<String, String> {
    let at = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (line, body) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let content = Bytes::copy_from_slice(body);
    text(&content, memory)?;
    let length = match line {
        b"*" => json_length(body).to_string(),
        line => String::from_utf8_lossy(line).into_owned(),
    };
    let outcome = memory.of(|| {
        let (head, raw) = split(Some(&length), content)?;
        read(&head, raw)
    });
    match outcome {
        Ok((request, _)) => {
            again(&request, &Outputs::new(true))?;
            let payload: usize = request.inputs.iter().map(|(_, tensor)| tensor.payload()).sum();
            // What came as JSON may be shorter there: eight bytes of a number are one digit.
            if payload > 8 * input.len() {
                return Err(format!("{} bytes are read as {payload}", input.len()));
            }
            Ok(accepted(kinds(&request)))
        }
        Err(error) => refused(input, &error),
    }
}

/// The same bytes as strings of a tensor: what is taken is written as it was.
fn text(content: &Bytes, memory: &mut Memory) -> Result<(), String> {
    let count = usize::from(content.first().copied().unwrap_or_default());
    for shape in [Shape::new(&[count]), Shape::new(&[usize::MAX / 2])] {
        let bytes = content.slice(content.len().min(1)..);
        if let Ok(tensor) = memory.of(|| decode(DType::Bytes, shape, bytes.clone())) {
            let mut out = Vec::new();
            encode(&mut out, &tensor);
            if out != bytes || tensor.payload() != bytes.len() {
                return Err(format!("{bytes:?} is written as {out:?}"));
            }
        }
    }
    Ok(())
}

fn json_length(body: &[u8]) -> usize {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => values.byte_offset(),
        _ => body.len(),
    }
}
