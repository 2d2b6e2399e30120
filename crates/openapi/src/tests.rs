//! What the documents promise, for a tabular, an image and a text model.

use sluicegate_core::signature::{About, Feature, Kind, TensorSpec};
use sluicegate_core::{DType, Dim};

use super::*;

const ALL: Protocols =
    Protocols { control: true, v1: true, invocations: true, invocations_model: None, text: true, text_models: Vec::new() };

fn rows(rest: &[Dim]) -> Vec<Dim> {
    [&[Dim::Free(Some("N".into()))], rest].concat()
}

fn labelled(name: &str, dtype: DType, kind: Kind, rest: &[Dim], labels: &[&str]) -> TensorSpec {
    let labels = labels.iter().map(|&label| label.into()).collect();
    TensorSpec { kind, labels, ..TensorSpec::new(name, dtype, rows(rest)) }
}

fn fraud() -> Signature {
    let feature = |name: &str, unit: Option<&str>, min, max| Feature {
        name: name.into(),
        about: About { unit: unit.map(Into::into), min: Some(min), max: Some(max), ..About::default() },
    };
    let mut table = TensorSpec::new("X", DType::Fp32, rows(&[Dim::Fixed(2)]));
    table.features = vec![feature("amount", Some("EUR"), 0.0, 50_000.0), feature("merchant_risk", None, 0.0, 1.0)];
    let labels = ["legitimate", "fraud"];
    let outputs = vec![
        labelled("label", DType::Int64, Kind::Label, &[], &labels),
        labelled("probabilities", DType::Fp32, Kind::Probability, &[Dim::Fixed(2)], &labels),
    ];
    Signature::new(vec![table], outputs, None).expect("a good signature")
}

fn image(side: usize) -> Signature {
    let mut pixels = TensorSpec::new("image", DType::Uint8, rows(&[Dim::Fixed(3), Dim::Fixed(side), Dim::Fixed(side)]));
    pixels.about.max = Some(300.0);
    let logits = labelled("logits", DType::Fp32, Kind::Score, &[Dim::Fixed(10)], &[]);
    Signature::new(vec![pixels], vec![logits], None).expect("a good signature")
}

fn penguins() -> Signature {
    let mut island = TensorSpec::new("island", DType::Bytes, rows(&[Dim::Fixed(1)]));
    island.about.categories = vec!["Biscoe".into(), "Dream".into()];
    let mass = TensorSpec::new("body_mass_g", DType::Int64, rows(&[Dim::Fixed(1)]));
    let notes = TensorSpec::new("notes", DType::Bytes, rows(&[Dim::Free(Some("notes".into()))]));
    let species = labelled("species", DType::Bytes, Kind::Label, &[], &[]);
    let example = json!({ "island": "Dream", "body_mass_g": 4100, "notes": ["small", "loud"] });
    Signature::new(vec![island, mass, notes], vec![species], Some(example)).expect("a good signature")
}

/// The document of these versions: name, number, whether it is the default, signature.
fn document(scope: Scope, models: &[(&str, u64, bool, &Signature)]) -> Value {
    let names: Vec<ModelName> = models.iter().map(|(name, ..)| name.parse().expect("a good name")).collect();
    let digest = Digest::sha256(&[7; 32]);
    let described: Vec<Described<'_>> = models
        .iter()
        .zip(&names)
        .map(|(&(_, version, default, signature), name)| Described {
            name,
            version,
            digest: &digest,
            default,
            description: Some("flags card payments"),
            signature,
            lineage: Some(json!({ "git_commit": "1f0c", "metrics": { "f1": 0.5, "odd|name": 1 } })),
        })
        .collect();
    openapi(&Info { title: "Sluicegate", version: "0.1.0", description: "", scope, protocols: &ALL }, &described)
}

fn schemas(document: &Value) -> &Value {
    &document["components"]["schemas"]
}

#[test]
fn a_record_has_the_signatures_names_types_ranges_and_units() {
    let document = document(Scope::Gateway, &[("fraud", 3, true, &fraud())]);
    let record = &schemas(&document)["fraud.Record"];
    assert_eq!(record["required"], json!(["amount", "merchant_risk"]));
    assert_eq!(record["additionalProperties"], false);
    assert_eq!(
        record["properties"]["amount"],
        json!({
            "title": "Amount", "description": "in EUR", "x-unit": "EUR",
            "type": "number", "format": "float", "minimum": 0, "maximum": 50000,
        })
    );
    let answer = &schemas(&document)["fraud.Prediction"]["properties"];
    assert_eq!(answer["label"]["enum"], json!(["legitimate", "fraud"]));
    assert_eq!(answer["probabilities"]["properties"]["fraud"]["type"], json!(["number", "null"]));
}

#[test]
fn lists_follow_the_dimensions_and_ranges_never_leave_the_type() {
    let (image, penguins) = (image(2), penguins());
    let document = document(Scope::Gateway, &[("eyes", 1, true, &image), ("penguins", 1, true, &penguins)]);
    let pixels = &schemas(&document)["eyes.Record"]["properties"]["image"];
    assert_eq!((&pixels["minItems"], &pixels["maxItems"]), (&json!(3), &json!(3)));
    let pixel = &pixels["items"]["items"]["items"];
    assert_eq!(*pixel, json!({ "type": "integer", "format": "uint8", "minimum": 0, "maximum": 255 }));

    let fields = &schemas(&document)["penguins.Record"]["properties"];
    assert_eq!(fields["island"]["enum"], json!(["Biscoe", "Dream"]));
    assert_eq!(fields["body_mass_g"], json!({ "title": "Body Mass G", "type": "integer", "format": "int64" }));
    assert_eq!(fields["notes"]["minItems"], Value::Null);
    assert_eq!(schemas(&document)["penguins.Prediction"]["properties"]["species"]["type"], "string");
}

#[test]
fn examples_are_the_makers_or_made_from_the_ranges_and_never_huge() {
    let (fraud, penguins, photo) = (fraud(), penguins(), image(224));
    let models = [("photo", 1, true, &photo), ("fraud", 3, true, &fraud), ("penguins", 1, true, &penguins)];
    let document = document(Scope::Gateway, &models);
    let examples = |model: &str| {
        let body = &document["paths"][format!("/models/{model}/predict")]["post"]["requestBody"];
        body["content"]["application/json"]["examples"].clone()
    };
    assert_eq!(examples("fraud")["one"]["value"], json!({ "amount": 25000, "merchant_risk": 0.5 }));
    assert_eq!(examples("fraud")["several"]["value"].as_array().map(Vec::len), Some(2));
    assert_eq!(examples("penguins")["one"]["value"], *penguins.example().expect("given"));
    assert_eq!(examples("photo")["form"]["value"], json!({ "image": [[[255]]] }));

    let pixels = &schemas(&document)["photo.Record"]["properties"]["image"];
    assert_eq!((&pixels["minItems"], &pixels["maxItems"]), (&Value::Null, &json!(3)));
    assert_eq!(pixels["description"], "of shape [3, 224, 224]");

    let infer = &document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"];
    let input = json!([{ "name": "X", "shape": [1, 2], "datatype": "FP32", "data": [25000, 0.5] }]);
    assert_eq!(infer["examples"]["one"]["value"]["inputs"], input);
    assert_eq!(document["components"]["parameters"]["Model"]["example"], "fraud", "the photo has no example to go with it");
}

#[test]
fn an_inference_example_has_the_shapes_of_the_signature() {
    let request = example::infer(&penguins()).expect("has a JSON form");
    let shapes: Vec<&Value> = request["inputs"].as_array().expect("a list").iter().map(|input| &input["shape"]).collect();
    assert_eq!(shapes, [&json!([1, 1]), &json!([1, 1]), &json!([1, 2])]);
    assert_eq!(example::infer(&image(224)), None);
}

#[test]
fn names_of_a_default_version_do_not_change_with_its_number() {
    let fraud = fraud();
    let before = document(Scope::Gateway, &[("fraud", 2, true, &fraud), ("fraud", 3, false, &fraud)]);
    let after = document(Scope::Gateway, &[("fraud", 2, false, &fraud), ("fraud", 3, true, &fraud)]);
    let ids = |document: &Value| {
        ["/models/fraud/predict", "/models/fraud@2/predict", "/models/fraud@3/predict"]
            .map(|path| document["paths"][path]["post"]["operationId"].clone())
    };
    assert_eq!(ids(&before), ids(&after));
    assert_eq!(ids(&before)[0], "predict_models_fraud_predict_post");
    assert_eq!(schemas(&before)["fraud.Record"]["properties"], schemas(&after)["fraud.Record"]["properties"]);
    assert_eq!(before["tags"].as_array().map(Vec::len), Some(6), "{}", before["tags"]);
}

#[test]
fn operation_ids_are_unique_where_models_differ_in_punctuation_alone() {
    let fraud = fraud();
    let models = [("a-b", 1, true, &fraud), ("a.b", 1, true, &fraud), ("a", 2, true, &fraud), ("a_2", 1, true, &fraud)];
    let document = document(Scope::Gateway, &models);
    let mut seen = HashSet::new();
    for (path, item) in document["paths"].as_object().expect("an object") {
        for operation in item.as_object().expect("an object").values() {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(id.chars().all(|c| c.is_alphanumeric() || c == '_'), "{id}");
            assert!(seen.insert(id.to_owned()), "{id} of {path}");
        }
    }
}

#[test]
fn every_reference_has_its_component() {
    fn walk(document: &Value, here: &Value) {
        match here {
            Value::Array(items) => items.iter().for_each(|item| walk(document, item)),
            Value::Object(fields) => {
                if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                }
                fields.values().for_each(|value| walk(document, value));
            }
            _ => {}
        }
    }
    for scope in [Scope::Gateway, Scope::Model] {
        let document = document(scope, &[("fraud", 3, true, &fraud()), ("eyes", 1, true, &image(2))]);
        walk(&document, &document);
    }
}

#[test]
fn a_models_own_document_has_no_other_routes() {
    let document = document(Scope::Model, &[("fraud", 3, true, &fraud())]);
    let paths: Vec<&String> = document["paths"].as_object().expect("an object").keys().collect();
    assert_eq!(paths, ["/models/fraud/predict", "/models/fraud@3/predict"]);
    assert_eq!(document["servers"][0]["url"], "../..");
}

#[test]
fn lineage_becomes_rows_that_stay_within_their_table() {
    let document = document(Scope::Model, &[("fraud", 3, true, &fraud())]);
    let text = document["paths"]["/models/fraud/predict"]["post"]["description"].as_str().expect("text");
    assert!(text.starts_with("flags card payments\n\n"), "{text}");
    assert!(text.contains("\n\n| version | 3 |\n|---|---|\n| digest | `sha256:0707"), "{text}");
    assert!(text.contains("| git commit | 1f0c |\n| metrics f1 | 0.5 |\n| metrics odd\\|name | 1 |\n"), "{text}");
}
