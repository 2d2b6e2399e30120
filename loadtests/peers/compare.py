"""Sluicegate beside other servers on this machine: starts them, measures them in turn, and leaves a page and a chart.

    python3 loadtests/peers/compare.py [--rounds N] [--seconds S] [--only WORKLOAD,...] [--quick] [--smoke]

Only a run of all workloads goes to loadtests/results; any other goes to target/peers/results.
"""

import argparse
import json
import shutil
import signal
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import contestants
import environments
import page
import protocol
import sweep
from environments import ROOT
from figure import Figure
from load import wrk
from processes import Failed, Running
from workloads import CALL, IN_PROCESS, US, WORKLOADS, Inputs, Row, Workload

SCRATCH = ROOT / "target/peers"
WARM_SECONDS = 1


@dataclass
class Measured:
    """What one line of a table came to; `failed` says why there are no figures."""

    rate: Figure = field(default_factory=Figure)
    p50: Figure = field(default_factory=Figure)
    p99: Figure = field(default_factory=Figure)
    refused: int = 0
    broken: int = 0
    failed: str = ""


Results = dict[str, Measured]


def main() -> None:
    options = arguments()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: sys.exit(128 + got))  # so that the servers are stopped
    began = time.monotonic()
    missing = {name: why for name in ("fastapi", "litserve", "bentoml", "mlserver") if (why := environments.make(name))}
    if why := environments.make("engine"):
        stop(f"the environment of ONNX Runtime {why}")
    inputs = prepare()
    measured: list[tuple[Workload, Results]] = []
    for name in options.only:
        workload = WORKLOADS[name](inputs)
        say(f"{name}: {workload.title}")
        measured.append((workload, measure(workload, options, missing)))
    run = page.Run(options.rounds, options.seconds, round(time.monotonic() - began), missing, command())
    whole = options.only == list(WORKLOADS) and not options.quick and not options.smoke
    folder = ROOT / "loadtests/results" if whole else SCRATCH / "results"
    print(page.publish(folder, run, measured))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--seconds", type=int, default=4, help="how long each time (4)")
    parser.add_argument("--only", default=",".join(WORKLOADS), help=f"some of {','.join(WORKLOADS)}")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 seconds")
    parser.add_argument("--smoke", action="store_true", help="1 round of 1 second: shows that all of it works, and no more")
    options = parser.parse_args()
    if options.quick or options.smoke:
        options.rounds = options.seconds = 2 if options.quick else 1
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(WORKLOADS):
        stop(f"unknown workload {', '.join(sorted(unknown))}: take some of {', '.join(WORKLOADS)}")
    return options


def prepare() -> Inputs:
    """The models, the bodies, and ONNX Runtime's answers to them."""
    if not shutil.which("wrk"):
        stop("wrk is missing: apt-get install wrk")
    for binary in ("sluicegate", "empty"):
        if not (ROOT / "target/release" / binary).is_file():
            stop(f"target/release/{binary} is missing: run `make compare`, which builds it")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    maker = environments.HERE / "make_models.py"
    subprocess.run([environments.python("engine"), maker, SCRATCH], check=True)
    running = Running(contestants.gateway(US, contestants.MODELS), SCRATCH / "run/example")
    try:
        found: dict = {}

        def answers(address: str) -> bool:
            answer = protocol.fetch(f"http://{address}/models/breast-cancer")
            found.update(json.loads(answer[0]) if answer else {})
            return "example" in found

        running.wait_until(answers)
    except Failed as failure:
        stop(str(failure))
    finally:
        running.stop()
    example = found["example"]
    row = SCRATCH / "breast-cancer.row"
    row.write_bytes(struct.pack(f"<{len(example)}f", *example.values()))
    label, probabilities = sweep.ask(contestants.BREAST_CANCER, row, "answer")
    wanted = {"breast-cancer": [*label, *probabilities]}
    for name in ("image", "transformer"):
        wanted[name] = protocol.floats((SCRATCH / f"{name}.answer").read_bytes())
    return Inputs(SCRATCH, example, wanted)


def measure(workload: Workload, options: argparse.Namespace, missing: dict[str, str]) -> Results:
    """Starts every server of the workload, then measures one after the other, round by round."""
    results: Results = {row.name: Measured() for row in workload.rows}
    folder = SCRATCH / "run" / workload.name
    if workload.sweep:
        say("  ONNX Runtime in process: trying every setting")
        best = workload.sweep.run(0.2 if options.smoke else 1, 1 if options.smoke else sweep.FINAL_PASSES)
        workload.servers |= workload.tuned(best)
    with ExitStack() as stack:
        started: dict[str, Running] = {}
        for row in workload.rows:
            try:
                if why := missing.get(workload.needs.get(row.server, "")):
                    raise Failed(why)
                if row.server not in started:
                    place = folder / row.server.replace(" ", "-").replace(",", "")
                    started[row.server] = Running(workload.servers[row.server], place)
                    stack.callback(started[row.server].stop)
                started[row.server].thaw()
                # Those of a server that did not answer are not waited for again.
                if why := next((results[each.name].failed for each in workload.rows if each.server == row.server), ""):
                    raise Failed(why)
                check(workload, row, started[row.server])
                wrk(started[row.server].address, row.request, row.connections, WARM_SECONDS, folder)
            except Failed as failure:
                say(f"  {row.name} is left out: {failure}")
                results[row.name].failed = str(failure).partition("\n")[0]
            if row.server in started:
                protocol.ask(started[row.server].address, row.request)
                started[row.server].freeze()
        if workload.sweep:
            results[IN_PROCESS] = Measured()
        if workload.call:
            results[CALL] = Measured()
        for number in range(options.rounds):
            one_round(workload, options, results, started, number)
    return results


def check(workload: Workload, row: Row, server: Running) -> None:
    """Waits for the first answer, and holds it against ONNX Runtime's own."""
    server.wait_until(lambda address: protocol.ask(address, row.request) is not None)
    if row.read is None:
        return
    # More than once: a server that batches must give each caller the same.
    for _ in range(3):
        answer = protocol.ask(server.address, row.request)
        try:
            got = row.read(*answer) if answer else []
        except (KeyError, ValueError, TypeError) as unexpected:
            raise Failed(f"WRONG ANSWER, disqualified: not of its form ({unexpected!r})") from unexpected
        if not protocol.same(got, workload.wanted):
            raise Failed(f"WRONG ANSWER, disqualified: {got[:4]} in place of {workload.wanted[:4]}")


def one_round(workload: Workload, options: argparse.Namespace, results: Results, started: dict[str, Running], number: int) -> None:
    say(f"  round {number + 1} of {options.rounds}")
    seconds = workload.seconds(options.seconds)
    folder = SCRATCH / "run" / workload.name
    rows = [row for row in workload.rows if not results[row.name].failed]
    turns = [partial(load, workload, row, started[row.server], seconds, results[row.name], folder) for row in rows]
    if workload.sweep:
        turns.insert(1, lambda: results[IN_PROCESS].rate.add(workload.sweep.measure(workload.sweep.best(), seconds)))
    if workload.call:
        turns.insert(1, lambda: results[CALL].p50.add(sweep.ask(*workload.call, "call")))
    # Each round begins with another one, so that none is always the first.
    shift = number % max(1, len(turns))
    for turn in turns[shift:] + turns[:shift]:
        turn()


def load(workload: Workload, row: Row, server: Running, seconds: float, result: Measured, folder: Path) -> None:
    server.thaw()
    time.sleep(0.2)  # for what it put off while it was frozen
    seen = wrk(server.address, row.request, row.connections, seconds, folder)
    protocol.ask(server.address, row.request)  # answered behind what wrk left in its queue
    server.freeze()
    result.rate.add(seen.closed_rate if workload.sweep else seen.rate)
    result.p50.add(seen.p50)
    result.p99.add(seen.p99)
    result.refused += seen.refused
    result.broken += seen.broken


def command() -> str:
    return " ".join(["python3 loadtests/peers/compare.py", *sys.argv[1:]])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def stop(why: str) -> None:
    say(why)
    sys.exit(2)


if __name__ == "__main__":
    main()
