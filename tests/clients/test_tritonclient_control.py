"""What Triton's own Python client asks beside inference: configuration, statistics, classes, the repository, what is logged."""

import json
import shutil

import numpy as np
import pytest
from onnx import TensorProto, helper
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from gateway import Gateway, running
from samples import newest

MODEL = "fraud"


@pytest.fixture
def client(controlled: Gateway):
    with InferenceServerClient(controlled.address, network_timeout=300, connection_timeout=300) as client:
        yield client


def ask(client: InferenceServerClient, rows: int = 1, version: str = "", **more):
    values = newest(MODEL).rows(rows)["X"]
    sent = InferInput("X", list(values.shape), "FP32")
    sent.set_data_from_numpy(values)
    return client.infer(MODEL, [sent], version, **more)


def states(client: InferenceServerClient) -> dict[str, str]:
    return {each["version"]: each["state"] for each in client.get_model_repository_index() if each["name"] == MODEL}


def test_the_extensions_that_are_used_here_are_advertised(client):
    extensions = client.get_server_metadata()["extensions"]
    assert {"model_repository", "model_repository(unload_dependents)", "model_configuration", "statistics"} <= set(extensions)
    assert {"classification", "generate", "logging"} <= set(extensions)
    assert not {"sequence", "trace", "system_shared_memory", "cuda_shared_memory"} & set(extensions)


def test_a_model_is_unloaded_and_loaded_again(client):
    newest_version = str(newest(MODEL).version)
    assert states(client)[newest_version] == "READY"
    client.unload_model(MODEL, unload_dependents=True)
    assert not client.is_model_ready(MODEL)
    assert states(client)[newest_version] != "READY"
    with pytest.raises(InferenceServerException, match="unloaded by hand") as refused:
        ask(client)
    assert refused.value.status() == "503"
    client.load_model(MODEL)
    assert client.is_model_ready(MODEL)
    assert ask(client).get_response()["model_version"] == newest_version


def test_a_load_takes_a_configuration_and_refuses_files(client):
    before = client.get_model_config(MODEL)
    client.load_model(MODEL, config=json.dumps({"max_batch_size": 2, "instance_group": [{"count": 1}]}))
    assert client.get_model_config(MODEL)["max_batch_size"] == 2
    assert ask(client, rows=5).as_numpy("label").shape[0] == 5
    with pytest.raises(InferenceServerException, match="file:1/model.onnx") as refused:
        client.load_model(MODEL, config="{}", files={"file:1/model.onnx": b"no"})
    assert refused.value.status() == "501"
    with pytest.raises(InferenceServerException, match="`optimization`"):
        client.load_model(MODEL, config=json.dumps({"optimization": {"priority": "PRIORITY_MAX"}}))
    with pytest.raises(InferenceServerException, match="nobody") as unknown:
        client.load_model("nobody")
    assert unknown.value.status() == "404"
    client.load_model(MODEL)
    assert client.get_model_config(MODEL) == before


def test_a_load_that_fails_says_why_and_takes_nothing_away(client, registry):
    version = registry / MODEL / str(newest(MODEL).version + 1)
    version.mkdir()
    (version / "model.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(InferenceServerException, match=f"version {version.name} failed") as refused:
        client.load_model(MODEL)
    assert refused.value.status() == "400"
    assert ask(client).get_response()["model_version"] == str(newest(MODEL).version)
    assert states(client)[version.name] == "UNAVAILABLE"
    shutil.rmtree(version)
    client.load_model(MODEL)


def test_the_configuration_names_every_tensor_of_the_metadata(client):
    metadata, config = client.get_model_metadata(MODEL), client.get_model_config(MODEL)
    assert config["name"] == MODEL and config["max_batch_size"] > 0
    for side in ("input", "output"):
        described = {each["name"]: each["shape"] for each in metadata[side + "s"]}
        assert {each["name"]: each["dims"] for each in config[side]} == {name: shape[1:] for name, shape in described.items()}
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert "dynamic_batching" in config and "sequence_batching" not in config
    assert config["model_transaction_policy"]["decoupled"] is False
    assert config["response_cache"]["enable"] is False


def test_statistics_grow_with_every_request(client):
    [before] = client.get_inference_statistics(MODEL)["model_stats"]
    for _ in range(3):
        ask(client, rows=2)
    [after] = client.get_inference_statistics(MODEL)["model_stats"]
    assert (after["name"], after["version"]) == (MODEL, str(newest(MODEL).version))
    assert [after[key] - before[key] for key in ("inference_count", "execution_count")] == [6, 3]
    counts = [{kind: each["count"] for kind, each in stats["inference_stats"].items()} for stats in (before, after)]
    assert [counts[1][kind] - counts[0][kind] for kind in ("success", "queue", "fail")] == [3, 3, 0]
    assert all(isinstance(each["ns"], int) for each in after["inference_stats"].values())
    assert 2 in [each["batch_size"] for each in after["batch_stats"]]
    assert client.get_inference_statistics()["model_stats"] == [after]
    assert client.get_inference_statistics(MODEL, after["version"])["model_stats"] == [after]


@pytest.mark.parametrize("binary", [True, False])
def test_classes_come_with_their_values_and_labels(client, binary):
    plain = ask(client, rows=3).as_numpy("probabilities")
    outputs = [InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]
    classes = ask(client, rows=3, outputs=outputs).as_numpy("probabilities")
    assert classes.shape == (3, 2)
    for row, values in zip(classes, plain, strict=True):
        told = [(each.decode() if isinstance(each, bytes) else each).split(":") for each in row]
        assert [int(place) for _, place, _ in told] == list(np.argsort(-values, kind="stable"))
        assert [label for _, _, label in told] == [["legitimate", "fraud"][int(place)] for _, place, _ in told]
        np.testing.assert_allclose([float(value) for value, _, _ in told], np.sort(values)[::-1], atol=1e-5)


def test_what_is_logged_can_be_read_and_changed(client):
    assert client.get_log_settings()["log_info"] is True
    assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
    assert client.update_log_settings({"log_info": False})["log_info"] is False
    assert client.update_log_settings({"log_info": True})["log_info"] is True
    with pytest.raises(InferenceServerException, match="log_file") as refused:
        client.update_log_settings({"log_file": "elsewhere"})
    assert refused.value.status() == "501"


def test_traces_are_off_and_shared_memory_is_not_served(client):
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.get_trace_settings(MODEL)["trace_level"] == ["OFF"]
    for refused_call in (
        lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        lambda: client.register_system_shared_memory("region", "/key", 64),
        lambda: client.get_cuda_shared_memory_status(),
    ):
        with pytest.raises(InferenceServerException) as refused:
            refused_call()
        assert refused.value.status() == "501"


def test_text_is_generated(tmp_path, engine):
    if engine == "tract":
        pytest.skip("tract loads no model of texts")
    tensors = [helper.make_tensor_value_info(name, TensorProto.STRING, ["N", 1]) for name in ("prompt", "reply")]
    graph = helper.make_graph([helper.make_node("Identity", ["prompt"], ["reply"])], "echo", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file = tmp_path / "models/echo/1/model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(model.SerializeToString())
    with running(tmp_path, engine, {"own": tmp_path / "models"}, None) as gateway:
        asked = {"id": "größe-1", "text_input": "Prüfung 🐧", "parameters": {"max_tokens": 20}}
        told = {"id": "größe-1", "model_name": "echo", "model_version": "1", "text_output": "Prüfung 🐧"}
        assert gateway.post("/v2/models/echo/generate", json=asked).json() == told
        with gateway.post("/v2/models/echo/generate_stream", json=asked, stream=True) as stream:
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            [event] = [line for line in stream.iter_lines(decode_unicode=True) if line]
        assert json.loads(event.removeprefix("data: ")) == told
        refused = gateway.post("/v2/models/echo/generate_stream", json={"text_input": 3})
        assert (refused.status_code, refused.headers["content-type"]) == (400, "application/json")


def test_a_model_of_numbers_generates_no_text(gateway):
    refused = gateway.post(f"/v2/models/{MODEL}/generate", json={"text_input": "hi"})
    assert refused.status_code == 400 and "text" in refused.json()["error"]


def test_control_is_off_by_default(gateway):
    with InferenceServerClient(gateway.address, network_timeout=300) as client:
        for refused_call in (
            client.get_model_repository_index,
            lambda: client.load_model(MODEL),
            lambda: client.unload_model(MODEL),
            lambda: client.update_log_settings({"log_info": False}),
        ):
            with pytest.raises(InferenceServerException, match="protocols.control") as refused:
                refused_call()
            assert refused.value.status() == "403"
        assert client.is_model_ready(MODEL)
