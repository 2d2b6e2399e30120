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
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use sluicegate_core::{Error, ModelRef, Problem, Request, Result, Signature};
use sluicegate_gateway::Routed;

use super::answer::{self, Dialect, Head};
use super::infer::Parts;
use super::{Api, body};
use decode::Records;

/// Answers one record with one object, a list of records with a list.
pub async fn predict(State(api): State<Api>, Parts(parts): Parts, request: HttpRequest) -> HttpResponse {
    let (head, content) = request.into_parts();
    let about = Head::of(&head.headers);
    let routed = async {
        let permit = api.gateway.admit()?;
        let content = body::read(&head.headers, content, api.body).await.inspect_err(sluicegate_gateway::meter::unrouted)?;
        let name = parts.get("model").map_or("", String::as_str);
        let target = ModelRef::parse(name).inspect_err(sluicegate_gateway::meter::unrouted)?;
        Ok((api.gateway.route(permit, &target)?, content))
    };
    let (routed, content) = match routed.await {
        Ok(routed) => routed,
        Err(error) => return answer::error(Dialect::Typed, &about, &error),
    };
    let live = routed.live().clone();
    let mut response = match run(&api, &routed, &about, &head.headers, &content).await {
        Ok(response) => {
            routed.answered();
            response
        }
        Err(error) => {
            routed.failed(&error);
            answer::error(Dialect::Typed, &about, &error)
        }
    };
    answer::sign(&mut response, &live);
    response
}

async fn run(api: &Api, routed: &Routed, about: &Head, headers: &HeaderMap, content: &Bytes) -> Result<HttpResponse> {
    let live = routed.live();
    is_json(headers)?;
    let Records { inputs, form } = read(&live.signature, content)?;
    live.meter.decode.record(routed.began().elapsed());
    let response = api.gateway.infer(routed, Request { inputs, ..Request::default() }).await?;
    let encoding = Instant::now();
    let body = encode::write(&live.signature, &response, form);
    let response = answer::respond(about, StatusCode::OK, HeaderValue::from_static("application/json"), body);
    live.meter.encode.record(encoding.elapsed());
    Ok(response)
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
