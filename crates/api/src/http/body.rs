//! Reads a request's body: bounded, decompressed where it says so.

use std::io::Read;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use sluicegate_core::{Code, Error, Result};

use super::Api;
use super::answer::{HEADER_LENGTH, Head};
use super::exchange::aside;

/// How much of a body that is too large is read and thrown away, so that the caller, still sending, gets to read the answer.
const COURTESY: usize = 64 * 1024 * 1024;

/// That of the widest element.
const ALIGNMENT: usize = 8;

/// What bounds a body.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes, before and after decompression.
    pub size: usize,
    /// How long all of it may take to come.
    pub time: Duration,
}

/// Reads a body.
///
/// # Errors
/// [`Code::BodyTooLarge`], [`Code::SlowBody`], [`Code::BadEncoding`], [`Code::UnsupportedMedia`], or [`Code::Cancelled`]
/// where the caller left.
pub async fn read<B>(headers: &HeaderMap, body: B, bounds: Bounds) -> Result<Bytes>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    // Most bodies are there already, and then no timer is armed.
    tokio::time::timeout(bounds.time, receive(headers, body, bounds.size)).await.unwrap_or_else(|_| {
        let message = format!("the body did not come within {:?}; raise http.body_timeout to wait longer", bounds.time);
        Err(Error::new(Code::SlowBody, message))
    })
}

/// Takes in a request whose body is a JSON object or nothing: room first, as for every request.
pub async fn object(api: &Api, request: axum::extract::Request) -> (Head, Result<Map<String, Value>>) {
    let (parts, content) = request.into_parts();
    let head = Head::of(&parts.headers);
    let object = async {
        let _room = api.gateway.admit()?;
        let content = read(&parts.headers, content, api.body).await?;
        if content.is_empty() {
            return Ok(Map::new());
        }
        let malformed = |error: serde_json::Error| Error::new(Code::Malformed, format!("the body is no JSON object: {error}"));
        aside(content.len(), move || serde_json::from_slice(&content).map_err(malformed)).await
    };
    (head, object.await)
}

async fn receive<B>(headers: &HeaderMap, mut body: B, bound: usize) -> Result<Bytes>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let whole = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if whole > bound {
        discard(body).await;
        return Err(too_large(bound));
    }
    let Some(first) = frame(&mut body).await? else { return decode(headers, Bytes::new(), bound) };
    if body.is_end_stream() {
        // One frame: no copy.
        return if first.len() > bound { Err(too_large(bound)) } else { decode(headers, first, bound) };
    }
    let mut all = aligned(whole.max(first.len()), head_length(headers));
    all.extend_from_slice(&first);
    while let Some(next) = frame(&mut body).await? {
        if all.len() + next.len() > bound {
            discard(body).await;
            return Err(too_large(bound));
        }
        all.extend_from_slice(&next);
    }
    decode(headers, all.freeze(), bound)
}

/// The length of a body's JSON head; 0 where it is not told. Whether it is right is told by who splits it off.
fn head_length(headers: &HeaderMap) -> usize {
    headers.get(HEADER_LENGTH).and_then(|length| length.to_str().ok()?.trim().parse().ok()).unwrap_or(0)
}

/// Room for a body whose byte number `head` is aligned: raw tensors begin there, and need no copy of their own then.
fn aligned(room: usize, head: usize) -> BytesMut {
    let mut all = BytesMut::with_capacity(room + ALIGNMENT);
    let skip = (all.as_ptr() as usize).wrapping_add(head).wrapping_neg() % ALIGNMENT;
    all.resize(skip, 0);
    all.advance(skip);
    all
}

async fn frame<B>(body: &mut B) -> Result<Option<Bytes>>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                // Trailers are read and not used.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => return Err(Error::new(Code::Cancelled, format!("the body ended early: {error}"))),
        }
    }
}

async fn discard<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut left = COURTESY;
    while let Ok(Some(data)) = frame(&mut body).await {
        left = left.saturating_sub(data.len());
        if left == 0 {
            return;
        }
    }
}

fn too_large(bound: usize) -> Error {
    Error::new(Code::BodyTooLarge, format!("the body is larger than {bound} bytes; raise http.max_body to accept it"))
}

fn decode(headers: &HeaderMap, body: Bytes, bound: usize) -> Result<Bytes> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Ok(body) };
    match encoding.to_str().unwrap_or_default().trim() {
        "" | "identity" => Ok(body),
        "gzip" | "x-gzip" => inflate(MultiGzDecoder::new(&body[..]), "gzip", bound),
        "deflate" => inflate(ZlibDecoder::new(&body[..]), "deflate", bound),
        other => {
            Err(Error::new(Code::UnsupportedMedia, format!("content-encoding is `{other}`, expected gzip, deflate or identity")))
        }
    }
}

fn inflate(decoder: impl Read, name: &str, bound: usize) -> Result<Bytes> {
    let mut plain = Vec::new();
    // One byte more than the bound tells a body at the bound from one beyond it.
    let limit = u64::try_from(bound).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut plain).map_err(|error| {
        Error::new(Code::BadEncoding, format!("the body is not what its content-encoding {name} says: {error}"))
    })?;
    if plain.len() > bound {
        return Err(too_large(bound));
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Write;

    use axum::body::Body;
    use http::HeaderValue;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("to memory");
        encoder.finish().expect("to memory")
    }

    async fn read_gzip(bytes: Vec<u8>, bound: usize) -> Result<Bytes> {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        read(&headers, Body::from(bytes), Bounds { size: bound, time: Duration::from_secs(60) }).await
    }

    #[tokio::test]
    async fn raw_tensors_of_a_body_in_many_frames_are_aligned() {
        for head in 0..20 {
            let headers = HeaderMap::from_iter([(HEADER_LENGTH, HeaderValue::from(head))]);
            let frames = vec![b'x'; 1000].chunks(99).map(|frame| Ok::<_, Infallible>(frame.to_vec())).collect::<Vec<_>>();
            let body = Body::from_stream(futures_util::stream::iter(frames));
            let read = read(&headers, body, Bounds { size: 2000, time: Duration::from_secs(60) }).await.expect("well");
            assert_eq!((read.len(), read[head..].as_ptr() as usize % ALIGNMENT), (1000, 0));
        }
    }

    #[tokio::test]
    async fn a_small_body_cannot_become_a_large_one() {
        let bomb = gzip(&vec![0; 1 << 20]);
        assert!(bomb.len() < 10_000);
        assert_eq!(read_gzip(bomb.clone(), 1 << 19).await.expect_err("too large").code(), Code::BodyTooLarge);
        assert_eq!(read_gzip(bomb, 1 << 20).await.expect("at the bound").len(), 1 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let bounds = Bounds { size: 10, time: Duration::from_secs(30) };
        assert_eq!(read(&HeaderMap::new(), never, bounds).await.expect_err("never").code(), Code::SlowBody);
    }

    #[tokio::test]
    async fn broken_compression_is_the_callers_fault() {
        let mut broken = gzip(b"hello");
        broken.truncate(12);
        assert_eq!(read_gzip(broken, 100).await.expect_err("broken").code(), Code::BadEncoding);
        assert_eq!(read_gzip(b"{}".to_vec(), 100).await.expect_err("not gzip").code(), Code::BadEncoding);
    }
}
