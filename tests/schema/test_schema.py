"""`/openapi.json` is true: schemathesis makes thousands of requests of it, right and wrong ones, and its checks hold."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import zoo
from gateway import ROOT, Gateway, environment, running

HERE = Path(__file__).parent
PROGRAM = Path(sys.executable).with_name("st")

# The same seed makes the same requests.
SEED = 1

# Fewer than this in all, and the document has lost something, or the runs ended early.
LEAST = 5_000

MADE = zoo.identity("INT64")
SAMPLES = sorted(path.name for path in (ROOT / "models").iterdir() if (path / "1").is_dir() or path.name == "fraud")

counted: Counter[str] = Counter()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The sample models, one of them with a rollout, and a made one whose signature says nothing but types."""
    registry = tmp_path_factory.mktemp("made")
    zoo.write(registry)
    models = [{"name": name, "registry": "samples"} for name in SAMPLES] + [{"name": MADE, "registry": "made"}]
    rollout = {"strategy": "canary", "candidate": 3, "steps": [{"weight": "50%", "pause": True}]}
    next(model for model in models if model["name"] == "fraud").update(version="2", rollout=rollout)
    registries = {"samples": ROOT / "models", "made": registry}
    with running(tmp_path_factory.mktemp("gateway"), "onnxruntime", registries, models) as gateway:
        yield gateway


def check(gateway: Gateway, directory: Path, *options: str, served: list[tuple[str, str]] | None = None) -> Counter[str]:
    """Runs schemathesis; gives how often each operation had each status."""
    counts = directory / "counts.json"
    told = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "SCHEMA_COUNTS": str(counts), "NO_PROXY": "127.0.0.1"}
    if served:
        told["SCHEMA_SERVED"] = json.dumps(served)
    command = [PROGRAM, "--config-file", HERE / "schemathesis.toml", "run", f"{gateway.url}/openapi.json", "--seed", str(SEED)]
    command += ["--continue-on-failure", "--no-color", "--request-timeout", "60", "--suppress-health-check", "all", *options]
    ended = subprocess.run(command, cwd=directory, env=environment() | told, capture_output=True, text=True)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    seen = Counter(json.loads(counts.read_text()))
    print(f"{seen.total()} requests: {by_status(seen)}")
    counted.update(seen)
    return seen


def by_status(seen: Counter[str]) -> dict[str, int]:
    statuses: Counter[str] = Counter()
    for what, count in seen.items():
        statuses[what.split()[-1]] += count
    return dict(sorted(statuses.items()))


def test_every_operation_is_as_it_is_documented(gateway, tmp_path):
    seen = check(gateway, tmp_path, "--max-examples", "50")
    documented = gateway.get("/openapi.json").json()["paths"]
    operations = {f"{method.upper()} {path}" for path, item in documented.items() for method in item}
    answered = {" ".join(what.split()[:2]) for what in seen}
    assert operations <= answered, f"never asked: {sorted(operations - answered)}"


def test_models_that_are_served_are_as_they_are_documented(gateway, tmp_path):
    """The routes that take any model's name, with names that are served."""
    listed = gateway.get("/models").json()["models"]
    served = [(model["name"], model["versions"][0]["version"]) for model in listed]
    seen = check(
        gateway,
        tmp_path,
        *("--phases", "coverage,fuzzing"),
        *("--include-path-regex", r"\{model\}", "--max-examples", "100"),
        served=served,
    )
    taken = sum(count for what, count in seen.items() if what.endswith(" 200"))
    assert taken > seen.total() // 10, f"nearly all are refused: {by_status(seen)}"


def test_what_is_told_of_a_rollout_is_as_it_is_documented(gateway, tmp_path):
    moving = ["--phases", "coverage,fuzzing", "--include-path-regex", "(rollout|events)$", "--max-examples", "20"]
    seen = check(gateway, tmp_path, *moving, served=[("fraud", "2")])
    assert seen["GET /models/{model}/rollout 200"] and seen["GET /models/{model}/events 200"], seen


def test_enough_requests_were_made_and_none_was_our_fault(gateway):
    ours = {what: count for what, count in counted.items() if what.split()[-1].startswith("5")}
    assert not ours
    assert counted.total() >= LEAST, by_status(counted)
