"""Servers as processes: started on free ports, frozen while another one is measured, stopped with all their children."""

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

# Bounds on waiting, not promises of speed.
START_SECONDS = 120
STOP_SECONDS = 10

PORTS = 3  # for inference, and for what else a server insists on listening for


class Failed(Exception):
    """A server that did not start, or did not answer as it should; one line, then the end of its log."""


@dataclass
class Server:
    """How to start one. In `command` and `files`, `{0}` to `{2}` stand for its ports."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    directory: Path | None = None
    tells_address: bool = False  # prints HOST:PORT as its first line, instead of taking a port


class Running:
    """A started server, in a process group of its own."""

    def __init__(self, server: Server, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.server = server
        self.log = folder / "log"
        ports = free_ports(PORTS)
        for name, text in server.files.items():
            (folder / name).write_text(with_ports(text, ports))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [with_ports(word, ports).replace("{folder}", str(folder)) for word in server.command],
                env={**os.environ, **server.environment},
                cwd=server.directory or folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.address = f"127.0.0.1:{ports[0]}"

    def wait_until(self, answers) -> None:
        """Asks again and again until `answers(address)` is true."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"{self.server.name} ended with exit code {self.process.returncode}\n{self.tail()}")
            if self.server.tells_address:
                self.address = self.log.read_text().partition("\n")[0] or self.address
            if answers(self.address):
                return
            time.sleep(0.1)
        raise Failed(f"{self.server.name} did not answer within {START_SECONDS} s\n{self.tail()}")

    def freeze(self) -> None:
        """An idle server in Python still polls: one that is not measured must not take time from one that is."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        # Also where the first process has ended: its children are of the same group.
        self._signal(signal.SIGKILL)
        self.process.wait()

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass


def with_ports(text: str, ports: list[int]) -> str:
    for i, port in enumerate(ports):
        text = text.replace("{" + str(i) + "}", str(port))
    return text


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
