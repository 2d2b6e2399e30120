"""The CPU image, built without an engine: what is in it, who it runs as, and that the gateway in it serves in a chroot."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import image as builder
from chart import CHART, ROOT, missing
from gateway import Gateway, binary, http, loopback, onnxruntime, tail, wait_for
from test_pod import ROW

MEGABYTE = 1_000_000


class Image:
    """An OCI image layout, read as a registry would: by digests alone."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        with tarfile.open(path) as tar:
            self.files = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}
        assert json.loads(self.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
        [self.entry] = json.loads(self.files["index.json"])["manifests"]
        self.manifest = json.loads(self.blob(self.entry))
        self.config = json.loads(self.blob(self.manifest["config"]))
        self.layers = [gzip.decompress(self.blob(layer)) for layer in self.manifest["layers"]]

    def blob(self, descriptor: dict) -> bytes:
        content = self.files[f"blobs/{descriptor['digest'].replace(':', '/')}"]
        assert descriptor["digest"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert descriptor["size"] == len(content)
        return content

    def entries(self) -> dict[str, tarfile.TarInfo]:
        return {entry.name: entry for layer in self.layers for entry in tarfile.open(fileobj=io.BytesIO(layer))}

    def unpack(self, folder: Path) -> None:
        for layer in self.layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                tar.extractall(folder, filter="fully_trusted")


def build(output: Path) -> str:
    command = [
        sys.executable,
        ROOT / "tools/image.py",
        "--output",
        output,
        "--binary",
        binary(),
        "--onnxruntime",
        onnxruntime(),
    ]
    done = subprocess.run([*command, "--revision", "0" * 40], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    for tool in ("ldd", "strip", "cargo"):
        if shutil.which(tool) is None:
            missing(f"{tool} is missing: apt-get install libc-bin binutils")
    path = tmp_path_factory.mktemp("image") / "sluicegate.tar"
    build(path)
    return Image(path)


def test_layers_are_what_the_configuration_says(image: Image) -> None:
    assert image.config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in image.layers]
    assert len(image.config["history"]) == len(image.layers)
    assert image.entry["platform"]["os"] == image.config["os"] == "linux"


def test_it_runs_as_nobody_in_particular(image: Image) -> None:
    config = image.config["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/local/bin/sluicegate"]
    assert config["Labels"]["org.opencontainers.image.revision"] == "0" * 40
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8081/tcp", "8082/tcp"}


def test_there_is_nothing_in_it_that_the_gateway_does_not_need(image: Image) -> None:
    entries = image.entries()
    files = [name for name, entry in entries.items() if entry.isfile()]
    programs = [name for name in files if "/bin/" in f"/{name}" or "/sbin/" in f"/{name}"]
    assert programs == ["usr/local/bin/sluicegate"], "no shell, no package manager"
    for name, entry in entries.items():
        assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 0), name
        assert entry.isfile() or entry.isdir(), name
        assert entry.mode & 0o6000 == 0, f"{name} is setuid"
        assert entry.mode & 0o002 == 0 or name == "tmp", f"{name} can be written by everybody"
    libraries = {Path(name).name.split(".so")[0] for name in files if ".so" in name}
    assert libraries <= {
        "ld-linux-x86-64",
        "ld-linux-aarch64",
        "libc",
        "libdl",
        "libgcc_s",
        "libm",
        "libonnxruntime",
        "libpthread",
        "librt",
        "libstdc++",
    }
    assert {"models/fraud/2/model.onnx", "etc/passwd", "usr/share/doc/sluicegate/LICENSE"} <= set(files)


def test_the_bill_of_materials_names_crates_and_libraries(image: Image) -> None:
    [content] = [
        tarfile.open(fileobj=io.BytesIO(layer)).extractfile("usr/share/sbom/sluicegate.cdx.json").read()
        for layer in image.layers
        if "usr/share/sbom/sluicegate.cdx.json" in tarfile.open(fileobj=io.BytesIO(layer)).getnames()
    ]
    document = json.loads(content)
    assert document["bomFormat"] == "CycloneDX"
    purls = [component["purl"] for component in document["components"]]
    assert len(purls) == len(set(purls)) > 100
    for wanted in ("pkg:cargo/tokio@", "pkg:cargo/axum@", "pkg:cargo/sluicegate-server@", "pkg:pypi/onnxruntime@1.31.1"):
        assert any(purl.startswith(wanted) for purl in purls), wanted
    assert not any("proptest" in purl or "testkit" in purl for purl in purls), "what tests need is not in the image"


def test_it_is_small(image: Image) -> None:
    """120 MB, as pulled, and unpacked too where the binary is one for production."""
    assert image.size < 120 * MEGABYTE
    entries = image.entries()
    unpacked = sum(entry.size for entry in entries.values())
    program = entries["usr/local/bin/sluicegate"].size
    assert unpacked - program < 50 * MEGABYTE, "all but the gateway itself"
    if "release" in binary().parts:
        assert unpacked < 120 * MEGABYTE


def test_the_same_files_make_the_same_layers(image: Image) -> None:
    version = image.config["config"]["Labels"]["org.opencontainers.image.version"]
    again = builder.layers(binary().resolve(), onnxruntime().resolve(), version)
    assert ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in again] == image.config["rootfs"]["diff_ids"]


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_the_dockerfile_says_of_the_image_what_the_script_says(stage: str, image: Image) -> None:
    text = (ROOT / "Dockerfile").read_text()
    lines = text.partition(f" AS {stage}\n")[2].partition("\nFROM ")[0].replace("\\\n", " ").splitlines()
    said: dict[str, list[str]] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        said.setdefault(word, []).append(rest.strip())
    config = image.config["config"]
    assert said["USER"] == [config["User"]]
    assert json.loads(said["ENTRYPOINT"][0]) == config["Entrypoint"]
    assert json.loads(said["CMD"][0]) == config["Cmd"]
    assert [f"{port}/tcp" for port in said["EXPOSE"][0].split()] == list(config["ExposedPorts"])
    assert said["STOPSIGNAL"] == [config["StopSignal"]]
    labels = dict(re.findall(r'(org\.\S+?)="([^"]*)"', said["LABEL"][0]))
    assert set(labels) == set(config["Labels"])
    for copied in said["COPY"]:
        sources = [part for part in copied.split()[:-1] if not part.startswith("--")]
        if not copied.startswith("--from"):
            assert all((ROOT / source).exists() for source in sources), copied
    samples = {Path(copied.split()[-1]).name for copied in said["COPY"] if copied.startswith("models/")}
    assert samples == set(builder.SAMPLES)


def test_the_image_the_chart_and_the_program_have_one_version(image: Image) -> None:
    version = image.config["config"]["Labels"]["org.opencontainers.image.version"]
    manifest = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert manifest["appVersion"] == version
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()
    pinned = re.search(r"^onnxruntime==(\S+)", (ROOT / "tools/onnxruntime.txt").read_text(), re.MULTILINE)[1]
    assert f"onnxruntime-gpu[cuda,cudnn]=={pinned}" in (ROOT / "Dockerfile").read_text()
    channel = re.search(r'channel = "(\d+\.\d+)', (ROOT / "rust-toolchain.toml").read_text())[1]
    assert f"ARG RUST=rust:{channel}-" in (ROOT / "Dockerfile").read_text()


@contextlib.contextmanager
def contained(root: Path, command: list[str], address: str, log: Path) -> Iterator[Gateway]:
    """The command, as the image's user, in its files and no others."""
    if os.geteuid() != 0:
        missing("a chroot needs root")
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/usr/sbin/chroot", "--userspec=65532:65532", root, *command], stdout=output, stderr=output, env={}
        )
    gateway = Gateway(address, {"http": 8080, "grpc": 8081, "ops": 8082}, process, log)
    try:

        def ready() -> bool:
            assert process.poll() is None, tail(log)
            return http.get(gateway.url("ops", "/readyz"), timeout=5).status_code == 200

        wait_for("the gateway of the image", ready)
        yield gateway
    finally:
        process.kill()
        process.wait()


def test_the_gateway_in_it_serves_in_a_chroot(image: Image, tmp_path: Path) -> None:
    image.unpack(tmp_path / "root")
    tmp_path.chmod(0o755)
    address = loopback()
    config = image.config["config"]
    command = [part.replace("0.0.0.0", address) for part in config["Entrypoint"] + config["Cmd"]]
    with contained(tmp_path / "root", command, address, tmp_path / "log") as gateway:
        answer = gateway.predict("fraud", ROW)
        assert answer.status_code == 200 and answer.json()["label"] in ("fraud", "legitimate")
        live = {model["name"]: model["engine"] for model in gateway.status()["models"]}
        assert live == dict.fromkeys(("breast-cancer", "diabetes", "digits", "fraud", "penguins"), "onnxruntime")
        assert Path(f"/proc/{gateway.process.pid}/status").read_text().split("Uid:")[1].split()[0] == "65532"
        assert gateway.terminate() == 0
