"""The page and the chart that a run leaves behind."""

import datetime
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import chart
import environments
from claims import claims
from contestants import CORES
from environments import ROOT
from workloads import EMPTY, IN_PROCESS, LONG, MLSERVERS, US

SETTINGS = "[how each is started, and why so](../peers/README.md)"


@dataclass(frozen=True)
class Run:
    rounds: int
    seconds: int
    took: int
    missing: dict[str, str]
    command: str


def publish(folder: Path, run: Run, measured: list) -> str:
    """Writes `<date>-<commit>-compare.md` and `.svg`; gives the page and where it is."""
    name = f"{datetime.date.today()}-{commit().replace('+', '-changed')}-compare"
    folder.mkdir(parents=True, exist_ok=True)
    tables = {workload.name: results for workload, results in measured}
    drawn = "tabular-16" in tables and bool(tables["tabular-16"][US].rate)
    if drawn:
        (folder / f"{name}.svg").write_text(chart.draw(bars(tables["tabular-16"]), US, CORES))
    text = write(run, measured, tables, f"{name}.svg" if drawn else "")
    (folder / f"{name}.md").write_text(text)
    return f"{text}\nwritten to {(folder / name).relative_to(ROOT)}.md"


def write(run: Run, measured: list, tables: dict, drawing: str) -> str:
    parts = [
        "# Beside other servers",
        f"{machine()}. wrk on the same machine, {rounds(run)}, interleaved; medians with the smallest and the largest. A ratio is taken within each round. A server that is not being measured is frozen. All run the same "
        f"`.onnx` files on ONNX Runtime 1.31.1, and each one's answer was held against ONNX Runtime's own before; {SETTINGS}.",
        f"`{run.command}`, {run.took // 60} min {run.took % 60} s.",
    ]
    if drawing:
        parts.append(f"![answers a second, one tabular row, 16 connections]({drawing})")
    held = [claim.cells() for claim in claims(tables)]
    parts += ["## What we hold ourselves to", table(["figure", "wanted", "measured", ""], held)]
    for workload, results in measured:
        parts += [f"## {workload.title}", workload.about, rows(workload, results)]
        if workload.sweep and workload.sweep.found:
            parts.append(swept(workload.sweep))
    parts += ["## Versions", versions(run.missing)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def rounds(run: Run) -> str:
    return f"{run.rounds} round{'s' * (run.rounds > 1)} of {run.seconds} s each ({LONG * run.seconds} s for the image and the transformer)"


def rows(workload, results: dict) -> str:
    base = results[workload.base].rate
    unit = "rows/s" if workload.sweep else "answers/s"
    lines = []
    for name, result in results.items():
        if result.failed:
            lines.append([name, result.failed, "", "", "", ""])
            continue
        digits = 1 if result.rate.median() < 1000 else 0
        ratio = "" if name == workload.base or not result.rate else base.per(result.rate).show(2)
        errors = f"{result.refused + result.broken}" if result.rate and name != IN_PROCESS else ""
        p50 = result.p50.show(1 if result.p50.median() < 20 else 0)
        lines.append([name, result.rate.show(digits), ratio, p50, result.p99.show(), errors])
    return table(["", unit, f"{workload.base} / it", "p50, µs", "p99, µs", "errors"], lines)


def swept(sweep) -> str:
    """The best of each way to share the cores."""
    ways: dict[tuple, tuple] = {}
    for setting, figure in sweep.found.items():
        way = (setting.threads, setting.callers, setting.spin)
        if way not in ways or figure.median() > ways[way][1].median():
            ways[way] = (setting, figure)
    ordered = sorted(ways.values(), key=lambda found: -found[1].median())
    lines = [[str(setting), figure.show(1)] for setting, figure in ordered]
    best = f"In process, **{sweep.best()}** is measured: the best of {len(sweep.found)} settings (callers x threads of each):"
    return f"{best}\n\n{table(['best batch of each way', 'rows/s'], lines)}"


def versions(missing: dict[str, str]) -> str:
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout.split(" [")[0].strip()
    lines = [["Python", platform.python_version()], ["load generator", said]]
    for name in ("fastapi", "litserve", "bentoml", "mlserver", "engine"):
        lines.append([f"`requirements-{name}.txt`", missing.get(name) or environments.versions(name)])
    return table(["", "version"], lines)


def bars(results: dict) -> list[chart.Bar]:
    """A bar for each that made no errors; of MLServer's settings, the best."""
    weaker = sorted((name for name in MLSERVERS if name in results), key=lambda name: results[name].rate.median())[:-1]
    base = results[US].rate
    made = [
        chart.Bar(name, result.rate.median(), base.per(result.rate).median(), name == EMPTY)
        for name, result in results.items()
        if result.rate and not result.refused + result.broken and name not in weaker
    ]
    return sorted(made, key=lambda bar: -bar.value)


def machine() -> str:
    """The machine and the commit, as `machine` in loadtests/src/lib.rs gives them."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return f"{CORES} x {models[0] if models else platform.machine()}, commit {commit()}"


def commit() -> str:
    """The commit, with a `+` where the tree has changes."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    dirty = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
    return git("rev-parse", "--short=9", "HEAD") + dirty


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])
