"""TensorFlow Serving's REST API: requests as its documentation prints them, over `requests`."""

import base64
import json

import numpy as np
import pytest

import zoo
from samples import newest


def test_rows_of_a_model_of_one_input(made):
    """As in "Specifying input tensors in row format": a list of scalars or of tensors, each with a row to itself."""
    answer = made.post("/v1/models/identity-fp32:predict", json={"instances": [[1.0, 2.0], [5.0, -1.5]]})
    assert answer.json() == {"predictions": [[1.0, 2.0], [5.0, -1.5]]}
    # As the documentation's curl sends it: with -d, as a form.
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = made.post("/v1/models/identity-fp32:predict", data='{"instances": [[1.0, 2.0]]}', headers=headers)
    assert answer.json() == {"predictions": [[1.0, 2.0]]}


def test_rows_of_named_inputs_and_columns_of_them(gateways):
    penguins = newest("penguins")
    inputs = penguins.rows(3)
    rows = [{name: values[row].tolist() for name, values in inputs.items()} for row in range(3)]
    columns = {name: values.tolist() for name, values in inputs.items()}
    gateway = gateways("onnxruntime", "samples")
    expected = penguins.expected(inputs)
    by_rows = gateway.post("/v1/models/penguins:predict", json={"instances": rows}).json()["predictions"]
    by_columns = gateway.post("/v1/models/penguins:predict", json={"signature_name": "serving_default", "inputs": columns})
    for name, values in expected.items():
        assert np.array([row[name] for row in by_rows]).shape == np.array(by_columns.json()["outputs"][name]).shape == values.shape
        if values.dtype.kind == "f":
            np.testing.assert_allclose([row[name] for row in by_rows], values, rtol=1e-5)
            np.testing.assert_allclose(by_columns.json()["outputs"][name], values, rtol=1e-5)
        else:
            assert [row[name] for row in by_rows] == by_columns.json()["outputs"][name] == values.tolist()


def test_columns_of_a_model_of_one_input(made, datatype):
    values = zoo.values(datatype)
    answer = made.post(f"/v1/models/{zoo.identity(datatype)}:predict", data=json.dumps({"inputs": values.tolist()}))
    assert answer.status_code == 200, answer.text
    np.testing.assert_array_equal(np.array(answer.json()["outputs"], dtype=values.dtype), values)


def test_binary_values_are_in_base64(gateways):
    made = gateways("onnxruntime", "zoo")
    encoded = base64.b64encode("seaside ü".encode()).decode()
    for body, key in [
        ({"instances": [[{"b64": encoded}, "plain"]]}, "predictions"),
        ({"inputs": {"x": [["seaside ü", {"b64": base64.b64encode(b"plain").decode()}]]}}, "outputs"),
    ]:
        answer = made.post("/v1/models/identity-bytes:predict", json=body)
        assert answer.json() == {key: [["seaside ü", "plain"]]}


def test_numbers_that_json_lacks_are_the_words_that_python_writes(made):
    body = json.dumps({"instances": [[float("nan"), float("inf")], [1.0, -float("inf")]]})
    assert "NaN" in body and "-Infinity" in body
    answer = made.post("/v1/models/reciprocal:predict", data=body)
    # In answers they are null: the documents that we write are JSON.
    assert answer.json() == {"predictions": [[None, 0.0], [1.0, 0.0]]}


def test_a_classifier_gives_each_class_with_its_score(gateway, engine):
    fraud = newest("fraud")
    inputs = fraud.rows(2)
    first, second = fraud.records(inputs)
    shared = {"hour": second.pop("hour")}
    examples = [{name: value for name, value in first.items() if name != "hour"}, second]
    answer = gateway.post("/v1/models/fraud:classify", json={"examples": examples, "context": shared})
    inputs["X"][0, 1] = inputs["X"][1, 1]
    expected = fraud.expected(inputs)["probabilities"]
    results = answer.json()["results"]
    assert [[label for label, _ in pairs] for pairs in results] == [["legitimate", "fraud"]] * 2
    np.testing.assert_allclose([[score for _, score in pairs] for pairs in results], expected, atol=1e-5)


def test_a_regressor_gives_one_number(gateway):
    diabetes = newest("diabetes")
    inputs = diabetes.rows(3)
    examples = [{name: [value] for name, value in record.items()} for record in diabetes.records(inputs)]
    body = {"signature_name": "tensorflow/serving/regress", "examples": examples}
    answer = gateway.post("/v1/models/diabetes:regress", json=body)
    (expected,) = diabetes.expected(inputs).values()
    np.testing.assert_allclose(answer.json()["results"], expected.reshape(3), rtol=1e-4)


def test_the_status_has_the_documented_form(gateway):
    body = gateway.get("/v1/models/fraud").json()
    assert [version["version"] for version in body["model_version_status"]] == ["3", "2", "1"]
    one = gateway.get("/v1/models/fraud/versions/2").json()["model_version_status"]
    assert one == [{"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]


def test_the_metadata_has_the_documented_form(gateway):
    body = gateway.get("/v1/models/fraud/versions/2/metadata").json()
    assert body["model_spec"]["name"] == "fraud" and body["model_spec"]["version"] == "2"
    signature = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["X"]["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in signature["inputs"]["X"]["tensor_shape"]["dim"]] == ["-1", "8"]
    assert set(signature["outputs"]) == {"label", "probabilities"}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("half:predict", {"instances": [1.0, 5.0]}, 404, "no model is called `half`"),
        ("fraud/versions/9:predict", {"instances": []}, 404, "no live version 9"),
        ("fraud:predict", {"instances": [], "signature_name": "other"}, 400, "serving_default"),
        ("fraud:predict", {"instances": [], "inputs": []}, 400, "expected one of `instances` and `inputs`"),
        ("fraud:regress", {"examples": []}, 400, "one number for each row"),
    ],
)
def test_errors_have_one_key(gateway, path, body, status, message):
    answer = gateway.post(f"/v1/models/{path}", json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]
