"""The pod of the chart, lived by processes: its file is changed as the kubelet does it, it ends as the kubelet ends it, and the
commands of `helm test` are run against it."""

import json
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from chart import HERE, ROOT, find, objects, rendered, served_file, template, variables
from gateway import Gateway, http, running, wait_for
from kubelet import Volume
from load import Load

ROW = {
    "amount": 36.96,
    "hour": 13,
    "merchant_risk": 0.587,
    "distance_km": 465.8,
    "transactions_last_day": 7,
    "account_age_days": 959,
    "is_foreign": 1,
    "chip_used": 0,
}


def release(*settings: str) -> str:
    """The chart with the sample models as its store."""
    store = f'registries.local={{"type":"directory","path":"{ROOT}/models","poll":"100ms","settle":"100ms"}}'
    done = template(*(part for setting in (store, *settings) for part in ("--set-json", setting)))
    assert done.returncode == 0, done.stderr
    return done.stdout


def mounted(text: str) -> dict[str, str]:
    """The data of the ConfigMap that is mounted."""
    return find(text, "ConfigMap", "demo-sluicegate-models")["data"]


def reference(gateway: Gateway, version: str) -> dict:
    answer = http.post(gateway.url("http", f"/models/fraud@{version}/predict"), json=ROW, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def flip(tmp_path: Path, address: Callable[[], str], flips: int, pods: int) -> None:
    """Changes `models[0].version` in Git again and again; each change is brought to each pod, under load."""
    both = 'models=[{"name":"fraud","version":"%s","also":["1","2"]}]'
    maps = {version: mounted(release(both % version)) for version in ("1", "2")}
    text = release(both % "1")
    with ExitStack() as stack:
        volumes = [Volume(tmp_path / f"pod-{pod}", maps["1"]) for pod in range(pods)]
        gateways = [stack.enter_context(running(volume.folder, address(), variables(text))) for volume in volumes]
        born = [gateway.process.pid for gateway in gateways]
        expected = {version: reference(gateways[0], version) for version in ("1", "2")}
        assert expected["1"] != expected["2"]
        loads = [
            stack.enter_context(Load(each.url("http", "/models/fraud/predict"), ROW, expected, callers=2)) for each in gateways
        ]

        def answers(version: str) -> bool:
            served = [each.predict("fraud", ROW).headers["x-model-version"] for each in gateways]
            return set(served) == {version}

        for number in range(flips):
            version = "2" if number % 2 == 0 else "1"
            for volume in volumes:
                volume.update(maps[version])
            wait_for(f"version {version} to answer", lambda version=version: answers(version))
        for load in loads:
            load.stop()
        for gateway, load, pid in zip(gateways, loads, born, strict=True):
            assert load.lost == [], f"{len(load.lost)} of {load.answers.total()} lost"
            assert min(load.answers["1"], load.answers["2"]) > flips
            assert gateway.process.poll() is None and gateway.process.pid == pid
            said = gateway.metrics()
            assert f'sluicegate_config_reloads_total{{outcome="applied"}} {flips}' in said
            assert f'sluicegate_swaps_total{{model="fraud"}} {flips}' in said


def test_models_flip_in_running_pods_with_nothing_lost_and_no_restart(tmp_path: Path, address: Callable[[], str]) -> None:
    """50 swaps: 25 changes of the ConfigMap, in two pods each. `soak` makes 500."""
    flip(tmp_path, address, flips=25, pods=2)


@pytest.mark.soak
def test_models_flip_500_times(tmp_path: Path, address: Callable[[], str]) -> None:
    flip(tmp_path, address, flips=250, pods=2)


def test_what_the_kubelet_did_not_finish_is_not_read(tmp_path: Path, address: Callable[[], str]) -> None:
    one, other = (mounted(release(f'models=[{{"name":"fraud","version":"{version}"}}]')) for version in ("1", "2"))
    volume = Volume(tmp_path / "pod", one)
    with running(volume.folder, address(), variables(release())) as gateway:
        volume.half_written(other)
        time.sleep(2.5)  # two looks and a half
        assert gateway.status()["config"]["state"] == "applied"
        assert gateway.predict("fraud", ROW).headers["x-model-version"] == "1"
        volume.update(other)
        wait_for("the whole file", lambda: gateway.predict("fraud", ROW).headers["x-model-version"] == "2")


def told(gateway: Gateway, what: str) -> dict:
    """What is told of fraud's rollout, at the address for operators."""
    return http.get(gateway.url("ops", f"/models/fraud/{what}"), timeout=10).json()


def test_a_canary_of_the_values_outlives_its_pod_and_ends_by_a_merged_change(tmp_path: Path, address: Callable[[], str]) -> None:
    """`models` and `state` as a user sets them; the claim is a folder."""
    steps = '[{"weight":"30%","hold":"500ms"},{"weight":"60%","pause":true}]'
    canary = f'models=[{{"name":"fraud","version":"1","rollout":{{"strategy":"canary","candidate":"2","steps":{steps}}}}}]'
    claim = tmp_path / "claim"
    claim.mkdir()

    def file(models: str) -> dict[str, str]:
        text = release(models, 'state={"sqlite":{"existingClaim":"state"}}', 'strategy={"type":"Recreate"}')
        return {name: said.replace("/var/lib/sluicegate", str(claim)) for name, said in mounted(text).items()}

    volume = Volume(tmp_path / "pod", file(canary))
    for _ in range(2):
        with running(volume.folder, address(), variables(release())) as gateway:
            wait_for("a pause", lambda gateway=gateway: told(gateway, "rollout")["phase"] == "paused")
            assert told(gateway, "rollout")["share"] == "60%"
            kinds = [event["kind"] for event in told(gateway, "events")["events"]]
            assert kinds == ["rollout.started", "rollout.step", "rollout.paused"], "each once, also after a restart"
            gateway.process.kill()
            gateway.process.wait()
    with running(volume.folder, address(), variables(release())) as gateway:
        wait_for("both versions", lambda: told(gateway, "rollout")["ready"])
        promoted = http.post(gateway.url("ops", "/models/fraud/rollout/promote?by=ada"), timeout=10)
        assert promoted.json()["phase"] == "promoted", promoted.text
        volume.update(file('models=[{"name":"fraud","version":"2"}]'))
        wait_for("no rollout", lambda: http.get(gateway.url("ops", "/models/fraud/rollout"), timeout=10).status_code == 404)
        answer = gateway.predict("fraud", ROW)
        assert answer.headers["x-model-version"] == "2" and "x-model-variant" not in answer.headers


def test_a_pod_that_ends_under_load_loses_nothing(tmp_path: Path, address: Callable[[], str]) -> None:
    """SIGTERM; callers go on to ask, with new connections, until readiness was looked at as often as the chart says; what the
    kubelet gives is enough."""
    text = release('models=[{"name":"fraud"}]', 'config={"shutdown":{"grace":"10s","not_ready":"4s"}}')
    pod = find(text, "Deployment")["spec"]["template"]["spec"]
    probe = pod["containers"][0]["readinessProbe"]
    volume = Volume(tmp_path / "pod", mounted(text))
    with running(volume.folder, address(), variables(text)) as gateway:
        answer = gateway.predict("fraud", ROW)
        expected = {answer.headers["x-model-version"]: answer.json()}
        url = gateway.url("http", "/models/fraud/predict")
        with (
            Load(url, ROW, expected, callers=2, new_connections=True) as strangers,
            Load(url, ROW, expected, callers=2) as friends,
        ):
            wait_for("load", lambda: strangers.answers.total() > 20 and friends.answers.total() > 20)
            gateway.process.terminate()
            wait_for("not ready", lambda: http.get(gateway.url("ops", probe["httpGet"]["path"]), timeout=5).status_code == 503)
            # The pod is taken out of its Services after failureThreshold probes; here at the latest moment before not_ready ends.
            time.sleep(2)
            strangers.stop()
            friends.stop()
        assert gateway.process.wait(pod["terminationGracePeriodSeconds"]) == 0
        assert strangers.lost == [] and friends.lost == []
        assert "drained: every request was answered" in gateway.log.read_text()


def test_a_slow_request_in_flight_is_answered_within_the_grace(tmp_path: Path, address: Callable[[], str]) -> None:
    """A body that comes slowly spans the SIGTERM."""
    text = release('models=[{"name":"fraud"}]', 'config={"shutdown":{"grace":"20s","not_ready":"0s"}}')
    volume = Volume(tmp_path / "pod", mounted(text))
    with running(volume.folder, address(), variables(text)) as gateway:
        body = json.dumps(ROW).encode()
        lines = [
            "POST /models/fraud/predict HTTP/1.1",
            "host: a",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        head = "\r\n".join([*lines, "", ""])
        with socket.create_connection((gateway.host, gateway.ports["http"])) as connection:
            connection.sendall(head.encode() + body[:20])
            wait_for("the request to be in flight", lambda: gateway.status()["in_flight"] == 1)
            gateway.process.terminate()
            wait_for("the drain", lambda: "going: not ready" in gateway.log.read_text())
            connection.sendall(body[20:])
            answer = connection.makefile("rb").readline()
        assert answer.startswith(b"HTTP/1.1 200")
        assert gateway.process.wait(60) == 0


def scripts(text: str) -> dict[str, str]:
    """The commands of the pods of `helm test`."""
    pods = [each for each in objects(text) if each["kind"] == "Pod"]
    found = {}
    for pod in pods:
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        container = pod["spec"]["containers"][0]
        assert container["command"] == ["sh", "-euc"]
        found[container["name"]] = container["args"][0]
    return found


def run_script(script: str, gateway: Gateway, home: Path, timeout: float = 120) -> subprocess.CompletedProcess:
    """Runs it as it is; curl alone is told where the Services lead."""
    leads = {"demo-sluicegate:8080": "http", "demo-sluicegate:8081": "grpc", "demo-sluicegate-ops:8082": "ops"}
    home.mkdir(exist_ok=True)
    lines = [f'connect-to = "{service}:{gateway.host}:{gateway.ports[port]}"\n' for service, port in leads.items()]
    (home / ".curlrc").write_text("".join(lines) + 'noproxy = "*"\n')
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CURL_HOME": str(home)}
    return subprocess.run(["sh", "-euc", script], env=environment, capture_output=True, text=True, timeout=timeout)


def test_helm_test_passes_where_all_is_well_and_fails_where_a_model_is_missing(
    tmp_path: Path, address: Callable[[], str]
) -> None:
    text = rendered(HERE / "values/prod.yaml")
    asked = scripts(text)
    assert set(asked) == {"connection", "models", "grpc", "ops", "predict"}
    file = yaml.safe_load(served_file(text))
    file["registries"]["local"]["path"] = str(ROOT / "models")
    volume = Volume(tmp_path / "pod", {"sluicegate.yaml": yaml.safe_dump(file)})
    with running(volume.folder, address(), variables(text)) as gateway:
        for name, script in asked.items():
            done = run_script(script, gateway, tmp_path / "home")
            assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    file["models"] = [{"name": "diabetes"}]
    other = Volume(tmp_path / "other", {"sluicegate.yaml": yaml.safe_dump(file)})
    with running(other.folder, address(), variables(text)) as gateway:
        done = {name: run_script(script, gateway, tmp_path / "home").returncode for name, script in asked.items()}
    assert done.pop("models") != 0 and done.pop("predict") != 0
    assert set(done.values()) == {0}
