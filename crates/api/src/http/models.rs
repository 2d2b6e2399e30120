//! What is served: metadata and readiness of the protocol, and the overview for people.

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{ModelName, ModelRef, Result, Signature};
use sluicegate_registry::cache::Cache;
use sluicegate_registry::publish::Batches;
use sluicegate_registry::{Live, Served, Table};
use sluicegate_triton::ensemble::Step;

use super::Api;
use super::answer::{self, Dialect, Head};
use super::infer::Parts;

/// The server's name in its metadata.
pub const SERVER: &str = "sluicegate";

/// `GET /v2`
pub async fn server(State(api): State<Api>, request: Request) -> Response {
    let extensions = sluicegate_extension::served(api.protocols.control);
    let body = json!({ "name": SERVER, "version": api.version, "extensions": extensions });
    answer::json(&Head::of(request.headers()), StatusCode::OK, &body)
}

/// `GET /v2/models`
pub async fn list(State(api): State<Api>, request: Request) -> Response {
    let table = api.gateway.published().load();
    let mut names: Vec<&str> = table.models.keys().map(ModelName::as_str).collect();
    names.sort_unstable();
    answer::json(&Head::of(request.headers()), StatusCode::OK, &json!({ "models": names }))
}

/// `GET /v2/models/{model}[/versions/{version}]`
pub async fn metadata(State(api): State<Api>, parts: Parts, request: Request) -> Response {
    let head = Head::of(request.headers());
    if let Err(error) = woken(&api, parts.target()).await {
        return answer::error(Dialect::V2, &head, &error);
    }
    let table = api.gateway.published().load();
    let found = parts.target().and_then(|target| {
        let live = table.find(target.model, target.version.as_ref())?;
        Ok((live, table.models.get(target.model)))
    });
    match found {
        Ok((live, served)) => {
            let mut response = answer::json(&head, StatusCode::OK, &describe(live, served));
            answer::sign(&mut response, live);
            response
        }
        Err(error) => answer::error(Dialect::V2, &head, &error),
    }
}

/// What a model takes and gives is known once it is loaded: who asks for that is one who demands it.
async fn woken(api: &Api, target: Result<ModelRef<'_>>) -> Result<()> {
    api.gateway.wake(&target?).await
}

fn describe(live: &Live, served: Option<&Served>) -> Value {
    let versions: Vec<String> = served.into_iter().flat_map(|served| served.versions.keys()).map(u64::to_string).collect();
    let tensor = |spec: &TensorSpec| json!({ "name": spec.name, "datatype": spec.dtype, "shape": spec.dims });
    let properties: Map<String, Value> =
        properties(live).into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    json!({
        "name": live.model,
        "versions": versions,
        "platform": live.platform(),
        "inputs": live.signature.inputs().iter().map(tensor).collect::<Vec<_>>(),
        "outputs": live.signature.outputs().iter().map(tensor).collect::<Vec<_>>(),
        "properties": properties,
    })
}

/// What really answers.
pub fn properties(live: &Live) -> Vec<(&'static str, String)> {
    let mut properties = vec![
        ("version", live.version.to_string()),
        ("digest", live.digest.to_string()),
        ("engine", live.engine.to_owned()),
        ("device", live.device.clone()),
    ];
    properties.extend(live.fallback.clone().map(|reason| ("engine_fallback", reason)));
    properties
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`
pub async fn ready(State(api): State<Api>, parts: Parts, request: Request) -> Response {
    let head = Head::of(request.headers());
    let table = api.gateway.published().load();
    match parts.target().and_then(|target| table.would_answer(&target).map(|()| target.model)) {
        Ok(model) => answer::json(&head, StatusCode::OK, &json!({ "name": model, "ready": true })),
        Err(error) => answer::error(Dialect::V2, &head, &error),
    }
}

/// `GET /models`
pub async fn overview(State(api): State<Api>, request: Request) -> Response {
    let table = api.gateway.published().load();
    let mut models: Vec<_> = table.models.iter().collect();
    models.sort_by_key(|(name, _)| *name);
    let models: Vec<Value> = models.into_iter().map(|(name, served)| summary(&table, name, served)).collect();
    answer::json(&Head::of(request.headers()), StatusCode::OK, &json!({ "models": models }))
}

fn summary(table: &Table, name: &ModelName, served: &Served) -> Value {
    let answers = served.default.as_ref().map(|live| table.answers(live));
    let is_default = |live: &Live| served.default.as_ref().is_some_and(|default| default.version == live.version);
    let version = |live: &std::sync::Arc<Live>| json!({ "version": live.version.to_string(), "digest": live.digest, "default": is_default(live) });
    let mut summary = json!({
        "name": name,
        "ready": answers.as_ref().is_some_and(Result::is_ok),
        "versions": served.versions.values().map(version).collect::<Vec<_>>(),
    });
    if !served.aliases.is_empty() {
        summary["aliases"] = json!(*served.aliases);
    }
    if let Some(description) = served.default.as_ref().and_then(|live| live.description.as_ref()) {
        summary["description"] = description.as_str().into();
    }
    match (answers, &served.reason) {
        (None, Some(reason)) => summary["reason"] = reason.as_str().into(),
        (Some(Err(error)), _) => summary["reason"] = error.message().into(),
        _ => {}
    }
    summary
}

/// `GET /models/{model}[@{version}]`
pub async fn detail(State(api): State<Api>, parts: Parts, request: Request) -> Response {
    let head = Head::of(request.headers());
    match woken(&api, ModelRef::parse(parts.model())).await.and_then(|()| one(&api, parts.model())) {
        Ok(body) => answer::json(&head, StatusCode::OK, &body),
        Err(error) => answer::error(Dialect::Typed, &head, &error),
    }
}

fn one(api: &Api, name: &str) -> Result<Value> {
    let target = ModelRef::parse(name)?;
    let table = api.gateway.published().load();
    let live = table.find(target.model, target.version.as_ref())?;
    let mut detail = table.models.get(target.model).map_or_else(|| json!({}), |served| summary(&table, &live.model, served));
    let signature: &Signature = &live.signature;
    detail["version"] = live.version.to_string().into();
    detail["digest"] = json!(live.digest);
    detail["description"] = json!(live.description);
    detail["engine"] = live.engine.into();
    detail["engine_fallback"] = json!(live.fallback);
    detail["device"] = live.device.as_str().into();
    if let Some(Batches { batcher, one_row, full_batch }) = live.batches() {
        detail["execution"] = json!(batcher.setup().execution);
        detail["one_row_microseconds"] = json!(one_row.as_secs_f64() * 1e6);
        detail["full_batch_microseconds"] = json!(full_batch.as_secs_f64() * 1e6);
    }
    if let Some(ensemble) = live.steps() {
        detail["steps"] = ensemble.steps.iter().map(step).collect();
    }
    detail["platform"] = live.platform().into();
    detail["remarks"] = json!(live.remarks);
    detail["batched"] = signature.is_batched().into();
    detail["inputs"] = json!(signature.inputs());
    detail["outputs"] = json!(signature.outputs());
    detail["example"] = json!(signature.example());
    detail["lineage"] = json!(live.lineage);
    detail["cache_size_bytes"] = json!(live.cache.as_ref().map(Cache::size));
    Ok(detail)
}

/// A step of an ensemble: the model that it asks, in an order in which their inputs are there.
fn step(step: &Step) -> Value {
    json!({ "model": step.model, "version": step.version.map(|version| version.to_string()) })
}
