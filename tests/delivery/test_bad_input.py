"""The same mistake is refused before it is merged (`helm template`), before it is mounted (`sluicegate check`), and by the
running gateway, which goes on with what it had. `check` and the gateway say the same sentence; Helm's names the same key."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from chart import ROOT, find, template, variables
from gateway import Gateway, check, loopback, running, wait_for
from kubelet import Volume
from test_pod import ROW

GOOD = {
    "registries": {"local": {"type": "directory", "path": str(ROOT / "models")}},
    "models": [{"name": "fraud", "version": "2"}],
}

# What is wrong, the models or sections with it, the key that all three name, and whether Helm says the gateway's own sentence.
MISTAKES: list[tuple[str, dict, str, bool]] = [
    ("two models of one name", {"models": [{"name": "fraud"}, {"name": "fraud"}]}, "`fraud` is listed twice", True),
    ("an unknown key", {"models": [{"name": "fraud", "versoin": "2"}]}, "versoin", False),
    ("an unknown section", {"batchin": {}}, "batchin", False),
    ("no name", {"models": [{"version": "2"}]}, "name", False),
    ("a wrong duration", {"batching": {"queue_timeout": "10 seconds"}}, "queue_timeout", False),
    ("a number without its unit", {"batching": {"max_delay": "2"}}, "max_delay", False),
    ("a number out of its bounds", {"batching": {"max_rows": 0}}, "max_rows", False),
    ("a word that is none", {"models": [{"name": "fraud", "residency": "sometimes"}]}, "residency", False),
    ("a registry that is not there", {"models": [{"name": "fraud", "registry": "prod"}]}, "no registry is called `prod`", True),
    ("a registry of no kind", {"registries": {"local": {"type": "ftp", "path": "/models"}}}, "type", False),
    ("a cache without its size", {"models": [{"name": "fraud", "cache": {}}]}, "size", False),
]

ids = [mistake[0] for mistake in MISTAKES]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Volume]]:
    """One gateway, whose ConfigMap gets every mistake in turn."""
    volume = Volume(tmp_path_factory.mktemp("bad") / "pod", {"sluicegate.yaml": yaml.safe_dump(GOOD)})
    with running(volume.folder, loopback(), variables(template().stdout)) as gateway:
        yield gateway, volume


@pytest.mark.parametrize(("mistake", "key", "same"), [mistake[1:] for mistake in MISTAKES], ids=ids)
def test_a_mistake_is_refused_three_times(
    mistake: dict, key: str, same: bool, lived: tuple[Gateway, Volume], tmp_path: Path
) -> None:
    gateway, volume = lived
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(GOOD | mistake))
    of_helm = template("--values", values)
    assert of_helm.returncode != 0
    assert key in of_helm.stderr

    text = yaml.safe_dump(GOOD | mistake)
    of_check = check(text, {})
    assert of_check.returncode == 1
    assert key in of_check.stdout

    volume.update({"sluicegate.yaml": text})
    state = wait_for("a refusal", lambda: (now := gateway.status()["config"])["state"] == "refused" and key in str(now) and now)
    assert gateway.predict("fraud", ROW).headers["x-model-version"] == "2", "what runs goes on"
    # The same sentences; the file is called by another path.
    place = "sluicegate.yaml:"
    said = [line.partition(place)[2] for line in of_check.stdout.splitlines() if place in line]
    assert said and [error.partition(place)[2] for error in state["errors"]] == said
    if same:
        assert key in of_helm.stderr
    else:
        assert "at '" in of_helm.stderr, "the schema's sentence, with the path of the key"


def test_what_is_right_again_is_applied(lived: tuple[Gateway, Volume]) -> None:
    gateway, volume = lived
    volume.update({"sluicegate.yaml": yaml.safe_dump(GOOD | {"models": [{"name": "fraud", "version": "1"}]})})
    wait_for("version 1", lambda: gateway.predict("fraud", ROW).headers["x-model-version"] == "1")
    assert gateway.status()["config"]["state"] == "applied"


def test_a_static_mistake_ends_the_new_pod_and_is_refused_by_the_schema(tmp_path: Path) -> None:
    """`config` becomes variables: the gateway names the variable, Helm the key."""
    wrong = 'config={"shutdown":{"grace":"25 parsecs"}}'
    of_helm = template("--set-json", wrong)
    assert of_helm.returncode != 0 and "/config/shutdown/grace" in of_helm.stderr
    of_check = check(yaml.safe_dump(GOOD), {"SLUICEGATE__SHUTDOWN__GRACE": "25 parsecs"})
    assert of_check.returncode == 1
    assert "SLUICEGATE__SHUTDOWN__GRACE" in of_check.stdout
    assert find(template().stdout, "ConfigMap", "demo-sluicegate")["data"]["SLUICEGATE__SHUTDOWN__GRACE"] == "25s"


def test_no_models_at_all_is_refused_before_it_is_installed(tmp_path: Path, address: Callable[[], str]) -> None:
    """The gateway takes `models: []` and never gets ready; an empty registry it refuses by itself."""
    of_helm = template("--set-json", "models=[]")
    assert of_helm.returncode != 0 and "/models" in of_helm.stderr
    empty = {"registries": {"local": {"type": "directory", "path": str(tmp_path)}}}
    of_check = check(yaml.safe_dump(empty), {})
    assert of_check.returncode == 1 and "no model found" in of_check.stdout
