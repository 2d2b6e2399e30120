//! A signature as JSON Schema: the record that callers send, and the answer that they get for it.

use serde_json::{Map, Value, json};
use sluicegate_core::shape::Dims;
use sluicegate_core::signature::{About, Field, Kind, TensorSpec};
use sluicegate_core::{DType, Dim, Signature};

use sluicegate_codec::record::view::{View, record_dims};

type Object = Map<String, Value>;

/// Most elements of a value that is written out.
pub(super) const MAX_ELEMENTS: usize = 1024;

/// The record that a caller fills in.
pub(super) fn record(title: &str, signature: &Signature) -> Value {
    let fields = signature.fields();
    let properties: Object = fields.iter().map(|field| (field.name.to_string(), property(field))).collect();
    let required: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
    json!({
        "type": "object",
        "title": title,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The answer to one record.
pub(super) fn prediction(title: &str, signature: &Signature) -> Value {
    let outputs = signature.outputs();
    let batched = signature.is_batched();
    let properties: Object = outputs.iter().map(|spec| (spec.name.to_string(), answer(spec, batched))).collect();
    let required: Vec<&str> = outputs.iter().map(|spec| &*spec.name).collect();
    json!({ "type": "object", "title": title, "properties": properties, "required": required })
}

/// `merchant_risk` as FastAPI titles it: `Merchant Risk`.
pub(super) fn words(name: &str) -> String {
    let mut title = String::with_capacity(name.len());
    let mut fresh = true;
    for letter in name.chars() {
        match letter {
            '_' => title.push(' '),
            _ if fresh => title.extend(letter.to_uppercase()),
            _ => title.push(letter),
        }
        fresh = letter == '_';
    }
    title
}

/// A number as JSON writes it: whole ones without a point. `None` where it is not finite.
pub(super) fn number(value: f64) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: below it every whole f64 is an exact integer
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Some(Value::from(value as i64));
    }
    serde_json::Number::from_f64(value).map(Value::Number)
}

fn property(field: &Field) -> Value {
    describe(nested(&field.dims, input_element(field.dtype, &field.about)), &field.name, &field.about, None, &field.dims)
}

fn answer(spec: &TensorSpec, batched: bool) -> Value {
    let mut element = element(spec.dtype);
    if spec.dtype.is_float() {
        // Infinities and NaN have no form in JSON; they are answered as null.
        element.insert("type".into(), json!(["number", "null"]));
    }
    let view = View::of(spec, batched);
    let dims = if view == View::Nested { record_dims(spec, batched) } else { &[] };
    let schema = match view {
        View::Label => object(json!({ "type": "string", "enum": spec.labels })),
        View::Named => {
            let each: Object = spec.labels.iter().map(|label| (label.clone(), Value::Object(element.clone()))).collect();
            object(json!({ "type": "object", "properties": each, "required": spec.labels }))
        }
        View::Scalar => element,
        View::Nested => nested(dims, element),
    };
    let meaning = match spec.kind {
        Kind::Label => Some("the predicted class"),
        Kind::Probability => Some("one probability for each class"),
        Kind::Score => Some("one score for each class, on no fixed scale"),
        Kind::Value => None,
    };
    describe(schema, &spec.name, &spec.about, meaning, dims)
}

/// Title, description and unit, before the rest of the schema.
fn describe(schema: Object, name: &str, about: &About, meaning: Option<&str>, dims: &[Dim]) -> Value {
    let mut described = Object::new();
    described.insert("title".into(), words(name).into());
    let mut facts: Vec<String> = about.description.as_deref().or(meaning).map(Into::into).into_iter().collect();
    facts.extend(about.unit.as_deref().map(|unit| format!("in {unit}")));
    if !dims.is_empty() {
        facts.push(format!("of shape {}", Dims(dims)));
    }
    if !facts.is_empty() {
        described.insert("description".into(), facts.join(", ").into());
    }
    if let Some(unit) = &about.unit {
        described.insert("x-unit".into(), unit.as_str().into());
    }
    described.extend(schema);
    Value::Object(described)
}

/// Lists within lists around an element, one for each dimension.
///
/// Large ones state how long they are at most, not at least: Swagger UI fills a sample up to every `minItems`, and a minute
/// passes before it shows a photograph's. The description names the exact shape, and the gateway asks for it.
fn nested(dims: &[Dim], element: Object) -> Object {
    let exact = is_small(dims);
    dims.iter().rev().fold(element, |items, dim| {
        let mut list = object(json!({ "type": "array", "items": items }));
        match dim {
            Dim::Fixed(size) => {
                if exact {
                    list.insert("minItems".into(), (*size).into());
                }
                list.insert("maxItems".into(), (*size).into());
            }
            Dim::Free(Some(name)) => {
                list.insert("x-dimension".into(), (&**name).into());
            }
            Dim::Free(None) => {}
        }
        list
    })
}

/// Whether a value of these dimensions can be written out in a document; a photograph's pixels help no reader.
pub(super) fn is_small(dims: &[Dim]) -> bool {
    let sizes = dims.iter().map(|dim| dim.fixed().unwrap_or(1).max(1));
    sizes.into_iter().try_fold(1, usize::checked_mul).is_some_and(|elements| elements <= MAX_ELEMENTS)
}

fn element(dtype: DType) -> Object {
    object(match dtype {
        DType::Bool => json!({ "type": "boolean" }),
        DType::Uint8 => json!({ "type": "integer", "format": "uint8", "minimum": 0, "maximum": u8::MAX }),
        DType::Uint16 => json!({ "type": "integer", "format": "uint16", "minimum": 0, "maximum": u16::MAX }),
        DType::Uint32 => json!({ "type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX }),
        DType::Int8 => json!({ "type": "integer", "format": "int8", "minimum": i8::MIN, "maximum": i8::MAX }),
        DType::Int16 => json!({ "type": "integer", "format": "int16", "minimum": i16::MIN, "maximum": i16::MAX }),
        DType::Int32 => json!({ "type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX }),
        // Bounds of 64 bits are left to the format: a reader that keeps numbers as f64 would round them past the type.
        DType::Uint64 => json!({ "type": "integer", "format": "uint64", "minimum": 0 }),
        DType::Int64 => json!({ "type": "integer", "format": "int64" }),
        DType::Fp16 | DType::Bf16 => json!({ "type": "number" }),
        DType::Fp32 => json!({ "type": "number", "format": "float" }),
        DType::Fp64 => json!({ "type": "number", "format": "double" }),
        DType::Bytes => json!({ "type": "string" }),
    })
}

/// One element of an input: what its type and the signature both allow.
pub(super) fn input_element(dtype: DType, about: &About) -> Object {
    let mut element = element(dtype);
    if dtype == DType::Bytes && !about.categories.is_empty() {
        element.insert("enum".into(), json!(about.categories));
    }
    if matches!(dtype, DType::Bytes | DType::Bool) {
        return element;
    }
    let of_type = |key: &str| element.get(key).and_then(Value::as_f64);
    let least = about.min.map(|min| of_type("minimum").map_or(min, |bound| min.max(bound)));
    let most = about.max.map(|max| of_type("maximum").map_or(max, |bound| max.min(bound)));
    for (key, bound) in [("minimum", least), ("maximum", most)] {
        if let Some(bound) = bound.and_then(number) {
            element.insert(key.into(), bound);
        }
    }
    element
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}
