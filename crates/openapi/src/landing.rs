//! The routes of protocols whose clients land here: KServe's first, TensorFlow Serving's, MLflow's and SageMaker's, and those of text.

mod text;

use serde_json::{Value, json};

use super::operation::{self, failure};
use super::protocol::parameters;
use super::{Described, Info, Parts, example, json_content, reference};

const V1: &str = "KServe V1 and TensorFlow Serving";
const SCORING: &str = "MLflow and SageMaker";

/// Adds those that are switched on; their examples are of the model `shown`.
pub(super) fn add(parts: &mut Parts, info: &Info<'_>, shown: Option<&Described<'_>>) {
    let record = shown.map(|shown| example::record(shown.signature)).filter(|example| example.whole).map(|example| example.value);
    if info.protocols.v1 {
        parts.tag(V1, "In a path with `{model}`, `/versions/{version}` or `/labels/{alias}` may follow the model's name.");
        add_v1(parts, record.as_ref());
    }
    if info.protocols.invocations {
        parts.tag(SCORING, "The model is `protocols.invocations_model`, or the only one that is served.");
        add_scoring(parts, record.as_ref());
    }
    if info.protocols.text {
        text::add(parts);
    }
}

fn add_v1(parts: &mut Parts, record: Option<&Value>) {
    for (function, path, summary, schema) in [
        ("v1_alive", "/", "Is the server alive?", json!({ "status": { "type": "string" } })),
        (
            "v1_models",
            "/v1/models",
            "List the models' names",
            json!({ "models": { "type": "array", "items": { "type": "string" } } }),
        ),
        ("v1_status", "/v1/models/{model}", "Is the model ready, and which versions are there?", status()),
        ("v1_metadata", "/v1/models/{model}/metadata", "Describe a model's tensors", object(&["model_spec", "metadata"])),
    ] {
        let mut responses = json!({ "200": answered(&json!({ "type": "object", "properties": schema }), false) });
        if path.contains("{model}") {
            responses["404"] = reference("responses", "InferenceNotFound");
            responses["503"] = reference("responses", "InferenceNotReady");
        }
        let operation = json!({ "tags": [V1], "summary": summary, "parameters": parameters(path), "responses": responses });
        parts.operation(function, "get", path, operation);
    }
    let any = json!({ "description": "A value, a list or an object of named ones." });
    let examples =
        json!({ "examples": { "type": "array", "items": { "type": "object" } }, "context": { "type": ["object", "null"] } });
    for (verb, summary, mut properties, answer, key) in [
        (
            "predict",
            "Predict",
            json!({ "instances": { "type": "array", "items": any }, "inputs": any }),
            &["predictions", "outputs"][..],
            "instances",
        ),
        ("classify", "Score each class", examples.clone(), &["results"], "examples"),
        ("regress", "Find one number a row", examples, &["results"], "examples"),
    ] {
        properties["signature_name"] =
            json!({ "type": ["string", "null"], "enum": [null, "", "serving_default", format!("tensorflow/serving/{verb}")] });
        let mut body = json!({ "schema": { "type": "object", "properties": properties } });
        match verb {
            "predict" => body["schema"]["oneOf"] = json!([{ "required": ["instances"] }, { "required": ["inputs"] }]),
            _ => body["schema"]["required"] = json!(["examples"]),
        }
        if let Some(record) = record.filter(|_| verb == "predict") {
            body["examples"] = json!({ "one": { "summary": "One row", "value": { key: [record] } } });
        }
        let path = format!("/v1/models/{{model}}:{verb}");
        let description = match verb {
            "predict" => "`instances` are answered with `predictions`, a value or an object each; `inputs` with `outputs`.",
            "classify" => {
                "Each example is answered with pairs of label and score. Values of `context` are those of every example."
            }
            _ => "Each example is answered with one number. Values of `context` are those of every example.",
        };
        let operation = json!({
            "tags": [V1],
            "summary": summary,
            "description": description,
            "parameters": parameters(&path),
            "requestBody": { "required": true, "content": { "application/json": body } },
            "responses": responses(&answered(&json!({ "type": "object", "properties": object(answer) }), true), "InferenceError"),
        });
        parts.operation(&format!("v1_{verb}"), "post", &path, operation);
    }
}

fn add_scoring(parts: &mut Parts, record: Option<&Value>) {
    let text = json!({ "type": "string" });
    let error = json!({
        "type": "object",
        "title": "ScoringError",
        "properties": { "error_code": text, "message": text, "code": text, "request_id": text },
        "required": ["error_code", "message"],
    });
    parts.schemas.insert("ScoringError".into(), error);
    for (function, path) in [("scoring_ping", "/ping"), ("scoring_health", "/health")] {
        let responses = json!({
            "200": answered(&reference("schemas", "ServerReady"), false),
            "503": failure("Not ready: models are loading, or the server is going.", "ServerReady", false),
        });
        parts.operation(
            function,
            "get",
            path,
            json!({ "tags": [SCORING], "summary": "Is the server ready?", "responses": responses }),
        );
    }
    let mut version = answered(&text, false);
    version["content"] = json!({ "text/plain": { "schema": text } });
    let version = json!({ "tags": [SCORING], "summary": "The gateway's version", "responses": { "200": version } });
    parts.operation("scoring_version", "get", "/version", version);

    let records = json!({ "type": "array", "items": { "type": "object" } });
    let split = json!({
        "type": "object",
        "properties": { "columns": { "type": "array" }, "index": { "type": "array" }, "data": { "type": "array", "items": { "type": "array" } } },
        "required": ["data"],
    });
    let properties =
        json!({ "dataframe_split": split, "dataframe_records": records, "instances": { "type": "array" }, "inputs": {} });
    let mut body = json!({ "schema": { "type": "object", "properties": properties } });
    if let Some(record) = record {
        body["examples"] = json!({ "records": { "summary": "One row", "value": { "dataframe_records": [record] } } });
    }
    let mut answer = answered(&json!({ "type": "object", "properties": object(&["predictions"]) }), true);
    answer["content"]["text/csv"] = json!({ "schema": text });
    let mut responses = responses(&answer, "ScoringError");
    responses["406"] = failure("`accept` names neither JSON nor CSV.", "ScoringError", false);
    let target = json!({
        "name": "X-Amzn-SageMaker-Target-Model", "in": "header", "required": false,
        "description": "The model that is asked, in place of the configured one.", "schema": text,
    });
    let operation = json!({
        "tags": [SCORING],
        "summary": "Score a table",
        "description": "Columns go by the names of the record's fields, in any order. One of the keys has the rows. CSV begins with the \
                        names of its columns, unless it comes as `text/csv; header=absent`; answered as CSV, rows have no header.",
        "parameters": [target],
        "requestBody": { "required": true, "content": { "application/json": body, "text/csv": { "schema": text } } },
        "responses": responses,
    });
    parts.operation("scoring_invocations", "post", "/invocations", operation);
}

/// The properties of `GET /v1/models/{model}`.
fn status() -> Value {
    let text = json!({ "type": "string" });
    let error = json!({ "type": "object", "properties": { "error_code": text, "error_message": text } });
    let version = json!({ "type": "object", "properties": { "version": text, "state": text, "status": error } });
    json!({ "name": text, "ready": { "type": "boolean" }, "model_version_status": { "type": "array", "items": version } })
}

/// Properties of any value.
fn object(keys: &[&str]) -> Value {
    keys.iter().map(|key| ((*key).to_owned(), json!({}))).collect::<serde_json::Map<_, _>>().into()
}

/// An answer of JSON; `signed` where a version gave it.
fn answered(schema: &Value, signed: bool) -> Value {
    let headers = if signed { operation::answered() } else { json!({ "x-request-id": reference("headers", "RequestId") }) };
    json!({ "description": "Successful Response", "headers": headers, "content": json_content(schema) })
}

/// The answers to a request for a prediction.
fn responses(answer: &Value, error: &str) -> Value {
    let mut responses = json!({ "200": answer });
    for (status, again, why) in [
        ("400", false, "The body cannot be read, or does not fit the model's signature."),
        ("404", false, "No model has that name, or the model has no such version."),
        ("408", false, "The body did not come in time."),
        ("413", false, "The body is larger than the limit."),
        ("415", false, "The body's type or encoding is none that is read."),
        ("429", true, "The model's queue has no room, or the gateway has as many requests in flight as it may."),
        ("500", false, "The model failed on a request that fits its signature."),
        ("503", true, "The model is known and not ready yet, or the gateway is going."),
        ("504", false, "The request's time ran out before it was run."),
    ] {
        responses[status] = failure(why, error, again);
    }
    responses
}
