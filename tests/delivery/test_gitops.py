"""docs/gitops: what is written there is taken by those that it is for."""

import itertools
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import hcl2
import pytest
import yaml

from chart import (
    KUBERNETES,
    ROOT,
    Loader,
    find,
    hold_to_schema,
    objects,
    served_file,
    template,
    variables,
)
from gateway import check, running
from kubelet import Volume
from test_pod import run_script

GITOPS = ROOT / "docs/gitops"
ENVIRONMENTS = ["dev", "staging", "prod"]


def environment(name: str) -> str:
    base = GITOPS / "environments"
    done = template("--values", base / "base.yaml", "--values", base / f"{name}.yaml")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_is_rendered_and_checked(name: str) -> None:
    text = environment(name)
    for thing in objects(text):
        hold_to_schema(thing, KUBERNETES[0])
    done = check(served_file(text), variables(text) | {"SLUICEGATE__REGISTRIES__LOCAL__PATH": str(ROOT / "models")})
    assert done.returncode == 0, done.stdout


def test_promotion_changes_one_configmap_and_the_job_that_waits_for_it(tmp_path: Path) -> None:
    before = (GITOPS / "environments/prod.yaml").read_text()
    after = before.replace('version: "2", aliases: { stable: "2" }', 'version: "3", aliases: { stable: "3" }')
    assert after != before
    (tmp_path / "prod.yaml").write_text(after)
    done = template("--values", GITOPS / "environments/base.yaml", "--values", tmp_path / "prod.yaml")
    pairs = zip(objects(environment("prod")), objects(done.stdout), strict=True)
    changed = [(new["kind"], new["metadata"]["name"]) for old, new in pairs if old != new]
    assert sorted(changed) == [("ConfigMap", "demo-sluicegate-models"), ("Job", "demo-sluicegate-models-live")]


@pytest.mark.parametrize("file", ["argocd/application.yaml", "flux/release.yaml", "kserve.yaml"])
def test_objects_are_as_their_definitions_say(file: str) -> None:
    things = objects((GITOPS / file).read_text())
    assert things
    for thing in things:
        hold_to_schema(thing, KUBERNETES[0])


def test_what_they_name_is_there() -> None:
    [generated] = objects((GITOPS / "argocd/application.yaml").read_text())
    elements = generated["spec"]["generators"][0]["list"]["elements"]
    assert [element["environment"] for element in elements] == ENVIRONMENTS
    source = generated["spec"]["template"]["spec"]["source"]
    for name, file in itertools.product(ENVIRONMENTS, source["helm"]["valueFiles"]):
        assert (ROOT / source["path"] / file.replace("{{ .environment }}", name)).is_file()
    [release] = [thing for thing in objects((GITOPS / "flux/release.yaml").read_text()) if thing["kind"] == "HelmRelease"]
    chart = release["spec"]["chart"]["spec"]
    assert (ROOT / chart["chart"]).is_dir() and all((ROOT / file).is_file() for file in chart["valuesFiles"])
    ignored = release["spec"]["driftDetection"]["ignore"][0]["paths"]
    assert ignored == generated["spec"]["template"]["spec"]["ignoreDifferences"][0]["jsonPointers"] == ["/spec/replicas"]


@pytest.fixture
def job(tmp_path: Path, address: Callable[[], str]) -> Callable[[str, int | None], int | None]:
    """Runs the commands of the PostSync Job of `prod` while a pod serves this version of fraud; its exit code, or None where it
    still waits after some seconds."""

    def run(version: str, wrong: int | None = None) -> int | None:
        text = environment("prod")
        script = find(text, "Job")["spec"]["template"]["spec"]["containers"][0]["args"][0]
        file = yaml.safe_load(served_file(text))
        file["registries"]["local"]["path"] = str(ROOT / "models")
        file["models"][0] |= {"version": version, "aliases": {}}
        volume = Volume(tmp_path / f"pod-{version}-{wrong}", {"sluicegate.yaml": yaml.safe_dump(file)})
        with running(volume.folder, address(), variables(text)) as gateway:
            if wrong is not None:
                volume.update({"sluicegate.yaml": "models: 7\n"})
            try:
                return run_script(script, gateway, tmp_path / "home", timeout=8).returncode
            except subprocess.TimeoutExpired:
                return None

    return run


def test_a_sync_ends_well_when_the_models_of_git_are_live(job: Callable) -> None:
    assert job("2") == 0


def test_a_sync_waits_while_another_version_answers(job: Callable) -> None:
    assert job("1") is None


def test_a_sync_fails_when_the_file_is_refused(job: Callable) -> None:
    assert job("1", 1) == 1


def test_servers_of_others_start_the_gateway_as_it_can_be_started(tmp_path: Path) -> None:
    """The arguments of KServe's runtime and Seldon's container are the program's own, and their probes lead to its ports."""
    [runtime] = [thing for thing in objects((GITOPS / "kserve.yaml").read_text()) if thing["kind"] == "ClusterServingRuntime"]
    [seldon] = objects((GITOPS / "seldon.yaml").read_text())
    containers = [
        runtime["spec"]["containers"][0],
        seldon["spec"]["predictors"][0]["componentSpecs"][0]["spec"]["containers"][0],
    ]
    for container in containers:
        command, *flags = container["args"]
        said = dict(zip(flags[::2], flags[1::2], strict=True))
        assert command == "serve" and set(said) == {"--models", "--http", "--grpc", "--ops"}
        ports = {int(said[flag].rpartition(":")[2]) for flag in ("--http", "--grpc", "--ops")}
        assert len(ports) == 3
        assert {port["containerPort"] for port in container["ports"]} <= ports
        assert container["readinessProbe"]["httpGet"]["port"] == int(said["--http"].rpartition(":")[2])
        assert container["livenessProbe"]["httpGet"]["port"] == int(said["--ops"].rpartition(":")[2])


def test_terraform_parses_and_uses_what_it_declares() -> None:
    text = ""
    for file in sorted((GITOPS / "terraform").glob("*.tf")):
        with file.open() as opened:
            assert hcl2.load(opened)
        text += file.read_text()
    declared = {line.split('"')[1] for line in text.splitlines() if line.startswith("variable ")}
    assert declared and all(f"var.{name}" in text for name in declared)
    used = {word.split("var.")[1] for word in re.findall(r"\bvar\.[a-z_]+", text)}
    assert used == declared


def test_every_file_of_gitops_is_told_of() -> None:
    readme = (GITOPS / "README.md").read_text()
    for path in GITOPS.iterdir():
        assert path.name == "README.md" or path.name in readme
    assert yaml.load((GITOPS / "alertmanager.yaml").read_text(), Loader=Loader)
