//! One message in and one out, as nearly every call is: framed in place, without compression (gRPC over HTTP/2, "Requests").
//!
//! A message that came in one frame is not copied; its raw contents are views into it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body as AnyBody;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use prost::Message;
use sluicegate_codec::protobuf::few_fields;
use sluicegate_core::{Code, Error, Result};
use tonic::Status;

use super::arriving::{self, Arriving};
use super::status;
use crate::http::answer::Head;

/// How a message is compressed.
pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Which compressions a caller reads.
pub(super) const ACCEPTED: HeaderName = HeaderName::from_static("grpc-accept-encoding");

const STATUS: HeaderName = HeaderName::from_static("grpc-status");

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Whether the message is as it is.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    headers.get(ENCODING).is_none_or(|encoding| encoding == "identity")
}

/// Reads the one message of a body.
pub(super) async fn read<T, B>(mut body: Arriving<B>, most: usize, head: &Head) -> Result<T, Status>
where
    T: Message + Default,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut content = next(&mut body).await?.unwrap_or_default();
    let mut rest = next(&mut body).await?;
    if let Some(more) = &rest {
        let mut all = BytesMut::with_capacity(announced(&content).unwrap_or(content.len() + more.len()).min(most) + PREFIX);
        all.extend_from_slice(&content);
        while let Some(more) = rest {
            if all.len() + more.len() > most.saturating_add(PREFIX) {
                arriving::discard(body, most).await;
                return Err(status::of(&too_large(most), head, None));
            }
            all.extend_from_slice(&more);
            rest = next(&mut body).await?;
        }
        content = all.freeze();
    }
    parse(&content, most).map_err(|error| status::of(&error, head, None))
}

fn parse<T: Message + Default>(content: &Bytes, most: usize) -> Result<T> {
    let malformed = |message: String| Error::new(Code::Malformed, message);
    let length = announced(content).ok_or_else(|| malformed("the call has no message".into()))?;
    if length > most {
        return Err(too_large(most));
    }
    if content[0] != 0 {
        return Err(malformed("the message is compressed, and grpc-encoding does not say how".into()));
    }
    let message = content.slice(PREFIX..);
    if message.len() != length {
        let text =
            format!("the message has {length} bytes by its prefix, and {} came: one whole message is expected", message.len());
        return Err(malformed(text));
    }
    few_fields(&message)?;
    T::decode(message).map_err(|error| malformed(format!("the message cannot be read: {error}")))
}

/// The length that the prefix says, where there is one.
fn announced(content: &[u8]) -> Option<usize> {
    let length = content.get(1..PREFIX)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()
}

fn too_large(most: usize) -> Error {
    Error::new(Code::BodyTooLarge, format!("the message is larger than {most} bytes; raise grpc.max_message to accept it"))
}

async fn next<B>(body: &mut Arriving<B>) -> Result<Option<Bytes>, Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose()? {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Answers with a message, and with headers.
pub(super) fn answer(message: &impl Message, mut headers: HeaderMap) -> Response {
    let length = message.encoded_len();
    let Ok(announced) = u32::try_from(length) else {
        return Status::out_of_range(format!("the answer has {length} bytes, more than a message may")).into_http();
    };
    let mut content = Vec::with_capacity(PREFIX + length);
    content.push(0);
    content.put_u32(announced);
    message.encode_raw(&mut content);
    headers.insert(CONTENT_TYPE, GRPC);
    let mut response = Response::new(AnyBody::new(Answer { content: Some(content.into()), ended: false }));
    *response.headers_mut() = headers;
    response
}

/// A message, and that all went well.
struct Answer {
    content: Option<Bytes>,
    ended: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(content) = self.content.take() {
            return Poll::Ready(Some(Ok(Frame::data(content))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use sluicegate_proto::inference::ModelReadyRequest;

    use super::*;

    fn asked() -> ModelReadyRequest {
        ModelReadyRequest { name: "fraud".into(), version: "2".into() }
    }

    fn framed(flag: u8) -> Vec<u8> {
        let message = asked().encode_to_vec();
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        [&[flag], &length[..], &message].concat()
    }

    async fn read_in(pieces: usize, bytes: Vec<u8>, most: usize) -> Result<ModelReadyRequest, Status> {
        let frames: Vec<_> = bytes.chunks(pieces.max(1)).map(|piece| Ok::<_, Infallible>(piece.to_vec())).collect();
        let body = AnyBody::from_stream(futures_util::stream::iter(frames));
        read(Arriving::new(body, None), most, &Head::of(&HeaderMap::new())).await
    }

    #[tokio::test]
    async fn a_message_is_read_however_it_is_cut() {
        for pieces in [1, 3, 5, 6, 100] {
            assert_eq!(read_in(pieces, framed(0), 100).await.expect("a message"), asked(), "{pieces}");
        }
    }

    #[tokio::test]
    async fn what_is_not_one_whole_message_is_the_callers_fault() {
        let whole = framed(0);
        for (bytes, why) in [
            (Vec::new(), "no message"),
            (whole[..3].to_vec(), "no message"),
            (whole[..8].to_vec(), "one whole message"),
            ([whole.clone(), whole.clone()].concat(), "one whole message"),
            (framed(1), "grpc-encoding"),
            (vec![0, 0, 0, 0, 1, 0xff], "cannot be read"),
        ] {
            let refused = read_in(4, bytes, 100).await.expect_err(why);
            assert!(refused.code() == tonic::Code::InvalidArgument && refused.message().contains(why), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_message_over_the_bound_is_refused_whether_it_announces_that_or_not() {
        let most = framed(0).len() - PREFIX;
        assert!(read_in(4, framed(0), most).await.is_ok());
        let announced = [0, 0xff, 0xff, 0xff, 0xff, 1, 2];
        for bytes in [framed(0), announced.to_vec(), [framed(0), vec![0; 1000]].concat()] {
            let refused = read_in(4, bytes, most - 1).await.expect_err("too large");
            assert!(
                refused.code() == tonic::Code::ResourceExhausted && refused.message().contains("grpc.max_message"),
                "{refused}"
            );
        }
    }
}
