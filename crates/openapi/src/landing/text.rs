//! The routes that models of text answer: OpenAI's, Cohere's, Jina's and text-embeddings-inference's.

use serde_json::{Value, json};

use super::{answered, responses};
use crate::Parts;
use crate::protocol::list;

const TAG: &str = "Text";

/// Most texts of a request, as the format has it.
const MAX_TEXTS: usize = sluicegate_landing::text::MAX_TEXTS;

/// Adds all of them.
pub(super) fn add(parts: &mut Parts) {
    let about = "Models that read text, as clients of OpenAI, Cohere, Jina and text-embeddings-inference ask them. Where the body names \
                 no model, it is that of the header `X-Model`, the first of `protocols.text_models` that can do it, or the only one that can.";
    parts.tag(TAG, about);
    let (text, number) = (json!({ "type": "string" }), json!({ "type": "number" }));
    let or_null = |kind: &str| json!({ "type": [kind, "null"] });
    let maybe = json!({ "type": ["string", "null"], "description": "`name`, `name@version` or `name@alias`." });
    let object =
        |properties: &Value, required: &[&str]| json!({ "type": "object", "properties": properties, "required": required });
    parts.schemas.insert(
        "OpenAiError".into(),
        object(
            &json!({ "error": object(
                &json!({ "message": text, "type": text, "param": or_null("string"), "code": or_null("string") }),
                &["message", "type", "param", "code"],
            ) }),
            &["error"],
        ),
    );
    parts.schemas.insert(
        "TeiError".into(),
        object(&json!({ "error": text, "error_type": text, "code": text, "request_id": text }), &["error", "error_type"]),
    );

    let texts = bounded(&text);
    let one_or_more = json!({ "oneOf": [text, texts] });
    let vector = list(&json!({ "type": ["number", "null"] }));
    let size = json!({ "type": ["integer", "null"], "minimum": 1, "description": "No other than the model's own." });
    let usage = json!({ "type": "object", "properties": { "prompt_tokens": number, "total_tokens": number } });
    let direction = json!({ "type": ["string", "null"], "enum": [null, "Right", "right"] });
    let truncate = json!({ "type": ["boolean", "null"], "description": "Texts are cut where this is left out; `false` refuses those that may have been." });

    let embedding = json!({ "object": text, "index": number, "embedding": { "oneOf": [vector, text] } });
    let embeddings = Route {
        function: "openai_embeddings",
        path: "/v1/embeddings",
        summary: "A vector of each text",
        request: object(
            &json!({
                "model": maybe, "input": one_or_more, "dimensions": size, "user": or_null("string"),
                "encoding_format": { "type": ["string", "null"], "enum": [null, "float", "base64"] },
            }),
            &["input"],
        ),
        answer: object(&json!({ "object": text, "data": list(&embedding), "model": text, "usage": usage }), &["data"]),
        example: json!({ "input": ["the gates open", "the lock fills slowly"] }),
    };
    let document = json!({ "oneOf": [text, { "type": "object", "properties": { "text": text }, "required": ["text"], "additionalProperties": false }] });
    let ranked =
        json!({ "index": number, "relevance_score": or_null("number"), "document": object(&json!({ "text": text }), &["text"]) });
    let rerank = |function, path| Route {
        function,
        path,
        summary: "Documents by their score for a query, the best first",
        request: object(
            &json!({
                "model": maybe, "query": text, "documents": bounded(&document),
                "top_n": { "type": ["integer", "null"], "minimum": 1 }, "return_documents": or_null("boolean"),
                "rank_fields": { "type": ["array", "null"], "items": { "const": "text" }, "minItems": 1, "maxItems": 1 },
                "max_chunks_per_doc": { "type": "null" }, "max_tokens_per_doc": { "type": "null" },
                "truncation": { "type": ["boolean", "null"], "enum": [null, true] },
            }),
            &["query", "documents"],
        ),
        answer: object(
            &json!({ "id": or_null("string"), "model": text, "results": list(&object(&ranked, &["index", "relevance_score"])), "usage": usage, "meta": { "type": "object" } }),
            &["results"],
        ),
        example: json!({ "query": "what opens?", "documents": ["the gates", "the lock"] }),
    };
    add_each(parts, "OpenAiError", [embeddings, rerank("rerank", "/v1/rerank"), rerank("rerank_v2", "/v2/rerank")]);

    let embed = Route {
        function: "tei_embed",
        path: "/embed",
        summary: "A vector of each text, of length 1",
        request: object(
            &json!({
                "inputs": one_or_more, "normalize": or_null("boolean"), "dimensions": size, "prompt_name": { "type": "null" },
                "truncate": truncate, "truncation_direction": direction,
            }),
            &["inputs"],
        ),
        answer: list(&vector),
        example: json!({ "inputs": "the gates open" }),
    };
    let row = json!({ "type": "array", "items": text, "minItems": 1, "maxItems": 2 });
    let prediction = object(&json!({ "score": or_null("number"), "label": text }), &["score", "label"]);
    let predict = Route {
        function: "tei_predict",
        path: "/predict",
        summary: "The labels of a text, the likeliest first",
        request: object(
            &json!({
                "inputs": { "oneOf": [text, row, bounded(&row)], "description": "A list of one or two strings is one text or pair." },
                "raw_scores": or_null("boolean"), "truncate": truncate, "truncation_direction": direction,
            }),
            &["inputs"],
        ),
        answer: json!({ "oneOf": [list(&prediction), list(&list(&prediction))] }),
        example: json!({ "inputs": "the gates open" }),
    };
    let rank = object(&json!({ "index": number, "score": or_null("number"), "text": text }), &["index", "score"]);
    let rerank = Route {
        function: "tei_rerank",
        path: "/rerank",
        summary: "Texts by their score for a query, the best first",
        request: object(
            &json!({
                "query": text, "texts": texts, "raw_scores": or_null("boolean"), "return_text": or_null("boolean"),
                "truncate": truncate, "truncation_direction": direction,
            }),
            &["query", "texts"],
        ),
        answer: list(&rank),
        example: json!({ "query": "what opens?", "texts": ["the gates", "the lock"] }),
    };
    add_each(parts, "TeiError", [embed, predict, rerank]);
}

struct Route {
    function: &'static str,
    path: &'static str,
    summary: &'static str,
    request: Value,
    answer: Value,
    example: Value,
}

fn bounded(items: &Value) -> Value {
    json!({ "type": "array", "items": items, "minItems": 1, "maxItems": MAX_TEXTS })
}

fn add_each(parts: &mut Parts, error: &str, routes: [Route; 3]) {
    let model = json!({
        "name": "X-Model", "in": "header", "required": false, "schema": { "type": "string" },
        "description": "The model that is asked where the body names none.",
    });
    for Route { function, path, summary, mut request, answer, example } in routes {
        request["additionalProperties"] = false.into();
        let body = json!({ "application/json": { "schema": request, "examples": { "one": { "value": example } } } });
        let operation = json!({
            "tags": [TAG],
            "summary": summary,
            "parameters": [model],
            "requestBody": { "required": true, "content": body },
            "responses": responses(&answered(&answer, true), error),
        });
        parts.operation(function, "post", path, operation);
    }
}
