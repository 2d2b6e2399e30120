//! `/v2/logging`, and what is there to say that it is not served: trace settings and shared memory.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Map, Value, json};
use sluicegate_core::{Code, Error, Result};
use sluicegate_extension::{logging, shared_memory, trace};
use sluicegate_proto::inference::log_settings_request::SettingValue;
use sluicegate_proto::inference::log_settings_request::setting_value::ParameterChoice as Asked;
use sluicegate_proto::inference::log_settings_response::setting_value::ParameterChoice;
use sluicegate_proto::inference::{LogSettingsRequest, LogSettingsResponse};

use super::answer::{self, Dialect, Head};
use super::infer::Parts;
use super::{Api, body};

pub(super) fn routes() -> Router<Api> {
    let mut routes = Router::new()
        .route("/v2/logging", get(settings).post(change))
        .route("/v2/trace/setting", get(traces).post(no_traces))
        .route("/v2/models/{model}/trace/setting", get(traces).post(no_traces));
    for memory in ["/v2/systemsharedmemory", "/v2/cudasharedmemory"] {
        for region in ["", "/region/{region}"] {
            routes = routes
                .route(&format!("{memory}{region}/status"), get(no_memory))
                .route(&format!("{memory}{region}/unregister"), post(no_memory));
        }
        routes = routes.route(&format!("{memory}/region/{{region}}/register"), post(no_memory));
    }
    routes
}

/// What is logged.
async fn settings(State(api): State<Api>, request: Request) -> Response {
    tell(&Head::of(request.headers()), logging::settings(&api.controls()).map(|settings| flat(&settings)))
}

/// Changes what is logged.
async fn change(State(api): State<Api>, request: Request) -> Response {
    let (head, said) = body::object(&api, request).await;
    let settings = said.and_then(|said| logging::change(&api.controls(), &asked(&said)?));
    tell(&head, settings.map(|settings| flat(&settings)))
}

/// The settings of traces, which are off.
async fn traces(State(api): State<Api>, parts: Parts, request: Request) -> Response {
    let settings = trace::settings(&api.gateway.published().load(), parts.model()).map(|response| {
        let text = |values: Vec<String>| Value::from(values.into_iter().next().unwrap_or_default());
        let setting = |(key, setting): (String, sluicegate_proto::inference::trace_setting_response::SettingValue)| {
            // A list alone in Triton's JSON too.
            let value = if key == "trace_level" { json!(setting.value) } else { text(setting.value) };
            (key, value)
        };
        Value::Object(response.settings.into_iter().map(setting).collect())
    });
    tell(&Head::of(request.headers()), settings)
}

async fn no_traces(request: Request) -> Response {
    tell(&Head::of(request.headers()), Err(trace::refusal()))
}

async fn no_memory(request: Request) -> Response {
    tell(&Head::of(request.headers()), Err(shared_memory()))
}

fn tell(head: &Head, outcome: Result<Value>) -> Response {
    match outcome {
        Ok(settings) => answer::json(head, StatusCode::OK, &settings),
        Err(error) => answer::error(Dialect::V2, head, &error),
    }
}

fn flat(response: &LogSettingsResponse) -> Value {
    let value = |choice: &ParameterChoice| match choice {
        ParameterChoice::BoolParam(flag) => json!(flag),
        ParameterChoice::Uint32Param(number) => json!(number),
        ParameterChoice::StringParam(text) => json!(text),
    };
    let settings = response.settings.iter();
    Value::Object(
        settings.map(|(key, setting)| (key.clone(), setting.parameter_choice.as_ref().map_or(Value::Null, value))).collect(),
    )
}

fn asked(said: &Map<String, Value>) -> Result<LogSettingsRequest> {
    let setting = |(key, value): (&String, &Value)| {
        let choice = match value {
            Value::Null => None,
            Value::Bool(flag) => Some(Asked::BoolParam(*flag)),
            Value::String(text) => Some(Asked::StringParam(text.clone())),
            Value::Number(number) => {
                let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
                Some(Asked::Uint32Param(number.ok_or_else(|| bad(key))?))
            }
            Value::Array(_) | Value::Object(_) => return Err(bad(key)),
        };
        Ok((key.clone(), SettingValue { parameter_choice: choice }))
    };
    Ok(LogSettingsRequest { settings: said.iter().map(setting).collect::<Result<_>>()? })
}

fn bad(key: &str) -> Error {
    Error::new(Code::Malformed, format!("setting `{key}` is a string, true, false, or a whole number of 0 or more"))
}
