//! `POST /v2/repository/…`: the index of what the registries have, loads and unloads.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use sluicegate_core::{Code, Error, Result};
use sluicegate_extension::repository;
use sluicegate_proto::inference::model_repository_parameter::ParameterChoice;
use sluicegate_proto::inference::{ModelRepositoryParameter, RepositoryModelLoadRequest, RepositoryModelUnloadRequest};
use sluicegate_registry::reconcile::control::Report;

use super::answer::{self, Dialect, Head};
use super::infer::Parts;
use super::{Api, body};

pub(super) fn routes() -> Router<Api> {
    let mut routes =
        Router::new().route("/v2/repository/index", post(index)).route("/v2/repository/{repository}/index", post(index));
    for model in [
        "/v2/repository/models/{model}",
        "/v2/repository/models/{model}/versions/{version}",
        "/v2/repository/{repository}/models/{model}",
    ] {
        routes = routes.route(&format!("{model}/load"), post(load)).route(&format!("{model}/unload"), post(unload));
    }
    routes
}

/// Every version that was heard of.
async fn index(State(api): State<Api>, request: Request) -> Response {
    let (head, said) = body::object(&api, request).await;
    let index = said.and_then(|said| match said.get("ready").unwrap_or(&Value::Bool(false)) {
        Value::Bool(ready) => repository::index(&api.controls(), &api.status, *ready),
        other => Err(Error::new(Code::Malformed, format!("`ready` is {other}, expected true or false"))),
    });
    match index {
        Ok(index) => {
            let models = index.models.into_iter().map(|model| {
                let mut one = json!({ "name": model.name });
                if !model.version.is_empty() {
                    one["version"] = model.version.into();
                }
                one["state"] = model.state.into();
                one["reason"] = model.reason.into();
                one
            });
            answer::json(&head, StatusCode::OK, &models.collect::<Vec<_>>())
        }
        Err(error) => answer::error(Dialect::V2, &head, &error),
    }
}

/// Loads a model or a version of it.
async fn load(State(api): State<Api>, parts: Parts, request: Request) -> Response {
    let (head, said) = body::object(&api, request).await;
    let outcome = async {
        let request = RepositoryModelLoadRequest {
            repository_name: parts.part("repository").unwrap_or_default().to_owned(),
            model_name: parts.model().to_owned(),
            parameters: parameters(&said?)?,
        };
        repository::load(&api.controls(), request, parts.version()).await
    };
    match outcome.await {
        Ok(None) => done(&head),
        Ok(Some(report)) => answer::json(&head, StatusCode::OK, &describe(&report)),
        Err(error) => answer::error(Dialect::V2, &head, &error),
    }
}

/// Takes a model or a version of it out of service.
async fn unload(State(api): State<Api>, parts: Parts, request: Request) -> Response {
    let (head, said) = body::object(&api, request).await;
    let outcome = async {
        let request = RepositoryModelUnloadRequest {
            repository_name: parts.part("repository").unwrap_or_default().to_owned(),
            model_name: parts.model().to_owned(),
            parameters: parameters(&said?)?,
        };
        repository::unload(&api.controls(), request, parts.version()).await
    };
    match outcome.await {
        Ok(()) => done(&head),
        Err(error) => answer::error(Dialect::V2, &head, &error),
    }
}

/// 200 without a body.
fn done(head: &Head) -> Response {
    let mut response = answer::respond(head, StatusCode::OK, HeaderValue::from_static("application/json"), Vec::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

fn describe(report: &Report) -> Value {
    json!({
        "name": report.model,
        "version": report.version.to_string(),
        "digest": report.digest,
        "engine": report.engine,
        "engine_fallback": report.fallback,
        "device": report.device,
        "execution": report.execution,
        "one_row_microseconds": report.one_row.as_secs_f64() * 1e6,
        "full_batch_microseconds": report.full_batch.as_secs_f64() * 1e6,
    })
}

fn parameters(said: &Map<String, Value>) -> Result<BTreeMap<String, ModelRepositoryParameter>> {
    let bad = |what: String| Error::new(Code::Malformed, what);
    let said = match said.get("parameters") {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(said)) => said,
        Some(other) => return Err(bad(format!("`parameters` is {other}, expected an object"))),
    };
    let parameter = |(key, value): (&String, &Value)| {
        let choice = match value {
            Value::Bool(flag) => ParameterChoice::BoolParam(*flag),
            Value::String(text) => ParameterChoice::StringParam(text.clone()),
            Value::Number(number) => {
                // `3.0` is whole, too; past 2^53 a double does not say which number it is.
                let whole = |number: f64| (number.fract() == 0.0 && number.abs() <= 2_f64.powi(53)).then_some(number as i64);
                let read = number.as_i64().or_else(|| number.as_f64().and_then(whole));
                let wrong = || bad(format!("parameter `{key}` is {number}, expected a whole number"));
                ParameterChoice::Int64Param(read.ok_or_else(wrong)?)
            }
            _ => return Err(bad(format!("parameter `{key}` is no string, number or boolean"))),
        };
        Ok((key.clone(), ModelRepositoryParameter { parameter_choice: Some(choice) }))
    };
    said.iter().map(parameter).collect()
}
