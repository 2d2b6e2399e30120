//! `POST /v2/models/{model}[/versions/{version}]/generate` and `/generate_stream`: text in, text out.

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use axum::routing::post;
use http::HeaderValue;
use sluicegate_core::Result;
use sluicegate_landing::generate as format;
use sluicegate_registry::Live;

use super::Api;
use super::answer::Dialect;
use super::exchange::{Answer, Exchange, through};
use super::infer::Parts;

pub(super) fn routes() -> Router<Api> {
    let mut routes = Router::new();
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        routes = routes
            .route(&format!("{model}/generate"), post(generate))
            .route(&format!("{model}/generate_stream"), post(generate_stream));
    }
    routes
}

/// Answers with an object.
async fn generate(State(api): State<Api>, parts: Parts, request: HttpRequest) -> HttpResponse {
    answer(&api, &parts, request, false).await
}

/// Answers with a stream of events, which is one event.
async fn generate_stream(State(api): State<Api>, parts: Parts, request: HttpRequest) -> HttpResponse {
    answer(&api, &parts, request, true).await
}

async fn answer(api: &Api, parts: &Parts, request: HttpRequest, stream: bool) -> HttpResponse {
    let exchange = match Exchange::enter(api, Dialect::V2, parts.target(), request).await {
        Ok(exchange) => exchange,
        Err(refusal) => return refusal,
    };
    through!(api, exchange, run(api, exchange, stream).await)
}

async fn run(api: &Api, exchange: &Exchange, stream: bool) -> Result<HttpResponse> {
    let id = exchange.head.id().to_owned();
    let read = move |live: &Live, content: &[u8]| {
        let mut request = format::read(&live.signature, content)?;
        request.id.get_or_insert(id);
        Ok((request, ()))
    };
    let write = move |_: &Live, response: &_, ()| {
        let content_type = if stream { "text/event-stream; charset=utf-8" } else { "application/json" };
        Ok(Answer { content_type: HeaderValue::from_static(content_type), body: format::write(response, stream) })
    };
    exchange.ask(api, read, write).await
}
