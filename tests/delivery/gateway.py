"""The gateway as the pods of the chart run it: the rendered file in a directory, the rendered variables in the environment."""

import contextlib
import itertools
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from chart import ROOT, missing

BINARIES = [ROOT / "target/debug/sluicegate", ROOT / "target/release/sluicegate"]

# A bound on waiting, not a promise of speed.
SECONDS = 120

# Straight to loopback, whatever proxy the environment names.
http = requests.Session()
http.trust_env = False


# Another network of 127/8 for each run of the tests on this machine, so that each gateway has the ports of the chart.
COUNT = itertools.count(1)


def loopback() -> str:
    """An address that nothing else listens at."""
    process = os.getpid()
    return f"127.{64 + process % 128}.{process // 128 % 256}.{next(COUNT)}"


def binary() -> Path:
    named = os.environ.get("SLUICEGATE_BIN")
    places = [Path(named)] if named else BINARIES
    found = [place for place in places if place.is_file()]
    if not found:
        pytest.exit(f"no gateway at {' or '.join(map(str, places))}: run `cargo build`", returncode=2)
    return max(found, key=lambda place: place.stat().st_mtime)


def onnxruntime() -> Path:
    named = os.environ.get("ORT_DYLIB_PATH")
    found = [Path(named)] if named else sorted(ROOT.glob(".onnxruntime/libonnxruntime.so*"))
    if not found:
        missing("the ONNX Runtime library is not in .onnxruntime: run `make onnxruntime`")
    return found[-1]


def environment(settings: dict[str, str]) -> dict[str, str]:
    """This one, without what would configure the gateway, and these settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE__")}
    return own | {"ORT_DYLIB_PATH": str(onnxruntime())} | settings


def check(file: str, settings: dict[str, str]) -> subprocess.CompletedProcess:
    """`sluicegate check` on the text of a configuration."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sluicegate.yaml"
        path.write_text(file)
        command = [binary(), "check", "--config", path]
        return subprocess.run(command, env=environment(settings), capture_output=True, text=True, timeout=SECONDS)


def wait_for(what: str, ask):
    """Asks again and again until there is something."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if found := ask():
                return found
        time.sleep(0.05)
    pytest.fail(f"waited {SECONDS} s in vain for this: {what}")


@dataclass
class Gateway:
    """A running gateway, on the ports that the chart gives it, at a loopback address of its own."""

    host: str
    ports: dict[str, int]
    process: subprocess.Popen
    log: Path

    def url(self, port: str, path: str) -> str:
        return f"http://{self.host}:{self.ports[port]}{path}"

    def status(self) -> dict:
        return http.get(self.url("ops", "/status"), timeout=10).json()

    def metrics(self) -> str:
        return http.get(self.url("ops", "/metrics"), timeout=10).text

    def predict(self, model: str, row: dict) -> requests.Response:
        return http.post(self.url("http", f"/models/{model}/predict"), json=row, timeout=30)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@contextlib.contextmanager
def running(folder: Path, host: str, settings: dict[str, str]) -> Iterator[Gateway]:
    """A gateway that is ready, with `folder`/sluicegate.yaml and these variables, listening at `host` of loopback."""
    names = {"http": 8080, "grpc": 8081, "ops": 8082}
    ports = {}
    for name, usual in names.items():
        variable = f"SLUICEGATE__{name.upper()}__ADDRESS"
        ports[name] = int(settings.get(variable, f":{usual}").rpartition(":")[2])
        settings = settings | {variable: f"{host}:{ports[name]}"}
    log = folder.parent / f"{folder.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [binary(), "serve", "--config", folder / "sluicegate.yaml"],
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    gateway = Gateway(host, ports, process, log)
    try:

        def ready() -> bool:
            if process.poll() is not None:
                pytest.fail(f"the gateway ended with exit code {process.returncode}\n{tail(log)}")
            return http.get(gateway.url("ops", "/readyz"), timeout=5).status_code == 200

        wait_for("a gateway that is ready", ready)
        yield gateway
    finally:
        process.kill()
        process.wait()


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
