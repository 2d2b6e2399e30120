//! `/v1/models…`: KServe's first protocol and TensorFlow Serving's. `/` says that the server is alive.

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use axum::routing::get;
use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use sluicegate_core::{Code, Error, ModelName, ModelRef, Request, Result, VersionRef};
use sluicegate_extension::tensorflow;
use sluicegate_landing::instances::{self, Verb};
use sluicegate_registry::Live;

use super::Api;
use super::answer::{self, Dialect, Head};
use super::exchange::{Answer, Exchange, through};
use super::infer::{self, Parts};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The routes, where they are switched on.
pub(super) fn routes() -> Router<Api> {
    let mut routes = Router::new().route("/", get(alive)).route("/v1/models", get(list));
    for model in ["/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{label}"] {
        routes = routes.route(model, get(status).post(ask).fallback(other)).route(&format!("{model}/metadata"), get(metadata));
    }
    routes
}

/// `GET /`, as KServe's client asks.
pub(super) async fn alive(request: HttpRequest) -> HttpResponse {
    answer::json(&Head::of(request.headers()), StatusCode::OK, &json!({ "status": "alive" }))
}

/// `GET /v1/models`
async fn list(State(api): State<Api>, request: HttpRequest) -> HttpResponse {
    let table = api.gateway.published().load();
    let mut names: Vec<&str> = table.models.keys().map(ModelName::as_str).collect();
    names.sort_unstable();
    answer::json(&Head::of(request.headers()), StatusCode::OK, &json!({ "models": names }))
}

/// The model and version of a path, and the verb behind its last colon: `fraud:predict`, `fraud/versions/3:predict`.
fn read<'a>(parts: &'a Parts) -> (Result<ModelRef<'a>>, Option<&'a str>) {
    let split = |text: &'a str| text.rsplit_once(':').map_or((text, None), |(text, verb)| (text, Some(verb)));
    let model = parts.model();
    match (parts.label(), parts.version()) {
        (Some(label), _) => {
            let (label, verb) = split(label);
            (Ok(ModelRef { model, version: Some(VersionRef::Alias(label.into())) }), verb)
        }
        (None, Some(version)) => {
            let (version, verb) = split(version);
            (infer::target(model, Some(version)), verb)
        }
        (None, None) => {
            let (model, verb) = split(model);
            (Ok(ModelRef { model, version: None }), verb)
        }
    }
}

/// `POST …:predict`, `:classify`, `:regress` and `:explain`
async fn ask(State(api): State<Api>, parts: Parts, request: HttpRequest) -> HttpResponse {
    let (target, verb) = read(&parts);
    let verb = match verb {
        Some("predict") => Some(Verb::Predict),
        Some("classify") => Some(Verb::Classify),
        Some("regress") => Some(Verb::Regress),
        Some("explain") => None,
        Some(_) => return answer::nowhere(&request),
        None => return not_that_way(&request, None),
    };
    match Exchange::enter(&api, Dialect::V2, target, request).await {
        Ok(exchange) => {
            through!(&api, exchange, by(&api, exchange, verb).await)
        }
        Err(refusal) => refusal,
    }
}

async fn by(api: &Api, exchange: &Exchange, verb: Option<Verb>) -> Result<HttpResponse> {
    match verb {
        Some(Verb::Predict) => predict(api, exchange).await,
        Some(verb) => results(api, exchange, verb).await,
        None => Err(Error::new(Code::Unsupported, "no explainer is served here; `:predict` is")),
    }
}

async fn predict(api: &Api, exchange: &Exchange) -> Result<HttpResponse> {
    let read = |live: &Live, content: &[u8]| {
        let asked = instances::read(&live.signature, content)?;
        Ok((Request { inputs: asked.inputs, ..Request::default() }, asked.form))
    };
    let write = |_: &Live, response: &_, form| Ok(Answer { content_type: JSON, body: instances::write(response, form)? });
    exchange.ask(api, read, write).await
}

async fn results(api: &Api, exchange: &Exchange, verb: Verb) -> Result<HttpResponse> {
    let read = move |live: &Live, content: &[u8]| {
        let output = instances::output(&live.signature, verb)?.name.to_string();
        let inputs = instances::read_examples(&live.signature, content, verb)?;
        Ok((Request { inputs, outputs: vec![output], ..Request::default() }, ()))
    };
    let write = move |live: &Live, response: &_, ()| {
        Ok(Answer { content_type: JSON, body: instances::write_results(&live.signature, response, verb)? })
    };
    exchange.ask(api, read, write).await
}

async fn other(parts: Parts, request: HttpRequest) -> HttpResponse {
    not_that_way(&request, read(&parts).1)
}

/// The path without a verb is another resource than that with one, though the router has one route for both.
fn not_that_way(request: &HttpRequest, verb: Option<&str>) -> HttpResponse {
    let (allowed, why) = match verb {
        None => ("GET,HEAD", "POST needs a verb, as in /v1/models/{model}:predict; without one there is GET"),
        Some("predict" | "classify" | "regress" | "explain") => ("POST", "a verb needs POST"),
        Some(_) => return answer::nowhere(request),
    };
    let error = Error::new(Code::MethodNotAllowed, why);
    let mut refusal = answer::error(Dialect::V2, &Head::of(request.headers()), &error);
    refusal.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    refusal
}

/// `GET /v1/models/{model}[/versions/{version}|/labels/{label}]`: one body for both, KServe's name and readiness, and
/// TensorFlow Serving's list of versions, the newest first.
async fn status(State(api): State<Api>, parts: Parts, request: HttpRequest) -> HttpResponse {
    let head = Head::of(request.headers());
    let (target, verb) = read(&parts);
    match verb {
        None => {}
        Some(_) => return not_that_way(&request, verb),
    }
    let table = api.gateway.published().load();
    let found = target.and_then(|target| Ok((table.find(target.model, target.version.as_ref())?, target.version.is_some())));
    match found {
        Ok((live, pinned)) => {
            let only = pinned.then_some(live.version);
            let versions = tensorflow::versions(&api.status, live.model.as_str(), only);
            let body = json!({ "name": live.model, "ready": true, "model_version_status": versions });
            let mut response = answer::json(&head, StatusCode::OK, &body);
            answer::sign(&mut response, live);
            response
        }
        Err(error) if error.code() == Code::NotReady => {
            let name = read(&parts).0.map(|target| target.model).unwrap_or_default();
            let more =
                json!({ "name": name, "ready": false, "model_version_status": tensorflow::versions(&api.status, name, None) });
            answer::error_with(Dialect::V2, &head, &error, &more)
        }
        Err(error) => answer::error(Dialect::V2, &head, &error),
    }
}

/// `GET …/metadata`: the signature as TensorFlow has it.
async fn metadata(State(api): State<Api>, parts: Parts, request: HttpRequest) -> HttpResponse {
    let head = Head::of(request.headers());
    let table = api.gateway.published().load();
    let found = read(&parts).0.and_then(|target| table.find(target.model, target.version.as_ref()));
    match found {
        Ok(live) => {
            let mut response = answer::json(&head, StatusCode::OK, &tensorflow::describe(live));
            answer::sign(&mut response, live);
            response
        }
        Err(error) => answer::error(Dialect::V2, &head, &error),
    }
}
