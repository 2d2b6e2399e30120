"""Sentences a second: both engines of the gateway beside sentence-transformers, on the same weights and this machine.

    python3 loadtests/peers/encoders.py [--rounds N] [--seconds S] [--binary FILE] [--smoke]

Writes loadtests/results/<date>-<commit>-encoders.md; with --smoke or another binary, to target/peers/results.
"""

import argparse
import datetime
import json
import platform
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import contestants
import environments
import page
import protocol
from contestants import CORES
from environments import HERE, ROOT
from figure import Figure
from load import Request, wrk
from processes import Failed, Running, Server

sys.path.append(str(ROOT / "tests/goldens"))
from minilm import sentences  # noqa: E402

SCRATCH = ROOT / "target/peers"
MODELS = ROOT / ".models"
ENVIRONMENT = "sentence-transformers"
CLIENTS = [1, 8, 32]

# Of lengths that grow by the same factor each, so that half of them have ten words or fewer.
SENTENCES, WORDS = 64, 100
SEED = 1

CANDLE, RUNTIME = "Sluicegate, candle", "Sluicegate, ONNX Runtime"
OURS = [CANDLE, RUNTIME]
ONE_WORKER, WORKERS = "sentence-transformers, FastAPI", f"sentence-transformers, FastAPI, {CORES} workers"
PROCESS = "sentence-transformers, in process"

WARM_SECONDS = 2

WANTED = 1.5

ABOUT = f"""\
all-MiniLM-L6-v2 in F32; {SENTENCES} sentences of 1 to {WORDS} words, half of them of ten or fewer, one a request, one after the other on
each connection. Every answer was held against that of sentence-transformers before, within 0.0001. The typed route of the gateway, on
its defaults. FastAPI has one run at a time: on all cores in one worker, on one thread in each of {CORES}. In process there is no request:
`encode` is called with as many sentences at a time as there are clients, which it sorts by length; nothing else runs beside it."""

TEI = """\
[text-embeddings-inference](https://github.com/huggingface/text-embeddings-inference) comes as a container or is built with its own
toolchain, and is not measured here. Its published design is near to this one: texts are tokenised by workers of their own, wait in a
queue, and leave it as batches of as many tokens as are allowed (`max_batch_tokens`), which candle or ONNX Runtime computes."""


@dataclass
class Measured:
    """What one contestant came to with so many clients."""

    rate: Figure = field(default_factory=Figure)
    p50: Figure = field(default_factory=Figure)
    p99: Figure = field(default_factory=Figure)
    errors: int = 0


Results = dict[tuple[str, int], Measured]


class InProcess:
    """`sentences.py`, which waits for orders."""

    def __init__(self, file: Path) -> None:
        command = [environments.python(ENVIRONMENT), HERE / "sentences.py", MODELS / "minilm/1", file]
        log = (SCRATCH / "sentences.log").open("w")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.vectors = self.answer()

    def measure(self, clients: int, seconds: float) -> float:
        print(clients, seconds, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self):
        if not (line := self.process.stdout.readline()):
            stop(f"{PROCESS} ended: see {SCRATCH / 'sentences.log'}")
        return json.loads(line)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def main() -> None:
    options = arguments()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: sys.exit(128 + got))  # so that the servers are stopped
    began = time.monotonic()
    for need in [options.binary, MODELS / "minilm/1/model.safetensors", MODELS / "minilm-onnx/1/model.onnx"]:
        if not need.is_file():
            stop(f"{need} is missing: run `make encoders`, which makes it")
    if why := environments.make(ENVIRONMENT):
        stop(f"the environment of {ENVIRONMENT} {why}")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    draw = random.Random(SEED)
    texts = sentences(SENTENCES, WORDS, draw)
    draw.shuffle(texts)
    results = measure(texts, options)
    print(publish(results, options, round(time.monotonic() - began)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--seconds", type=int, default=8, help="how long each time (8)")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/sluicegate", help="the gateway")
    parser.add_argument("--smoke", action="store_true", help="1 round of 1 second: shows that all of it works, and no more")
    options = parser.parse_args()
    options.kept = not options.smoke and options.binary == parser.get_default("binary")
    if options.smoke:
        options.rounds = options.seconds = 1
    return options


def measure(texts: list[str], options: argparse.Namespace) -> Results:
    """Starts all of them, then measures one after the other, round by round."""
    file = SCRATCH / "sentences.json"
    file.write_text(json.dumps(texts))
    paths = {CANDLE: "/models/minilm/predict", RUNTIME: "/models/minilm-onnx/predict", ONE_WORKER: "/predict", WORKERS: "/predict"}
    asked = {name: requests(path, texts) for name, path in paths.items()}
    results: Results = {(name, clients): Measured() for clients in CLIENTS for name in [*asked, PROCESS]}
    with ExitStack() as stack:
        inside = InProcess(file)
        stack.callback(inside.stop)
        started = {}
        for server in servers(options.binary):
            say(f"starting {server.name}")
            place = SCRATCH / "run/encoders" / server.name.replace(" ", "-").replace(",", "")
            running = started[server.name] = Running(server, place)
            stack.callback(running.stop)
            try:
                check(running, asked[server.name], texts, inside.vectors)
            except Failed as failure:
                stop(str(failure))
            wrk(running.address, asked[server.name], CLIENTS[-1], WARM_SECONDS, SCRATCH)
            running.freeze()
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            turns: list[Callable[[], None]] = []
            for clients in CLIENTS:
                for name, running in started.items():
                    turns.append(partial(load, running, asked[name], clients, options.seconds, results[name, clients]))
                turns.append(partial(call, inside, clients, options.seconds, results[PROCESS, clients]))
            # Each round begins with another one, so that none is always the first.
            shift = number % len(turns)
            for turn in turns[shift:] + turns[:shift]:
                turn()
    return results


def servers(binary: Path) -> list[Server]:
    gateways = [gateway(binary, CANDLE, "minilm"), gateway(binary, RUNTIME, "minilm-onnx")]
    return [*gateways, fastapi(ONE_WORKER, 1), fastapi(WORKERS, CORES)]


def gateway(binary: Path, name: str, model: str) -> Server:
    registries = {"local": {"type": "directory", "path": str(MODELS)}}
    config = json.dumps({"registries": registries, "models": [{"name": model, "registry": "local"}]})  # which is YAML too
    addresses = ["--http", "127.0.0.1:{0}", "--grpc", "127.0.0.1:0", "--ops", "127.0.0.1:{1}"]
    command = [str(binary), "serve", *addresses, "--config", "{folder}/sluicegate.yaml"]
    return Server(name, command, files={"sluicegate.yaml": config}, directory=ROOT)


def fastapi(name: str, workers: int) -> Server:
    server = contestants.fastapi(name, "fastapi_sentences", MODELS / "minilm/1", workers)
    threads = {"OMP_NUM_THREADS": str(CORES // workers), "TOKENIZERS_PARALLELISM": "false"}
    command = [environments.python(ENVIRONMENT), *server.command[1:]]
    return replace(server, command=command, environment=server.environment | threads)


def requests(path: str, texts: list[str]) -> Request:
    first, *rest = (json.dumps({"text": text}).encode() for text in texts)
    return Request(path, first, more=tuple(rest))


def check(server: Running, request: Request, texts: list[str], vectors: list[list[float]]) -> None:
    """Waits for the first answer, and holds one for every text against what `encode` says."""
    server.wait_until(lambda address: protocol.ask(address, request) is not None)
    for text, body, vector in zip(texts, [request.body, *request.more], vectors, strict=True):
        answer = protocol.ask(server.address, replace(request, body=body))
        got = protocol.read_embedding(*answer) if answer else []
        if not protocol.same(got, vector):
            raise Failed(f"{server.server.name} has another vector for {text!r}: {got[:4]} in place of {vector[:4]}")


def load(server: Running, request: Request, clients: int, seconds: float, result: Measured) -> None:
    server.thaw()
    time.sleep(0.2)  # for what it put off while it was frozen
    seen = wrk(server.address, request, clients, seconds, SCRATCH)
    protocol.ask(server.address, request)  # answered behind what wrk left in its queue
    server.freeze()
    # What is in flight at the end is a good part of all; this has no such edge.
    result.rate.add(seen.closed_rate)
    result.p50.add(seen.p50 / 1000)
    result.p99.add(seen.p99 / 1000)
    result.errors += seen.refused + seen.broken


def call(inside: InProcess, clients: int, seconds: float, result: Measured) -> None:
    result.rate.add(inside.measure(clients, seconds))


def publish(results: Results, options: argparse.Namespace, took: int) -> str:
    """Writes the page; gives it and where it is."""
    folder = ROOT / "loadtests/results" if options.kept else SCRATCH / "results"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.date.today()}-{page.commit().replace('+', '-changed')}-encoders.md"
    path.write_text(text := write(results, options, took))
    return f"{text}\nwritten to {path.relative_to(ROOT)}"


def write(results: Results, options: argparse.Namespace, took: int) -> str:
    command = " ".join(["python3 loadtests/peers/encoders.py", *sys.argv[1:]])
    parts = [
        "# Sentence encoders",
        f"{page.machine()}. wrk on the same machine, {options.rounds} round{'s' * (options.rounds > 1)} of {options.seconds} s each, interleaved; medians with the smallest and the largest. "
        "A server that is not being measured is frozen.",
        f"`{command}`, {took // 60} min {took % 60} s.",
        ABOUT,
        "## What we hold ourselves to",
        claim(results),
    ]
    for clients in CLIENTS:
        parts += [f"## {clients} client{'s' * (clients > 1)}", table(results, clients)]
    parts += ["## text-embeddings-inference", TEI]
    versions = [["Python", platform.python_version()], [f"`requirements-{ENVIRONMENT}.txt`", environments.versions(ENVIRONMENT)]]
    parts += ["## Versions", page.table(["", "version"], versions)]
    return "\n\n".join(parts) + "\n"


def best(results: Results, names: list[str], clients: int) -> str:
    return max(names, key=lambda name: results[name, clients].rate.median())


def claim(results: Results) -> str:
    clients = CLIENTS[-1]
    ours = best(results, OURS, clients)
    lines = []
    for wanted, theirs in ((f"{WANTED} or more", best(results, [ONE_WORKER, WORKERS], clients)), ("", PROCESS)):
        ratio = results[ours, clients].rate.per(results[theirs, clients].rate)
        held = "" if not wanted else "held" if ratio.median() >= WANTED else "NOT HELD"
        lines.append([f"{ours} / {theirs}, {clients} clients", wanted, ratio.show(2), held])
    return page.table(["figure", "wanted", "measured", ""], lines)


def table(results: Results, clients: int) -> str:
    ours = best(results, OURS, clients)
    base = results[ours, clients].rate
    lines = []
    for (name, count), result in results.items():
        if count != clients:
            continue
        ratio = "" if name == ours else base.per(result.rate).show(2)
        errors = "" if name == PROCESS else str(result.errors)
        lines.append([name, result.rate.show(1), ratio, result.p50.show(1), result.p99.show(1), errors])
    return page.table(["", "sentences/s", f"{ours} / it", "p50, ms", "p99, ms", "errors"], lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def stop(why: str) -> None:
    say(why)
    sys.exit(2)


if __name__ == "__main__":
    main()
