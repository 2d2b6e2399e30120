"""The gateway's numbers are ONNX Runtime's own, within 0.00001, on every sample model and version, whatever the way in."""

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from gateway import Gateway
from samples import SAMPLES, Sample, Tensors, held_out_payments

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
ROWS = 250


def by_binary_tensors(gateway: Gateway, sample: Sample, inputs: Tensors) -> Tensors:
    def sent(name: str, values: np.ndarray) -> InferInput:
        return InferInput(name, list(values.shape), sample.datatype(name)).set_data_from_numpy(values)

    with InferenceServerClient(gateway.address, network_timeout=300) as client:
        tensors = [sent(name, values) for name, values in inputs.items()]
        result = client.infer(sample.name, tensors, str(sample.version))
        return {output["name"]: decoded(result.as_numpy(output["name"])) for output in result.get_response()["outputs"]}


def by_json_tensors(gateway: Gateway, sample: Sample, inputs: Tensors) -> Tensors:
    tensors = [
        {"name": name, "shape": list(values.shape), "datatype": sample.datatype(name), "data": values.tolist()}
        for name, values in inputs.items()
    ]
    path = f"/v2/models/{sample.name}/versions/{sample.version}/infer"
    answer = gateway.post(path, json={"inputs": tensors})
    assert answer.status_code == 200, answer.text
    return {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in answer.json()["outputs"]}


def decoded(values: np.ndarray) -> np.ndarray:
    return np.array([value.decode() for value in values.flat]).reshape(values.shape) if values.dtype == object else values


def assert_equal(given: Tensors, expected: Tensors) -> None:
    assert list(given) == list(expected)
    for name, values in expected.items():
        assert given[name].shape == values.shape, name
        if values.dtype.kind == "f":
            np.testing.assert_allclose(given[name].astype(np.float32), values, **TOLERANCE, err_msg=name)
        else:
            assert given[name].tolist() == values.tolist(), name


@pytest.mark.parametrize("way", [by_binary_tensors, by_json_tensors])
def test_tensors_get_the_same_numbers(gateway, sample, way):
    inputs = sample.rows(ROWS, seed=7)
    assert_equal(way(gateway, sample, inputs), sample.expected(inputs))


def test_records_get_the_same_numbers(gateway, sample):
    inputs = sample.rows(ROWS, seed=8)
    answer = gateway.post(f"/models/{sample}/predict", json=sample.records(inputs))
    assert answer.status_code == 200, answer.text
    expected = sample.predictions(sample.expected(inputs))
    assert len(answer.json()) == len(expected)
    for given, wanted in zip(answer.json(), expected, strict=True):
        assert list(given) == list(wanted)
        for name, value in wanted.items():
            if isinstance(value, str):
                assert given[name] == value, name
            else:
                assert given[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("version", [sample.version for sample in SAMPLES if sample.name == "fraud"])
def test_the_held_out_payments_get_the_same_numbers(gateway, engine, version):
    sample = Sample("fraud", version)
    inputs = {"X": held_out_payments()}
    expected = sample.expected(inputs)
    assert len(inputs["X"]) == 2000
    assert len(np.unique(expected["label"])) == 2, "both classes are among them"
    assert_equal(by_binary_tensors(gateway, sample, inputs), expected)
