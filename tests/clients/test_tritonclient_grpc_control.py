"""The same over gRPC: configuration, statistics, classes, the repository, what is logged, by Triton's own client."""

import json

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from gateway import Gateway
from samples import newest

MODEL = "fraud"


@pytest.fixture
def client(controlled: Gateway):
    with InferenceServerClient(controlled.grpc_address) as client:
        yield client


def ask(client: InferenceServerClient, rows: int = 1, version: str = "", **more):
    values = newest(MODEL).rows(rows)["X"]
    sent = InferInput("X", list(values.shape), "FP32")
    sent.set_data_from_numpy(values)
    return client.infer(MODEL, [sent], version, **more)


def states(client: InferenceServerClient) -> dict[str, str]:
    return {each.version: each.state for each in client.get_model_repository_index().models if each.name == MODEL}


def test_what_http_advertises_grpc_advertises(client, controlled):
    assert list(client.get_server_metadata().extensions) == controlled.get("/v2").json()["extensions"]


def test_a_model_is_unloaded_and_loaded_again(client):
    version = str(newest(MODEL).version)
    assert states(client)[version] == "READY"
    client.unload_model(MODEL)
    assert not client.is_model_ready(MODEL)
    with pytest.raises(InferenceServerException, match="unloaded by hand") as refused:
        ask(client)
    assert refused.value.status() == "StatusCode.UNAVAILABLE"
    client.load_model(MODEL)
    assert ask(client).get_response().model_version == version


def test_a_load_takes_a_configuration_and_refuses_files(client):
    client.load_model(MODEL, config=json.dumps({"max_batch_size": 2}))
    assert client.get_model_config(MODEL).config.max_batch_size == 2
    with pytest.raises(InferenceServerException, match="file:1/model.onnx") as refused:
        client.load_model(MODEL, config="{}", files={"file:1/model.onnx": b"no"})
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"
    with pytest.raises(InferenceServerException, match="nobody") as unknown:
        client.load_model("nobody")
    assert unknown.value.status() == "StatusCode.NOT_FOUND"
    client.load_model(MODEL)


def test_the_configuration_is_what_http_says(client, controlled):
    config = client.get_model_config(MODEL, as_json=True)["config"]
    over_http = controlled.get(f"/v2/models/{MODEL}/config").json()
    assert config["name"] == over_http["name"] == MODEL
    assert config["max_batch_size"] == over_http["max_batch_size"]
    for side in ("input", "output"):
        given = [(each["name"], each["data_type"], [int(dim) for dim in each.get("dims", [])]) for each in config[side]]
        assert given == [(each["name"], each["data_type"], each["dims"]) for each in over_http[side]]


def test_statistics_grow_with_every_call(client):
    [before] = client.get_inference_statistics(MODEL).model_stats
    for _ in range(3):
        ask(client, rows=2)
    [after] = client.get_inference_statistics(MODEL).model_stats
    assert (after.inference_count - before.inference_count, after.execution_count - before.execution_count) == (6, 3)
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert after.inference_stats.queue.count - before.inference_stats.queue.count == 3
    assert after.last_inference > 0


def test_classes_come_with_their_values_and_labels(client):
    plain = ask(client, rows=3).as_numpy("probabilities")
    outputs = [InferRequestedOutput("probabilities", class_count=2)]
    classes = ask(client, rows=3, outputs=outputs).as_numpy("probabilities")
    assert classes.shape == (3, 2)
    for row, values in zip(classes, plain, strict=True):
        told = [each.decode().split(":") for each in row]
        assert [int(place) for _, place, _ in told] == list(np.argsort(-values, kind="stable"))
        assert [label for _, _, label in told] == [["legitimate", "fraud"][int(place)] for _, place, _ in told]


def test_what_is_logged_can_be_read_and_changed(client):
    assert client.get_log_settings().settings["log_info"].bool_param is True
    changed = client.update_log_settings({"log_verbose_level": 1})
    assert changed.settings["log_verbose_level"].uint32_param == 1
    client.update_log_settings({"log_verbose_level": 0})
    with pytest.raises(InferenceServerException, match="log_file") as refused:
        client.update_log_settings({"log_file": "elsewhere"})
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_traces_are_off(client):
    assert list(client.get_trace_settings(MODEL).settings["trace_level"].value) == ["OFF"]
    with pytest.raises(InferenceServerException) as refused:
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_without_leave_nothing_is_loaded_unloaded_or_changed(gateway):
    with InferenceServerClient(gateway.grpc_address) as client:
        for call in (
            client.get_model_repository_index,
            lambda: client.load_model(MODEL),
            lambda: client.unload_model(MODEL),
            lambda: client.update_log_settings({"log_info": False}),
        ):
            with pytest.raises(InferenceServerException, match="protocols.control") as refused:
                call()
            assert refused.value.status() == "StatusCode.PERMISSION_DENIED"
        assert client.get_log_settings().settings["log_info"].bool_param is True
        assert client.is_model_ready(MODEL)
