"""Two builds of the gateway beside each other, in one run: answers a second and latencies over one connection and over many.

    python3 loadtests/binaries.py OLD NEW [--write]

For a change of the way that every request takes: build before it, copy the program, build after it. (A worktree of the older commit needs a
target directory of its own: cargo would take what it builds there for the newer one's.) In each round each of them is started anew, in an
order by chance, once on all processors together with wrk, and once on all but the last one, which wrk has for itself.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models/breast-cancer/1/model.onnx"
CONNECTIONS = (1, 4, 16, 64)
UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000}
# 30 numbers, as a caller of the typed route sends them.
BODY = json.dumps({"X": [place * 7 % 20 + 0.5 for place in range(30)]})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on(processors, command):
    return ["taskset", "-c", ",".join(map(str, processors)), *command]


def wrk(processors, folder, port, connections, seconds):
    """Answers a second, and the median and the 99th percentile of the latency in microseconds."""
    script, url = Path(folder, "wrk.lua"), f"http://127.0.0.1:{port}/models/plain/predict"
    script.write_text(f"wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\nwrk.body = '{BODY}'\n")
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency", "-s", str(script), url]
    said = subprocess.run(on(processors, command), check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"not every request was answered: {said}")

    def quantile(of):
        number, unit = re.search(rf"{of}%\s+([\d.]+)(us|ms|s)", said).groups()
        return float(number) * UNITS[unit]

    return float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1)), quantile(50), quantile(99)


def measured(gateway, own, others, seconds):
    """What wrk sees of a gateway that has `own` processors, from `others`, and the commit that it was built from."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "models/plain/1")
        place.mkdir(parents=True)
        shutil.copy(MODEL, place)
        port, log = free_port(), Path(folder, "log")
        command = [gateway, "serve", "--models", "models", "--onnxruntime", str(ROOT / ".onnxruntime")]
        command += ["--http", f"127.0.0.1:{port}", "--grpc", "127.0.0.1:0", "--ops", "127.0.0.1:0"]
        with log.open("w") as out:
            process = subprocess.Popen(on(own, command), cwd=folder, stdout=subprocess.DEVNULL, stderr=out)
        try:
            until = time.monotonic() + 30
            while not answers(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"the gateway does not serve: {log.read_text()}")
                time.sleep(0.05)
            seen = [wrk(others, folder, port, connections, seconds) for connections in CONNECTIONS]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
        return seen, re.search(r'"commit":"(\w+)"', log.read_text()).group(1)[:9]


def answers(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/models/plain", timeout=1).status == 200
    except OSError:
        return False


def mean(values):
    return f"{statistics.mean(values):.1f} % (+-{statistics.stdev(values) / math.sqrt(len(values)):.1f})"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("old")
    options.add_argument("new")
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument("--seconds", type=int, default=1, help="how long each wrk asks")
    options.add_argument("--write", action="store_true", help="keep the page in loadtests/results")
    options = options.parse_args()
    builds = [str(Path(build).resolve()) for build in (options.old, options.new)]
    processors = sorted(os.sched_getaffinity(0))
    ways = {"all, which wrk has a part of": (processors, processors)}
    if len(processors) > 1:
        ways[f"{len(processors) - 1} of {len(processors)}, wrk has the other one"] = (processors[:-1], processors[-1:])
    commits, seen = ["", ""], {}
    for _ in range(options.rounds):
        for way, (own, others) in ways.items():
            for build in random.sample(range(2), 2):
                found, commits[build] = measured(builds[build], own, others, options.seconds)
                for connections, one in zip(CONNECTIONS, found, strict=True):
                    seen.setdefault((way, connections), ([], []))[build].append(one)
    page = f"# Two builds beside each other\n\nCommit {commits[1]} beside {commits[0]}. {len(processors)} processors, one row of 30 numbers as JSON to a gradient\n"
    page += f"boosting, {options.rounds} rounds with new processes, {options.seconds} s for each number. Medians over the rounds, latencies in microseconds; ratios are taken within\n"
    page += "a round, means with their standard errors.\n\n"
    page += f"| processors of the gateway | connections | {commits[0]}: answers/s, p50, p99 | {commits[1]}: answers/s, p50, p99 | answers/s, ratio | p50, ratio |\n|---|---|---|---|---|---|\n"
    for (way, connections), sides in seen.items():
        told = [", ".join(f"{statistics.median(column):,.0f}" for column in zip(*side, strict=True)) for side in sides]
        ratios = [mean([100 * new[place] / old[place] for old, new in zip(*sides, strict=True)]) for place in (0, 1)]
        page += f"| {way} | {connections} | {told[0]} | {told[1]} | {ratios[0]} | {ratios[1]} |\n"
    print(page)
    if options.write:
        path = ROOT / f"loadtests/results/{datetime.now(UTC):%Y-%m-%d}-{commits[1]}-binaries.md"
        path.write_text(page)
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
