"""`grpcurl`, which knows nothing of the gateway but what its reflection says."""

import base64
import json
import shutil
import struct
import subprocess

import pytest

from gateway import ROOT, Gateway, environment, missing
from samples import newest

PROGRAM = ROOT / ".venv/go/grpcurl"
SERVICE = "inference.GRPCInferenceService"
ROW = list(newest("fraud").signature["example"].values())


@pytest.fixture
def served(gateways) -> Gateway:
    if not PROGRAM.exists():
        missing(f"grpcurl is missing: {'make .venv/go/ready' if shutil.which('go') else 'go is missing too'}")
    return gateways("onnxruntime", "samples")


def grpcurl(address: str, *arguments: str, data: dict | None = None) -> subprocess.CompletedProcess[str]:
    told = [] if data is None else ["-d", json.dumps(data)]
    command = [PROGRAM, "-plaintext", *told, address, *arguments]
    return subprocess.run(command, env=environment() | {"NO_PROXY": "127.0.0.1"}, capture_output=True, text=True, timeout=60)


def request(**changes) -> dict:
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 8], "contents": {"fp32_contents": ROW}}
    return {"model_name": "fraud", "id": "7", "inputs": [tensor], "outputs": [{"name": "probabilities"}]} | changes


@pytest.mark.parametrize("on_http", [False, True])
def test_reflection_describes_every_service_and_message(served, on_http):
    address = served.address if on_http else served.grpc_address
    listed = grpcurl(address, "list").stdout.split()
    assert {SERVICE, "grpc.health.v1.Health"} <= set(listed)
    described = grpcurl(address, "describe", "inference.ModelInferRequest").stdout
    assert "map<string, .inference.InferParameter> parameters = 4;" in described


def test_health_is_told_of_the_service(served):
    answer = grpcurl(served.grpc_address, "grpc.health.v1.Health/Check", data={"service": SERVICE})
    assert json.loads(answer.stdout) == {"status": "SERVING"}


def test_an_answer_is_raw_and_typed_where_that_is_asked_for(served):
    raw = json.loads(grpcurl(served.grpc_address, f"{SERVICE}/ModelInfer", data=request()).stdout)
    asked = request(parameters={"typed_output": {"bool_param": True}})
    typed = json.loads(grpcurl(served.grpc_address, f"{SERVICE}/ModelInfer", data=asked).stdout)
    values = typed["outputs"][0]["contents"]["fp32Contents"]
    assert typed["id"] == "7" and len(values) == 2 and abs(sum(values) - 1) < 1e-5
    assert struct.unpack("<2f", base64.b64decode(raw["rawOutputContents"][0])) == pytest.approx(values, rel=1e-6)


def test_an_error_has_its_code_and_a_sentence(served):
    unknown = grpcurl(served.grpc_address, f"{SERVICE}/ModelInfer", data=request(model_name="nobody"))
    assert unknown.returncode != 0 and "NotFound" in unknown.stderr and "nobody" in unknown.stderr
    wrong = request()
    wrong["inputs"][0]["shape"] = [1, 9]
    refused = grpcurl(served.grpc_address, f"{SERVICE}/ModelInfer", data=wrong)
    assert "InvalidArgument" in refused.stderr and "[1, 9]" in refused.stderr
