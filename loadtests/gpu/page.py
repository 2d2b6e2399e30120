"""The page that a run on a GPU leaves behind, made of its figures alone."""

import datetime
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# What the project holds itself to on a GPU.
RATIO = 0.95
ADDED_US = 50


def publish(figures: dict) -> str:
    name = f"{datetime.date.today()}-{figures['commit'].replace('+', '-changed')}-gpu.md"
    text = write(figures)
    (ROOT / "loadtests/results" / name).write_text(text)
    return f"{text}\nwritten to loadtests/results/{name}"


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    named = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return named[0] if named else platform.machine()


def commit() -> str:
    """The commit, with a `+` where the tree has changes."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short=9", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def write(figures: dict) -> str:
    machine = figures["machine"]
    parts = [
        "# On a GPU",
        f"{machine['gpu']} (driver {machine['driver']}), {machine['cores']} x {machine['cpu']}, commit {figures['commit']}, ONNX Runtime "
        f"{figures['onnxruntime']} of onnxruntime-gpu. Load generator and gateway on the same machine, by the protocol's binary form "
        "over HTTP. All models have random weights: `encoder` is 6 layers, 384 wide, 128 tokens; `resnet50` has the shape of "
        "ResNet-50. In process means ONNX Runtime called from Python with numpy arrays in and out, with the same settings of the "
        "provider.",
    ]
    for name, (title, render) in SECTIONS.items():
        found = figures.get(name)
        if found is None:
            continue
        parts.append(f"## {title}")
        if isinstance(found, dict) and "failed_with" in found:
            parts.append(f"Did not run to its end: `{found['failed_with']}`")
        else:
            parts += render(found)
    return "\n\n".join(parts) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def held(ok: bool) -> str:
    return "held" if ok else "**missed**"


def tried(each: dict) -> str:
    return "not tried" if each["reason"].startswith("not tried") else held(each["ok"])


def within(runs: list[dict]) -> str:
    """Whether the bound on latency is held, where the runs are near enough to each other to tell."""
    served, called = [run["gateway_p50"] for run in runs], [run["p50"] for run in runs]
    if min(served) - max(called) > ADDED_US:
        return held(False)
    return held(True) if max(served) - min(called) <= ADDED_US else "not shown: the runs are too far apart"


def conformance(found: dict) -> list[str]:
    rows = [[name, f"{each['distance']:.1e}", f"{each['tolerance']:g}", held(each["ok"])] for name, each in found.items()]
    return [
        "The same rows (1, 3 and 16) answered on the device and on the processor: the largest difference as a part of the largest "
        "number. The processor's side was the same library, without LD_LIBRARY_PATH.",
        table(["model", "distance", "wanted", ""], rows),
    ]


def missing(found: dict) -> list[str]:
    rows = [[case, each["device"], each["state"], f"`{each['reason']}`", each["check_code"], tried(each)] for case, each in found.items()]
    return [
        "What is asked for and not there; a model on the processor beside it served each time.",
        table(["case", "asked", "version", "reason", "exit code of check", ""], rows),
    ]


def auto(found: dict) -> list[str]:
    rows = [[case, ", ".join(each["devices"]), f"`{each['says']}`" if each["says"] else "", held(each["ok"])] for case, each in found.items()]
    return [table(["case", "runs on", "metadata says", ""], rows)]


def throughput(found: dict) -> list[str]:
    def middle(runs: list[dict]) -> str:
        rates = sorted(each["rate"] for each in runs)
        return f"{rates[len(rates) // 2]:.0f} ({rates[0]:.0f} to {rates[-1]:.0f})"

    rows = []
    for name, each in found.items():
        runs, ratio = each["runs"], each["ratio"]
        refused = sum(run["refused"] for shape in ["one", "batch"] for run in runs[shape])
        row = [name, f"{each['batch']} x {each['callers']}", middle(runs["inprocess"])]
        for shape in ["batch", "one"]:
            row += [middle(runs[shape]), f"{100 * ratio[shape]:.0f} %"]
        rows.append([*row, refused, held(min(ratio.values()) >= RATIO)])
    head = ["model", "rows x sessions", "in process, rows/s", "gateway, requests of a batch", "", "gateway, requests of one row", "", "failed"]
    return [
        "The size of batch and the number of sessions are those that did best in process; the gateway has as many rows a run and as many "
        "instances. Rounds in turn, medians with the smallest and the largest; a ratio is taken within a round. "
        f"Wanted: {100 * RATIO:.0f} % in both forms of request.",
        table([*head, ""], rows),
    ]


def latency(found: dict) -> list[str]:
    rows = [
        [
            name, f"{each['p50']:.0f}", f"{each['gateway_p50']:.0f}", f"{each['added']:+.0f}",
            f"{each['bare_p50']:.0f}" if each["bare_p50"] else "not run", f"{each['p99']:.0f}", f"{each['gateway_p99']:.0f}", within(each["runs"]),
        ]
        for name, each in found.items()
    ]  # fmt: skip
    head = ["model", "in process, p50", "gateway, p50", "added", "HTTP alone, p50", "in process, p99", "gateway, p99", ""]
    return [
        f"One row on one connection, microseconds; wanted: at most {ADDED_US} added at p50. HTTP alone is a handler that reads the same "
        "body and runs nothing.",
        table(head, rows),
    ]


def swaps(found: dict) -> list[str]:
    series = found["memory_mib"]
    shown = [f"{series[at - 1]:.0f} MiB after {at}" for at in [1, 10, 25, len(series)] if at <= len(series)]
    return [
        f"{found['swaps']} swaps of the encoder in {found['seconds']:.0f} s, four callers without a pause: {found['answers']} answers, "
        f"{found['failed']} failed, each of the weights of the version that it named. Memory in use on the device, when the "
        f"former version was gone: {', '.join(shown)} ({100 * found['grown']:+.1f} %; wanted: at most +2 %). {held(found['ok']).capitalize()}.",
    ]


def options(found: list[dict]) -> list[str]:
    rows = [
        [
            "on" if each["tf32"] == "1" else "off", each["search"], f"{each['distance']:.1e}", f"{each['rate_32']:.0f}", f"{each['rate_31_32']:.0f}",
            f"{each['first_ms'][0]:.0f}, then " + ", ".join(f"{ms:.0f}" for ms in each["first_ms"][1:]),
        ]
        for each in found
    ]  # fmt: skip
    return [
        "`resnet50` in process with one session. The gateway takes TF32 off and HEURISTIC. The distance is to the processor's answers, as above; "
        "the last column is what the first run of each new size of batch takes.",
        table(["TF32", "search for convolutions", "distance", "rows/s, 32 a run", "rows/s, 31 and 32 in turn", "first runs of 4, 5, 6 and 7 rows, ms"], rows),
    ]


SECTIONS = {
    "conformance": ("Answers beside the processor's", conformance),
    "missing": ("CUDA that is not there", missing),
    "auto": ("`device: auto`", auto),
    "throughput": ("Throughput beside ONNX Runtime in process", throughput),
    "latency": ("Latency beside ONNX Runtime in process", latency),
    "swaps": ("Swaps", swaps),
    "options": ("The provider's settings", options),
}
