"""`mlserver infer`, MLServer's command for many requests in a file. It speaks REST alone: `--transport grpc` is its own to come."""

import json
import subprocess

import numpy as np
import pytest

from gateway import ROOT, environment, missing
from samples import newest

PROGRAM = ROOT / ".venv/mlserver/bin/mlserver"
ROWS = 50


@pytest.mark.parametrize("batch", [1, 8])
def test_a_file_of_requests_becomes_a_file_of_answers(gateways, tmp_path, batch):
    if not PROGRAM.exists():
        missing("mlserver is missing: make .venv/mlserver/ready")
    gateway, sample = gateways("onnxruntime", "samples"), newest("fraud")
    rows = sample.rows(ROWS)["X"]
    asked, answered = tmp_path / "asked.jsonl", tmp_path / "answered.jsonl"
    with asked.open("w") as file:
        for row in rows:
            tensor = {"name": "X", "shape": [1, 8], "datatype": "FP32", "data": row.tolist()}
            file.write(json.dumps({"inputs": [tensor]}) + "\n")
    command = [PROGRAM, "infer", "--url", gateway.address, "--model-name", "fraud", "--workers", "2"]
    command += ["--input-data-path", asked, "--output-data-path", answered, "--batch-size", str(batch)]
    quiet = environment() | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    ended = subprocess.run(command, cwd=tmp_path, env=quiet, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    answers = [json.loads(line) for line in answered.read_text().splitlines()]
    assert len(answers) == ROWS
    expected = sample.expected({"X": rows})["probabilities"]
    for answer in answers:
        assert "error" not in answer, answer
        # Answers come in the order in which they are ready, with the place of their request.
        place = answer["parameters"]["batch_index"]
        output = next(output for output in answer["outputs"] if output["name"] == "probabilities")
        np.testing.assert_allclose(output["data"], expected[place], rtol=1e-5, atol=1e-6)
