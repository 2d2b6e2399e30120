//! `/invocations`, `/ping`, `/health` and `/version`: MLflow's scoring protocol, and SageMaker's contract with a container.

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use axum::routing::{get, post};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sluicegate_core::{Code, Error, ModelRef, Request, Result};
use sluicegate_landing::scoring::{self, Media};
use sluicegate_registry::Live;

use super::answer::{self, Dialect, Head};
use super::exchange::{Answer, Exchange, through};
use super::{Api, health};

/// The model that SageMaker's callers name where an endpoint has several.
const TARGET_MODEL: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-model");

/// The routes, where they are switched on.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/invocations", post(invoke))
        .route("/ping", get(ping))
        .route("/health", get(ping))
        .route("/version", get(version))
}

/// `GET /ping` and `GET /health`
async fn ping(State(api): State<Api>, request: HttpRequest) -> HttpResponse {
    health::ready(&api, &request)
}

/// `GET /version`
async fn version(State(api): State<Api>, request: HttpRequest) -> HttpResponse {
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer::respond(&Head::of(request.headers()), StatusCode::OK, text, api.version.into())
}

/// `POST /invocations`
async fn invoke(State(api): State<Api>, request: HttpRequest) -> HttpResponse {
    let name = name(&api, request.headers());
    let target = name.as_ref().map_err(Clone::clone).and_then(|name| ModelRef::parse(name));
    match Exchange::enter(&api, Dialect::Scoring, target, request).await {
        Ok(exchange) => through!(&api, exchange, run(&api, exchange).await),
        Err(refusal) => refusal,
    }
}

async fn run(api: &Api, exchange: &Exchange) -> Result<HttpResponse> {
    let text = |name: HeaderName| exchange.headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let accepted: Vec<&str> = exchange.headers.get_all(ACCEPT).into_iter().filter_map(|list| list.to_str().ok()).collect();
    let (sent, wanted) = (Media::sent(text(CONTENT_TYPE))?, Media::wanted(&accepted)?);
    let read = move |live: &Live, content: &[u8]| {
        let inputs = match sent {
            Media::Json => scoring::read(&live.signature, content),
            Media::Csv { header } => scoring::read_csv(&live.signature, content, header),
        };
        Ok((Request { inputs: inputs?, ..Request::default() }, ()))
    };
    let write = move |_: &Live, response: &_, ()| {
        let body = match wanted {
            Media::Json => scoring::write(response),
            Media::Csv { .. } => scoring::write_csv(response),
        };
        Ok(Answer { content_type: HeaderValue::from_static(wanted.name()), body: body? })
    };
    exchange.ask(api, read, write).await
}

/// Which model is asked: the one that the caller names, the one that is configured, or the only one.
fn name(api: &Api, headers: &HeaderMap) -> Result<String> {
    if let Some(named) = headers.get(TARGET_MODEL) {
        let named = named.to_str().unwrap_or_default().trim_start_matches('/');
        // A multi-model endpoint's callers name the archive that holds the model.
        return Ok(named.strip_suffix(".tar.gz").unwrap_or(named).to_owned());
    }
    if let Some(configured) = &api.protocols.invocations_model {
        return Ok(configured.to_string());
    }
    let table = api.gateway.published().load();
    let mut names = table.models.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only.to_string()),
        _ => {
            let count = table.models.len();
            let why = format!("{count} models are served, and nothing says which one /invocations asks");
            let how = format!("set protocols.invocations_model, or send the header {TARGET_MODEL}");
            Err(Error::new(Code::UnknownModel, format!("{why}; {how}")))
        }
    }
}
