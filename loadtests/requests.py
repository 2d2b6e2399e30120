"""Instructions of one request, counted by valgrind in a started gateway: alone, with a rollout beside it, and with traces.

    python3 loadtests/requests.py [--gateway target/release/sluicegate] [--write]

What others take of a shared machine changes rates by more than these cost; the instructions of a request on its own thread are nearly the
same each time. The kernel's are not counted: of all that a request takes, the parts are smaller than told here.
"""

import argparse
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models/breast-cancer/1/model.onnx"
REQUESTS = 3_000
WARM = 300

ROLLOUT = "candidate: 2, strategy: canary, steps: [ { weight: 5%, pause: true } ], analysis: [ { metric: error_rate, max: 50% } ]"
CONFIG = f"""
registries: {{ local: {{ type: directory, path: models }} }}
models:
  - {{ name: plain, version: 1 }}
  - {{ name: split, version: 1, rollout: {{ {ROLLOUT} }} }}
"""
# 30 numbers, as a caller of the typed route sends them.
BODY = json.dumps({"X": [place * 7 % 20 + 0.5 for place in range(30)]})


class Sink(http.server.BaseHTTPRequestHandler):
    """A receiver of traces that takes everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):  # noqa: N802
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, model, count):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(count):
        connection.request("POST", f"/models/{model}/predict", BODY, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise SystemExit(f"{model}: {response.status}")
    connection.close()


def counted(gateway, environment, models):
    """The instructions of a request of each of the models, in one run of the gateway: on its own thread, and on all."""
    with tempfile.TemporaryDirectory() as folder:
        for model in ("plain", "split"):
            for version in ("1", "2"):
                place = Path(folder, "models", model, version)
                place.mkdir(parents=True)
                shutil.copy(MODEL, place)
        Path(folder, "sluicegate.yaml").write_text(CONFIG)
        port, ops = free_port(), free_port()
        out = Path(folder, "callgrind.out")
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes", f"--callgrind-out-file={out}", gateway, "serve"]
        command += ["--config", "sluicegate.yaml", "--onnxruntime", str(ROOT / ".onnxruntime")]
        command += ["--http", f"127.0.0.1:{port}", "--grpc", "127.0.0.1:0", "--ops", f"127.0.0.1:{ops}"]
        process = subprocess.Popen(command, cwd=folder, env={"PATH": os.environ["PATH"], **environment}, stderr=subprocess.DEVNULL)

        def control(*words):
            subprocess.run(["callgrind_control", *words, str(process.pid)], check=True, capture_output=True)

        try:
            until = time.monotonic() + 300
            while not is_split(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit("the gateway does not serve")
                time.sleep(0.5)
            for model in models:
                ask(port, model, WARM)
            control("--instr=on")
            for model in models:
                control("--zero")
                ask(port, model, REQUESTS)
                control(f"--dump={model}")
            return [of_dump(folder, place) for place in range(1, len(models) + 1)]
        finally:
            process.terminate()
            process.wait()


def of_dump(folder, place):
    """A request's connection is served by one thread, which no other thread comes near."""
    totals = [re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE) for dump in Path(folder).glob(f"callgrind.out.{place}-*")]
    counts = [int(total.group(1)) / REQUESTS for total in totals if total]
    return max(counts), sum(counts)


def is_split(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/models/split/rollout")
        return json.load(connection.getresponse()).get("share") == "5%"
    except (OSError, http.client.HTTPException, ValueError):
        return False


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--gateway", default=str(ROOT / "target/release/sluicegate"))
    options.add_argument("--write", action="store_true", help="keep the page in loadtests/results")
    options = options.parse_args()
    gateway = str(Path(options.gateway).resolve())
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()

    def traced(part):
        endpoint = f"http://127.0.0.1:{sink.server_port}"
        sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": part}
        return counted(gateway, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **sampler}, ["plain"])[0]

    alone, again, split = counted(gateway, {}, ["plain", "plain", "split"])
    rows = [
        ("alone", alone),
        ("the same once more", again),
        ("a rollout at 5 %", split),
        ("traces named, of no request", traced("0")),
        ("traces of 1 %", traced("0.01")),
        ("traces of all", traced("1")),
    ]
    commit = subprocess.run(["git", "rev-parse", "--short=9", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    def row(name, counts):
        beside = [100 * (count / first - 1) for count, first in zip(counts, alone, strict=True)]
        return f"| {name} | {counts[0]:,.0f} | {beside[0]:+.1f} % | {counts[1]:,.0f} | {beside[1]:+.1f} % |"

    table = "\n".join(row(name, counts) for name, counts in rows)
    page = f"""# Instructions of a request

Commit {commit}. {REQUESTS:,} requests on one connection, 30 numbers as JSON to a gradient boosting over HTTP, counted by valgrind's callgrind in
the release binary. The thread of the request decodes, runs ONNX Runtime and encodes. Other threads send spans, which goes by the requests,
and decide on the rollout, which goes by the time, of which there is a hundred times as much for each request under valgrind. The kernel's
instructions are not counted.

| request | its thread | beside the first | all threads | beside the first |
|---|---|---|---|---|
{table}
"""
    print(page)
    if options.write:
        Path(ROOT, f"loadtests/results/{time.strftime('%F')}-{commit}-requests.md").write_text(page)


main()
