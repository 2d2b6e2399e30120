"""docs/gitops: what is written there is taken by those that it is for."""

import itertools
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hcl2
import pytest
import yaml

from chart import (
    KUBERNETES,
    ROOT,
    Loader,
    definition,
    find,
    hold_to_schema,
    objects,
    served_file,
    template,
    variables,
)
from gateway import Gateway, binary, check, http, running, wait_for
from kubelet import Volume
from postgres import postgres
from test_pod import run_script

GITOPS = ROOT / "docs/gitops"
ENVIRONMENTS = ["dev", "staging", "prod"]


def environment(name: str, *more: object) -> str:
    """`canary` is prod's with the canary behind it."""
    base = GITOPS / "environments"
    own = [base / "prod.yaml", GITOPS / "canary.yaml"] if name == "canary" else [base / f"{name}.yaml"]
    files = (part for file in (base / "base.yaml", *own) for part in ("--values", file))
    done = template(*files, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [*ENVIRONMENTS, "canary"])
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


@pytest.mark.parametrize(
    "file", ["argocd/application.yaml", "argo-rollouts.yaml", "flagger.yaml", "flux/release.yaml", "kserve.yaml"]
)
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


def taken_up(text: str) -> str:
    """The script that waits until the gateway has what Git says."""
    [container] = find(text, "Job")["spec"]["template"]["spec"]["initContainers"]
    return container["args"][0]


@pytest.fixture
def job(tmp_path: Path, address: Callable[[], str]) -> Callable[[str, int | None], int | None]:
    """Runs the commands of the PostSync Job of `prod` while a pod serves this version of fraud; its exit code, or None where it
    still waits after some seconds."""

    def run(version: str, wrong: int | None = None) -> int | None:
        text = environment("prod")
        script = taken_up(text)
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


@dataclass
class Synced:
    """The PostSync Job of a canary, run against a gateway: exit codes, `None` where it still waits after some seconds."""

    taken_up: int | None
    ended: int | None = None
    said: str = ""


@pytest.fixture
def canary(tmp_path: Path, address: Callable[[], str]) -> Callable[[dict | None, str | None], Synced]:
    """A gateway that serves the canary's file with these keys of its rollout, or without a rollout; the state is in memory."""

    def run(rollout: dict | None, command: str | None = None) -> Synced:
        text = environment("canary")
        file = yaml.safe_load(served_file(text))
        file["registries"]["local"]["path"] = str(ROOT / "models")
        del file["state"], file["webhooks"]
        declared = file["models"][0].pop("rollout")
        if rollout is not None:
            file["models"][0]["rollout"] = declared | {"analysis": []} | rollout
        volume = Volume(tmp_path / "pod", {"sluicegate.yaml": yaml.safe_dump(file)})
        [container] = find(text, "Job")["spec"]["template"]["spec"]["containers"]
        with running(volume.folder, address(), variables(text)) as gateway:
            if command:
                path = gateway.url("ops", "/models/fraud/rollout")
                wait_for("both versions", lambda: http.get(path, timeout=10).json()["ready"])
                assert http.post(f"{path}/{command}", timeout=10).status_code == 200
            try:
                seen = run_script(taken_up(text), gateway, tmp_path / "home", timeout=8).returncode
            except subprocess.TimeoutExpired:
                return Synced(None)
            leads = {"14400": "4", "http://demo-sluicegate-ops:8082": gateway.url("ops", "")}
            arguments = [leads.get(argument, argument) for argument in container["args"]]
            assert set(leads.values()) <= set(arguments)
            done = subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=60)
            return Synced(seen, done.returncode, done.stdout + done.stderr)

    return run


def test_a_sync_ends_well_when_the_candidate_is_promoted(canary: Callable) -> None:
    synced = canary({"steps": [{"weight": "50%"}, {"weight": "100%"}]})
    assert (synced.taken_up, synced.ended) == (0, 0), synced.said
    assert "promoted" in synced.said


def test_a_sync_fails_when_the_candidate_is_rolled_back(canary: Callable) -> None:
    synced = canary({}, "rollback")
    assert (synced.taken_up, synced.ended) == (1, 1) and "rolled_back" in synced.said, synced.said


def test_a_sync_waits_for_a_rollout_under_way_and_fails_at_its_end(canary: Callable) -> None:
    synced = canary({})
    assert (synced.taken_up, synced.ended) == (0, 1) and "not every model is ready with its rollout at its end" in synced.said


def test_a_sync_waits_until_the_gateway_has_the_rollout(canary: Callable) -> None:
    assert canary(None).taken_up is None


def test_two_pods_of_the_canary_decide_together_by_their_database(tmp_path: Path, address: Callable[[], str]) -> None:
    """As the example declares it; the Secret is a file beside them, and nobody is told."""
    text = environment("canary")
    container = find(text, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "state"]
    secret = tmp_path / "secret"
    secret.mkdir()
    file = yaml.safe_load(served_file(text))
    file["registries"]["local"]["path"] = str(ROOT / "models")
    file["state"] = {name: said.replace(mount["mountPath"], str(secret)) for name, said in file["state"].items()}
    del file["webhooks"]
    volume = Volume(tmp_path / "pod", {"sluicegate.yaml": yaml.safe_dump(file)})

    def told(gateway: Gateway, what: str) -> dict:
        return http.get(gateway.url("ops", f"/models/fraud/{what}"), timeout=10).json()

    with postgres() as url:
        (secret / "url").write_text(url)
        with running(volume.folder, address(), variables(text)) as one, running(volume.folder, address(), variables(text)) as other:
            for each in (one, other):
                wait_for("a share", lambda each=each: told(each, "rollout")["share"] == "5%")
            back = http.post(one.url("ops", "/models/fraud/rollout/rollback?by=ada"), timeout=10)
            assert back.status_code == 200, back.text
            wait_for("the other one to follow", lambda: told(other, "rollout")["phase"] == "rolled_back")
            said = [[(event["id"], event["kind"]) for event in told(each, "events")["events"]] for each in (one, other)]
            assert said[0] == said[1] and [kind for _, kind in said[0]] == ["rollout.started", "rollout.rolled_back"]


@pytest.mark.parametrize(
    ("rollout", "waits"),
    [
        ('{"strategy":"canary","candidate":3,"steps":[{"weight":"5%"}]}', True),
        ('{"strategy":"canary","candidate":3,"steps":[{"weight":"5%"}],"shadow":{"share":"10%","hold":"5m"}}', True),
        ('{"strategy":"replace","candidate":3}', True),
        ('{"strategy":"canary","candidate":3,"steps":[{"weight":"5%","pause":true},{"weight":"100%"}]}', False),
        ('{"strategy":"canary","candidate":3,"steps":[{"weight":"5%"}],"shadow":{"share":"10%"}}', False),
        ('{"strategy":"shadow","candidate":3,"shadow":{"share":"10%"}}', False),
        ('{"strategy":"blue_green","candidate":3}', False),
    ],
)
def test_a_sync_waits_for_the_end_of_what_ends_by_itself_alone(rollout: str, waits: bool) -> None:
    text = environment("prod", "--set-json", f'models=[{{"name":"fraud","version":2,"rollout":{rollout}}}]')
    job = find(text, "Job")["spec"]
    [container] = job["template"]["spec"]["containers"]
    assert ("--wait" in container["args"]) == waits
    assert job["activeDeadlineSeconds"] == (15000 if waits else 600)
    assert '"stable":"2"' in taken_up(text) and '"candidate":"3"' in taken_up(text)


@pytest.fixture
def paused(tmp_path: Path, address: Callable[[], str]) -> Iterator[Gateway]:
    """A gateway whose canary has begun and waits for a person."""
    rollout = {"strategy": "canary", "candidate": 3, "steps": [{"weight": "50%", "pause": True}]}
    file = {
        "registries": {"local": {"type": "directory", "path": str(ROOT / "models")}},
        "models": [{"name": "fraud", "version": "2", "rollout": rollout}],
    }
    volume = Volume(tmp_path / "pod", {"sluicegate.yaml": yaml.safe_dump(file)})
    with running(volume.folder, address(), variables(environment("dev"))) as gateway:
        path = gateway.url("ops", "/models/fraud/rollout")
        wait_for("a pause", lambda: http.get(path, timeout=10).json()["phase"] == "paused")
        yield gateway


def test_argo_rollouts_asks_for_what_the_gateway_answers(paused: Gateway) -> None:
    [template] = [each for each in objects((GITOPS / "argo-rollouts.yaml").read_text()) if each["kind"] == "AnalysisTemplate"]
    [metric] = template["spec"]["metrics"]
    web = metric["provider"]["web"]
    url = web["url"].replace("{{args.ops}}", paused.url("ops", "")).replace("{{args.model}}", "fraud")
    assert web["jsonPath"] == "{$.data}"
    data = http.get(url, timeout=10).json()["data"]
    asked = re.findall(r"result\.(\w+)", metric["successCondition"] + metric["failureCondition"])
    assert {name: type(data[name]) for name in asked} == {"ok": bool, "n": int, "verdict": str}
    assert data["verdict"] in ("pass", "fail", "inconclusive") and data["ok"] == (data["verdict"] == "pass")
    address = next(each["value"] for each in template["spec"]["args"] if each["name"] == "ops")
    assert address == "http://sluicegate-ops.serving:8082"


def test_flagger_is_answered_at_each_of_its_webhooks(paused: Gateway) -> None:
    """By the definitions' own list of types; a rollout that waits keeps another one from beginning."""
    [canary] = [each for each in objects((GITOPS / "flagger.yaml").read_text()) if each["kind"] == "Canary"]
    answers = {}
    for hook in canary["spec"]["analysis"]["webhooks"]:
        assert hook["url"].endswith(f":8082/hooks/flagger/{hook['type']}")
        body = {"name": "sluicegate", "namespace": "serving", "phase": "Progressing", "checksum": "1"}
        body |= {"metadata": hook["metadata"]} if "metadata" in hook else {}
        answers[hook["type"]] = http.post(paused.url("ops", hook["url"].partition(":8082")[2]), json=body, timeout=10).status_code
    known = definition("flagger.app/v1beta1", "Canary")["properties"]["spec"]["properties"]["analysis"]["properties"]["webhooks"]
    assert set(answers) == set(known["items"]["properties"]["type"]["enum"]) - {""}
    assert {kind for kind, status in answers.items() if status == 409} == {"confirm-rollout", "rollback"}
    assert set(answers.values()) == {200, 409}


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
