//! Alive and ready: `/v2/health/…` beside the models, `/livez` and `/readyz` for the orchestrator.

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::Api;
use super::answer::{self, Head};

/// `GET /v2/health/live`
pub async fn v2_live(request: Request) -> Response {
    answer::json(&Head::of(request.headers()), StatusCode::OK, &json!({ "live": true }))
}

/// `GET /v2/health/ready`
pub async fn v2_ready(State(api): State<Api>, request: Request) -> Response {
    ready(&api, &request)
}

/// `GET /livez`
pub async fn livez(request: Request) -> Response {
    answer::json(&Head::of(request.headers()), StatusCode::OK, &json!({ "live": true }))
}

/// `GET /readyz`
pub async fn readyz(State(api): State<Api>, request: Request) -> Response {
    ready(&api, &request)
}

pub(super) fn ready(api: &Api, request: &Request) -> Response {
    let head = Head::of(request.headers());
    if (api.ready)() {
        return answer::json(&head, StatusCode::OK, &json!({ "ready": true }));
    }
    let why = "the gateway loads its models or is going; /status on the ops address tells which";
    answer::json(&head, StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "error": why }))
}
