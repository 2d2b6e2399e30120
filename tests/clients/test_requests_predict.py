"""`POST /models/{model}/predict` as developers call it: named fields in, named answers out, FastAPI's 422s."""

import json

import pytest

from fastapi_twin import twin
from gateway import Gateway
from samples import SAMPLES, newest

FRAUD = newest("fraud").signature["example"]
PENGUIN = newest("penguins").signature["example"]
DIGIT = newest("digits").signature["example"]


def without(record: dict, *names: str) -> dict:
    return {name: value for name, value in record.items() if name not in names}


def image(*rows: list) -> dict:
    return {"image": [[*rows]]}


EMPTY = [0] * 8

WRONG = {
    "nothing at all": ("fraud", {}),
    "one field missing": ("fraud", without(FRAUD, "hour")),
    "two fields missing": ("fraud", without(FRAUD, "amount", "chip_used")),
    "a field too many": ("fraud", FRAUD | {"colour": "red"}),
    "text that is no number": ("fraud", FRAUD | {"amount": "a lot"}),
    "empty text": ("fraud", FRAUD | {"amount": ""}),
    "null": ("fraud", FRAUD | {"amount": None}),
    "a list for a number": ("fraud", FRAUD | {"amount": [1, 2]}),
    "an object for a number": ("fraud", FRAUD | {"amount": {"value": 1}}),
    "too small": ("fraud", FRAUD | {"amount": -0.5}),
    "too large": ("fraud", FRAUD | {"hour": 23.5}),
    "far too large": ("fraud", FRAUD | {"amount": 1e300}),
    "everything at once": (
        "fraud",
        without(FRAUD, "distance_km") | {"hour": 99, "amount": "x", "is_foreign": None, "chip_used": [], "a": 1, "b": 2},
    ),
    "a word instead of a record": ("fraud", "hello"),
    "a number instead of a record": ("fraud", 3),
    "a list within a list": ("fraud", [[FRAUD]]),
    "one of three records wrong": ("fraud", [FRAUD, FRAUD | {"hour": -1}, FRAUD]),
    "every record wrong in its own way": ("fraud", [{}, FRAUD | {"hour": "noon"}, None, 7, FRAUD | {"extra": [1]}]),
    "an unknown category": ("penguins", PENGUIN | {"island": "Mars"}),
    "a category of two": ("penguins", PENGUIN | {"sex": "unknown"}),
    "a number for a category": ("penguins", PENGUIN | {"island": 5}),
    "null for a category": ("penguins", PENGUIN | {"island": None}),
    "half a gram": ("penguins", PENGUIN | {"body_mass_g": 4200.5}),
    "text for a whole number": ("penguins", PENGUIN | {"body_mass_g": "heavy"}),
    "null for a whole number": ("penguins", PENGUIN | {"body_mass_g": None}),
    "a whole number too small": ("penguins", PENGUIN | {"body_mass_g": 3}),
    "a whole number beyond 64 bits": ("penguins", PENGUIN | {"body_mass_g": 2**70}),
    "no list for an image": ("digits", {"image": 3}),
    "an image too flat": ("digits", image(*[EMPTY] * 7)),
    "an image too tall": ("digits", image(*[EMPTY] * 9)),
    "an image with a short row": ("digits", image(*[EMPTY] * 7, EMPTY[1:])),
    "an image with a number for a row": ("digits", image(*[EMPTY] * 7, 3)),
    "an image of two channels": ("digits", {"image": DIGIT["image"] * 2}),
    "a pixel too bright": ("digits", image(*[EMPTY] * 7, [0, 0, 17, 0, 0, 0, 0, "x"])),
}

NOT_JSON = {
    "nothing": b"",
    "a value missing": b'{"amount": }',
    "cut short": b'{"amount": 1, "hour"',
    "words": b"hello there",
    "something after the end": b'{"amount": 1} x',
    "not UTF-8": b'{"amount": "\xff"}',
    "NaN, which JSON has not": b'{"amount": NaN}',
}


@pytest.fixture(scope="module")
def twins() -> dict:
    return {name: twin(newest(name)) for name in ("fraud", "penguins", "digits")}


def predict(gateway: Gateway, model: str, body: object):
    return gateway.post(f"/models/{model}/predict", json=body)


def shown(problem: dict) -> dict:
    """Without the input where it is long: FastAPI sends all of it back, and the gateway what it was."""
    return problem if len(json.dumps(problem["input"])) <= 256 and not cut(problem["input"]) else without(problem, "input")


def cut(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("a list of ", "an object of "))


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_record_gets_what_fastapi_would_say(gateways, twins, case):
    model, body = WRONG[case]
    gateway = gateways("onnxruntime", "samples")
    given = predict(gateway, model, body)
    wanted = twins[model].post("/many" if isinstance(body, list) else "/one", json=body)
    assert (given.status_code, wanted.status_code) == (422, 422), given.text
    assert given.headers["content-type"] == "application/json"
    assert [*map(shown, given.json()["detail"])] == [*map(shown, wanted.json()["detail"])]
    # and the next one is served
    assert predict(gateway, model, newest(model).signature["example"]).status_code == 200


@pytest.mark.parametrize("case", NOT_JSON)
def test_what_is_not_json_is_told_with_its_place(gateways, case):
    headers = {"content-type": "application/json"}
    gateway = gateways("onnxruntime", "samples")
    given = gateway.post("/models/fraud/predict", data=NOT_JSON[case], headers=headers)
    assert given.status_code == 422, given.text
    [problem] = given.json()["detail"]
    assert (problem["type"], problem["msg"], problem["input"]) == ("json_invalid", "JSON decode error", {})
    where, position = problem["loc"]
    assert where == "body" and 0 <= position <= len(NOT_JSON[case])
    assert problem["ctx"]["error"]


def test_a_form_of_another_type_is_refused(gateways):
    gateway = gateways("onnxruntime", "samples")
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = gateway.post("/models/fraud/predict", data=json.dumps(FRAUD), headers={"content-type": content_type})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["type"] == "model_attributes_type"
    for content_type in ("application/json; charset=utf-8", "application/problem+json"):
        answer = gateway.post("/models/fraud/predict", data=json.dumps(FRAUD), headers={"content-type": content_type})
        assert answer.status_code == 200


def test_one_record_gets_one_answer_under_names_people_understand(gateway, engine):
    answer = predict(gateway, "fraud", FRAUD)
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["label", "probabilities"]
    assert body["label"] in ("legitimate", "fraud")
    assert list(body["probabilities"]) == ["legitimate", "fraud"]
    assert sum(body["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_a_list_gets_a_list_in_its_order(gateway, sample):
    records = sample.records(sample.rows(7))
    answers = predict(gateway, str(sample), records).json()
    alone = [predict(gateway, str(sample), record).json() for record in records]
    assert len(answers) == 7
    for together, single in zip(answers, alone, strict=True):
        assert list(together) == list(single)
        for name, value in single.items():
            assert together[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5, abs=1e-6))


def test_an_empty_list_gets_an_empty_list(gateway, sample):
    answer = predict(gateway, str(sample), [])
    assert (answer.status_code, answer.json()) == (200, [])


def test_fields_come_in_any_order_and_content_type_may_be_missing(gateway, engine):
    expected = predict(gateway, "fraud", FRAUD).json()
    turned = dict(reversed(FRAUD.items()))
    assert predict(gateway, "fraud", turned).json() == expected
    assert gateway.post("/models/fraud/predict", data=json.dumps(FRAUD).encode()).json() == expected


def test_the_example_of_every_version_is_answered_by_that_version(gateway, sample):
    answer = predict(gateway, str(sample), sample.signature["example"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model-version"] == str(sample.version)


def test_the_headers_tell_request_version_and_digest(gateway, engine):
    digests = set()
    for version in [sample.version for sample in SAMPLES if sample.name == "fraud"]:
        answer = predict(gateway, f"fraud@{version}", FRAUD)
        assert answer.headers["x-model-version"] == str(version)
        assert answer.headers["x-model-digest"].startswith("sha256:")
        digests.add(answer.headers["x-model-digest"])
        by_digest = predict(gateway, f"fraud@{answer.headers['x-model-digest']}", FRAUD)
        assert by_digest.headers["x-model-version"] == str(version)
    assert len(digests) == 3
    default = predict(gateway, "fraud", FRAUD)
    assert default.headers["x-model-version"] == str(newest("fraud").version)


def test_a_request_id_is_echoed_or_made(gateway, engine):
    named = gateway.post("/models/fraud/predict", json=FRAUD, headers={"x-request-id": "abc-123"})
    assert named.headers["x-request-id"] == "abc-123"
    made = {predict(gateway, "fraud", FRAUD).headers["x-request-id"] for _ in range(5)}
    assert len(made) == 5
    wrong = gateway.post("/models/fraud/predict", json={}, headers={"x-request-id": "abc-124"})
    assert (wrong.status_code, wrong.headers["x-request-id"]) == (422, "abc-124")


def test_numbers_that_are_not_finite_are_null(made, engine):
    answer = predict(made, "reciprocal", [{"x": [0, 4]}, {"x": [-0.0, 0.5]}])
    assert answer.json() == [{"y": [None, 0.25]}, {"y": [None, 2]}]


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("POST", "/models/nobody/predict", 404, "nobody"),
        ("POST", "/models/fraud@77/predict", 404, "77"),
        ("GET", "/models/fraud/predict", 405, "Method Not Allowed"),
        ("POST", "/models/fraud/prophesy", 404, "Not Found"),
        ("GET", "/models/nobody", 404, "nobody"),
    ],
)
def test_other_errors_are_fastapis_too(gateways, method, path, status, detail):
    gateway = gateways("onnxruntime", "samples")
    answer = (gateway.post if method == "POST" else gateway.get)(path, **({"json": FRAUD} if method == "POST" else {}))
    assert answer.status_code == status
    assert detail in answer.json()["detail"]
    assert answer.headers["x-request-id"]


def test_models_are_listed_and_described(gateway, sample):
    models = {each["name"]: each for each in gateway.get("/models").json()["models"]}
    versions = [each["version"] for each in models[sample.name]["versions"]]
    assert versions == [str(each.version) for each in SAMPLES if each.name == sample.name]
    assert [each["version"] for each in models[sample.name]["versions"] if each["default"]] == [versions[-1]]
    described = gateway.get(f"/models/{sample}").json()
    assert described["version"] == str(sample.version)
    assert described["example"] == sample.signature["example"]
    assert described["lineage"]["dataset"]["digest"].startswith("sha256:")
