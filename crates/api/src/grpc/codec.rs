//! Messages of bytes and back. As `tonic-prost` has it, but bytes that are no message are the caller's fault and not ours.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use sluicegate_codec::protobuf::few_fields;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// How much room an answer has before its buffer grows.
const ROOM: usize = 8 * 1024;

/// Encodes `T`, decodes `U`.
#[derive(Debug)]
pub struct Protobuf<T, U>(PhantomData<(T, U)>);

/// One of its two sides.
#[derive(Debug)]
pub struct Side<T>(PhantomData<T>);

impl<T, U> Default for Protobuf<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> Codec for Protobuf<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Side<T>;
    type Decoder = Side<U>;

    fn encoder(&mut self) -> Side<T> {
        Side(PhantomData)
    }

    fn decoder(&mut self) -> Side<U> {
        Side(PhantomData)
    }
}

impl<T: Message> Encoder for Side<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        // What waits to be written is bounded by the answer itself.
        BufferSettings::new(ROOM, 32 * 1024)
    }
}

impl<T: Message + Default> Decoder for Side<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let all = buffer.chunk();
        if all.len() == buffer.remaining() {
            few_fields(all).map_err(|error| Status::invalid_argument(error.message()))?;
        }
        let message =
            T::decode(buffer).map_err(|error| Status::invalid_argument(format!("the message cannot be read: {error}")))?;
        Ok(Some(message))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ROOM, 32 * 1024)
    }
}
