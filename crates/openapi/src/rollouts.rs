//! What is told of rollouts: how far one came, and what was decided.

use serde_json::{Value, json};

use super::operation::failure;
use super::protocol::{MODELS, list, parameters};
use super::{Parts, json_content, reference};

pub(super) fn add(parts: &mut Parts) {
    add_schemas(parts);
    let about = "Where it stands, what the candidate was asked, and what is known of each rule, with a sentence for people.";
    add_get(parts, "read_rollout", "/models/{model}/rollout", "How far a model's rollout came", about, "Rollout", &[]);
    let about = "Oldest first. Without `after` the last ones. `record` holds all that a decision follows from: \
                 `sluicegate report replay` decides it again.";
    let number = |name: &str, from: u64, to: u64, description: &str| {
        json!({
            "name": name, "in": "query", "description": description,
            "schema": { "type": "integer", "minimum": from, "maximum": to },
        })
    };
    let page = [
        number("after", 0, (1 << 53) - 1, "The `sequence` after which to begin."),
        number("limit", 0, 1_000, "How many at most; 100 where nothing is said."),
    ];
    add_get(parts, "list_events", "/models/{model}/events", "What was decided of a model", about, "Events", &page);
}

fn add_get(parts: &mut Parts, function: &str, path: &str, summary: &str, about: &str, schema: &str, query: &[Value]) {
    let mut given = parameters(path);
    given.extend_from_slice(query);
    let mut responses = json!({
        "200": {
            "description": "Successful Response",
            "headers": { "x-request-id": reference("headers", "RequestId") },
            "content": json_content(&reference("schemas", schema)),
        },
        "404": failure("No model has that name, or no rollout is declared for it.", "HTTPError", false),
    });
    if !query.is_empty() {
        responses["404"] = reference("responses", "NotFound");
        responses["422"] = reference("responses", "ValidationError");
        responses["500"] = failure("What was kept cannot be read now.", "HTTPError", false);
    }
    let operation =
        json!({ "tags": [MODELS], "summary": summary, "description": about, "parameters": given, "responses": responses });
    parts.operation(function, "get", path, operation);
}

fn add_schemas(parts: &mut Parts) {
    let (text, flag) = (json!({ "type": "string" }), json!({ "type": "boolean" }));
    let perhaps = |kind: &str| json!({ "type": [kind, "null"] });
    let count = json!({ "type": "integer", "minimum": 0 });
    let share = json!({ "type": "string", "pattern": "^[0-9.]+%$" });
    let phase = json!({ "type": "string", "enum": ["running", "paused", "promoted", "rolled_back"] });
    let known = json!({ "type": "string", "enum": ["pass", "fail", "unknown"] });
    let counts = json!({ "type": "object", "properties": { "answered": count, "failed": count, "drawn": count } });
    let mut add = |name: &str, properties: Value, required: &[&str]| {
        let schema = json!({ "type": "object", "title": name, "properties": properties, "required": required });
        parts.schemas.insert(name.into(), schema);
    };
    let verdict = json!({
        "metric": text,
        "known": known,
        "candidate": perhaps("number"),
        "stable": perhaps("number"),
        "samples": count,
        "sentence": text,
    });
    add("Verdict", verdict, &["metric", "known", "samples", "sentence"]);
    let rollout = json!({
        "model": text,
        "strategy": { "type": "string", "enum": ["canary", "shadow", "blue_green", "replace"] },
        "stable": text,
        "candidate": text,
        "answers": { "type": "string", "description": "The version that answers who names none." },
        "phase": phase,
        "stage": count,
        "stages": count,
        "share": share,
        "mirrored": share,
        "hold_ms": count,
        "held_ms": perhaps("integer"),
        "waits_for_a_person": flag,
        "ready": { "type": "boolean", "description": "Whether both versions are loaded." },
        "differs": { "type": "boolean", "description": "Whether what answers is not what is declared." },
        "cut_off": { "type": ["string", "null"], "description": "Why the state cannot be reached, where it cannot." },
        "superseded": { "type": "boolean", "description": "Whether another replica moves the model by a later declaration." },
        "reason": text,
        "sentences": list(&text),
        "verdicts": list(&reference("schemas", "Verdict")),
        "numbers": {
            "type": "object",
            "properties": { "stable": counts, "candidate": counts, "shadow": { "type": "object" } },
        },
        "digest": text,
        "revision": count,
    });
    add("Rollout", rollout, &["model", "strategy", "stable", "candidate", "answers", "phase", "share", "reason", "verdicts"]);
    let event = json!({
        "sequence": count,
        "id": text,
        "at_ms": { "type": "integer", "minimum": 0, "description": "Milliseconds since 1970." },
        "kind": text,
        "sentence": text,
        "record": { "type": "object" },
    });
    add("Event", event, &["sequence", "id", "at_ms", "kind", "sentence", "record"]);
    add("Events", json!({ "model": text, "events": list(&reference("schemas", "Event")) }), &["model", "events"]);
}
