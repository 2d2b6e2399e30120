"""The chart as the tests use it: rendered by the real Helm, its objects held to the schemas of Kubernetes and of the CRDs."""

import copy
import functools
import os
import re
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CHART = ROOT / "helm/sluicegate"
HELM = ROOT / ".venv/helm/helm"
CRDS = ROOT / ".venv/helm/crds"
VALUES = sorted((HERE / "values").glob("*.yaml"))


class Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: a lone `=` is a text."""


Loader.add_constructor("tag:yaml.org,2002:value", Loader.construct_yaml_str)

# The newest that kubernetes-validate knows, and one near the oldest that the chart takes.
KUBERNETES = ["1.37.0", "1.29.0"]

# What is Kubernetes' own; all else comes with a CRD.
KUBERNETES_GROUPS = {"", "apps", "autoscaling", "batch", "policy", "networking.k8s.io", "rbac.authorization.k8s.io"}

# Fields that newer versions have, by the values file that asks for them.
NEEDS_NEWEST = {"image-volume", "gateway-api", "ipv6"}


def missing(what: str) -> None:
    """Skips a test for want of something on this machine; on CI, where it ought to be there, fails it."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


def helm(*arguments: object, **options) -> subprocess.CompletedProcess:
    if not HELM.is_file():
        missing("helm is not in .venv/helm: install Go 1.26 or newer and run `make test-delivery`")
    command = [str(HELM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def template(*arguments: object, version: str = KUBERNETES[0]) -> subprocess.CompletedProcess:
    """A release called `demo` in the namespace `serving`."""
    return helm("template", "demo", CHART, "--namespace", "serving", "--kube-version", version, *arguments)


@functools.cache
def rendered(values: Path, version: str = KUBERNETES[0]) -> str:
    done = template("--values", values, version=version)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> list[dict]:
    return [each for each in yaml.load_all(text, Loader=Loader) if each]


def find(text: str, kind: str, name: str | None = None) -> dict:
    """The only object of that kind, and of that name where there are more."""
    found = [each for each in objects(text) if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def served_file(text: str) -> str:
    """sluicegate.yaml, as it would be mounted."""
    [found] = [each for each in objects(text) if each["kind"] == "ConfigMap" and "sluicegate.yaml" in each.get("data", {})]
    return found["data"]["sluicegate.yaml"]


def variables(text: str) -> dict[str, str]:
    """The environment that the chart gives the gateway."""
    container = find(text, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    name = container["envFrom"][0]["configMapRef"]["name"]
    return find(text, "ConfigMap", name)["data"]


@functools.cache
def definition(version: str, kind: str) -> dict | None:
    """The closed schema of a CRD."""
    for file in sorted(CRDS.glob("*.yaml")):
        text = file.read_text()
        if not re.search(rf"^    kind: {kind}$", text, re.MULTILINE):
            continue
        for each in yaml.load_all(text, Loader=Loader):
            spec = each["spec"] if each else {"group": ""}
            if spec["group"] == version.split("/")[0] and spec["names"]["kind"] == kind:
                [found] = [each for each in spec["versions"] if each["name"] == version.split("/")[1]]
                return closed(found["schema"]["openAPIV3Schema"])
    return None


def closed(schema: dict) -> dict:
    """The schema of a CRD without room for unknown fields, which the API server would drop without a word."""
    schema = copy.deepcopy(schema)

    def close(node: object, at_top: bool = False) -> None:
        if not isinstance(node, dict):
            return
        if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields") and not at_top:
            node.setdefault("additionalProperties", False)
        if node.get("x-kubernetes-int-or-string"):
            node.pop("type", None)
            node.pop("anyOf", None)
        for child in node.get("properties", {}).values():
            close(child)
        for key in ("items", "additionalProperties"):
            close(node.get(key))

    close(schema, at_top=True)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def hold_to_schema(thing: dict, version: str) -> None:
    """Fails where Kubernetes, or the CRD of the object, would not take it as it is."""
    group = thing["apiVersion"].rpartition("/")[0]
    if group in KUBERNETES_GROUPS:
        kubernetes_validate.validate(thing, version, strict=True)
        return
    own = definition(thing["apiVersion"], thing["kind"])
    if own is None:
        missing(f"no definition of {thing['apiVersion']} {thing['kind']} in .venv/helm/crds: run `make test-delivery`")
    jsonschema.Draft202012Validator(own).validate(thing)
