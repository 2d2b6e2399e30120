"""The chart: it renders what Kubernetes takes, refuses what is wrong by its key, and restarts pods only for what needs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import chart
import chart_docs
from bad_values import BAD
from chart import (
    CHART,
    HERE,
    KUBERNETES,
    NEEDS_NEWEST,
    ROOT,
    VALUES,
    find,
    objects,
    rendered,
    served_file,
    template,
    variables,
)
from gateway import check

GOLDEN = ["defaults", "prod", "gpu", "gateway-api", "ipv6", "rollout", "sqlite"]

every_values_file = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


def values_file(name: str) -> Path:
    return HERE / "values" / f"{name}.yaml"


def pod_of(text: str) -> dict:
    return find(text, "Deployment")["spec"]["template"]


def with_json(*settings: str) -> str:
    """The defaults with these settings."""
    done = template(*(part for setting in settings for part in ("--set-json", setting)))
    assert done.returncode == 0, done.stderr
    return done.stdout


@every_values_file
def test_it_lints_without_a_warning(values: Path) -> None:
    done = chart.helm("lint", "--strict", CHART, "--kube-version", KUBERNETES[0], "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@every_values_file
def test_kubernetes_takes_what_is_rendered(values: Path, version: str) -> None:
    if version != KUBERNETES[0] and values.stem in NEEDS_NEWEST:
        pytest.skip("asks for fields that this version does not have")
    things = objects(rendered(values, version))
    assert len({(thing["kind"], thing["metadata"]["name"]) for thing in things}) == len(things)
    for thing in things:
        chart.hold_to_schema(thing, version)


def test_the_schemas_of_foreign_objects_see_a_mistake() -> None:
    monitor = find(rendered(values_file("everything")), "ServiceMonitor")
    monitor["spec"]["endpoints"][0]["intervall"] = "15s"
    with pytest.raises(Exception, match="intervall"):
        chart.hold_to_schema(monitor, KUBERNETES[0])


@pytest.mark.parametrize("name", GOLDEN)
def test_renders_are_as_recorded(name: str) -> None:
    """But for the boards and alerts, which have tests of their own. `SLUICEGATE_BLESS=1` records them anew."""
    recorded = HERE / "golden" / f"{name}.yaml"
    left_out = "dashboards.enabled=false,prometheusRule.enabled=false"
    done = template("--values", values_file(name), "--set", left_out)
    assert done.returncode == 0, done.stderr
    if "SLUICEGATE_BLESS" in os.environ:
        recorded.write_text(done.stdout)
    assert done.stdout == recorded.read_text()


@pytest.mark.parametrize(("settings", "words"), BAD, ids=[settings for settings, _ in BAD])
def test_a_mistake_is_refused_by_its_key(settings: str, words: list[str]) -> None:
    arguments = [part for setting in settings.split(";") for part in ("--set-json", setting)]
    done = template(*arguments)
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr


def test_whoever_comes_from_helm_create_finds_every_key(tmp_path: Path) -> None:
    assert chart.helm("create", "scaffold", cwd=tmp_path).returncode == 0
    scaffold = tmp_path / "scaffold/values.yaml"
    done = template("--values", scaffold)
    assert done.returncode == 0, done.stderr
    own = yaml.safe_load((CHART / "values.yaml").read_text())

    def keys(tree: dict, ours: dict, path: str = "") -> list[str]:
        lost = []
        for key, value in tree.items():
            if key not in ours:
                lost.append(path + key)
            elif isinstance(value, dict):
                lost += keys(value, ours[key], f"{path}{key}.")
        return lost

    assert keys(yaml.safe_load(scaffold.read_text()), own) == []
    rendered_port = find(done.stdout, "Service", "demo-sluicegate")["spec"]["ports"][0]["port"]
    assert rendered_port == 80, "service.port of the scaffold is the port of the Service"


def test_table_and_schema_are_fresh() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools/chart_docs.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_value_says_what_it_is_and_has_a_type() -> None:
    text = (CHART / "values.yaml").read_text()
    said = chart_docs.comments(text)
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(tree: dict, known: dict, path: tuple[str, ...]) -> list[str]:
        wrong = []
        for key, value in tree.items():
            here = (*path, key)
            if here not in said:
                wrong.append(f"{'.'.join(here)} has no comment")
            known = schema["$defs"][known["$ref"].rpartition("/")[2]] if "$ref" in known else known
            part = known.get("properties", {}).get(key)
            if part is None:
                wrong.append(f"{'.'.join(here)} is not in the schema")
            elif chart_docs.is_group(here, said):
                wrong += walk(value, part, here)
        return wrong

    values = yaml.safe_load(text)
    assert walk(values, schema, ()) == []
    assert set(schema["properties"]) == set(values)


@every_values_file
def test_the_file_is_mounted_as_a_directory_that_the_kubelet_updates(values: Path) -> None:
    pod = pod_of(rendered(values))["spec"]
    [volume] = [each for each in pod["volumes"] if each["name"] == "models-config"]
    assert set(volume) == {"name", "configMap"} and set(volume["configMap"]) == {"name"}
    mounts = [
        each for container in pod["containers"] for each in container.get("volumeMounts", []) if each["name"] == "models-config"
    ]
    assert mounts == [{"name": "models-config", "mountPath": "/etc/sluicegate", "readOnly": True}]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('models=[{"name":"fraud","version":"1"}]', 'models=[{"name":"fraud","version":"2"}]'),
        ('models=[{"name":"fraud"}]', 'models=[{"name":"fraud"},{"name":"digits"}]'),
        ("models=null", 'models=[{"name":"fraud"}]'),
        ('batching={"max_rows":8}', 'batching={"max_rows":16}'),
        (
            'models=[{"name":"fraud","version":"1"}]',
            'models=[{"name":"fraud","version":"1","rollout":{"strategy":"replace","candidate":"2"}}]',
        ),
    ],
)
def test_a_change_of_models_changes_their_configmap_and_no_pod(before: str, after: str) -> None:
    one, other = with_json(before), with_json(after)
    assert pod_of(one) == pod_of(other)
    changed = [
        a["metadata"]["name"] for a, b in zip(objects(one), objects(other), strict=True) if a != b and a["kind"] != "Pod"
    ]
    assert changed == ["demo-sluicegate-models"]


@pytest.mark.parametrize(
    "setting",
    [
        'config={"limits":{"in_flight":7}}',
        'config={"log":{"level":"debug"}}',
        'registries={"local":{"type":"directory","path":"/models","poll":"5s"}}',
        'containerPorts={"http":9000}',
        'listenHost="127.0.0.1"',
        'state={"postgres":{"existingSecret":"a"}}',
        'webhooks=[{"url":"https://hooks.example.com"}]',
    ],
)
def test_a_change_that_needs_a_restart_changes_the_pods(setting: str) -> None:
    assert pod_of(with_json("replicaCount=1")) != pod_of(with_json(setting))


def mounts(pod: dict, name: str) -> tuple[dict, dict]:
    """A volume, and how the gateway's container has it."""
    [volume] = [each for each in pod["volumes"] if each["name"] == name]
    [mount] = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == name]
    return volume, mount


def test_rollouts_are_kept_where_the_values_say_and_no_secret_is_in_a_configmap() -> None:
    text = rendered(values_file("rollout"))
    file = yaml.safe_load(served_file(text))
    volume, mount = mounts(pod_of(text)["spec"], "state")
    assert file["state"] == {"postgres": f"file:{mount['mountPath']}/url"} and mount["readOnly"] is True
    assert volume["secret"]["secretName"] == "state"
    assert volume["secret"]["items"] == [{"key": "database-url", "path": "url"}]
    assert [hook["url"] for hook in file["webhooks"]] == ["https://hooks.example.com/models", "http://chat:8080/hooks"]
    _, secrets = mounts(pod_of(text)["spec"], "secrets")
    assert file["webhooks"][0]["secret"] == f"file:{secrets['mountPath']}/webhook"
    text = rendered(values_file("sqlite"))
    volume, mount = mounts(pod_of(text)["spec"], "state")
    assert yaml.safe_load(served_file(text))["state"]["path"].startswith(f"{mount['mountPath']}/")
    claim = find(text, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["resources"]["requests"] == {"storage": "2Gi"} and claim["spec"]["storageClassName"] == "fast"
    assert claim["metadata"]["annotations"] == {"example.com/backup": "daily", "helm.sh/resource-policy": "keep"}
    assert find(text, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert "state" not in yaml.safe_load(served_file(rendered(values_file("prod"))))


def test_whoever_installs_is_told_that_a_rollout_is_kept_nowhere() -> None:
    """By the notes, which are rendered into an object here, for Helm tells them only where there is a cluster."""
    notes = 'kind: Notes\nmetadata: { name: notes }\nsaid: {{ include "sluicegate/templates/NOTES.txt" . | quote }}'

    def told(*settings: str) -> str:
        return find(with_json(*settings, f"extraDeploy={json.dumps([notes])}"), "Notes")["said"]

    models = 'models=[{"name":"fraud","version":"1","rollout":{"strategy":"replace","candidate":"2"}}]'
    assert "state is not set" in told(models)
    assert "state is not set" not in told(models, 'state={"postgres":{"existingSecret":"a"}}')
    assert "state is not set" not in told('models=[{"name":"fraud","version":"1"}]')


def test_settings_reach_the_gateway_as_written() -> None:
    said = variables(rendered(values_file("prod")))
    assert said["SLUICEGATE__HTTP__MAX_CONNECTIONS"] == "1000000", "and not 1e+06"
    assert said["SLUICEGATE__HTTP__ADDRESS"] == "0.0.0.0:8080"
    assert variables(rendered(values_file("tls")))["SLUICEGATE__HTTP__CORS__ALLOW_ORIGINS__1"] == "https://admin.example.com"
    assert variables(rendered(values_file("ipv6")))["SLUICEGATE__OPS__ADDRESS"] == "[::]:9082"


def test_the_grace_period_agrees_with_the_drain() -> None:
    def grace(name: str) -> int:
        return pod_of(rendered(values_file(name)))["spec"]["terminationGracePeriodSeconds"]

    assert grace("defaults") == 5 + 25 + 5
    assert grace("dev") == 0 + 5 + 5
    assert grace("ipv6") == 10 + 2 + 60 + 5, "preStop sleeps 10 s, not_ready is rounded up"
    assert grace("everything") == 60, "what was asked for and suffices"


@every_values_file
def test_pods_are_restricted(values: Path) -> None:
    """What the "restricted" Pod Security Standard asks of the chart's own containers, and a root that cannot be written."""
    own = {"sluicegate", "fetch-models"}
    for thing in objects(rendered(values)):
        is_test = thing["kind"] == "Pod"
        if thing["kind"] != "Deployment" and not is_test:
            continue
        pod = thing["spec"] if is_test else thing["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"] + pod.get("initContainers", []):
            if container["name"] in own or is_test:
                context = container["securityContext"]
                assert context["allowPrivilegeEscalation"] is False
                assert context["readOnlyRootFilesystem"] is True
                assert context["capabilities"] == {"drop": ["ALL"]}


def test_a_model_on_cuda_brings_its_gpu() -> None:
    pod = pod_of(rendered(values_file("gpu")))["spec"]
    container = pod["containers"][0]
    assert container["image"] == "sluicegate:0.1.0-cuda"
    assert container["resources"]["limits"] == {"memory": "24Gi", "nvidia.com/gpu": 1}
    assert pod["nodeSelector"] == {"cloud.example.com/accelerator": "l4"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert pod["runtimeClassName"] == "nvidia"
    without = pod_of(rendered(values_file("prod")))["spec"]
    assert "nvidia.com/gpu" not in json.dumps(without)


def test_nothing_is_scaled_in_because_prometheus_is_away() -> None:
    scaled = find(rendered(values_file("keda")), "ScaledObject")
    trigger = scaled["spec"]["triggers"][0]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert trigger["metadata"]["query"] == 'sum(sluicegate_queue_rows{namespace="serving",job="demo-sluicegate-ops"})'
    assert "replicas" not in find(rendered(values_file("keda")), "Deployment")["spec"]
    assert "replicas" not in find(rendered(values_file("hpa")), "Deployment")["spec"]


def test_operators_have_a_service_of_their_own() -> None:
    """No load balancer publishes metrics and status."""
    text = rendered(values_file("ipv6"))
    public = find(text, "Service", "demo-sluicegate")["spec"]
    assert public["type"] == "LoadBalancer"
    assert [port["name"] for port in public["ports"]] == ["http", "grpc"]
    assert find(text, "Service", "demo-sluicegate-ops")["spec"]["type"] == "ClusterIP"


def test_labels_that_are_said_twice_are_there_once() -> None:
    """A label of the object's own wins over one of all objects."""

    class Strict(chart.Loader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key) for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
            return super().construct_mapping(node, deep)

    labels = [f'{place}={{"team":"own"}}' for place in ("podLabels", "service.labels", "serviceMonitor.additionalLabels")]
    text = with_json('commonLabels={"team":"all"}', *labels, "serviceMonitor.enabled=true", 'podAnnotations={"checksum/config":"no"}')
    list(yaml.load_all(text, Loader=Strict))
    assert pod_of(text)["metadata"]["labels"]["team"] == "own"
    assert find(text, "ConfigMap", "demo-sluicegate")["metadata"]["labels"]["team"] == "all"
    assert pod_of(text)["metadata"]["annotations"]["checksum/config"] != "no"


def test_test_pods_are_not_behind_the_services() -> None:
    text = rendered(values_file("prod"))
    selector = find(text, "Service", "demo-sluicegate")["spec"]["selector"]
    pods = [thing for thing in objects(text) if thing["kind"] == "Pod"]
    assert len(pods) >= 5
    for pod in pods:
        labels = pod["metadata"]["labels"]
        assert any(labels.get(key) != value for key, value in selector.items())


@every_values_file
def test_check_takes_the_file_that_would_be_mounted(values: Path) -> None:
    """By the real binary, on the sample models."""
    text = rendered(values)
    if values.stem == "umbrella":
        pytest.skip("its file is in a ConfigMap of its own")
    settings = {name: value for name, value in variables(text).items()}
    file = yaml.safe_load(served_file(text))
    for name, registry in file["registries"].items():
        settings[f"SLUICEGATE__REGISTRIES__{name.upper()}__PATH"] = str(ROOT / "models")
    for index, model in enumerate(file.get("models", [])):
        if str(model.get("device", "")).startswith("cuda"):
            settings[f"SLUICEGATE__MODELS__{index}__DEVICE"] = "cpu"
    done = check(served_file(text), settings)
    assert done.returncode == 0, done.stdout + done.stderr
