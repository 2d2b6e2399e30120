//! `POST /models/{model}/predict` of one version: typed by its signature, described with its lineage.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::example::{self, Example};
use super::{Described, Parts, json_content, reference, schema};

/// The headers of an answer that a model gave.
pub(super) fn answered() -> Value {
    json!({
        "x-request-id": reference("headers", "RequestId"),
        "x-model-version": reference("headers", "ModelVersion"),
        "x-model-digest": reference("headers", "ModelDigest"),
        "x-model-variant": reference("headers", "ModelVariant"),
        "x-model-fallback": reference("headers", "ModelFallback"),
        "x-cache": reference("headers", "Cache"),
    })
}

/// Adds the operation of a version under the model's own path, or `pinned` under `model@version`.
pub(super) fn add(parts: &mut Parts, model: &Described<'_>, pinned: bool) {
    let name = model.name.as_str();
    // The part after the last dot holds the version, so that no two models' components can meet.
    let suffix = if pinned { format!("V{}", model.version) } else { String::new() };
    let (record, prediction) = (format!("{name}.Record{suffix}"), format!("{name}.Prediction{suffix}"));
    parts.schemas.insert(record.clone(), schema::record(&record, model.signature));
    parts.schemas.insert(prediction.clone(), schema::prediction(&prediction, model.signature));

    let several = model.signature.is_batched();
    let shape = |component: &str| {
        let one = reference("schemas", component);
        if several {
            json!({ "oneOf": [one, { "type": "array", "title": format!("Array of {component}"), "items": one }] })
        } else {
            one
        }
    };
    let answered = json!({
        "description": if several { "An object for one record, an array for an array." } else { "The answer." },
        "headers": answered(),
        "content": content(&shape(&prediction), example::prediction(model.signature), several),
    });
    let version = model.version;
    let (function, path, summary) = if pinned {
        ("predict_version", format!("/models/{name}@{version}/predict"), format!("Predict with {name}, version {version}"))
    } else {
        ("predict", format!("/models/{name}/predict"), format!("Predict with {name}"))
    };
    let operation = json!({
        "tags": [name],
        "summary": summary,
        "description": description(model, pinned),
        "requestBody": {
            "required": true,
            "content": content(&shape(&record), example::record(model.signature), several),
        },
        "responses": {
            "200": answered,
            "404": reference("responses", "NotFound"),
            "413": reference("responses", "BodyTooLarge"),
            "422": reference("responses", "ValidationError"),
            "429": reference("responses", "QueueFull"),
            "503": reference("responses", "NotReady"),
            "504": reference("responses", "DeadlineExceeded"),
        },
    });
    parts.operation(function, "post", &path, operation);
}

/// Adds the components that every predict operation refers to.
pub(super) fn add_shared(parts: &mut Parts) {
    let header = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    let seconds = json!({ "description": "Seconds after which trying again may help.", "schema": { "type": "integer" } });
    for (name, value) in [
        ("RequestId", header("The id of this request: the one that was sent, else a new one.")),
        ("ModelVersion", header("The version that really answered.")),
        ("ModelDigest", header("The digest of that version's content.")),
        ("ModelVariant", header("Where the model has a rollout: who gave the answer, `stable` or `candidate`.")),
        ("ModelFallback", header("`candidate` where stable answered because the candidate failed to.")),
        ("Cache", header("Where the model has a cache: whether the answer was in it (`hit`) or not (`miss`).")),
        ("RetryAfter", seconds),
    ] {
        parts.headers.insert(name.into(), value);
    }
    for (name, again, description) in [
        ("NotFound", false, "No model has that name, or the model has no such version."),
        ("BodyTooLarge", false, "The body is larger than the limit."),
        ("QueueFull", true, "The model's queue has no room, or the gateway has as many requests in flight as it may."),
        ("NotReady", true, "The model is known and not ready yet, or the gateway is going."),
        ("DeadlineExceeded", false, "The request's time ran out before it was run."),
    ] {
        parts.responses.insert(name.into(), failure(description, "HTTPError", again));
    }
    let mut invalid = failure("Fields are missing, unknown or wrong; all of them are listed.", "HTTPValidationError", false);
    invalid["content"]["application/json"]["example"] =
        json!({ "detail": [{ "type": "missing", "loc": ["body", "amount"], "msg": "Field required", "input": { "hour": 3 } }] });
    parts.responses.insert("ValidationError".into(), invalid);

    parts.schemas.insert(
        "HTTPError".into(),
        json!({
            "type": "object",
            "title": "HTTPError",
            "properties": { "detail": { "type": "string", "title": "Detail" } },
            "required": ["detail"],
        }),
    );
    // These two are FastAPI's own, to the letter: generated clients know them.
    parts.schemas.insert(
        "HTTPValidationError".into(),
        json!({
            "properties": {
                "detail": { "items": reference("schemas", "ValidationError"), "type": "array", "title": "Detail" }
            },
            "type": "object",
            "title": "HTTPValidationError",
        }),
    );
    parts.schemas.insert(
        "ValidationError".into(),
        json!({
            "properties": {
                "loc": {
                    "items": { "anyOf": [{ "type": "string" }, { "type": "integer" }] },
                    "type": "array",
                    "title": "Location",
                },
                "msg": { "type": "string", "title": "Message" },
                "type": { "type": "string", "title": "Error Type" },
                "input": { "title": "Input" },
                "ctx": { "type": "object", "title": "Context" },
            },
            "type": "object",
            "required": ["loc", "msg", "type"],
            "title": "ValidationError",
        }),
    );
}

/// An error response whose body is the component `schema`.
pub(super) fn failure(description: &str, schema: &str, again: bool) -> Value {
    let mut headers = json!({ "x-request-id": reference("headers", "RequestId") });
    if again {
        headers["retry-after"] = reference("headers", "RetryAfter");
    }
    json!({ "description": description, "headers": headers, "content": json_content(&reference("schemas", schema)) })
}

/// A JSON body with its examples: one value, and a list of two where lists are taken.
fn content(schema: &Value, example: Example, several: bool) -> Value {
    let mut examples = Map::new();
    let Example { value, whole } = example;
    if !whole {
        examples.insert("form".into(), json!({ "summary": "The form alone: long lists are cut to one item", "value": value }));
    } else if several {
        let list = json!({ "summary": "Several records", "value": [value, value] });
        examples.insert("one".into(), json!({ "summary": "One record", "value": value }));
        examples.insert("several".into(), list);
    } else {
        examples.insert("one".into(), json!({ "summary": "One record", "value": value }));
    }
    json!({ "application/json": { "schema": schema, "examples": examples } })
}

fn description(model: &Described<'_>, pinned: bool) -> String {
    let mut text = String::new();
    if let Some(description) = model.description {
        let _ = write!(text, "{description}\n\n");
    }
    text.push_str(if pinned {
        "Always answered by this version."
    } else {
        "Answered by the default version, described here, unless a rollout sends a share of the requests to another; \
         `x-model-version` says which one it was."
    });
    let _ = write!(text, "\n\n| version | {} |\n|---|---|\n| digest | `{}` |\n", model.version, model.digest);
    if let Some(lineage) = &model.lineage {
        rows(&mut text, &mut Vec::new(), lineage);
    }
    text
}

/// One row a leaf, named by the way to it.
fn rows<'a>(text: &mut String, way: &mut Vec<&'a str>, value: &'a Value) {
    let leaf = match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                way.push(key);
                rows(text, way, value);
                way.pop();
            }
            return;
        }
        Value::Null => return,
        Value::String(leaf) if leaf.starts_with("sha256:") => format!("`{leaf}`"),
        Value::String(leaf) => leaf.clone(),
        other => other.to_string(),
    };
    let _ = writeln!(text, "| {} | {} |", cell(&way.join(" ").replace('_', " ")), cell(&leaf));
}

/// Text that stays within its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}
