//! `POST /models/{model}/predict`: named fields in, named answers out.

use std::time::Instant;

use axum::extract::{Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body;
use sluicegate_codec::record::{self, Records};
use sluicegate_core::{Error, ModelRef, Problem, Request, Result};

use super::answer::{self as wire, Dialect};
use super::exchange::{Exchange, aside, through};
use super::infer::Parts;
use super::{Api, caching};

/// Answers one record with one object, a list of records with a list.
pub async fn predict(State(api): State<Api>, parts: Parts, request: HttpRequest) -> HttpResponse {
    answer(&api, ModelRef::parse(parts.model()), request).await
}

/// Answers a record or a list of them for a model.
pub async fn answer<B>(api: &Api, target: Result<ModelRef<'_>>, request: http::Request<B>) -> HttpResponse
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    match Exchange::enter(api, Dialect::Typed, target, request).await {
        Ok(exchange) => through!(api, exchange, run(api, exchange).await),
        Err(refusal) => refusal,
    }
}

async fn run(api: &Api, exchange: &Exchange) -> Result<HttpResponse> {
    let Exchange { head, headers, content, routed, .. } = exchange;
    let live = routed.live();
    routed.look()?;
    is_json(headers)?;
    let (version, records) = (live.clone(), content.clone());
    let Records { inputs, form } = aside(content.len(), move || record::read(&version.signature, &records)).await?;
    routed.decoded();
    let response = api.gateway.infer(routed, Request { inputs, reuse: caching::asked(headers), ..Request::default() }).await?;
    let encoding = Instant::now();
    let (version, bytes, cached) = (live.clone(), response.payload(), response.cached);
    let body = aside(bytes, move || Ok(record::encode::write(&version.signature, &response, form))).await?;
    let mut answer = wire::respond(head, StatusCode::OK, HeaderValue::from_static("application/json"), body);
    caching::tell(&mut answer, cached);
    routed.encoded(encoding);
    Ok(answer)
}

/// FastAPI takes JSON alone, and so a browser's form cannot send a request in another's name.
fn is_json(headers: &HeaderMap) -> Result<()> {
    let Some(sent) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let sent = sent.to_str().unwrap_or_default();
    let essence = sent.split(';').next().unwrap_or_default().trim();
    let is = |part: Option<&str>, text: &str| part.is_some_and(|part| part.eq_ignore_ascii_case(text));
    let ending = essence.len().checked_sub("+json".len()).and_then(|end| essence.get(end..));
    if is(Some(essence), "application/json") || (is(essence.get(.."application/".len()), "application/") && is(ending, "+json")) {
        return Ok(());
    }
    let msg = format!("Input should be a valid dictionary or object: send it with content-type application/json, got `{sent}`");
    let problem = Problem { kind: "model_attributes_type", loc: vec!["body".into()], msg, input: None, ctx: None };
    Err(Error::invalid(vec![problem]))
}
