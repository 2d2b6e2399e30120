//! `GET /v2/models/stats`, `/v2/models/{model}[/versions/{version}]/stats`.

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
        .route("/v2/models/stats", get(statistics))
        .route("/v2/models/{model}/stats", get(statistics))
        .route("/v2/models/{model}/versions/{version}/stats", get(statistics))
}

/// What versions have done since they went live.
async fn statistics(State(api): State<Api>, parts: Parts, request: Request) -> Response {
    let head = Head::of(request.headers());
    let table = api.gateway.published().load();
    let found = parts.target().and_then(|target| {
        let model = Some(target.model).filter(|model| !model.is_empty());
        answer::message("ModelStatisticsResponse", &extension::statistics::of(&table, model, target.version.as_ref())?)
    });
    match found {
        Ok(statistics) => answer::json(&head, StatusCode::OK, &statistics),
        Err(error) => answer::error(Dialect::V2, &head, &error),
    }
}
