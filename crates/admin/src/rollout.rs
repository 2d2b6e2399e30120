//! What moves: `GET /models/{model}/rollout`, `…/events` and `…/analysis` for everybody, `GET /models/{model}/shadow`,
//! `POST /models/{model}/rollout/{command}` and `POST /hooks/flagger/{type}` for operators.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use sluicegate_api::http::Api;
use sluicegate_api::http::answer::{self, Dialect, Head};
use sluicegate_core::{Code, Error, Result};
use sluicegate_traffic::{Command, Traffic};

use crate::outside;

/// Most events of one answer.
const PAGE: u32 = 1_000;

/// Last place among events that JSON has exactly.
const LAST: u64 = (1 << 53) - 1;

/// The routes that change nothing.
pub fn routes(traffic: &Arc<Traffic>) -> Router<Api> {
    Router::new()
        .route("/models/{model}/rollout", get(rollout))
        .route("/models/{model}/events", get(events))
        .route("/models/{model}/analysis", get(outside::analysis))
        .layer(Extension(traffic.clone()))
}

/// The same, the way to move by hand, and what callers sent: that is for operators alone.
pub fn commands(traffic: &Arc<Traffic>) -> Router<Api> {
    let operators = Router::new()
        .route("/models/{model}/rollout/{command}", post(command))
        .route("/models/{model}/shadow", get(shadow))
        .route("/hooks/flagger/{type}", post(outside::flagger))
        .layer(Extension(traffic.clone()));
    routes(traffic).merge(operators)
}

/// Who asks, for the record of a decision, and why.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

/// Which events.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    limit: Option<u32>,
}

async fn rollout(
    State(api): State<Api>,
    traffic: Extension<Arc<Traffic>>,
    Path(model): Path<String>,
    request: Request,
) -> Response {
    told(&request, known(&api, &model).and_then(|()| traffic.view(&model)))
}

async fn shadow(
    State(api): State<Api>,
    traffic: Extension<Arc<Traffic>>,
    Path(model): Path<String>,
    request: Request,
) -> Response {
    told(&request, known(&api, &model).and_then(|()| traffic.shadow(&model)))
}

async fn events(
    State(api): State<Api>,
    traffic: Extension<Arc<Traffic>>,
    Path(model): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
    request: Request,
) -> Response {
    let outcome = async {
        known(&api, &model)?;
        let Query(page) = page.map_err(|refused| unread(&refused))?;
        let limit = page.limit.unwrap_or(100);
        if limit > PAGE || page.after > LAST {
            let expected = format!("expected `limit` of at most {PAGE} and `after` of at most {LAST}");
            return Err(Error::new(Code::Malformed, format!("{expected}, got {limit} and {}", page.after)));
        }
        traffic.events(&model, page.after, limit).await
    }
    .await;
    told(&request, outcome.map(|events| json!({ "model": model, "events": events })))
}

async fn command(
    State(api): State<Api>,
    traffic: Extension<Arc<Traffic>>,
    Path((model, verb)): Path<(String, String)>,
    asked: Result<Query<Asked>, QueryRejection>,
    request: Request,
) -> Response {
    let outcome = async move {
        known(&api, &model)?;
        let Query(asked) = asked.map_err(|refused| unread(&refused))?;
        let command: Command = verb.parse().map_err(|message: String| Error::new(Code::NotFound, message))?;
        traffic.command(&model, command, asked.by, asked.reason).await
    }
    .await;
    told(&request, outcome)
}

pub(crate) fn known(api: &Api, model: &str) -> Result<()> {
    let table = api.gateway.published().load();
    let unknown = || Error::new(Code::UnknownModel, format!("no model is called `{model}`"));
    table.models.get(model).map(|_| ()).ok_or_else(unknown)
}

fn unread(refused: &QueryRejection) -> Error {
    Error::new(Code::Malformed, refused.body_text())
}

pub(crate) fn told(request: &Request, outcome: Result<serde_json::Value>) -> Response {
    let head = Head::of(request.headers());
    match outcome {
        Ok(body) => answer::json(&head, StatusCode::OK, &body),
        Err(error) => answer::error(Dialect::Typed, &head, &error),
    }
}
