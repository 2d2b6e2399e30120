"""KServe's own REST client, protocol v2: health, readiness, inference by JSON and by raw bytes, errors."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, InferResponse
from kserve.inference_client import RESTConfig

import zoo
from gateway import Gateway
from samples import Sample, Tensors, newest


def ask(call: Callable[[InferenceRESTClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=300)) as client:
            return await call(client)

    return asyncio.run(run())


def infer(
    gateway: Gateway, model: str, inputs: list[InferInput], binary_output: bool = False
) -> tuple[InferResponse, dict[str, str]]:
    """The answer and its headers."""
    request = InferRequest(model, inputs, request_id="kserve-1", parameters={"binary_data_output": binary_output})
    headers: dict[str, str] = {}
    response = ask(lambda client: client.infer(gateway.url, request, model_name=model, response_headers=headers))
    return response, headers


def sent(name: str, datatype: str, values: np.ndarray, binary: bool) -> InferInput:
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def inputs_of(sample: Sample, inputs: Tensors, binary: bool) -> list[InferInput]:
    return [sent(name, sample.datatype(name), values, binary) for name, values in inputs.items()]


def assert_close(given: np.ndarray, expected: np.ndarray) -> None:
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)
    else:
        assert [str(value) for value in given.flat] == [str(value) for value in expected.flat]


def test_the_server_is_live_and_ready(gateway):
    assert ask(lambda client: client.is_server_live(gateway.url)) is True
    assert ask(lambda client: client.is_server_ready(gateway.url)) is True


def test_a_model_is_ready_and_an_unknown_one_is_not(gateway, sample):
    assert ask(lambda client: client.is_model_ready(gateway.url, sample.name)) is True
    assert ask(lambda client: client.is_model_ready(gateway.url, "nobody")) is False


@pytest.mark.parametrize("binary", [True, False])
def test_every_model_answers(gateway, sample, binary):
    latest = newest(sample.name)
    inputs = latest.rows(5)
    response, headers = infer(gateway, sample.name, inputs_of(latest, inputs, binary), binary)
    assert (response.model_name, response.id) == (sample.name, "kserve-1")
    assert headers["x-model-version"] == str(latest.version)
    expected = latest.expected(inputs)
    assert [output.name for output in response.outputs] == list(expected)
    for output in response.outputs:
        assert_close(output.as_numpy(), expected[output.name])


def test_text_of_every_language_comes_back(gateways):
    made = gateways("onnxruntime", "zoo")
    values = zoo.values("BYTES")
    for binary in (True, False):
        response, _ = infer(made, zoo.identity("BYTES"), [sent("x", "BYTES", values, binary)], binary)
        given = response.outputs[0].as_numpy()
        assert [v.decode() if isinstance(v, bytes) else v for v in given.flat] == list(values.flat)


@pytest.mark.parametrize(
    ("model", "shape", "status", "message"),
    [("nobody", [1, 8], 404, "nobody"), ("fraud", [1, 9], 400, r"`X` has shape \[1, 9\]")],
)
def test_errors_reach_the_caller_in_our_words(gateway, engine, model, shape, status, message):
    with pytest.raises(httpx.HTTPStatusError, match=message) as refused:
        infer(gateway, model, [sent("X", "FP32", np.zeros(shape, np.float32), binary=False)])
    assert refused.value.response.status_code == status
