//! `docs/config.schema.json`, `docs/config.md` and `docs/metrics.md` are made from the code, and are not stale.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;
use sluicegate_config::{Config, ENV_ONNXRUNTIME, ENV_PREFIX};
use sluicegate_core::metric::{self, Type};

/// Compares a document with what the code says; with `SLUICEGATE_BLESS=1`, writes it.
fn compare(name: &str, expected: &str) {
    #[expect(clippy::disallowed_methods, reason = "a test that writes must be asked to")]
    let bless = std::env::var_os("SLUICEGATE_BLESS").is_some();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let path = directory.join(name);
    if bless {
        fs::create_dir_all(&directory).expect("a directory for documents");
        fs::write(&path, expected).expect("a document is written");
    }
    let got = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        got == expected,
        "docs/{name} is stale: run `make generate` (SLUICEGATE_BLESS=1 cargo test -p sluicegate-config --test generated)"
    );
}

#[test]
fn the_schema_is_fresh() {
    let text = serde_json::to_string_pretty(&Config::schema()).expect("a schema is JSON");
    compare("config.schema.json", &format!("{text}\n"));
}

#[test]
fn the_configuration_page_is_fresh() {
    let schema = Config::schema();
    let mut page = format!(
        "<!-- Generated from crates/server/src/config: change it there, then run `make generate`. -->\n\
         # Configuration\n\n\
         One file, `sluicegate.yaml`. A variable `{ENV_PREFIX}…` wins over it, and a flag over both: two underscores stand between\n\
         two keys, and an element of a list has its number, as in `{ENV_PREFIX}BATCHING__MAX_ROWS=8` and `{ENV_PREFIX}MODELS__0__VERSION=2`.\n\
         `{ENV_ONNXRUNTIME}` is used where `engine.onnxruntime` is set nowhere. Unknown keys and variables are errors. Relative paths in\n\
         the file are relative to its directory; those of variables and flags to the working directory. The file is read again when it\n\
         changes: a valid change is applied, an invalid one is refused whole, and what runs goes on.\n\n\
         `config.schema.json` beside this page is the JSON Schema for editors and charts.\n"
    );
    let top = properties(&schema, &schema).expect("sections");
    for (section, value) in top {
        let _ = writeln!(
            page,
            "\n## {section}\n\n{}\n\n| key | type | default | what it does |\n|---|---|---|---|",
            description(value)
        );
        let mut rows = String::new();
        section_rows(&schema, section, value, &mut rows);
        page.push_str(&rows);
    }
    compare("config.md", &page);
}

#[test]
fn the_metrics_page_is_fresh() {
    let mut page = "<!-- Generated from crates/core/src/metric.rs: change it there, then run `make generate`. -->\n\
                    # Metrics\n\n\
                    At `/metrics` of the ops address, in Prometheus' text format.\n\n\
                    | metric | type | labels | what it says |\n|---|---|---|---|\n"
        .to_owned();
    for metric in metric::ALL {
        let kind = match metric.kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help);
    }
    let bounds = |bounds: &[f64]| bounds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let _ = writeln!(page, "\nBuckets of `_seconds`: {}.", bounds(metric::SECONDS));
    let _ = writeln!(page, "\nBuckets of `_rows`: {}.", bounds(metric::ROWS));
    compare("metrics.md", &page);
}

/// The schema itself, or the one that it refers to or may be `null` besides.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
        return resolve(root, &root["$defs"][name]);
    }
    match schema["anyOf"].as_array() {
        Some(choices) => {
            let choice = choices.iter().find(|choice| choice["type"] != "null");
            choice.map_or(schema, |choice| resolve(root, choice))
        }
        None => schema,
    }
}

fn properties<'a>(root: &'a Value, schema: &'a Value) -> Option<&'a serde_json::Map<String, Value>> {
    resolve(root, schema)["properties"].as_object()
}

/// The rows of everything under a key; one row where nothing is.
fn section_rows(root: &Value, key: &str, schema: &Value, rows: &mut String) {
    let inner = resolve(root, schema);
    if let Some(properties) = inner["properties"].as_object() {
        let required = inner["required"].as_array();
        for (name, property) in properties {
            let needed = required.is_some_and(|required| required.iter().any(|key| key == name));
            let key = format!("{key}.{name}");
            if properties_of_any(root, property) {
                section_rows(root, &key, property, rows);
            } else {
                row(root, &key, property, needed, rows);
            }
        }
    } else if inner["additionalProperties"].is_object() {
        section_rows(root, &format!("{key}.<name>"), &inner["additionalProperties"], rows);
    } else if inner["items"].is_object() {
        section_rows(root, &format!("{key}[]"), &inner["items"], rows);
    }
}

/// Whether there are keys under it, or under each of its elements.
fn properties_of_any(root: &Value, schema: &Value) -> bool {
    properties(root, schema).is_some() || properties(root, &resolve(root, schema)["items"]).is_some()
}

fn row(root: &Value, key: &str, schema: &Value, needed: bool, rows: &mut String) {
    let default = match &schema["default"] {
        Value::Null if needed => "**required**".to_owned(),
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => "`\"\"`".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    };
    let _ = writeln!(rows, "| `{key}` | {} | {default} | {} |", type_of(resolve(root, schema)), description(schema));
}

fn type_of(schema: &Value) -> String {
    if let Some(title) = schema["title"].as_str() {
        return title.to_owned();
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("integer") => format!("{} to {}", schema["minimum"], schema["maximum"]),
        Some("array") => format!("list of {}", type_of(&schema["items"])),
        Some("object") => format!("{} by name", type_of(&schema["additionalProperties"])),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("string") => "text".to_owned(),
        other => panic!("a type that the page has no words for: {other:?} in {schema}"),
    }
}

fn description(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
