//! `ModelInfer`: room first, then the message, then a version, as for a request over HTTP.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body as AnyBody;
use axum::response::Response as HttpResponse;
use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue};
use sluicegate_codec::{classify, protobuf};
use sluicegate_core::response::Cached;
use sluicegate_core::split::{Asker, Variant};
use sluicegate_core::{DType, ModelRef, Result, Trace, VersionRef};
use sluicegate_gateway::{Permit, Routed, meter};
use sluicegate_proto::inference::infer_parameter::ParameterChoice;
use sluicegate_proto::inference::{ModelInferRequest, ModelInferResponse};
use sluicegate_registry::Live;
use tonic::metadata::MetadataMap;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

use super::arriving::{self, Arriving};
use super::codec::Protobuf;
use super::{ENCODINGS, status, unary};
use crate::http::answer::{self, Head};
use crate::http::exchange::{aside, header};
use crate::http::{Api, caching};

/// How long the caller waits, as gRPC's own header has it.
const TIMEOUT: &str = "grpc-timeout";

/// What the metadata of a call says.
pub(super) struct Asked {
    pub(super) head: Head,
    /// When the caller no longer waits.
    deadline: Option<Instant>,
    reuse: sluicegate_core::request::Reuse,
    /// All of it, where a rollout may ask for a key in it; else nothing.
    headers: HeaderMap,
    pub(super) trace: Option<Trace>,
}

impl Asked {
    pub(super) fn of(api: &Api, headers: &HeaderMap, extensions: &Extensions) -> Self {
        let timeout = headers.get(TIMEOUT).and_then(|timeout| read_timeout(timeout.as_bytes()));
        Self {
            head: Head::of(headers),
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            reuse: caching::asked(headers),
            headers: if api.gateway.reads_headers() { headers.clone() } else { HeaderMap::new() },
            trace: extensions.get().cloned(),
        }
    }
}

/// At most eight digits and a unit.
fn read_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Answers the call.
pub(super) async fn answer<B>(api: Api, request: http::Request<Arriving<B>>) -> HttpResponse
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let permit = match api.gateway.admit() {
        Ok(permit) => permit,
        Err(error) => {
            let status = status::of(&error, &Head::of(request.headers()), None);
            arriving::discard(request.into_body(), api.message).await;
            return status.into_http();
        }
    };
    let answered = match unary::is_plain(request.headers()) {
        true => plain(&api, permit, request).await,
        false => return compressed(api, permit, request).await,
    };
    answered.unwrap_or_else(Status::into_http)
}

async fn plain<B>(api: &Api, permit: Permit, request: http::Request<Arriving<B>>) -> Result<HttpResponse, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let asked = Asked::of(api, request.headers(), request.extensions());
    let message = unary::read(request.into_body(), api.message, &asked.head).await?;
    let (message, headers) = told(api, permit, &asked, message).await?;
    Ok(unary::answer(&message, headers))
}

/// By tonic, which knows the compressions.
async fn compressed<B>(api: Api, permit: Permit, request: http::Request<Arriving<B>>) -> HttpResponse
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bound = api.message;
    let mut grpc = tonic::server::Grpc::new(Protobuf::default()).max_decoding_message_size(bound);
    for encoding in ENCODINGS {
        grpc = grpc.accept_compressed(encoding).send_compressed(encoding);
    }
    let answered = grpc.unary(Call { api, permit: Some(permit) }, request).await;
    status::name_the_setting(answered.map(AnyBody::new), bound)
}

/// One call, which has room.
struct Call {
    api: Api,
    permit: Option<Permit>,
}

impl UnaryService<ModelInferRequest> for Call {
    type Response = ModelInferResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ModelInferResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<ModelInferRequest>) -> Self::Future {
        let (api, permit) = (self.api.clone(), self.permit.take());
        Box::pin(async move {
            let (metadata, extensions, message) = request.into_parts();
            let (message, headers) = told(&api, permit, &Asked::of(&api, metadata.as_ref(), &extensions), message).await?;
            Ok(Response::from_parts(MetadataMap::from_headers(headers), message, tonic::Extensions::default()))
        })
    }
}

/// Takes a message to its answer, and says in headers who gave it.
async fn told(
    api: &Api,
    permit: impl Into<Option<Permit>>,
    asked: &Asked,
    message: ModelInferRequest,
) -> Result<(ModelInferResponse, HeaderMap), Status> {
    let Answer { outcome, live, variant } = run(api, permit.into(), asked, message).await;
    let (message, cached) = outcome.map_err(|error| status::of(&error, &asked.head, live.as_deref()))?;
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(answer::REQUEST_ID, asked.head.id.clone());
    if let Some(cached) = cached {
        headers.insert(caching::CACHE, HeaderValue::from_static(cached.name()));
    }
    if let Some(live) = live {
        answer::sign_headers(&mut headers, &live);
    }
    answer::sign_variant(&mut headers, variant);
    Ok((message, headers))
}

/// What became of a message, and the version that it was for, where one was found.
pub(super) struct Answer {
    pub(super) outcome: Result<(ModelInferResponse, Option<Cached>)>,
    pub(super) live: Option<Arc<Live>>,
    /// The variant that answered, where its model rolls out, and whether it did so for another.
    variant: Option<(Variant, bool)>,
}

/// Takes a message to its answer. Without a permit it asks for one.
pub(super) async fn run(api: &Api, permit: Option<Permit>, asked: &Asked, message: ModelInferRequest) -> Answer {
    let mut routed = match route(api, permit, asked, &message).await {
        Ok(routed) => routed,
        Err(error) => return Answer { outcome: Err(error), live: None, variant: None },
    };
    // Kept only where stable may be asked the same.
    let again = routed.is_tried().then(|| message.clone());
    let mut outcome = infer(api, &routed, asked, message).await;
    if let (Err(error), Some(message)) = (&outcome, again)
        && api.gateway.falls_back(&mut routed, error)
    {
        outcome = infer(api, &routed, asked, message).await;
    }
    let (live, variant) = (Some(routed.live().clone()), routed.variant());
    match &outcome {
        Ok(_) => routed.answered(),
        Err(error) => routed.failed(error),
    }
    Answer { outcome, live, variant }
}

async fn route(api: &Api, permit: Option<Permit>, asked: &Asked, message: &ModelInferRequest) -> Result<Routed> {
    let permit = permit.map_or_else(|| api.gateway.admit(), Ok)?;
    let target = target(&message.model_name, &message.model_version).inspect_err(meter::unrouted)?;
    api.gateway.route(permit, asked.trace.clone(), &target, &Sent { asked, message }).await
}

/// What a call says of who asks.
struct Sent<'a> {
    asked: &'a Asked,
    message: &'a ModelInferRequest,
}

impl Asker for Sent<'_> {
    fn chosen(&self) -> Option<&[u8]> {
        self.asked.head.chosen.as_ref().map(HeaderValue::as_bytes)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        header(&self.asked.headers, name)
    }

    fn field(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.parameter(name)
    }

    fn parameter(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match self.message.parameters.get(name)?.parameter_choice.as_ref()? {
            ParameterChoice::StringParam(text) => Some(text.as_bytes().into()),
            ParameterChoice::Int64Param(number) => Some(number.to_string().into_bytes().into()),
            ParameterChoice::Uint64Param(number) => Some(number.to_string().into_bytes().into()),
            ParameterChoice::BoolParam(_) | ParameterChoice::DoubleParam(_) => None,
        }
    }
}

/// The model and version of a message, in which no version is an empty one.
///
/// # Errors
/// [`Code::UnknownVersion`](sluicegate_core::Code::UnknownVersion) where the version is none.
pub(super) fn target<'a>(model: &'a str, version: &str) -> Result<ModelRef<'a>> {
    let version = (!version.is_empty()).then(|| version.parse::<VersionRef>()).transpose()?;
    Ok(ModelRef { model, version })
}

async fn infer(
    api: &Api,
    routed: &Routed,
    asked: &Asked,
    message: ModelInferRequest,
) -> Result<(ModelInferResponse, Option<Cached>)> {
    routed.look()?;
    let live = routed.live();
    let (mut request, mut form) = aside(costly(&message), move || protobuf::read(message)).await?;
    request.reuse = asked.reuse;
    let left = asked.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    request.timeout = match (request.timeout, left) {
        (Some(timeout), Some(left)) => Some(timeout.min(left)),
        (timeout, left) => timeout.or(left),
    };
    routed.decoded();
    let mut response = api.gateway.infer(routed, request).await?;
    let encoding = Instant::now();
    let (id, cached) = (response.id.take().unwrap_or_else(|| asked.head.id().to_owned()), response.cached);
    if form.outputs.any_classes() {
        let (live, payload) = (live.clone(), response.payload());
        let classes = move || classify::apply(&mut response, &form.outputs, &live.signature).map(|()| (response, form));
        (response, form) = aside(payload, classes).await?;
    }
    let answer = protobuf::write(response, id, &form)?;
    routed.encoded(encoding);
    Ok((answer, cached))
}

/// Bytes of a message that are looked at one by one: those of strings. Other raw contents are views.
fn costly(message: &ModelInferRequest) -> usize {
    let has_text = message.inputs.iter().any(|input| input.datatype == DType::Bytes.name());
    if has_text { message.raw_input_contents.iter().map(Bytes::len).sum() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_time_is_read_as_grpc_writes_it() {
        let read = |text: &str| read_timeout(text.as_bytes());
        assert_eq!(read("5S"), Some(Duration::from_secs(5)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(read("1n"), Some(Duration::from_nanos(1)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "5", "-1S", "999999999S", "5x", "1.5S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
