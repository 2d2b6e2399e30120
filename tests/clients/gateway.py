"""The gateway as a process: started on free ports with a configuration of its own, stopped by SIGTERM."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import yaml

ROOT = Path(__file__).resolve().parents[2]
BINARIES = [ROOT / "target/debug/sluicegate", ROOT / "target/release/sluicegate"]

# Bounds on waiting, not promises of speed: a debug build on a busy machine keeps within them.
START_SECONDS = 120
STOP_SECONDS = 60

# Straight to loopback, whatever proxy the environment names.
http = requests.Session()
http.trust_env = False


def missing(what: str) -> None:
    """Skips a test for want of something on this machine; on CI, where it ought to be there, fails it."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


def binary() -> Path:
    named = os.environ.get("SLUICEGATE_BIN")
    places = [Path(named)] if named else BINARIES
    found = [place for place in places if place.is_file()]
    if not found:
        pytest.exit(f"no gateway at {' or '.join(map(str, places))}: run `cargo build`", returncode=2)
    return max(found, key=lambda place: place.stat().st_mtime)


def onnxruntime_library() -> Path:
    named = os.environ.get("ORT_DYLIB_PATH")
    found = [Path(named)] if named else sorted(ROOT.glob(".onnxruntime/libonnxruntime.so*"))
    if not found:
        missing("the ONNX Runtime library is not in .onnxruntime: run `make onnxruntime`")
    return found[-1]


@dataclass(frozen=True)
class Gateway:
    """A running gateway and its addresses, as HOST:PORT."""

    engine: str
    address: str
    grpc_address: str
    ops_address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def get(self, path: str, **options) -> requests.Response:
        return http.get(self.url + path, **options)

    def post(self, path: str, **options) -> requests.Response:
        return http.post(self.url + path, **options)

    def ops(self, path: str, **options) -> requests.Response:
        return http.get(f"http://{self.ops_address}{path}", **options)


@contextmanager
def running(
    directory: Path,
    engine: str,
    registries: dict[str, Path],
    models: list[dict] | None,
    variables: dict[str, str] | None = None,
    **sections: dict,
) -> Iterator[Gateway]:
    """A gateway that is ready. Without `models` it serves the newest version of everything that its engine can load.
    Further sections of its configuration come by their names, and further variables of its environment in `variables`."""
    address, grpc_address, ops_address = free_addresses(3)
    config = {
        "http": {"address": address},
        "grpc": {"address": grpc_address},
        "ops": {"address": ops_address},
        "log": {"format": "json"},
        "batching": {"queue_timeout": "5m"},  # a debug build of tract takes its time
        "engine": {"default": engine},
        "registries": {
            name: {"type": "directory", "path": str(path), "poll": "100ms", "settle": "100ms"}
            for name, path in registries.items()
        },
    }
    config |= sections
    if engine == "onnxruntime":
        config["engine"]["onnxruntime"] = str(onnxruntime_library())
    if models is not None:
        config["models"] = models
    directory.mkdir(parents=True, exist_ok=True)
    file, log = directory / "sluicegate.yaml", directory / "log"
    file.write_text(yaml.safe_dump(config))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [binary(), "serve", "--config", file],
            env=environment() | (variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            wait_until_served(process, ops_address, log)
            yield Gateway(engine, address, grpc_address, ops_address)
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_SECONDS) == 0, f"exit code {process.returncode}\n{tail(log)}"
        finally:
            process.kill()
            process.wait()


def environment() -> dict[str, str]:
    """This one, without what would configure the gateway."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SLUICEGATE__", "OTEL_"))}


def wait_until_served(process: subprocess.Popen, ops_address: str, log: Path) -> None:
    """Waits until the gateway is ready and every version that it found is live or failed."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the gateway ended with exit code {process.returncode}\n{tail(log)}")
        try:
            ready = http.get(f"http://{ops_address}/readyz", timeout=5).status_code == 200
            models = http.get(f"http://{ops_address}/status", timeout=5).json()["models"]
            states = {version["state"] for model in models for version in (model["versions"] or {}).values()}
            if ready and states <= {"live", "failed"}:
                return
        except requests.RequestException:
            pass  # not listening yet
        time.sleep(0.05)
    pytest.fail(f"not ready after {START_SECONDS} s\n{tail(log)}")


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def free_addresses(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses
