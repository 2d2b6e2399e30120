//! The routes that are the same for every model: the Open Inference Protocol, and the list of models.

use serde_json::{Value, json};
use sluicegate_core::DType;

use super::operation::{answered, failure};
use super::{Described, Info, Parts, example, extensions, json_content, landing, reference, rollouts};

pub(super) const V2: &str = "Open Inference Protocol";
pub(super) const MODELS: &str = "Models";

/// Adds the generic routes; their examples are of one model, the first that the V2 protocol has a JSON example for.
pub(super) fn add(parts: &mut Parts, info: &Info<'_>, models: &[Described<'_>]) {
    let defaults = || models.iter().filter(|model| model.default);
    let with_example = defaults().find_map(|model| Some((model, Some(example::infer(model.signature)?))));
    let (shown, request) = with_example.or(defaults().next().map(|model| (model, None))).unzip();
    let request = request.flatten();
    parts.tag(MODELS, "What is served: models, their live versions, signatures and lineage.");
    parts.tag(V2, "The V2 protocol, as KServe, Triton, Seldon and MLServer clients speak it, over JSON or binary tensors.");
    add_components(parts, shown);

    add_get(parts, MODELS, "list_models", "/models", "List the models", "Models");
    add_get(parts, MODELS, "read_model", "/models/{model}", "Describe a model", "Model");
    add_get(parts, MODELS, "read_batching", "/models/{model}/batching", "Explain a model's last batches", "Batching");

    add_get(parts, V2, "server_metadata", "/v2", "Describe the server", "ServerMetadata");
    add_get(parts, V2, "server_live", "/v2/health/live", "Is the server alive?", "ServerLive");
    add_get(parts, V2, "server_ready", "/v2/health/ready", "Is the server ready?", "ServerReady");
    add_get(parts, V2, "model_names", "/v2/models", "List the models' names", "ModelNames");
    let one = "/v2/models/{model}";
    let pinned = "/v2/models/{model}/versions/{version}";
    for path in [one, pinned] {
        add_get(parts, V2, "model_metadata", path, "Describe a model's tensors", "ModelMetadata");
        add_get(parts, V2, "model_ready", &format!("{path}/ready"), "Is the model ready?", "ModelReady");
        add_infer(parts, &format!("{path}/infer"), request.as_ref());
    }
    rollouts::add(parts);
    extensions::add(parts);
    landing::add(parts, info, shown);
}

fn add_get(parts: &mut Parts, tag: &str, function: &str, path: &str, summary: &str, schema: &str) {
    let mut responses = json!({
        "200": {
            "description": "Successful Response",
            "headers": { "x-request-id": reference("headers", "RequestId") },
            "content": json_content(&reference("schemas", schema)),
        },
    });
    if path.contains("{model}") {
        responses["404"] = reference("responses", if tag == V2 { "InferenceNotFound" } else { "NotFound" });
    }
    match schema {
        "ServerReady" => {
            responses["503"] = failure("Not ready: models are loading, or the server is going.", schema, false);
        }
        "ModelReady" => responses["503"] = reference("responses", "InferenceNotReady"),
        _ => {}
    }
    let operation = json!({ "tags": [tag], "summary": summary, "parameters": parameters(path), "responses": responses });
    parts.operation(function, "get", path, operation);
}

fn add_infer(parts: &mut Parts, path: &str, request: Option<&Value>) {
    let mut body = json!({ "schema": reference("schemas", "InferenceRequest") });
    if let Some(request) = request {
        body["examples"] = json!({ "one": { "summary": "One row", "value": request } });
    }
    let binary = json!({ "schema": { "type": "string", "format": "binary" } });
    let operation = json!({
        "tags": [V2],
        "summary": "Infer",
        // Raw tensors are told and not listed: no schema says that they need the header, and are as long as the JSON says.
        "description": "`data` is row-major, flat or nested. With the extension `binary_tensor_data` the tensors follow the \
                        JSON object as raw little-endian bytes: the content type is `application/octet-stream`, and the header \
                        `Inference-Header-Content-Length` has the length of the JSON. No `outputs` means all outputs.",
        "parameters": parameters(path),
        "requestBody": {
            "required": true,
            "content": { "application/json": body },
        },
        "responses": {
            "200": {
                "description": "The outputs. Numbers that are not finite are `null` in JSON.",
                "headers": answered(),
                "content": {
                    "application/json": { "schema": reference("schemas", "InferenceResponse") },
                    "application/octet-stream": binary,
                },
            },
            "400": reference("responses", "InferenceInvalid"),
            "404": reference("responses", "InferenceNotFound"),
            "413": reference("responses", "InferenceBodyTooLarge"),
            "429": reference("responses", "InferenceQueueFull"),
            "503": reference("responses", "InferenceNotReady"),
            "501": reference("responses", "InferenceUnsupported"),
            "504": reference("responses", "InferenceDeadlineExceeded"),
        },
    });
    parts.operation("infer", "post", path, operation);
}

/// References to the parameters that the path names.
pub(super) fn parameters(path: &str) -> Vec<Value> {
    let named = [("{model}", "Model"), ("{version}", "Version"), ("{repository}", "Repository")];
    named.into_iter().filter(|(name, _)| path.contains(name)).map(|(_, component)| reference("parameters", component)).collect()
}

fn add_components(parts: &mut Parts, shown: Option<&Described<'_>>) {
    let mut model = json!({
        "name": "model", "in": "path", "required": true, "description": "The model's name.",
        "schema": { "type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}$" },
    });
    let mut version = json!({
        "name": "version", "in": "path", "required": true, "description": "A version's number, or an alias such as `stable`.",
        "schema": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" },
    });
    if let Some(shown) = shown {
        model["example"] = shown.name.as_str().into();
        version["example"] = shown.version.to_string().into();
    }
    for (name, parameter) in [("Model", model), ("Version", version)] {
        parts.parameters.insert(name.into(), parameter);
    }
    for (name, again, description) in [
        ("InferenceInvalid", false, "The body cannot be read, or does not fit the model's signature."),
        ("InferenceNotFound", false, "No model has that name, or the model has no such version."),
        ("InferenceBodyTooLarge", false, "The body is larger than the limit."),
        ("InferenceQueueFull", true, "The model's queue has no room, or the gateway has as many requests in flight as it may."),
        ("InferenceNotReady", true, "The model is known and not ready yet, or the gateway is going."),
        ("InferenceDeadlineExceeded", false, "The request's time ran out before it was run."),
    ] {
        parts.responses.insert(name.into(), failure(description, "InferenceError", again));
    }
    add_schemas(parts);
}

fn add_schemas(parts: &mut Parts) {
    let datatypes = DType::ALL.map(DType::name);
    let text = json!({ "type": "string" });
    let flag = json!({ "type": "boolean" });
    let texts = list(&text);
    let sizes = json!({ "type": "array", "items": { "type": "integer" }, "description": "-1 is any size." });
    let data = json!({ "type": "array", "description": "Row-major, flat or nested.", "items": {} });
    let parameters = json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } });
    let about = json!({ "name": text, "datatype": { "type": "string", "enum": datatypes }, "shape": sizes });
    let tensor = json!({
        "name": text,
        "shape": { "type": "array", "items": { "type": "integer", "minimum": 0 } },
        "datatype": { "type": "string", "enum": datatypes },
        "parameters": parameters,
        "data": data,
    });
    let described = list(&reference("schemas", "TensorMetadata"));
    let tensors = list(&reference("schemas", "InferenceTensor"));
    let wanted = json!({ "type": "object", "properties": { "name": text, "parameters": parameters }, "required": ["name"] });
    let problems = list(&reference("schemas", "ValidationError"));
    let version = json!({ "version": text, "digest": text, "default": flag });
    let versions = list(&reference("schemas", "ModelVersion"));

    let aliases = json!({ "type": "object", "additionalProperties": text, "description": "Names for versions." });
    let number = json!({ "type": "integer" });
    let batch = json!({ "type": "object", "properties": { "rows": number, "requests": number, "left": text, "because": text } });

    let mut add = |name: &str, properties: Value, required: &[&str]| {
        let schema = json!({ "type": "object", "title": name, "properties": properties, "required": required });
        parts.schemas.insert(name.into(), schema);
    };
    add("Models", json!({ "models": list(&reference("schemas", "Model")) }), &["models"]);
    add("Model", json!({ "name": text, "description": text, "versions": versions, "aliases": aliases }), &["name", "versions"]);
    add("ModelVersion", version, &["version", "digest"]);
    add("Batching", json!({ "model": text, "version": text, "execution": text, "batches": list(&batch) }), &["model", "batches"]);
    add("ServerMetadata", json!({ "name": text, "version": text, "extensions": texts }), &["name", "version", "extensions"]);
    add("ServerLive", json!({ "live": flag }), &["live"]);
    add("ServerReady", json!({ "ready": flag, "error": text }), &["ready"]);
    add("ModelNames", json!({ "models": texts }), &["models"]);
    add("ModelReady", json!({ "name": text, "ready": flag }), &["name", "ready"]);
    add(
        "ModelMetadata",
        json!({ "name": text, "versions": texts, "platform": text, "inputs": described, "outputs": described }),
        &["name", "platform", "inputs", "outputs"],
    );
    add("TensorMetadata", about, &["name", "datatype", "shape"]);
    add(
        "InferenceRequest",
        json!({ "id": { "type": ["string", "null"] }, "parameters": parameters, "inputs": tensors, "outputs": list(&wanted) }),
        &["inputs"],
    );
    add(
        "InferenceResponse",
        json!({ "model_name": text, "model_version": text, "id": text, "parameters": parameters, "outputs": tensors }),
        &["model_name", "outputs"],
    );
    add("InferenceTensor", tensor, &["name", "shape", "datatype"]);
    add("InferenceError", json!({ "error": text, "code": text, "detail": problems, "request_id": text }), &["error"]);
}

pub(super) fn list(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}
