"""Fetches the definitions of foreign objects into a folder, out of the Go modules that publish them.

python3 tests/delivery/crds.py .venv/helm/crds
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Module and version: files in it.
WANTED = {
    "sigs.k8s.io/gateway-api@v1.6.1": ["config/crd/standard/gateway.networking.k8s.io_{httproutes,grpcroutes}.yaml"],
    "github.com/kedacore/keda/v2@v2.20.2": ["config/crd/bases/keda.sh_scaledobjects.yaml"],
    "github.com/prometheus-operator/prometheus-operator@v0.93.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_{servicemonitors,prometheusrules,alertmanagerconfigs}.yaml"
    ],
    "github.com/argoproj/argo-cd/v3@v3.5.1": ["manifests/crds/{application,applicationset}-crd.yaml"],
    "github.com/argoproj/argo-rollouts@v1.9.1": ["manifests/crds/{rollout,analysis-template}-crd.yaml"],
    "github.com/fluxcd/flagger@v1.36.1": ["charts/flagger/crds/crd.yaml"],
    "github.com/kserve/kserve@v0.20.0": ["config/crd/full/serving.kserve.io_{clusterservingruntimes,inferenceservices}.yaml"],
    "github.com/fluxcd/notification-controller@v1.6.0": [
        "config/crd/bases/notification.toolkit.fluxcd.io_{alerts,providers,receivers}.yaml"
    ],
    "github.com/fluxcd/helm-controller@v1.4.0": ["config/crd/bases/helm.toolkit.fluxcd.io_helmreleases.yaml"],
    "github.com/fluxcd/source-controller@v1.7.0": [
        "config/crd/bases/source.toolkit.fluxcd.io_{gitrepositories,ocirepositories}.yaml"
    ],
}


def expanded(pattern: str) -> list[str]:
    """`a_{b,c}.yaml` as two names."""
    before, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    words, _, after = rest.partition("}")
    return [before + word + after for word in words.split(",")]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / "module"
    work.mkdir(exist_ok=True)
    (work / "go.mod").write_text("module crds\n\ngo 1.26.0\n")
    command = ["go", "mod", "download", "-json", *WANTED]
    got = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, env=os.environ | {"GOFLAGS": "-mod=mod"}, check=True)
    decoder, text = json.JSONDecoder(), got.stdout.decode()
    while text := text.lstrip():
        module, end = decoder.raw_decode(text)
        text = text[end:]
        for pattern in WANTED[f"{module['Path']}@{module['Version']}"]:
            for name in expanded(pattern):
                shutil.copyfile(Path(module["Dir"]) / name, folder / Path(name).name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
