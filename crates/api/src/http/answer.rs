//! What every answer has: its ids, its error body in the dialect of the route, and compression where the caller asks.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use sluicegate_core::error::Loc;
use sluicegate_core::split::Variant;
use sluicegate_core::{Code, Error, Fault, Problem};
use sluicegate_gateway::split::OVERRIDE;
use sluicegate_registry::Live;

use crate::status;

/// The caller's or the gateway's id for a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The version that really answered.
pub const MODEL_VERSION: HeaderName = HeaderName::from_static("x-model-version");
/// The digest of the version that really answered.
pub const MODEL_DIGEST: HeaderName = HeaderName::from_static("x-model-digest");

/// The length of a body's JSON head.
pub const HEADER_LENGTH: HeaderName = HeaderName::from_static(sluicegate_codec::binary::HEADER_LENGTH);

/// The variant of a rollout that answered, where the version was drawn.
pub const MODEL_VARIANT: HeaderName = HeaderName::from_static("x-model-variant");
/// Whose turn it was before, and failed.
pub const MODEL_FALLBACK: HeaderName = HeaderName::from_static("x-model-fallback");

const STABLE: HeaderValue = HeaderValue::from_static(Variant::Stable.name());
const CANDIDATE: HeaderValue = HeaderValue::from_static(Variant::Candidate.name());
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Longest request id that is taken over from a caller.
const MAX_ID: usize = 128;

/// Smallest body that is worth compressing: smaller ones fit one packet anyway.
const WORTH_COMPRESSING: usize = 1024;

/// Headers of an answer: its own, the version's, and those that hyper adds.
const HEADERS: usize = 8;

/// Which habits a route follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The Open Inference Protocol, and those before it: `{"error": …}`.
    V2,
    /// MLflow: `{"error_code": …, "message": …}`.
    Scoring,
    /// OpenAI: `{"error": {"message": …, "type": …, "param": …, "code": …}}`.
    OpenAi,
    /// text-embeddings-inference: `{"error": …, "error_type": …}`.
    Tei,
    /// FastAPI: `{"detail": …}`, 422 where a record does not fit.
    Typed,
}

impl Dialect {
    /// The dialect of a path that no handler took.
    pub fn of(path: &str) -> Self {
        match path {
            "/v2" => Self::V2,
            path if path.ends_with("/v1/embeddings") || path.ends_with("/v1/rerank") || path.ends_with("/v2/rerank") => {
                Self::OpenAi
            }
            path if path.contains("/v2/") || path.contains("/v1/") => Self::V2,
            path if path.ends_with("/invocations") => Self::Scoring,
            _ => Self::Typed,
        }
    }
}

/// What the head of a request says about its answer.
#[derive(Clone, Debug)]
pub struct Head {
    /// The request's id, ready to be sent back.
    pub id: HeaderValue,
    /// The encoding that the caller asks for.
    pub encoding: Option<Encoding>,
    /// The W3C trace that the request is a part of.
    pub trace: Option<HeaderValue>,
    /// The variant of a rollout that the caller chooses.
    pub chosen: Option<HeaderValue>,
}

/// A compression of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP calls deflate.
    Deflate,
}

impl Encoding {
    fn name(self) -> HeaderValue {
        match self {
            Self::Gzip => HeaderValue::from_static("gzip"),
            Self::Deflate => HeaderValue::from_static("deflate"),
        }
    }

    /// The first of ours that the caller lists and does not weigh with zero.
    fn accepted(list: &HeaderValue) -> Option<Self> {
        let list = list.to_str().ok()?;
        list.split(',').find_map(|item| {
            let (name, weight) = item.split_once(';').unwrap_or((item, ""));
            let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
            match name.trim() {
                "gzip" if !refused => Some(Self::Gzip),
                "deflate" if !refused => Some(Self::Deflate),
                _ => None,
            }
        })
    }

    fn compress(self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let room = Vec::with_capacity(body.len() / 2);
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(room, Compression::fast());
                encoder.write_all(body)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(room, Compression::fast());
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }
}

impl Head {
    /// Reads the head: in one look at the few headers that there are, which takes less than to hash each name that is looked for.
    pub fn of(headers: &HeaderMap) -> Self {
        let (mut id, mut list, mut trace, mut chosen) = (None, None, None, None);
        for (name, value) in headers {
            let first = match name.as_str() {
                "x-request-id" => &mut id,
                "accept-encoding" => &mut list,
                "traceparent" => &mut trace,
                OVERRIDE => &mut chosen,
                _ => continue,
            };
            first.get_or_insert(value);
        }
        let own = |id: &&HeaderValue| (1..=MAX_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
        let mut id = id.filter(own).cloned().unwrap_or_else(new_id);
        // HTTP/2 keeps what it has sent in a table, for when it is sent again, unless it is this; an id never is.
        id.set_sensitive(true);
        Self { id, encoding: list.and_then(Encoding::accepted), trace: trace.cloned(), chosen: chosen.cloned() }
    }

    /// The id as text.
    pub fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }
}

/// Unique in this process by the counter and among processes by the seed; not a secret.
fn new_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut count = NEXT.fetch_add(1, Ordering::Relaxed);
    if count == 0 {
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let seed = u64::try_from(nanos & u128::from(u64::MAX)).unwrap_or_default() ^ (u64::from(std::process::id()) << 32);
        count = seed | 1;
        NEXT.fetch_add(count, Ordering::Relaxed);
    }
    // splitmix64 (Steele, Lea, Flood 2014): a bijection, so that ids stay distinct, and neighbours look unlike.
    let mut z = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let mut text = [0; 16];
    for (i, digit) in text.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(z >> (60 - 4 * i)) as usize & 0xf];
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("unknown"))
}

/// An answer with a body.
pub fn respond(head: &Head, status: StatusCode, content_type: HeaderValue, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    // Enough for those of every answer: a map that grows costs more than all of them.
    *response.headers_mut() = HeaderMap::with_capacity(HEADERS);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(REQUEST_ID, head.id.clone());
    let compressed = head.encoding.filter(|_| body.len() >= WORTH_COMPRESSING).and_then(|encoding| {
        let compressed = encoding.compress(&body).ok()?;
        headers.insert(CONTENT_ENCODING, encoding.name());
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        Some(compressed)
    });
    *response.body_mut() = Body::from(Bytes::from(compressed.unwrap_or(body)));
    response
}

/// An answer of JSON.
pub fn json(head: &Head, status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    respond(head, status, JSON, body)
}

/// A message of the protocol as JSON.
///
/// # Errors
/// [`Code::Internal`] where the descriptors do not fit the messages.
pub fn message<M: prost::Message>(name: &str, message: &M) -> sluicegate_core::Result<serde_json::Value> {
    sluicegate_proto::json::whole(name, message).map_err(|error| Error::new(Code::Internal, error))
}

/// Says which version answered.
pub fn sign(response: &mut Response, live: &Live) {
    sign_headers(response.headers_mut(), live);
}

/// Says which variant of a rollout answered, and whether it did so for another.
pub fn sign_variant(headers: &mut HeaderMap, variant: Option<(Variant, bool)>) {
    let Some((variant, is_fallen)) = variant else { return };
    headers.insert(MODEL_VARIANT, if variant == Variant::Stable { STABLE } else { CANDIDATE });
    if is_fallen {
        headers.insert(MODEL_FALLBACK, CANDIDATE);
    }
}

/// The same among the headers of an answer, or the metadata of a call.
pub fn sign_headers(headers: &mut HeaderMap, live: &Live) {
    for (name, text) in [(MODEL_VERSION, &live.text.0), (MODEL_DIGEST, &live.text.1)] {
        if let Ok(value) = HeaderValue::from_maybe_shared(text.clone()) {
            headers.insert(name, value);
        }
    }
}

#[derive(Serialize)]
struct V2Error<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    detail: &'a [Problem],
    code: &'static str,
    request_id: &'a str,
    #[serde(flatten)]
    more: Option<&'a Value>,
}

#[derive(Serialize)]
struct ScoringError<'a> {
    error_code: &'static str,
    message: &'a str,
    code: &'static str,
    request_id: &'a str,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

#[derive(Serialize)]
struct TeiError<'a> {
    error: &'a str,
    error_type: &'static str,
    code: &'static str,
    request_id: &'a str,
}

#[derive(Serialize)]
struct TypedError<'a, T: Serialize> {
    detail: T,
    code: &'static str,
    request_id: &'a str,
}

/// Faults that are not the caller's are for the operator to see.
pub fn log(head: &Head, error: &Error) {
    let (code, request_id) = (error.code(), head.id());
    let trace = head.trace.as_ref().and_then(|trace| trace.to_str().ok());
    match code.fault() {
        Fault::Caller | Fault::Overload => tracing::debug!(request_id, trace, code = code.name(), %error, "request refused"),
        _ => tracing::error!(request_id, trace, code = code.name(), %error, "request failed"),
    }
}

/// What a caller is told of an error: details of a fault of ours stay in the log.
pub fn told(error: &Error) -> &str {
    match error.code() {
        Code::Internal => "internal error; the log of the gateway has it under this request id",
        _ => error.message(),
    }
}

/// An error in the dialect of the route.
pub fn error(dialect: Dialect, head: &Head, error: &Error) -> Response {
    answer(dialect, head, error, None)
}

/// The same with the keys of `more`, where the dialect has room for them.
pub fn error_with(dialect: Dialect, head: &Head, error: &Error, more: &Value) -> Response {
    answer(dialect, head, error, Some(more))
}

fn answer(dialect: Dialect, head: &Head, error: &Error, more: Option<&Value>) -> Response {
    let code = error.code();
    let wire = status::wire(code);
    log(head, error);
    let (message, request_id) = (told(error), head.id());
    let mut response = match dialect {
        Dialect::V2 => {
            json(head, wire.http, &V2Error { error: message, detail: error.problems(), code: code.name(), request_id, more })
        }
        Dialect::Scoring => {
            json(head, wire.http, &ScoringError { error_code: status::mlflow(code), message, code: code.name(), request_id })
        }
        Dialect::OpenAi => {
            let (r#type, code) = status::openai(code);
            let param = error.problems().first().and_then(|problem| match problem.loc.get(1) {
                Some(Loc::Key(key)) => Some(key.as_str()),
                _ => None,
            });
            json(head, wire.http, &serde_json::json!({ "error": OpenAiError { message, r#type, param, code } }))
        }
        Dialect::Tei => {
            json(head, wire.http, &TeiError { error: message, error_type: status::tei(code), code: code.name(), request_id })
        }
        Dialect::Typed if wire.typed == StatusCode::UNPROCESSABLE_ENTITY => {
            let one;
            let problems = match error.problems() {
                [] => {
                    one = [Problem {
                        kind: "value_error",
                        loc: vec!["body".into()],
                        msg: message.to_owned(),
                        input: None,
                        ctx: None,
                    }];
                    &one[..]
                }
                all => all,
            };
            json(head, wire.typed, &TypedError { detail: problems, code: code.name(), request_id })
        }
        Dialect::Typed => json(head, wire.typed, &TypedError { detail: message, code: code.name(), request_id }),
    };
    if let Some(seconds) = wire.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The answer to a path that leads nowhere.
pub fn nowhere<B>(request: &http::Request<B>) -> Response {
    let error = Error::new(Code::NotFound, "Not Found");
    self::error(Dialect::of(request.uri().path()), &Head::of(request.headers()), &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_id_is_kept_and_a_bad_one_is_replaced() {
        let head = |id: &str| Head::of(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(id).expect("a header"))]));
        assert_eq!(head("abc-1").id(), "abc-1");
        assert_ne!(head("with space").id(), "with space");
        assert_eq!(head(&"x".repeat(500)).id().len(), 16);
        assert_ne!(Head::of(&HeaderMap::new()).id(), Head::of(&HeaderMap::new()).id());
    }

    #[test]
    fn a_head_is_read_from_among_other_headers_and_the_first_of_two_counts() {
        let said = [("accept", "*/*"), ("traceparent", "00-a"), ("x-sluicegate-variant", "candidate"), ("traceparent", "00-b")];
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(name, HeaderValue::from_static(value));
        }
        let head = Head::of(&headers);
        assert_eq!((head.trace, head.chosen), (Some("00-a".parse().expect("a header")), Some(CANDIDATE)));
        assert_eq!(head.encoding, None);
    }

    #[test]
    fn the_encoding_is_one_that_the_caller_accepts() {
        let asked = |list: &str| Encoding::accepted(&HeaderValue::from_str(list).expect("a header"));
        assert_eq!(asked("br, gzip;q=0.5, deflate"), Some(Encoding::Gzip));
        assert_eq!(asked("gzip;q=0, deflate"), Some(Encoding::Deflate));
        assert_eq!(asked("identity"), None);
    }
}
