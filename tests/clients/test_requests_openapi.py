"""`/openapi.json`: a valid OpenAPI 3.1 document that tells the truth: its examples work, and the answers fit its schemas."""

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway import Gateway
from samples import newest


def operations(gateway: Gateway) -> dict[str, dict]:
    paths = gateway.get("/openapi.json").json()["paths"]
    typed = [path for path in paths if path.startswith("/models/") and path.endswith("/predict")]
    return {path: paths[path]["post"] for path in typed}


def test_the_document_is_valid_openapi(gateway, engine):
    answer = gateway.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


def test_every_version_has_a_typed_operation(gateway, sample):
    document = gateway.get("/openapi.json").json()
    found = document["paths"][f"/models/{sample}/predict"]["post"]
    assert sample.name in found["tags"]
    assert sample.name in {tag["name"] for tag in document["tags"]}
    assert f"/models/{sample.name}/predict" in document["paths"]
    assert {"200", "422"} <= set(found["responses"])
    record = document["components"]["schemas"][f"{sample.name}.RecordV{sample.version}"]
    assert set(record["properties"]) == set(record["required"]) == set(sample.signature["example"])
    assert record["additionalProperties"] is False
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_the_schema_has_ranges_categories_and_units(gateways):
    schemas = gateways("onnxruntime", "samples").get("/openapi.json").json()["components"]["schemas"]
    amount = schemas["fraud.Record"]["properties"]["amount"]
    assert (amount["type"], amount["minimum"], amount["maximum"], amount["x-unit"]) == ("number", 0, 50000, "EUR")
    penguin = schemas["penguins.Record"]["properties"]
    assert penguin["island"]["enum"] == ["Biscoe", "Dream", "Torgersen"]
    assert penguin["body_mass_g"]["type"] == "integer"


def test_every_documented_example_works_and_its_answer_fits_the_document(gateway, engine):
    document = gateway.get("/openapi.json").json()
    tried = 0
    for path, operation in operations(gateway).items():
        asked = operation["requestBody"]["content"]["application/json"]
        answered = operation["responses"]["200"]["content"]["application/json"]
        for name, example in asked["examples"].items():
            assert_fits(document, asked["schema"], example["value"])
            answer = gateway.post(path, json=example["value"])
            assert answer.status_code == 200, (path, name, answer.text)
            assert_fits(document, answered["schema"], answer.json())
            tried += 1
        for example in answered["examples"].values():
            assert_fits(document, answered["schema"], example["value"])
    assert tried >= 2 * len(operations(gateway))


def test_the_example_of_the_protocol_works(gateway, engine):
    document = gateway.get("/openapi.json").json()
    asked = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]
    [example] = asked["examples"].values()
    first = min(gateway.get("/v2/models").json()["models"])
    answer = gateway.post(f"/v2/models/{first}/infer", json=example["value"])
    assert answer.status_code == 200, answer.text


def test_what_the_schema_forbids_the_gateway_refuses(gateway, engine):
    document = gateway.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/fraud.Record"}
    good = newest("fraud").signature["example"]
    for change in ({"amount": -1}, {"hour": 24}, {"amount": "x"}, {"amount": None}, {"colour": 1}):
        assert not fits(document, schema, good | change)
        assert gateway.post("/models/fraud/predict", json=good | change).status_code == 422


def test_an_unchanged_document_is_not_sent_again(gateway, engine):
    for path in ("/openapi.json", "/models/fraud/openapi.json", "/docs", "/redoc"):
        first = gateway.get(path)
        assert first.status_code == 200
        again = gateway.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert gateway.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_one_model_has_a_document_of_its_own(gateway, sample):
    document = gateway.get(f"/models/{sample.name}/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    assert all(path.startswith((f"/models/{sample.name}/", f"/models/{sample.name}@")) for path in document["paths"])


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_pages_load_nothing_from_another_host(gateway, engine, page):
    answer = gateway.get(page)
    assert answer.headers["content-type"].startswith("text/html")
    assert "//" not in answer.text.replace("<!doctype", "")
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def fits(document: dict, schema: dict, value: object) -> bool:
    return validator(document, schema).is_valid(value)


def assert_fits(document: dict, schema: dict, value: object) -> None:
    validator(document, schema).validate(value)


def validator(document: dict, schema: dict) -> Draft202012Validator:
    return Draft202012Validator(schema | {"components": document["components"]})
