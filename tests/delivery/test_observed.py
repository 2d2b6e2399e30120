"""A real Prometheus scrapes a gateway under a small load: every query of the boards and every rule has what it asks for, and an
alert reaches its own team and nobody else."""

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import dashboards
from chart import CHART, ROOT, Loader, template, variables
from gateway import Gateway, http, loopback, running, wait_for
from observed import (
    SIMULATED,
    SIMULATED_MORE,
    Prometheus,
    Stub,
    alertmanager,
    prometheus,
)
from test_pod import ROW

RULES = [CHART / "rules/sre.yaml", CHART / "rules/ml.yaml"]


def configuration(store: Path) -> dict:
    """Something of everything that the boards draw: versions beside each other, a cache, models on demand that make room, a
    version that fails."""
    local = {"type": "directory", "path": str(store), "poll": "100ms", "settle": "100ms"}
    return {
        "registries": {"local": local},
        "batching": {"queue_timeout": "30s"},
        "models": [
            {"name": "fraud", "version": "2", "also": ["1"]},
            {"name": "diabetes", "cache": {"size": "1MiB"}},
            {"name": "digits", "residency": "on_demand"},
            {"name": "other", "residency": "on_demand"},
        ],
    }


def rollouts(folder: Path, hook: str) -> dict:
    """A canary that stable has to answer for, a shadow that disagrees, and a candidate that is taken out: a release of its own."""
    local = {"type": "directory", "path": str(folder / "rolling-models"), "poll": "100ms", "settle": "100ms"}

    def model(name: str, candidate: int, **rollout: object) -> dict:
        return {"name": name, "version": "1", "rollout": {"candidate": candidate, **rollout}}

    hour = [{"weight": "50%", "hold": "1h"}]
    half = [{"weight": "40%", "hold": "1s"}, {"weight": "50%", "pause": True}]
    return {
        "registries": {"local": local},
        "state": {"path": str(folder / "state.db")},
        "webhooks": [{"url": f"http://{hook}/events"}],
        "models": [
            model("canary", 2, strategy="canary", steps=half, fallback_after="0%"),
            model("shadow", 2, strategy="shadow", shadow={"share": "100%", "tolerance": "0%"}),
            model("taken", 3, strategy="canary", steps=half),
            model("drifts", 2, strategy="canary", steps=hour, analysis=[{"metric": "drift", "max": "100"}]),
        ],
    }


ROLLING = ("canary", "shadow", "taken", "drifts")


def shape(name: str) -> dict:
    """A row of a sample model: the example of its manifest."""
    manifest = yaml.safe_load((ROOT / f"models/{name}/1/model.yaml").read_text())
    return manifest["signature"]["example"]


def ask(gateway: Gateway) -> None:
    """Each model and each kind of outcome."""
    for _ in range(3):
        gateway.predict("fraud", ROW)
        gateway.predict("fraud@1", ROW)
        gateway.predict("diabetes", shape("diabetes"))
        gateway.predict("digits", shape("digits"))
        gateway.predict("other", shape("digits"))
    gateway.predict("fraud", {"amount": "much"})
    gateway.predict("nobody", ROW)


def ask_rolling(gateway: Gateway) -> None:
    """What nobody notices of a rollout: each is answered. On the second row versions 1 and 2 disagree."""
    for name in ROLLING * 4:
        for row in (ROW, ROW | {"merchant_risk": 0.99}):
            assert gateway.predict(name, row).status_code == 200


@contextlib.contextmanager
def background(gateway: Gateway, rolling: Gateway) -> Iterator[None]:
    """The load goes on while the queries are made."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.5):
            ask(gateway)
            ask_rolling(rolling)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def broken_version(gateway: Gateway, store: Path, file: Path, number: int) -> None:
    """A version that cannot be loaded is asked for beside the others."""
    (store / f"fraud/{number}").mkdir()
    (store / f"fraud/{number}/model.onnx").write_bytes(b"no model")
    config = yaml.safe_load((file / "sluicegate.yaml").read_text())
    config["models"][0]["also"] = ["1", str(number)]
    (file / "sluicegate.yaml").write_text(yaml.safe_dump(config))

    def failed() -> bool:
        [fraud] = [model for model in gateway.status()["models"] if model["name"] == "fraud"]
        return fraud["versions"].get(str(number), {}).get("state") == "failed"

    wait_for("a version that failed", failed)


@contextlib.contextmanager
def rolling_out(folder: Path, hook: Stub) -> Iterator[Gateway]:
    """A gateway whose rollouts are under way, but for the one that was taken back."""
    for name in ROLLING:
        shutil.copytree(ROOT / "models/fraud", folder / f"rolling-models/{name}")
    file = folder / "rolling"
    file.mkdir()
    (file / "sluicegate.yaml").write_text(yaml.safe_dump(rollouts(folder, hook.address)))
    with running(file, loopback(), variables(template().stdout)) as gateway:

        def phase(name: str) -> str:
            return http.get(gateway.url("ops", f"/models/{name}/rollout"), timeout=10).json()["phase"]

        yield gateway
        assert [phase(name) for name in ROLLING] == ["paused", "paused", "rolled_back", "running"]


def take_back(gateway: Gateway) -> None:
    """By hand, once its share was seen."""
    answer = http.post(gateway.url("ops", "/models/taken/rollout/rollback?by=ada"), timeout=10)
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Prometheus, Path]]:
    folder = tmp_path_factory.mktemp("observed")
    store, file = folder / "models", folder / "pod"
    shutil.copytree(ROOT / "models", store, ignore=shutil.ignore_patterns("*.py", "*.txt", "*.md"))
    # As large as each is said to be, one of the two on demand has room beside the others, and never both.
    (store / "digits/1/more.bin").write_bytes(bytes(8 << 20))
    shutil.copytree(store / "digits", store / "other")
    config = configuration(store)
    file.mkdir()
    (file / "sluicegate.yaml").write_text(yaml.safe_dump(config))
    settings = variables(template().stdout) | {"SLUICEGATE__MEMORY__BUDGET": "14MiB", "SLUICEGATE__MEMORY__WAIT": "10s"}
    kube, more, hook = Stub(SIMULATED), Stub(SIMULATED_MORE), Stub()
    with running(file, loopback(), settings) as gateway, rolling_out(folder, hook) as rolling:
        targets = {"gateway": f"{gateway.host}:{gateway.ports['ops']}", "more": more.address, "kube": kube.address}
        targets["rolling"] = f"{rolling.host}:{rolling.ports['ops']}"
        with prometheus(folder / "prometheus", targets, RULES) as server:
            ask(gateway)
            ask_rolling(rolling)
            wait_for("a first scrape", lambda: server.query('sluicegate_requests_total{model="fraud",code="ok"}'))
            wait_for("a share", lambda: server.query('sluicegate_rollout_share_ratio{model="taken"} > 0'))
            take_back(rolling)
            # A swap, and a change of the file that is refused, between two scrapes that both see the counters.
            text = (file / "sluicegate.yaml").read_text()
            for version in ("3", "1", "2"):
                config["models"][0] |= {"version": version}
                (file / "sluicegate.yaml").write_text(yaml.safe_dump(config))
                wait_for(
                    f"version {version}",
                    lambda version=version: gateway.predict("fraud", ROW).headers["x-model-version"] == version,
                )
                ask(gateway)
                time.sleep(1.2)
            (file / "sluicegate.yaml").write_text("models: 7\n")
            wait_for("a refusal", lambda: gateway.status()["config"]["state"] == "refused")
            (file / "sluicegate.yaml").write_text(text)
            broken_version(gateway, store, file, 9)
            ask(gateway)
            time.sleep(2)
            with background(gateway, rolling):
                yield gateway, server, store
            assert hook.posted, "no webhook was told of the rollouts"


def queries() -> list[tuple[str, str, str]]:
    return [
        (board.name, panel["title"], target["expr"])
        for board in dashboards.BOARDS
        for panel in dashboards.drawn(board)["panels"]
        for target in panel.get("targets", [])
    ]


def filled(expression: str) -> str:
    """What Grafana puts in place of its variables when everything is chosen."""
    for name, value in {"$__rate_interval": "30s", "$namespace": ".*", "$job": ".*", "$model": ".*"}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize(("board", "title", "expression"), queries(), ids=lambda value: value[:60])
def test_every_panel_has_data(board: str, title: str, expression: str, watched: tuple[Gateway, Prometheus, Path]) -> None:
    _, server, _ = watched
    found = wait_for(f"data of {title}", lambda: server.query(filled(expression)))
    assert all(value["value"][1] != "NaN" for value in found if title in ("Requests", "p99", "Failed"))


def test_annotations_have_data(watched: tuple[Gateway, Prometheus, Path]) -> None:
    """Swaps, decisions of rollouts, and rollbacks, each with whatever its text names."""
    for board in dashboards.BOARDS:
        made = dashboards.drawn(board)["annotations"]["list"]
        assert {each["name"] for each in made} == {"Swaps", "Rollouts", "Rollbacks"}
        for each in made:
            found = watched[1].query(filled(each["expr"]).replace("[1m]", "[5m]").replace("offset 1m", "offset 5m"))
            assert found, each["name"]
            assert all(set(re.findall(r"{{(\w+)}}", each["titleFormat"])) == set(one["metric"]) for one in found)


@pytest.mark.parametrize(
    "expression",
    [
        'sluicegate_rollout_phase{model="taken",phase="rolled_back"} == 1',
        'sluicegate_rollout_phase{model="canary",phase="paused"} == 1',
        'sluicegate_rollout_share_ratio{model="canary"} == 0.5',
        'sluicegate_rollout_differs{model="taken"} == 1',
        'sluicegate_fallbacks_total{model="canary"} > 0',
        'sluicegate_rollout_rule_value{model="drifts",rule="drift"} >= 0',
        'sluicegate_rollout_rule_state{model="canary",rule="split"} == 1',
        'sluicegate_variant_requests_total{model="canary",variant="candidate",outcome="failed"} > 0',
        'sluicegate_shadow_rows_total{model="shadow",outcome="disagreed"} > 0',
        'sluicegate_webhook_events_total{outcome="delivered"} > 0',
    ],
)
def test_what_the_panels_of_rollouts_show_has_happened(expression: str, watched: tuple[Gateway, Prometheus, Path]) -> None:
    wait_for(expression, lambda: watched[1].query(expression))


def selectors(expression: str) -> list[str]:
    """The series that an expression reads: its selectors, without the labels that only a failure has."""
    found = re.findall(r"((?:sluicegate|kube)_[a-z_]+|up)?(\{[^}]*\})", expression)
    cleaned = []
    for name, labels in found:
        labels = re.sub(r',?(?:code|outcome|reason)=~?"[^"]*"', "", labels)
        cleaned.append(name + labels.replace("{,", "{"))
    return cleaned


def rules() -> list[tuple[str, dict]]:
    groups = [group for path in RULES for group in yaml.load(path.read_text(), Loader=Loader)["groups"]]
    return [(rule.get("record") or rule["alert"], rule) for group in groups for rule in group["rules"]]


@pytest.mark.parametrize(("name", "rule"), rules(), ids=[name for name, _ in rules()])
def test_every_rule_reads_series_that_are_there(name: str, rule: dict, watched: tuple[Gateway, Prometheus, Path]) -> None:
    """A recording rule has a value; an alert parses, and each series that it looks at is there."""
    _, server, _ = watched
    server.query(rule["expr"])
    if "record" in rule and "failed" not in name:
        wait_for(f"a value of {name}", lambda: server.query(rule["expr"]))
    for selector in selectors(rule["expr"]):
        wait_for(f"{selector} of {name}", lambda selector=selector: server.query(selector))


def test_prometheus_evaluates_all_rules_without_an_error(watched: tuple[Gateway, Prometheus, Path]) -> None:
    _, server, _ = watched
    groups = http.get(f"{server.url}/api/v1/rules", timeout=10).json()["data"]["groups"]
    states = {rule["name"]: (rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"]}
    assert set(states) == {name for name, _ in rules()}
    assert {health for health, _ in states.values()} == {"ok"}, states


def test_keda_scales_by_a_query_that_has_an_answer(watched: tuple[Gateway, Prometheus, Path]) -> None:
    _, server, _ = watched
    assert server.query('sum(sluicegate_queue_rows{namespace="serving",job="sluicegate"})')


def test_flagger_judges_pods_by_a_query_that_has_an_answer(watched: tuple[Gateway, Prometheus, Path]) -> None:
    [metric] = [
        each for each in yaml.safe_load_all((ROOT / "docs/gitops/flagger.yaml").read_text()) if each["kind"] == "MetricTemplate"
    ]
    query = re.sub(r'pod=~"[^"]+"', 'pod=~"sluicegate-.+"', metric["spec"]["query"])
    for name, value in {"namespace": "serving", "interval": "1m"}.items():
        query = query.replace("{{ %s }}" % name, value)
    [found] = watched[1].query(query)
    assert 0 <= float(found["value"][1]) <= 100
    [nothing] = watched[1].query(query.replace('"serving"', '"elsewhere"'))
    assert float(nothing["value"][1]) == 0, "no traffic is no failure"


def routes(folder: Path, stubs: dict[str, Stub]) -> dict:
    """docs/gitops/alertmanager.yaml as it is, but for where the services are, the files of the keys, and the patience."""
    config = yaml.safe_load((ROOT / "docs/gitops/alertmanager.yaml").read_text())
    config["global"] |= {
        "pagerduty_url": f"http://{stubs['sre-page'].address}/v2/enqueue",
        "opsgenie_api_url": f"http://{stubs['ml-queue'].address}/",
    }
    config["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    for receiver in config["receivers"]:
        for kind, entries in receiver.items():
            if kind == "name":
                continue
            for entry in entries:
                for key in ("routing_key_file", "api_key_file"):
                    if key in entry:
                        secret = folder / Path(entry[key]).name
                        secret.write_text("secret")
                        entry[key] = str(secret)
                if "url" in entry:
                    entry["url"] = f"http://{stubs[receiver['name']].address}/"
    return config


def test_alertmanager_takes_the_routes() -> None:
    if shutil.which("amtool") is None:
        pytest.skip("amtool is missing: apt-get install prometheus-alertmanager")
    done = subprocess.run(["amtool", "check-config", ROOT / "docs/gitops/alertmanager.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for labels, receiver in {
        "team=sre severity=critical": "sre-page",
        "team=sre severity=warning": "sre-ticket",
        "team=ml severity=warning": "ml-queue",
        "team=ml severity=info": "ml-channel",
        "severity=critical": "unrouted",
    }.items():
        command = ["amtool", "config", "routes", "test", f"--config.file={ROOT}/docs/gitops/alertmanager.yaml", *labels.split()]
        assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == receiver


def test_each_alert_reaches_its_own_team_and_nobody_else(tmp_path: Path, watched: tuple[Gateway, Prometheus, Path]) -> None:
    """A version that cannot be loaded, for ML, and a container that starts again and again, for SRE: by the real rules, a real
    Prometheus and a real Alertmanager; PagerDuty, Opsgenie and the webhooks are stubs."""
    gateway, _, store = watched
    stubs = {name: Stub() for name in ("sre-page", "sre-ticket", "ml-queue", "ml-channel")}
    kube = Stub(SIMULATED)
    wanted = {"SluicegateCrashLooping", "SluicegateLoadFailed"}
    kept = []
    for path in RULES:
        groups = yaml.load(path.read_text(), Loader=Loader)["groups"]
        for group in groups:
            group["rules"] = [rule for rule in group["rules"] if rule.get("alert") in wanted]
        kept.append(tmp_path / path.name)
        kept[-1].write_text(yaml.safe_dump({"groups": [group for group in groups if group["rules"]]}))
    with alertmanager(tmp_path / "alertmanager", routes(tmp_path, stubs)) as manager:
        targets = {"gateway": f"{gateway.host}:{gateway.ports['ops']}", "kube": kube.address}
        with prometheus(tmp_path / "prometheus", targets, kept, manager) as server:
            wait_for("a first scrape", lambda: server.query("kube_pod_container_status_restarts_total"))
            broken_version(gateway, store, store.parent / "pod", 10)
            restarts = "kube_pod_container_status_restarts_total"
            for count in (1, 2, 3, 4, 5):
                kube.text = re.sub(rf"({restarts}.*) \d+", rf"\1 {count}", SIMULATED)
                time.sleep(1.2)
            wait_for("both alerts", lambda: server.firing() >= wanted)
            wait_for("the page", lambda: bool(stubs["sre-page"].posted))
            wait_for("the queue", lambda: bool(stubs["ml-queue"].posted))
            time.sleep(2)
    path, page = stubs["sre-page"].posted[0]
    assert path == "/v2/enqueue" and page["routing_key"] == "secret" and page["event_action"] == "trigger"
    assert page["payload"]["severity"] == "critical"
    assert page["payload"]["summary"].startswith("A gateway starts again and again (serving/")
    assert page["links"] == [{"href": "https://example.com/sluicegate/docs/runbooks/crash-looping.md", "text": "Runbook"}]
    path, ticket = stubs["ml-queue"].posted[0]
    assert path == "/v2/alerts" and ticket["message"] == "A version of fraud cannot be served"
    assert ticket["responders"] == [{"name": "ml", "type": "team"}] and ticket["priority"] == "P3"
    said = {name: json.dumps(stub.posted) for name, stub in stubs.items()}
    assert "LoadFailed" not in said["sre-page"] and "cannot be served" not in said["sre-page"]
    assert "starts again" not in said["ml-queue"]
    assert stubs["sre-ticket"].posted == [] and stubs["ml-channel"].posted == []
