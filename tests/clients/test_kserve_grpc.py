"""KServe's own gRPC client: health, readiness, inference."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest

from gateway import Gateway
from samples import newest


def ask(gateway: Gateway, call: Callable[[InferenceGRPCClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with InferenceGRPCClient(gateway.grpc_address, timeout=300) as client:
            return await call(client)

    return asyncio.run(run())


def test_the_server_is_live_and_ready(gateway):
    assert ask(gateway, lambda client: client.is_server_live()) is True
    assert ask(gateway, lambda client: client.is_server_ready()) is True


def test_a_model_is_ready_and_an_unknown_one_is_not(gateway):
    assert ask(gateway, lambda client: client.is_model_ready("fraud")) is True
    assert ask(gateway, lambda client: client.is_model_ready("nobody")) is False


@pytest.mark.parametrize("binary", [True, False])
def test_inference_gives_what_the_model_gives(gateway, binary):
    sample = newest("fraud")
    inputs = sample.rows(3)
    tensors = []
    for name, values in inputs.items():
        tensor = InferInput(name, list(values.shape), sample.datatype(name))
        tensor.set_data_from_numpy(values, binary_data=binary)
        tensors.append(tensor)
    request = InferRequest(sample.name, tensors, request_id="kserve-1")
    response = ask(gateway, lambda client: client.infer(request))
    assert response.id == "kserve-1"
    for output in response.outputs:
        expected = sample.expected(inputs)[output.name]
        np.testing.assert_allclose(output.as_numpy(), expected, rtol=1e-5, atol=1e-5)


def test_an_error_is_raised_with_its_status(gateway):
    tensor = InferInput("X", [1, 8], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 8), np.float32))
    request = InferRequest("nobody", [tensor])
    with pytest.raises(grpc.RpcError) as refused:
        ask(gateway, lambda client: client.infer(request))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
