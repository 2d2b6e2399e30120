"""`mlserver infer`, MLServer's command for many requests in a file: over REST and over gRPC."""

import json
import subprocess

import numpy as np
import pytest

from gateway import ROOT, environment, missing
from samples import newest

PROGRAM = ROOT / ".venv/mlserver/bin/mlserver"
ROWS = 50


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_file_of_requests_becomes_a_file_of_answers(gateways, tmp_path, transport):
    if not PROGRAM.exists():
        missing("mlserver is missing: make .venv/mlserver/ready")
    gateway, sample = gateways("onnxruntime", "samples"), newest("fraud")
    rows = sample.rows(ROWS)["X"]
    asked, answered = tmp_path / "asked.jsonl", tmp_path / "answered.jsonl"
    with asked.open("w") as file:
        for row in rows:
            tensor = {"name": "X", "shape": [1, 8], "datatype": "FP32", "data": row.tolist()}
            file.write(json.dumps({"inputs": [tensor]}) + "\n")
    command = [PROGRAM, "infer", "--url", gateway.address if transport == "rest" else gateway.grpc_address]
    command += ["--model-name", "fraud", "--input-data-path", asked, "--output-data-path", answered]
    command += ["--transport", transport, "--workers", "2"]
    quiet = environment() | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    ended = subprocess.run(command, cwd=tmp_path, env=quiet, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    answers = [json.loads(line) for line in answered.read_text().splitlines()]
    assert len(answers) == ROWS
    expected = sample.expected({"X": rows})["probabilities"]
    for answer in answers:
        assert "error" not in answer, answer
        # Answers come in the order in which they are ready, with the place of their request.
        place = answer["parameters"]["inference"]["index"] if "inference" in answer.get("parameters", {}) else answers.index(answer)
        output = next(output for output in answer["outputs"] if output["name"] == "probabilities")
        np.testing.assert_allclose(output["data"], expected[place], rtol=1e-5, atol=1e-6)
