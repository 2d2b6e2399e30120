//! `POST /v2/models/{model}[/versions/{version}]/infer`.

use std::time::Instant;

use axum::extract::{FromRequestParts, RawPathParams, Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body;
use sluicegate_codec::json::{self, Encoded, Outputs};
use sluicegate_codec::{binary, classify};
use sluicegate_core::{Code, Error, ModelRef, Request, Result, VersionRef};
use sluicegate_registry::Live;

use super::answer::{self as wire, Dialect, Head};
use super::exchange::{Exchange, aside, through};
use super::{Api, caching};

/// The parts of the path, by their names in the route.
pub struct Parts(RawPathParams);

impl Parts {
    /// The model that the path names; empty where the route has none.
    pub fn model(&self) -> &str {
        self.part("model").unwrap_or_default()
    }

    /// The version that the path names.
    pub fn version(&self) -> Option<&str> {
        self.part("version")
    }

    /// The alias that the path names for a version.
    pub fn label(&self) -> Option<&str> {
        self.part("label")
    }

    /// The model and version that the path names.
    ///
    /// # Errors
    /// [`Code::UnknownVersion`] where the version is none.
    pub fn target(&self) -> Result<ModelRef<'_>> {
        target(self.model(), self.version())
    }

    /// The part of the path that has this name in the route.
    pub fn part(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parts {
    type Rejection = HttpResponse;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, HttpResponse> {
        RawPathParams::from_request_parts(parts, state).await.map(Self).map_err(|rejection| {
            let error = Error::new(Code::NotFound, rejection.body_text());
            wire::error(Dialect::of(parts.uri.path()), &Head::of(&parts.headers), &error)
        })
    }
}

/// Answers an inference request.
pub async fn infer(State(api): State<Api>, parts: Parts, request: HttpRequest) -> HttpResponse {
    answer(&api, parts.target(), request).await
}

/// Answers an inference request for a model.
pub async fn answer<B>(api: &Api, target: Result<ModelRef<'_>>, request: http::Request<B>) -> HttpResponse
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    match Exchange::enter(api, Dialect::V2, target, request).await {
        Ok(exchange) => through!(api, exchange, run(api, exchange).await),
        Err(refusal) => refusal,
    }
}

/// The model and version that a path names.
///
/// # Errors
/// [`Code::UnknownVersion`] where the version is none.
pub fn target<'a>(model: &'a str, version: Option<&str>) -> Result<ModelRef<'a>> {
    Ok(ModelRef { model, version: version.map(str::parse::<VersionRef>).transpose()? })
}

async fn run(api: &Api, exchange: &Exchange) -> Result<HttpResponse> {
    let Exchange { head, headers, content, routed, .. } = exchange;
    routed.look()?;
    let (mut request, mut asked) = decode(routed.live(), headers, content.clone()).await?;
    request.reuse = caching::asked(headers);
    routed.decoded();
    let mut response = api.gateway.infer(routed, request).await?;
    let cached = response.cached;
    let encoding = Instant::now();
    if asked.any_classes() {
        let (live, payload) = (routed.live().clone(), response.payload());
        let classes = move || classify::apply(&mut response, &asked, &live.signature).map(|()| (response, asked));
        (response, asked) = aside(payload, classes).await?;
    }
    let id = response.id.clone().unwrap_or_else(|| head.id().to_owned());
    let Encoded { body, json } = aside(response.payload(), move || json::write(&response, &id, &asked)).await?;
    let content_type = if json.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = wire::respond(head, StatusCode::OK, HeaderValue::from_static(content_type), body);
    if let Some(json) = json {
        response.headers_mut().insert(wire::HEADER_LENGTH, HeaderValue::from(json));
    }
    caching::tell(&mut response, cached);
    routed.encoded(encoding);
    Ok(response)
}

async fn decode(live: &Live, headers: &HeaderMap, content: Bytes) -> Result<(Request, Outputs)> {
    let length = headers.get(wire::HEADER_LENGTH).map(|length| length.to_str().unwrap_or_default());
    let (head, raw) = binary::split(length, content)?;
    match raw {
        // A length of zero: the body is one tensor and nothing else.
        Some(raw) if head.is_empty() => Ok((binary::whole(&live.model, &live.signature, raw)?, Outputs::new(true))),
        raw => aside(head.len(), move || json::read(&head, raw)).await,
    }
}
