//! What is served, as an OpenAPI 3.1 document: [`openapi`] is a pure function from the served versions to it.
//!
//! In reading order: `schema` (a signature as JSON Schema), `example` (worked examples), `operation` (one typed operation a version),
//! `protocol` and `extensions` (the routes that are the same for every model), `landing` (those of other protocols). Knows no transport.

mod example;
mod extensions;
mod landing;
mod operation;
mod protocol;
mod rollouts;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use sluicegate_core::{Digest, ModelName, Signature};

/// What is answered beside the typed routes and inference, as the operator switched it.
#[derive(Clone, Debug, Default)]
pub struct Protocols {
    /// The repository and logging extensions.
    pub control: bool,
    /// KServe's first protocol and TensorFlow Serving's.
    pub v1: bool,
    /// MLflow's and SageMaker's.
    pub invocations: bool,
    /// The model that they ask; `None` for the only one.
    pub invocations_model: Option<ModelName>,
    /// OpenAI's, Cohere's, Jina's and text-embeddings-inference's.
    pub text: bool,
    /// The models that they ask where the request names none: the first that does what is asked.
    pub text_models: Vec<ModelName>,
}

/// What the head of a document says.
#[derive(Clone, Copy, Debug)]
pub struct Info<'a> {
    /// The title of the document and of the pages.
    pub title: &'a str,
    /// The version of the gateway.
    pub version: &'a str,
    /// What this gateway is, in Markdown.
    pub description: &'a str,
    /// What the document covers.
    pub scope: Scope,
    /// Which protocols are switched on.
    pub protocols: &'a Protocols,
}

/// What a document covers, and with it the address that it is served at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every model and the routes that all models share: `/openapi.json`.
    Gateway,
    /// The operations of the given models alone: `/models/{model}/openapi.json`.
    Model,
}

/// One live version, as the documents describe it.
#[derive(Clone, Debug)]
pub struct Described<'a> {
    /// The model that it is a version of.
    pub name: &'a ModelName,
    /// Its number.
    pub version: u64,
    /// The digest of its content.
    pub digest: &'a Digest,
    /// Whether it answers where the caller names no version.
    pub default: bool,
    /// A sentence for people, in Markdown.
    pub description: Option<&'a str>,
    /// What it takes and gives.
    pub signature: &'a Signature,
    /// Where it comes from and how good it is: an object whose leaves become the rows of a table.
    pub lineage: Option<Value>,
}

/// The OpenAPI 3.1 document of these versions, which come in the order in which they shall be read.
///
/// A default version has two operations, `/models/fraud/predict` and `/models/fraud@3/predict`, with schemas of their own:
/// the names of the first ones stay what they are when another version becomes the default.
pub fn openapi(info: &Info<'_>, models: &[Described<'_>]) -> Value {
    let mut parts = Parts::default();
    for model in models {
        parts.tag(model.name.as_str(), model.description.unwrap_or_default());
    }
    for model in models {
        if model.default {
            operation::add(&mut parts, model, false);
        }
        operation::add(&mut parts, model, true);
    }
    operation::add_shared(&mut parts);
    if info.scope == Scope::Gateway {
        protocol::add(&mut parts, info, models);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": info.title, "description": info.description, "version": info.version },
        // Relative to the document's own address, so that a path prefix of an ingress is kept.
        "servers": [{
            "url": match info.scope {
                Scope::Gateway => ".",
                Scope::Model => "../..",
            },
            "description": "this gateway",
        }],
        "tags": parts.tags,
        "paths": parts.paths,
        "components": {
            "schemas": parts.schemas,
            "responses": parts.responses,
            "parameters": parts.parameters,
            "headers": parts.headers,
        },
    })
}

/// A document under construction.
#[derive(Default)]
struct Parts {
    tags: Vec<Value>,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
    responses: Map<String, Value>,
    parameters: Map<String, Value>,
    headers: Map<String, Value>,
    ids: HashSet<String>,
}

impl Parts {
    /// Adds a tag once.
    fn tag(&mut self, name: &str, description: &str) {
        if self.tags.iter().any(|tag| tag["name"] == name) {
            return;
        }
        let mut tag = json!({ "name": name });
        if !description.is_empty() {
            tag["description"] = description.into();
        }
        self.tags.push(tag);
    }

    /// Adds an operation with an id in FastAPI's form: `<function>_<path>_<method>`, word characters alone.
    fn operation(&mut self, function: &str, method: &str, path: &str, mut operation: Value) {
        let word = |letter: char| if letter.is_alphanumeric() { letter } else { '_' };
        let base: String = format!("{function}{path}_{method}").chars().map(word).collect();
        let mut id = base.clone();
        let mut count = 1;
        // `a-b` and `a.b` are two models and one word.
        while !self.ids.insert(id.clone()) {
            count += 1;
            id = format!("{base}_{count}");
        }
        operation["operationId"] = id.into();
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        item[method] = operation;
    }
}

/// A reference to a component, or to a part of one kind: `reference("schemas", "Model")`.
fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// A media type `application/json` of this schema.
fn json_content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}
