//! The `ops` address: `/metrics`, `/livez`, `/readyz`, `/status`. For operators, not for callers.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::header::ACCEPT;
use http::{HeaderValue, StatusCode};
use metrics::gauge;
use serde_json::json;
use sluicegate_core::metric::Form;
use sluicegate_core::{ModelRef, metric};
use sluicegate_registry::{Footprint, Place};
use sluicegate_traffic::Traffic;

use crate::rollout;

use sluicegate_api::http::answer::{self, Head};
use sluicegate_api::http::{Api, health, method_not_allowed, not_found};

/// Renders the exposition text.
pub type Render = Arc<dyn Fn(Form) -> String + Send + Sync>;

/// The routes. `render` gives the exposition text.
pub fn routes(api: Api, render: Render, traffic: &Arc<Traffic>) -> Router {
    let metrics = {
        let api = api.clone();
        move |request: Request| {
            let (api, render) = (api.clone(), render.clone());
            async move { metrics(&api, &render, &request) }
        }
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/status", get(status).layer(Extension(traffic.clone())))
        .merge(rollout::commands(traffic))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api)
}

fn metrics(api: &Api, render: &Render, request: &Request) -> Response {
    gauge!(metric::IN_FLIGHT).set(api.gateway.limit().in_flight() as f64);
    gauge!(metric::READY).set(f64::from(u8::from((api.ready)())));
    // Who reads it says so; who asks for anything else reads the older one.
    let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|accepted| accepted.to_str().ok());
    let (form, content_type) = match accepted.into_iter().any(|accepted| accepted.contains("application/openmetrics-text")) {
        true => (Form::OpenMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        false => (Form::Text, "text/plain; version=0.0.4; charset=utf-8"),
    };
    let content_type = HeaderValue::from_static(content_type);
    answer::respond(&Head::of(request.headers()), StatusCode::OK, content_type, render(form).into_bytes())
}

/// `GET /status`: how far each version came and why not further, and what serves.
async fn status(State(api): State<Api>, traffic: Extension<Arc<Traffic>>, request: Request) -> Response {
    let table = api.gateway.published().load();
    let versions = api.status.snapshot();
    let mut models: Vec<_> = table.models.iter().collect();
    models.sort_by_key(|(name, _)| *name);
    let model = |(name, served): (&sluicegate_core::ModelName, &sluicegate_registry::Served)| {
        let default = served.default.as_ref();
        let taken: Footprint = served.versions.values().map(|live| &live.footprint).sum();
        json!({
            "name": name,
            "ready": table.would_answer(&ModelRef { model: name.as_str(), version: None }).is_ok(),
            "default_version": default.map(|live| live.version.to_string()),
            "engine": default.map(|live| live.engine),
            "device": default.map(|live| live.device.as_str()),
            "queued_rows": default.and_then(|live| live.batcher()).map(sluicegate_batch::Batcher::queued_rows),
            "aliases": *served.aliases,
            "reason": served.reason,
            "held": served.held,
            "residency": if served.on_demand { "on_demand" } else { "pinned" },
            "footprint_bytes": taken.on(Place::Host),
            "gpu_footprint_bytes": taken
                .places()
                .filter(|(place, _)| *place != Place::Host)
                .map(|(place, bytes)| (place.to_string(), bytes.into()))
                .collect::<serde_json::Map<_, _>>(),
            "rollout": traffic.view(name.as_str()).ok(),
            "versions": versions.get(name),
        })
    };
    let body = json!({
        "version": api.version,
        "ready": (api.ready)(),
        "in_flight": api.gateway.limit().in_flight(),
        "config": (api.config_state)(),
        "models": models.into_iter().map(model).collect::<Vec<_>>(),
    });
    answer::json(&Head::of(request.headers()), StatusCode::OK, &body)
}
