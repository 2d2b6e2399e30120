"""Builds the CPU image where no container engine runs: an OCI image layout in a tar, out of a binary, ONNX Runtime, the system
libraries that these need, and the sample models. The Dockerfile makes the same on a distroless base.

    python3 tools/image.py --output sluicegate.tar [--binary target/release/sluicegate] [--tag 0.1.0]

It is the same, byte for byte, for the same files. `docker load`, `podman load`, `crane push` and `skopeo copy oci-archive:` read
it.
"""

import argparse
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USER = 65532
PROGRAM = "usr/local/bin/sluicegate"
SBOM = "usr/share/sbom/sluicegate.cdx.json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
SAMPLES = ("breast-cancer", "diabetes", "digits", "fraud", "penguins")
NAMES = {
    "etc/passwd": f"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n",
    "etc/group": f"root:x:0:\nnonroot:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}

Files = dict[str, tuple[bytes, int]]


def run(*command: object) -> str:
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, cwd=ROOT).stdout


def needed(*programs: Path) -> list[Path]:
    """The system libraries that these load, the loader among them, where the loader looks for them."""
    found = {Path(path) for program in programs for path in re.findall(r"(/\S+) \(0x", run("ldd", program))}
    return sorted(path for path in found if path not in programs)


def package(path: Path) -> tuple[str, str] | None:
    """The Debian package that a file is of, and its version."""
    for name in (path, path.resolve()):
        done = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True)
        if done.returncode == 0:
            owner = done.stdout.split(":")[0]
            version = run("dpkg-query", "--show", "--showformat=${Version}\n", owner).splitlines()[0]
            return owner, version
    return None


def components(libraries: list[Path], onnxruntime: Path) -> list[dict]:
    """What is in the image, for the SBOM: crates, ONNX Runtime, system libraries."""
    tree = ("cargo", "tree", "--locked", "-p", "sluicegate-server", "--features", "candle", "-e", "normal", "--prefix", "none")
    found = []
    for line in sorted(set(run(*tree, "--format", "{p}|{l}").splitlines())):
        crate, _, licence = line.partition("|")
        name, version = crate.split()[:2]
        version = version.removeprefix("v")
        found.append(
            {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:cargo/{name}@{version}",
                "licenses": [{"expression": licence.removesuffix(" (*)").replace("/", " OR ")}],
            }
        )
    version = onnxruntime.resolve().name.partition(".so.")[2]
    licence = [{"license": {"id": "MIT"}}]
    found.append(
        {
            "type": "library",
            "name": "onnxruntime",
            "version": version,
            "purl": f"pkg:pypi/onnxruntime@{version}",
            "licenses": licence,
        }
    )
    for name, version in sorted({owner for path in libraries if (owner := package(path))}):
        found.append({"type": "library", "name": name, "version": version, "purl": f"pkg:deb/debian/{name}@{version}"})
    unique = {component["purl"]: component for component in found}
    return list(unique.values())


def sbom(version: str, libraries: list[Path], onnxruntime: Path) -> bytes:
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "sluicegate", "version": version}},
        "components": components(libraries, onnxruntime),
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def layer(files: Files) -> bytes:
    """A tar of these files and the directories above them; all are root's, and as old as time."""
    directories = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in directories:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        for name, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def stripped(binary: Path) -> bytes:
    """Without symbols and line tables, which a binary for debugging has."""
    with tempfile.NamedTemporaryFile() as out:
        run("strip", "-o", out.name, binary)
        return Path(out.name).read_bytes()


def layers(binary: Path, onnxruntime: Path, version: str) -> list[bytes]:
    """What changes least first."""
    libraries = needed(binary, onnxruntime)
    base: Files = {str(path).lstrip("/"): (path.resolve().read_bytes(), 0o755) for path in libraries}
    base |= {name: (text.encode(), 0o644) for name, text in NAMES.items()}
    base["tmp/.keep"] = (b"", 0o644)
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.is_file():
        base[str(certificates).lstrip("/")] = (certificates.read_bytes(), 0o644)
    for name, _ in sorted({owner for path in libraries if (owner := package(path))}):
        notice = Path("/usr/share/doc") / name / "copyright"
        if notice.is_file():
            base[str(notice).lstrip("/")] = (notice.read_bytes(), 0o644)
    runtime: Files = {f"usr/local/lib/{onnxruntime.resolve().name}": (onnxruntime.read_bytes(), 0o755)}
    program: Files = {
        PROGRAM: (stripped(binary), 0o755),
        SBOM: (sbom(version, libraries, onnxruntime), 0o644),
        "usr/share/doc/sluicegate/LICENSE": ((ROOT / "LICENSE").read_bytes(), 0o644),
    }
    models: Files = {
        str(Path("models") / path.relative_to(ROOT / "models")): (path.read_bytes(), 0o644)
        for name in SAMPLES
        for path in sorted((ROOT / "models" / name).rglob("*"))
        if path.is_file()
    }
    return [layer(files) for files in (base, runtime, models, program)]


def configuration(tars: list[bytes], machine: str, version: str, revision: str) -> dict:
    """The image's configuration: who it runs as, what it runs, its labels."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    return {
        "architecture": ARCHITECTURES[machine],
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": f"{USER}:{USER}",
            "Entrypoint": [f"/{PROGRAM}"],
            "Cmd": [
                *("serve", "--models", "/models"),
                *("--http", "0.0.0.0:8080", "--grpc", "0.0.0.0:8081", "--ops", "0.0.0.0:8082"),
            ],
            "ExposedPorts": {"8080/tcp": {}, "8081/tcp": {}, "8082/tcp": {}},
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": "sluicegate",
                "org.opencontainers.image.description": "A model serving gateway",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.revision": revision,
                "org.opencontainers.image.source": manifest["repository"],
                "org.opencontainers.image.licenses": manifest["license"],
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]},
        "history": [{"created_by": f"tools/image.py: {what}"} for what in ("system", "onnxruntime", "models", "sluicegate")],
    }


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def blob(kind: str, content: bytes, blobs: dict[str, bytes]) -> dict:
    blobs[digest(content)] = content
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(content), "size": len(content)}


def archive(tars: list[bytes], config: dict, tag: str) -> bytes:
    """The OCI image layout, as a tar."""
    blobs: dict[str, bytes] = {}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(config).encode(), blobs),
        "layers": [blob("layer.v1.tar+gzip", gzip.compress(tar, 6, mtime=0), blobs) for tar in tars],
        "annotations": config["config"]["Labels"],
    }
    top = blob("manifest.v1+json", json.dumps(manifest).encode(), blobs)
    top["annotations"] = {"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": f"sluicegate:{tag}"}
    top["platform"] = {"architecture": config["architecture"], "os": "linux"}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [top]}
    files: Files = {
        "oci-layout": (b'{"imageLayoutVersion": "1.0.0"}', 0o644),
        "index.json": (json.dumps(index).encode(), 0o644),
    }
    files |= {f"blobs/{name.replace(':', '/')}": (content, 0o644) for name, content in blobs.items()}
    return layer(files)


def main() -> int:
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/sluicegate")
    parser.add_argument("--onnxruntime", type=Path, default=None, help="the library; the newest of .onnxruntime")
    parser.add_argument("--tag", default=version)
    parser.add_argument("--revision", default=None, help="the commit; that of HEAD")
    asked = parser.parse_args()
    library = asked.onnxruntime or next(iter(sorted(ROOT.glob(".onnxruntime/libonnxruntime.so.*"), reverse=True)), None)
    for what, path, how in (("gateway", asked.binary, "make release"), ("ONNX Runtime", library, "make onnxruntime")):
        if path is None or not path.is_file():
            print(f"no {what} at {path}: run `{how}`", file=sys.stderr)
            return 2
    revision = asked.revision or run("git", "rev-parse", "HEAD").strip()
    machine = run("uname", "-m").strip()
    tars = layers(asked.binary.resolve(), library.resolve(), version)
    whole = archive(tars, configuration(tars, machine, version, revision), asked.tag)
    unfinished = asked.output.with_name(asked.output.name + ".part")
    unfinished.write_bytes(whole)
    unfinished.rename(asked.output)
    print(f"{asked.output}: {sum(map(len, tars)) / 1e6:.1f} MB, {len(whole) / 1e6:.1f} MB compressed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
