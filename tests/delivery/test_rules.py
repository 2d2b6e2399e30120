"""The alerts: each fires on its series and stays silent on a neighbour, belongs to one team, and has a runbook."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import boards
import chart
import dashboards
from alerts import CASES
from chart import CHART, HERE, ROOT, Loader, find, missing, rendered

RULES = [CHART / "rules/sre.yaml", CHART / "rules/ml.yaml"]
TEXTS = [path.read_text() for path in RULES]
GROUPS = [group for text in TEXTS for group in yaml.load(text, Loader=Loader)["groups"]]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}


def promtool(*arguments: object, cwd: Path | None = None) -> None:
    if shutil.which("promtool") is None:
        missing("promtool is missing: apt-get install prometheus")
    done = subprocess.run(["promtool", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", *RULES)


@pytest.mark.parametrize("values", ["prod", "everything"])
def test_prometheus_takes_what_the_chart_makes_of_them(values: str, tmp_path: Path) -> None:
    text = rendered(HERE / "values" / f"{values}.yaml")
    made = tmp_path / "rules.yaml"
    groups = find(text, "PrometheusRule")["spec"]["groups"]
    made.write_text(yaml.safe_dump({"groups": groups}, width=10_000))
    promtool("check", "rules", made)
    said = made.read_text()
    for left in ('job="sluicegate"', 'pod=~"sluicegate-.+"', "(1 - 0.9"):
        assert left not in said
    if values == "everything":
        assert 'le="0.1"' in said and 'le="0.25"' not in said and "14.4 * 0.005" in said
        assert "https://wiki.example.com/runbooks/down.md" in said and "example.com/sluicegate" not in said
        assert "SluicegateEngineFallback" not in said
        assert groups[-1] == {"name": "own", "rules": [{"record": "own", "expr": "1"}]}
    else:
        assert 'job="demo-sluicegate-ops"' in said and 'pod=~"demo-sluicegate-.+"' in said


@pytest.fixture(scope="module")
def unit_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of promtool's unit tests for each alert."""
    folder = tmp_path_factory.mktemp("rules")
    for path in RULES:
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_on_its_series_and_is_silent_on_a_neighbour(name: str, unit_tests: Path) -> None:
    case = CASES[name]
    firing = f'count by (alertname) (ALERTS{{alertname="{name}",alertstate="firing"}})'

    def of(series: dict[str, str], samples: list[dict]) -> dict:
        inputs = [{"series": key, "values": values} for key, values in series.items()]
        expected = {"expr": firing, "eval_time": case.at, "exp_samples": samples}
        return {"interval": case.every, "input_series": inputs, "promql_expr_test": [expected]}

    fires = [{"labels": f'{{alertname="{name}"}}', "value": 1}]
    file = unit_tests / f"{name}.yaml"
    tests = [of(case.fires, fires), of(case.silent, [])]
    file.write_text(yaml.safe_dump({"rule_files": ["sre.yaml", "ml.yaml"], "evaluation_interval": case.every, "tests": tests}))
    promtool("test", "rules", file, cwd=unit_tests)


def test_every_alert_is_written_for_whoever_it_wakes() -> None:
    for name, rule in ALERTS.items():
        assert name.startswith("Sluicegate")
        assert set(rule["labels"]) == {"severity", "team"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        runbook = rule["annotations"]["runbook_url"].rpartition("/")[2]
        text = (ROOT / "docs/runbooks" / runbook).read_text()
        assert f"`{name}`" in text, f"docs/runbooks/{runbook} does not name {name}"
    teams = {
        rule["labels"]["team"]
        for group in yaml.load(TEXTS[0], Loader=Loader)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert teams == {"sre"}
    assert {rule["labels"]["team"] for rule in ALERTS.values()} == {"sre", "ml"}
    assert not [rule for rule in ALERTS.values() if rule["labels"] == {"severity": "critical", "team": "ml"}], (
        "a model wakes nobody"
    )


def test_every_runbook_belongs_to_an_alert() -> None:
    runbooks = {path.name for path in (ROOT / "docs/runbooks").glob("*.md")} - {"README.md"}
    assert runbooks == {rule["annotations"]["runbook_url"].rpartition("/")[2] for rule in ALERTS.values()}


def test_the_error_budget_counts_every_code_that_is_not_the_callers_fault() -> None:
    text = (ROOT / "crates/core/src/error.rs").read_text()
    codes = dict(re.findall(r'^    [A-Z]\w+ "(\w+)" (\w+) "', text, re.MULTILINE))
    assert len(codes) > 30
    faults = {code for code, fault in codes.items() if fault != "Caller"}
    for said in re.findall(r'code=~"([^"]+)"', TEXTS[0]) + [boards.FAULTS]:
        if "internal" in said:
            assert set(said.split("|")) == faults
    for said in re.findall(r'code=~"([^"]+)"', TEXTS[1]) + [boards.INVALID]:
        assert set(said.split("|")) <= set(codes)


def known_metrics() -> set[str]:
    """The series that docs/metrics.md promises, and those of kube-state-metrics and Prometheus that the rules use."""
    rows = re.findall(r"^\| `(sluicegate_\w+)` \| (\w+) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    names = {name for name, kind in rows if kind != "histogram"}
    for name, kind in rows:
        if kind == "histogram":
            names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    kube = {"restarts_total", "last_terminated_reason"}
    return names | {"up", "kube_pod_container_resource_limits"} | {f"kube_pod_container_status_{name}" for name in kube}


def test_rules_and_boards_use_metrics_that_are_there() -> None:
    words = re.compile(r"\b(?:sluicegate|kube)_[a-z_]+\b")
    texts = [rule["expr"] for group in GROUPS for rule in group["rules"]]
    texts += [
        target["expr"]
        for board in dashboards.BOARDS
        for panel in dashboards.drawn(board)["panels"]
        for target in panel.get("targets", [])
    ]
    for text in texts:
        text = re.sub(r'__name__=~"[^"]+"', "", text)
        assert set(words.findall(text)) <= known_metrics(), text


def test_boards_are_fresh() -> None:
    for board in dashboards.BOARDS:
        written = json.loads((CHART / f"dashboards/{board.name}.json").read_text())
        assert written == json.loads(json.dumps(dashboards.drawn(board))), "run `make chart`"


def test_the_chart_hands_the_boards_to_grafana_as_they_are() -> None:
    text = rendered(HERE / "values/everything.yaml")
    for board in dashboards.BOARDS:
        made = find(text, "ConfigMap", f"demo-sluicegate-{board.name}-board")
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert made["data"][f"{board.name}.json"].strip() == (chart.CHART / f"dashboards/{board.name}.json").read_text().strip()
