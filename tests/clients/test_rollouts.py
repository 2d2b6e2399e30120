"""Rollouts of the fraud model, on payments as its generator makes them: a better version is promoted, a worse one is stopped."""

import base64
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests
from cloudevents.http import from_http
from standardwebhooks import Webhook

from gateway import ROOT, Gateway, free_addresses, missing, running
from receiver import receiver
from samples import MODELS

sys.path.insert(0, str(ROOT / "models"))
from generator import payments

# A bound on waiting, not a promise of speed.
PATIENCE_SECONDS = 120
SECRET = "whsec_" + base64.b64encode(os.urandom(32)).decode()


def fraud(stable: int, candidate: int, **rollout: object) -> list[dict]:
    return [{"name": "fraud", "registry": "samples", "version": str(stable), "rollout": {"candidate": candidate, **rollout}}]


def view(gateway: Gateway) -> dict:
    return gateway.get("/models/fraud/rollout").json()


def ask_until(gateway: Gateway, is_over: Callable[[dict], bool], rows: int = 20) -> tuple[dict, list[requests.Response]]:
    """Payments one after another until the rollout is as expected; what it is then, and every answer on the way."""
    features, _ = payments(20_000, seed=7)
    answers: list[requests.Response] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    for start in range(0, 10**9, rows):
        batch = features[np.arange(start, start + rows) % len(features)]
        tensor = {"name": "X", "datatype": "FP32", "shape": list(batch.shape), "data": batch.ravel().tolist()}
        answers.append(gateway.post("/v2/models/fraud/infer", json={"inputs": [tensor]}))
        assert answers[-1].status_code == 200, answers[-1].text
        if start % (10 * rows) == 0:
            told = view(gateway)
            if is_over(told):
                return told, answers
            assert time.monotonic() < deadline, told
    raise AssertionError("unreachable")


def kinds(gateway: Gateway) -> list[str]:
    return [event["kind"] for event in gateway.get("/models/fraud/events").json()["events"]]


def test_a_better_model_goes_from_five_percent_to_all(engine: str, tmp_path: Path):
    steps = [{"weight": weight, "hold": "500ms"} for weight in ["5%", "25%", "100%"]]
    analysis = [{"metric": "error_rate", "max_increase": "0%", "min_samples": 10}]
    models = fraud(1, 2, strategy="canary", steps=steps, analysis=analysis)
    with running(tmp_path, engine, {"samples": MODELS}, models) as gateway:
        promoted, answers = ask_until(gateway, lambda told: told["phase"] == "promoted")
        assert (promoted["answers"], promoted["differs"]) == ("2", True), promoted
        assert kinds(gateway) == ["rollout.started", "rollout.step", "rollout.step", "rollout.promoted"]
        variants = [answer.headers.get("x-model-variant") for answer in answers]
        assert "stable" in variants and "candidate" in variants
        for answer in answers:
            expected = {"stable": "1", "candidate": "2"}.get(answer.headers.get("x-model-variant"))
            assert expected in (None, answer.headers["x-model-version"])


@pytest.mark.parametrize("strategy", ["shadow", "canary"])
def test_a_worse_model_is_stopped_in_the_shadow_and_who_is_to_be_told_is_told(engine: str, tmp_path: Path, strategy: str):
    (tmp_path / "secret").write_text(SECRET + "\n")
    shadow = {"share": "100%", "hold": "1h"} if strategy == "canary" else {"share": "100%"}
    steps = {"steps": [{"weight": "5%", "hold": "1h"}]} if strategy == "canary" else {}
    analysis = [{"metric": "disagreement", "max": "1%"}]
    models = fraud(2, 3, strategy=strategy, shadow=shadow, analysis=analysis, **steps)
    with receiver() as (url, got):
        hooks = [{"url": url, "secret": f"file:{tmp_path / 'secret'}"}]
        with running(tmp_path / "gateway", engine, {"samples": MODELS}, models, webhooks=hooks) as gateway:
            back, answers = ask_until(gateway, lambda told: told["phase"] == "rolled_back")
            assert {answer.headers["x-model-version"] for answer in answers} == {"2"}, "no caller saw it"
            assert back["reason"].startswith("disagreement: the shadow disagreed on "), back["reason"]
            told = requests.get(f"http://{gateway.ops_address}/models/fraud/shadow", timeout=60).json()
            labels = next(output for output in told["outputs"] if output["name"] == "label")
            assert 0.9 < labels["agreement"] < 0.99, "about 3 % of payments are judged otherwise"
            # What it learned wrongly: frauds from far away.
            distance = [row for worst in told["worst"] for row in np.reshape(worst["inputs"]["X"], (-1, 8))[:, 3]]
            assert distance and max(distance) > 1_000
            deadline = time.monotonic() + PATIENCE_SECONDS
            while len(got) < 2:
                assert time.monotonic() < deadline, got
                time.sleep(0.05)
    for headers, body in got:
        Webhook(SECRET).verify(body, headers)
    started, ended = [from_http(headers, body) for headers, body in got]
    assert [started["type"], ended["type"]] == ["io.sluicegate.rollout.started", "io.sluicegate.rollout.rolled_back"]
    assert ended.data["reason"] == back["reason"] and ended.data["candidate"] == "3"


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """A real one that scrapes nothing: it has constants to answer."""
    if shutil.which("prometheus") is None:
        missing("prometheus is missing: apt-get install prometheus")
    folder.mkdir()
    (folder / "prometheus.yml").write_text("global: {}\n")
    [address] = free_addresses(1)
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("value", "phase"), [("0.2", "promoted"), ("2", "rolled_back")])
def test_a_query_of_prometheus_holds_a_rollout_until_it_is_known_and_decides_it(tmp_path: Path, value: str, phase: str):
    with prometheus(tmp_path / "prometheus") as address:
        rule = {"metric": "prometheus", "address": address, "query": f"vector({value})", "max": "1"}
        models = fraud(1, 2, strategy="canary", steps=[{"weight": "50%", "hold": "100ms"}], analysis=[rule])
        with running(tmp_path / "gateway", "tract", {"samples": MODELS}, models) as gateway:
            told, _ = ask_until(gateway, lambda told: told["phase"] in ("promoted", "rolled_back"), rows=1)
            last = gateway.get("/models/fraud/events").json()["events"][-1]
    assert told["phase"] == phase, told
    [verdict] = [verdict for verdict in last["record"]["decision"]["verdicts"] if verdict["metric"] == "prometheus"]
    assert verdict["candidate"] == float(value) and f"`vector({value})` is {value}" in verdict["sentence"], verdict
