"""The Open Inference Protocol by plain `requests`: every core route, JSON, errors, compression, non-finite numbers."""

import gzip
import json
import zlib

import numpy as np
import pytest

from gateway import Gateway
from samples import NAMES, newest

ROW = list(newest("fraud").signature["example"].values())


def body(**changes) -> dict:
    return {"inputs": [{"name": "X", "shape": [1, 8], "datatype": "FP32", "data": ROW} | changes]}


def infer(gateway: Gateway, path: str = "/v2/models/fraud/infer", **options):
    return gateway.post(path, **options)


def test_health_is_told_in_json(gateway, engine):
    assert gateway.get("/v2/health/live").json() == {"live": True}
    assert gateway.get("/v2/health/ready").json() == {"ready": True}
    assert gateway.get("/v2/models/fraud/ready").json() == {"name": "fraud", "ready": True}


def test_the_server_and_its_models_are_listed(gateway, engine):
    for path in ("/v2", "/v2/"):
        server = gateway.get(path).json()
        assert server["name"] == "sluicegate"
        assert {"binary_tensor_data", "parameters"} <= set(server["extensions"])
    listed = gateway.get("/v2/models").json()["models"]
    assert listed == sorted(listed) and set(listed) <= set(NAMES) and "fraud" in listed


@pytest.mark.parametrize("path", ["/v2/models/fraud", "/v2/models/fraud/versions/1"])
def test_every_model_route_is_there_with_and_without_a_version(gateway, engine, path):
    assert gateway.get(path).json()["name"] == "fraud"
    assert gateway.get(f"{path}/ready").status_code == 200
    answer = infer(gateway, f"{path}/infer", json=body())
    version = "1" if "versions" in path else str(newest("fraud").version)
    assert answer.json()["model_version"] == answer.headers["x-model-version"] == version
    assert answer.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in answer.headers


def test_data_may_be_flat_or_nested_and_keys_in_any_order(gateway, engine):
    expected = infer(gateway, json=body()).json()["outputs"]
    assert infer(gateway, json=body(data=[ROW])).json()["outputs"] == expected
    turned = {"data": ROW, "datatype": "FP32", "shape": [1, 8], "name": "X"}
    assert infer(gateway, json={"model_name": "fraud", "inputs": [turned]}).json()["outputs"] == expected


def test_an_id_is_echoed_or_made(gateway, engine):
    assert infer(gateway, json=body() | {"id": "42"}).json()["id"] == "42"
    assert isinstance(infer(gateway, json=body()).json()["id"], str)


def test_no_content_type_is_asked_for(gateway, engine):
    for headers in ({}, {"content-type": "text/plain"}, {"content-type": "application/octet-stream"}):
        assert infer(gateway, data=json.dumps(body()).encode(), headers=headers).status_code == 200


@pytest.mark.parametrize(("name", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compression_is_understood_and_used_where_asked(gateway, engine, name, encode):
    rows = 300
    many = json.dumps(body(shape=[rows, 8], data=ROW * rows)).encode()
    headers = {"content-encoding": name, "accept-encoding": name}
    answer = infer(gateway, data=encode(many), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-encoding"] == name
    assert answer.json()["outputs"][0]["shape"] == [rows]
    plain = infer(gateway, data=many, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.json()["outputs"] == answer.json()["outputs"]


def test_a_body_of_one_raw_tensor_is_a_whole_request(gateway, engine):
    answer = infer(gateway, data=np.array(ROW, "<f4").tobytes(), headers={"Inference-Header-Content-Length": "0"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    head = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:head])["outputs"]
    assert sum(output["parameters"]["binary_data_size"] for output in outputs) == len(answer.content) - head


def test_numbers_that_are_not_finite_are_null_and_counted(made, engine):
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [0, 4, -0.0, 0.5]}
    answer = made.post("/v2/models/reciprocal/infer", json={"inputs": [tensor]}).json()
    assert answer["outputs"][0]["data"] == [None, 0.25, None, 2]
    assert answer["parameters"] == {"nonfinite_count": 2}
    tensor["data"] = [1, 1, 1, 1]
    assert "parameters" not in made.post("/v2/models/reciprocal/infer", json={"inputs": [tensor]}).json()


BAD = {
    "no JSON": (b"{", {}, 400, "malformed"),
    "no inputs": (b"{}", {}, 400, "malformed"),
    "wrong type": (body(datatype="INT64", data=[1] * 8), {}, 400, "wrong_dtype"),
    "no such type": (body(datatype="FP31"), {}, 400, "malformed"),
    "wrong shape": (body(shape=[2, 4]), {}, 400, "wrong_shape"),
    "too few elements": (body(data=ROW[1:]), {}, 400, "wrong_element_count"),
    "a negative size": (body(shape=[-1, 8]), {}, 400, "invalid_shape"),
    "sizes beyond memory": (body(shape=[2**40, 2**40]), {}, 400, "invalid_shape"),
    "no such input": (body(name="Z"), {}, 400, "unknown_input"),
    "text for a number": (body(data=["x"] * 8), {}, 400, "malformed"),
    "broken gzip": (b"nonsense", {"content-encoding": "gzip"}, 400, "bad_encoding"),
    "an encoding that is none": (b"{}", {"content-encoding": "lzw"}, 415, "unsupported_media"),
    "a length that is no number": (b"{}", {"inference-header-content-length": "x"}, 400, "bad_header"),
    "a length beyond the body": (b"{}", {"inference-header-content-length": "9"}, 400, "bad_header"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_its_status_its_code_and_a_sentence(gateway, engine, case):
    content, headers, status, code = BAD[case]
    content = content if isinstance(content, bytes) else json.dumps(content)
    answer = infer(gateway, data=content, headers=headers | {"x-request-id": "bad-1"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json", "to the letter: kserve's client reads no error otherwise"
    told = answer.json()
    assert (told["code"], told["request_id"]) == (code, "bad-1")
    assert len(told["error"]) > 10
    assert infer(gateway, json=body()).status_code == 200, "the next good request works"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/nobody/infer", 404),
        ("POST", "/v2/models/fraud/versions/77/infer", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/fraud/versions/77/ready", 404),
        ("GET", "/v2/models/fraud/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/nothing", 404),
    ],
)
def test_unknown_things_are_404_and_wrong_methods_405(gateway, engine, method, path, status):
    answer = gateway.post(path, json=body()) if method == "POST" else gateway.get(path)
    assert answer.status_code == status
    assert answer.json()["error"]
