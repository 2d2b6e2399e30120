//! `GET /v2/models/{model}[/versions/{version}]/config`.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use sluicegate_extension as extension;

use super::Api;
use super::answer::{self, Dialect, Head};
use super::infer::Parts;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v2/models/{model}/config", get(config))
        .route("/v2/models/{model}/versions/{version}/config", get(config))
}

/// The configuration of a version in Triton's words.
async fn config(State(api): State<Api>, parts: Parts, request: Request) -> Response {
    let head = Head::of(request.headers());
    let table = api.gateway.published().load();
    let found = parts.target().and_then(|target| {
        let live = table.find(target.model, target.version.as_ref())?;
        let config = extension::config::of(live, table.models.get(target.model));
        Ok((live, answer::message("ModelConfig", &config)?))
    });
    match found {
        Ok((live, config)) => {
            let mut response = answer::json(&head, StatusCode::OK, &config);
            answer::sign(&mut response, live);
            response
        }
        Err(error) => answer::error(Dialect::V2, &head, &error),
    }
}
