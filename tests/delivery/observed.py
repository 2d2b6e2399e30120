"""A real Prometheus and a real Alertmanager as processes, and stubs of what is not here: GPUs, kube-state-metrics, PagerDuty,
Opsgenie."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from chart import missing
from gateway import http, wait_for

# What kube-state-metrics, and a gateway with a GPU and a model of text, tell: simulated, by the names of its documentation and of
# docs/metrics.md.
CONTAINER = 'namespace="serving",pod="sluicegate-0",container="sluicegate"'
GPU = 'uuid="GPU-1",name="NVIDIA L4"'
SIMULATED = f"""\
kube_pod_container_resource_limits{{{CONTAINER},resource="memory",unit="byte"}} 2147483648
kube_pod_container_status_restarts_total{{{CONTAINER}}} 0
kube_pod_container_status_last_terminated_reason{{{CONTAINER},reason="OOMKilled"}} 0
"""
SIMULATED_MORE = f"""\
sluicegate_gpu_memory_used_bytes{{{GPU}}} 4294967296
sluicegate_gpu_memory_bytes{{{GPU}}} 24159191040
sluicegate_gpu_utilization_ratio{{{GPU}}} 0.4
sluicegate_gpu_temperature_celsius{{{GPU}}} 55
sluicegate_gpu_power_watts{{{GPU}}} 60
sluicegate_tokens_total{{model="encoder",version="1"}} COUNT
sluicegate_padding_tokens_total{{model="encoder",version="1"}} COUNT
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Stub:
    """Answers GET with `text`, `COUNT` being the number of the answer, and POST with 202; keeps what was posted, by its path."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.answered = 0
        self.posted: list[tuple[str, dict]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.end_headers()
                stub.answered += 1
                self.wfile.write(stub.text.replace("COUNT", str(stub.answered)).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                stub.posted.append((self.path, json.loads(body)))
                self.send_response(202)
                self.end_headers()
                self.wfile.write(b'{"status":"success","requestId":"1","result":"ok"}')

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def process(command: list[object], log: Path, ready: str) -> Iterator[None]:
    if shutil.which(str(command[0])) is None:
        missing(f"{command[0]} is missing: apt-get install prometheus prometheus-alertmanager")
    with log.open("wb") as output:
        started = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:

        def answers() -> bool:
            assert started.poll() is None, log.read_text()[-2000:]
            return http.get(ready, timeout=5).status_code == 200

        wait_for(f"{command[0]} to be ready", answers)
        yield
    finally:
        started.kill()
        started.wait()


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict]:
        answer = http.post(f"{self.url}/api/v1/query", data={"query": expression}, timeout=30).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return answer["data"]["result"]

    def firing(self) -> set[str]:
        return {each["metric"]["alertname"] for each in self.query('ALERTS{alertstate="firing"}')}


@contextlib.contextmanager
def prometheus(
    folder: Path, targets: dict[str, str], rules: list[Path], alertmanager: str | None = None
) -> Iterator[Prometheus]:
    """Scrapes each second: `gateway` and `rolling`, with the job and labels that the chart's ServiceMonitor gives, and what is
    simulated."""
    folder.mkdir()
    serving = {"namespace": "serving", "pod": "sluicegate-0"}
    jobs = {
        "gateway": ("sluicegate", serving),
        "more": ("sluicegate", serving),
        "rolling": ("sluicegate", {"namespace": "staging", "pod": "sluicegate-0"}),
        "kube": ("kube-state-metrics", {}),
    }
    scrapes: dict[str, list] = {}
    for name, address in targets.items():
        job, labels = jobs[name]
        scrapes.setdefault(job, []).append({"targets": [address], "labels": labels})
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": job, "honor_labels": True, "static_configs": found} for job, found in scrapes.items()],
        "rule_files": [str(path) for path in rules],
    }
    if alertmanager:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    file, port = folder / "prometheus.yaml", free_port()
    file.write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{port}"
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with process([*command, "--log.level=warn"], folder / "log", f"{url}/-/ready"):
        yield Prometheus(url)


@contextlib.contextmanager
def alertmanager(folder: Path, config: dict) -> Iterator[str]:
    folder.mkdir()
    file, port = folder / "alertmanager.yaml", free_port()
    file.write_text(yaml.safe_dump(config))
    command = [
        "prometheus-alertmanager",
        f"--config.file={file}",
        f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with process(command, folder / "log", f"http://127.0.0.1:{port}/-/ready"):
        yield f"127.0.0.1:{port}"
