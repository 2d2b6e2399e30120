//! The routes of the protocol's extensions: configuration, statistics, repository, text, and what is logged. Those that are there to
//! refuse, for traces and shared memory, are not a part of what is served.

use serde_json::{Value, json};

use super::operation::failure;
use super::protocol::{V2, list, parameters};
use super::{Parts, json_content, reference};

/// One operation: what it is called, where it is, and what it takes and gives.
struct Route<'a> {
    method: &'static str,
    path: &'a str,
    function: &'static str,
    summary: &'static str,
    description: &'static str,
    /// The schema of its body, and whether it must have one.
    body: Option<(&'static str, bool)>,
    /// The schema of its answer, where that has a body, and the body's type.
    answer: Option<(&'static str, &'static str)>,
    /// Which errors it has.
    errors: &'a [&'static str],
}

const JSON: &str = "application/json";

/// What may happen to every body.
const BODY: [&str; 5] = ["400", "408", "413", "415", "429"];

pub(super) fn add(parts: &mut Parts) {
    add_components(parts);
    let stats = "What a model has done";
    add_one(parts, &get("/v2/models/stats", "all_statistics", "What all models have done", "ModelStatistics", &[]));
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        let path = format!("{model}/config");
        add_one(parts, &get(&path, "model_config", "A model's configuration in Triton's words", "ModelConfig", &["404", "503"]));
        let path = format!("{model}/stats");
        let errors: &[_] = if path.contains("{version}") { &["404", "503"] } else { &["404"] };
        add_one(parts, &get(&path, "model_statistics", stats, "ModelStatistics", errors));
        add_generate(parts, model);
    }
    add_repository(parts);
    let settings = "What is logged";
    add_one(parts, &get("/v2/logging", "log_settings", settings, "LogSettings", &[]));
    let route = post("/v2/logging", "change_log_settings", "Change what is logged", Some("LogSettings"), &["403", "501"]);
    let about = "Each of `log_error`, `log_warning`, `log_info` and `log_verbose_level` stands for everything that is more severe too. \
                 Answered with 403 unless the operator has set `protocols.control`.";
    add_one(parts, &Route { body: Some(("LogChange", false)), description: about, ..route });
}

fn get<'a>(
    path: &'a str,
    function: &'static str,
    summary: &'static str,
    schema: &'static str,
    errors: &'a [&'static str],
) -> Route<'a> {
    Route { method: "get", path, function, summary, description: "", body: None, answer: Some((schema, JSON)), errors }
}

fn post<'a>(
    path: &'a str,
    function: &'static str,
    summary: &'static str,
    schema: Option<&'static str>,
    errors: &'a [&'static str],
) -> Route<'a> {
    let answer = schema.map(|schema| (schema, JSON));
    Route { method: "post", path, function, summary, description: "", body: schema.map(|schema| (schema, false)), answer, errors }
}

fn add_generate(parts: &mut Parts, model: &str) {
    let errors = ["404", "501", "503", "504"];
    let about =
        "For models that take one text and give one. Other keys go to the inputs that have their names, as single values.";
    let path = format!("{model}/generate");
    let body = Some(("GenerateRequest", true));
    let route = post(&path, "generate", "Generate text", Some("GenerateResponse"), &errors);
    add_one(parts, &Route { body, description: about, ..route });
    let path = format!("{model}/generate_stream");
    let route = post(&path, "generate_stream", "Generate text as server-sent events", None, &errors);
    let answer = Some(("GenerateStream", "text/event-stream"));
    add_one(parts, &Route { body, answer, description: about, ..route });
}

fn add_repository(parts: &mut Parts) {
    for path in ["/v2/repository/index", "/v2/repository/{repository}/index"] {
        let route = post(path, "repository_index", "List every version that was heard of", Some("RepositoryIndex"), &["403"]);
        let about = "Of all registries, whichever is named. Answered with 403 unless the operator has set `protocols.control`.";
        add_one(parts, &Route { body: Some(("RepositoryIndexRequest", false)), description: about, ..route });
    }
    let load = "Waits until the version is live or has failed; what serves goes on meanwhile. Without a version, the registry is \
                looked at again and the model served as it is declared. Holds until the model's declaration changes. Answered \
                without a body; where `dry_run` is true, nothing is published, and what was found out is answered as a \
                `LoadReport`. Answered with 403 unless the operator has set `protocols.control`.";
    let unload = "Requests in flight are answered. Holds until the model is loaded again or its declaration changes. Answered \
                  without a body; with 403 unless the operator has set `protocols.control`.";
    for model in ["/v2/repository/models/{model}", "/v2/repository/models/{model}/versions/{version}"] {
        let path = format!("{model}/load");
        let route = post(&path, "load_model", "Load a model", None, &["403", "404", "501", "503", "504"]);
        add_one(parts, &Route { body: Some(("LoadRequest", false)), description: load, ..route });
        let path = format!("{model}/unload");
        let route = post(&path, "unload_model", "Unload a model", None, &["403", "404", "501", "503", "504"]);
        add_one(parts, &Route { body: Some(("UnloadRequest", false)), description: unload, ..route });
    }
}

fn add_one(parts: &mut Parts, route: &Route<'_>) {
    let Route { method, path, function, summary, description, body, answer, errors } = route;
    let mut success = json!({
        "description": "Successful Response",
        "headers": { "x-request-id": reference("headers", "RequestId") },
    });
    if let Some((schema, kind)) = answer {
        success["content"] = json!({ *kind: { "schema": reference("schemas", schema) } });
    }
    let mut responses = json!({ "200": success });
    let of_body: &[&str] = if body.is_some() { &BODY } else { &[] };
    for status in of_body.iter().chain(*errors) {
        let component = match *status {
            "400" => "InferenceInvalid",
            "403" => "InferenceForbidden",
            "404" => "InferenceNotFound",
            "408" => "InferenceSlowBody",
            "413" => "InferenceBodyTooLarge",
            "415" => "InferenceUnsupportedMedia",
            "429" => "InferenceQueueFull",
            "501" => "InferenceUnsupported",
            "503" => "InferenceNotReady",
            _ => "InferenceDeadlineExceeded",
        };
        responses[*status] = reference("responses", component);
    }
    let mut operation = json!({ "tags": [V2], "summary": summary, "parameters": parameters(path), "responses": responses });
    if !description.is_empty() {
        operation["description"] = (*description).into();
    }
    if let Some((schema, required)) = body {
        operation["requestBody"] = json!({ "required": required, "content": json_content(&reference("schemas", schema)) });
    }
    parts.operation(function, method, path, operation);
}

fn add_components(parts: &mut Parts) {
    let parameter = json!({
        "name": "repository", "in": "path", "required": true, "description": "The name of a registry.",
        "schema": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" },
    });
    parts.parameters.insert("Repository".into(), parameter);
    for (name, description) in [
        ("InferenceForbidden", "The operator has not allowed that: `protocols.control` is false."),
        ("InferenceSlowBody", "The body did not come in time."),
        ("InferenceUnsupportedMedia", "The body has an encoding that is not read."),
        ("InferenceUnsupported", "A feature of the protocol that is not served."),
    ] {
        parts.responses.insert(name.into(), failure(description, "InferenceError", false));
    }
    let (text, flag, number) =
        (json!({ "type": "string" }), json!({ "type": "boolean" }), json!({ "type": "integer", "minimum": 0 }));
    let texts = list(&text);
    let duration = reference("schemas", "StatisticDuration");
    let mut add = |name: &str, properties: Value, required: &[&str]| {
        let schema = json!({ "type": "object", "title": name, "properties": properties, "required": required });
        parts.schemas.insert(name.into(), schema);
    };
    add("StatisticDuration", json!({ "count": number, "ns": number }), &["count", "ns"]);
    let kinds = ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"];
    let each: serde_json::Map<_, _> = kinds.iter().map(|kind| ((*kind).to_owned(), duration.clone())).collect();
    add("InferStatistics", each.into(), &kinds);
    let batch = json!({ "batch_size": number, "compute_input": duration, "compute_infer": duration, "compute_output": duration });
    add("BatchStatistics", batch, &["batch_size", "compute_input", "compute_infer", "compute_output"]);
    let version = json!({
        "name": text,
        "version": { "type": "string", "pattern": "^[0-9]+$" },
        "last_inference": { "type": "integer", "minimum": 0, "description": "Milliseconds since 1970; 0 before the first one." },
        "inference_count": { "type": "integer", "minimum": 0, "description": "Rows that were run; not those that a cache had." },
        "execution_count": { "type": "integer", "minimum": 0, "description": "Runs." },
        "inference_stats": reference("schemas", "InferStatistics"),
        "response_stats": { "type": "object" },
        "batch_stats": list(&reference("schemas", "BatchStatistics")),
        "memory_usage": list(&json!({ "type": "object" })),
    });
    let always = ["name", "version", "last_inference", "inference_count", "execution_count", "inference_stats", "batch_stats"];
    add("VersionStatistics", version, &always);
    add("ModelStatistics", json!({ "model_stats": list(&reference("schemas", "VersionStatistics")) }), &["model_stats"]);
    let tensors = list(&json!({ "type": "object" }));
    let config =
        json!({ "name": text, "platform": text, "backend": text, "max_batch_size": number, "input": tensors, "output": tensors });
    add("ModelConfig", config, &["name", "max_batch_size", "input", "output"]);

    let state = json!({ "type": "string", "enum": ["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"] });
    add(
        "RepositoryVersion",
        json!({ "name": text, "version": text, "state": state, "reason": text }),
        &["name", "state", "reason"],
    );
    add("RepositoryIndexRequest", json!({ "ready": flag }), &[]);
    let which = json!({ "version": { "type": ["string", "integer"], "minimum": 0, "maximum": 1_u64 << 53 }, "digest": text });
    let parameters = |more: Value| {
        let mut properties = which.clone();
        for (key, value) in more.as_object().into_iter().flatten() {
            properties[key.as_str()] = value.clone();
        }
        json!({ "parameters": { "type": "object", "properties": properties, "additionalProperties": false } })
    };
    let about = "A model's configuration as JSON in a string: max_batch_size, dynamic_batching.max_queue_delay_microseconds, \
                 instance_group's count and version_policy.";
    let config = json!({ "type": "string", "description": about });
    add("LoadRequest", parameters(json!({ "config": config, "dry_run": flag })), &[]);
    add("UnloadRequest", parameters(json!({ "unload_dependents": flag })), &[]);
    let report = json!({
        "name": text, "version": text, "digest": text, "engine": text, "engine_fallback": { "type": ["string", "null"] },
        "device": text, "execution": text, "one_row_microseconds": { "type": "number" },
        "full_batch_microseconds": { "type": "number" },
    });
    add("LoadReport", report, &["name", "version", "digest"]);
    let settings = json!({
        "log_error": flag, "log_warning": flag, "log_info": flag, "log_verbose_level": number, "log_file": text, "log_format": text,
    });
    add("LogSettings", settings.clone(), &[]);
    let scalars = json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } });
    add("GenerateRequest", json!({ "id": text, "text_input": text, "parameters": scalars }), &["text_input"]);
    let said = json!({ "oneOf": [text, texts] });
    add(
        "GenerateResponse",
        json!({ "id": text, "model_name": text, "model_version": text, "text_output": said }),
        &["model_name", "text_output"],
    );
    let index = list(&reference("schemas", "RepositoryVersion"));
    parts.schemas.insert("RepositoryIndex".into(), index);
    let mut change = json!({ "type": "object", "title": "LogChange", "properties": settings, "additionalProperties": false });
    change["properties"]["log_verbose_level"]["maximum"] = u32::MAX.into();
    parts.schemas.insert("LogChange".into(), change);
    let about = "One event, `data: ` and a GenerateResponse.";
    parts.schemas.insert("GenerateStream".into(), json!({ "type": "string", "description": about }));
}
