"""KServe's own REST client, protocol v1: liveness, readiness, predictions of rows, errors."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient
from kserve.inference_client import RESTConfig

from gateway import Gateway
from samples import Sample, Tensors, newest


def ask(call: Callable[[InferenceRESTClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol="v1", timeout=300)) as client:
            return await call(client)

    return asyncio.run(run())


def predict(gateway: Gateway, model: str, data: dict[str, Any]) -> tuple[list[Any], dict[str, str]]:
    """The predictions and the headers."""
    headers: dict[str, str] = {}
    answer = ask(lambda client: client.infer(gateway.url, data, model_name=model, response_headers=headers))
    return answer["predictions"], headers


def instances(inputs: Tensors) -> list[dict[str, Any]]:
    """Rows as objects of named inputs."""
    count = len(next(iter(inputs.values())))
    return [{name: values[row].tolist() for name, values in inputs.items()} for row in range(count)]


def assert_predictions(given: list[Any], expected: Tensors) -> None:
    """One output's values stand alone, several are objects."""
    names = list(expected)
    for name, values in expected.items():
        column = given if len(names) == 1 else [row[name] for row in given]
        if values.dtype.kind == "f":
            np.testing.assert_allclose(np.array(column), values, rtol=1e-5, atol=1e-5)
        else:
            assert [str(value) for value in np.array(column).flat] == [str(value) for value in values.flat]


def test_the_server_is_alive(gateway):
    assert ask(lambda client: client.is_server_live(gateway.url)) is True


def test_a_model_is_ready_and_an_unknown_one_is_an_error(gateway, sample):
    assert ask(lambda client: client.is_model_ready(gateway.url, sample.name)) is True
    with pytest.raises(httpx.HTTPStatusError, match="no model is called `nobody`"):
        ask(lambda client: client.is_model_ready(gateway.url, "nobody"))


def test_every_model_answers_named_rows(gateway, sample):
    latest: Sample = newest(sample.name)
    inputs = latest.rows(5)
    predictions, headers = predict(gateway, sample.name, {"instances": instances(inputs)})
    assert headers["x-model-version"] == str(latest.version)
    assert_predictions(predictions, latest.expected(inputs))


def test_the_records_of_the_typed_route_are_rows_as_well(gateway, sample):
    latest: Sample = newest(sample.name)
    inputs = latest.rows(3)
    predictions, _ = predict(gateway, sample.name, {"instances": latest.records(inputs)})
    assert_predictions(predictions, latest.expected(inputs))


def test_a_model_of_one_input_takes_plain_rows(gateway):
    fraud = newest("fraud")
    inputs = fraud.rows(4)
    predictions, _ = predict(gateway, "fraud", {"instances": inputs["X"].tolist()})
    assert_predictions(predictions, fraud.expected(inputs))


@pytest.mark.parametrize(
    ("model", "rows", "status", "message"),
    [("nobody", [[0.0] * 8], 404, "nobody"), ("fraud", [[0.0] * 9], 400, r"`X` has shape \[1, 9\]")],
)
def test_errors_reach_the_caller_in_our_words(gateway, model, rows, status, message):
    with pytest.raises(httpx.HTTPStatusError, match=message) as refused:
        predict(gateway, model, {"instances": rows})
    assert refused.value.response.status_code == status


def test_there_is_no_explainer(gateway):
    with pytest.raises(httpx.HTTPStatusError, match="no explainer is served here") as refused:
        ask(lambda client: client.explain(gateway.url, "fraud", {"instances": [[0.0] * 8]}))
    assert refused.value.response.status_code == 501
