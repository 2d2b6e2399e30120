//! `POST /models/{model}/predict`: named fields in, named answers out.
//!
//! [`decode`] reads records straight into tensors; where one does not fit, [`problems`] reads the body again, slowly, and
//! lists all that is wrong with it. [`encode`] writes answers in the form that [`view`] gives each output.

pub mod decode;
pub mod encode;
pub mod problems;
pub mod view;

use std::time::Instant;

use axum::extract::{Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use sluicegate_core::{Error, ModelRef, Problem, Request, Result, Signature};

use super::answer::{self, Dialect};
use super::exchange::Exchange;
use super::infer::Parts;
use super::{Api, caching};
use decode::Records;

/// Answers one record with one object, a list of records with a list.
pub async fn predict(State(api): State<Api>, Parts(parts): Parts, request: HttpRequest) -> HttpResponse {
    let target = ModelRef::parse(parts.get("model").map_or("", String::as_str));
    match Exchange::enter(&api, Dialect::Typed, target, request).await {
        Ok(exchange) => {
            let outcome = run(&api, &exchange).await;
            exchange.leave(outcome)
        }
        Err(refusal) => refusal,
    }
}

async fn run(api: &Api, exchange: &Exchange) -> Result<HttpResponse> {
    let Exchange { head, headers, content, routed, .. } = exchange;
    let live = routed.live();
    is_json(headers)?;
    let Records { inputs, form } = read(&live.signature, content)?;
    live.meter.decode.record(routed.began().elapsed());
    let response = api.gateway.infer(routed, Request { inputs, reuse: caching::asked(headers), ..Request::default() }).await?;
    let encoding = Instant::now();
    let body = encode::write(&live.signature, &response, form);
    let mut answer = answer::respond(head, StatusCode::OK, HeaderValue::from_static("application/json"), body);
    caching::tell(&mut answer, response.cached);
    live.meter.encode.record(encoding.elapsed());
    Ok(answer)
}

/// Reads records.
///
/// # Errors
/// [`Code::InvalidFields`](sluicegate_core::Code::InvalidFields) with every problem of every record.
pub fn read(signature: &Signature, content: &[u8]) -> Result<Records> {
    decode::read(signature, content).map_err(|error| Error::invalid(problems::find(signature, content, &error)))
}

/// FastAPI takes JSON alone, and so a browser's form cannot send a request in another's name.
fn is_json(headers: &HeaderMap) -> Result<()> {
    let Some(sent) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let sent = sent.to_str().unwrap_or_default();
    let essence = sent.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let msg = format!("Input should be a valid dictionary or object: send it with content-type application/json, got `{sent}`");
    let problem = Problem { kind: "model_attributes_type", loc: vec!["body".into()], msg, input: None, ctx: None };
    Err(Error::invalid(vec![problem]))
}
