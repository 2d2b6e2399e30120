"""The gateway on a CUDA device: answers beside the processor's, what it says where CUDA is missing, speed beside ONNX Runtime in
process, and memory over swaps.

    python gpu.py --gateway FILE --onnxruntime FOLDER [--device cuda:0] [--parts checks|all|…] [--out FOLDER]
    python gpu.py --page FIGURES.json      writes the page again from figures

Runs in an environment with onnx, numpy and onnxruntime-gpu (`make bench-gpu` makes one). A part that fails is written down as
failed, and the rest goes on. Exit code 1 where a check fails.
"""

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.append(str(HERE.parent / "peers"))

import inprocess
import models
import page
from load import Request, wrk
from processes import Failed, Running, Server
from protocol import LENGTH

CHECKS = ["missing", "auto", "conformance", "swaps"]
MEASURES = ["options", "throughput", "latency"]
MODELS = ["encoder", "encoder-fp16", "resnet50", "resnet50-fp16"]
INPUTS = {"encoder": ("input_ids", "INT64", [128]), "resnet50": ("image", "FP32", [3, 224, 224])}
TYPES = {"INT64": np.int64, "FP32": np.float32, "FP16": np.float16}
TOLERANCE = {"FP32": 1e-3, "FP16": 1e-2}
SWAPS = 50
SMALL = {"max_rows": 8, "instances": 1, "execution": "threads"}  # the warm-up runs a full batch
MEMORY_MAY_GROW = 0.02


@dataclass
class Setup:
    gateway: str
    onnxruntime: str
    device: str
    scratch: Path
    smoke: bool
    models: list[str]
    rounds: int
    seconds: float
    execution: str = "threads"

    def model(self, name: str) -> Path:
        return self.scratch / f"{name}.onnx"


def libraries() -> str:
    """The folders of CUDA's libraries that came as Python packages, for the dynamic linker."""
    found = {folder for each in sys.path for folder in Path(each).glob("nvidia/*/lib")} if sys.path else set()
    return ":".join([*map(str, sorted(found)), os.environ.get("LD_LIBRARY_PATH", "")])


class Gateway:
    """A started gateway that serves some of the models, each with its settings."""

    def __init__(self, setup: Setup, name: str, served: dict[str, dict], environment: dict[str, str] | None = None):
        folder = setup.scratch / "run" / name
        shutil.rmtree(folder, ignore_errors=True)
        for model in served:
            place = folder / "models" / model / "1"
            place.mkdir(parents=True)
            os.link(setup.model(model), place / "model.onnx")
        self.models = folder / "models"
        self.config = {
            "http": {"max_body": "512MiB"},
            "registries": {"local": {"type": "directory", "path": str(self.models), "poll": "50ms", "settle": "50ms"}},
            "models": [{"name": model, **settings} for model, settings in served.items()],
        }
        addresses = ["--http", "127.0.0.1:{0}", "--grpc", "127.0.0.1:0", "--ops", "127.0.0.1:{1}"]
        command = [setup.gateway, "serve", "--config", "{folder}/sluicegate.yaml", "--onnxruntime", setup.onnxruntime, *addresses]
        environment = {"LD_LIBRARY_PATH": libraries()} | (environment or {})
        self.running = Running(Server(name, command, environment, {"sluicegate.yaml": json.dumps(self.config)}), folder)
        words = self.running.process.args
        self.ops = words[words.index("--ops") + 1]
        try:
            self.running.wait_until(self.is_settled)
        except BaseException:
            self.running.stop()
            raise

    @property
    def address(self) -> str:
        return self.running.address

    def status(self) -> dict:
        connection = http.client.HTTPConnection(self.ops, timeout=30)
        connection.request("GET", "/status")
        found = json.load(connection.getresponse())
        connection.close()
        return {model["name"]: model for model in found["models"]}

    def states(self) -> dict[str, dict[str, dict]]:
        return {name: model["versions"] for name, model in self.status().items()}

    def is_settled(self, _: str = "") -> bool:
        """Every declared version serves or has failed."""
        try:
            states = self.states()
        except (OSError, http.client.HTTPException, ValueError):
            return False
        versions = [version["state"] for model in self.config["models"] for version in (states.get(model["name"]) or {}).values()]
        return len(versions) >= len(self.config["models"]) and all(state in ("live", "failed") for state in versions)

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, *_: object) -> None:
        self.running.stop()


def request(model: str, rows: np.ndarray) -> Request:
    """Rows by the protocol's binary form; the answer is asked for in the same form."""
    name, datatype, _ = INPUTS[model.removesuffix("-fp16").removesuffix("-other")]
    datatype = "FP16" if rows.dtype == np.float16 else datatype
    raw = rows.tobytes()
    tensor = {"name": name, "shape": list(rows.shape), "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    headers = {"content-type": "application/octet-stream", LENGTH: str(len(head))}
    return Request(f"/v2/models/{model}/infer", head + raw, headers)


def sample(model: str, rows: int) -> np.ndarray:
    _, datatype, shape = INPUTS[model.removesuffix("-fp16").removesuffix("-other")]
    kind = {"INT64": "tensor(int64)", "FP32": "tensor(float16)" if model.endswith("-fp16") else "tensor(float)"}[datatype]
    return inprocess.rows_for(kind, [None, *shape], rows)


def ask(connection: http.client.HTTPConnection, asked: Request) -> tuple[np.ndarray, http.client.HTTPMessage]:
    """The first output; an error where the answer is none."""
    connection.request("POST", asked.path, asked.body, asked.headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise Failed(f"{answer.status}: {body[:300].decode(errors='replace')}")
    length = int(answer.headers[LENGTH])
    [output] = json.loads(body[:length])["outputs"]
    numbers = np.frombuffer(body[length:], TYPES[output["datatype"]]).reshape(output["shape"])
    return numbers.astype(np.float64), answer.headers


def part_conformance(setup: Setup) -> dict:
    """The same rows on the processor and on the device; the distance is that of the largest difference to the largest number."""
    answers: dict[str, dict] = {}
    sizes = [1, 3, 16]
    # Without CUDA's libraries in reach: this build of ONNX Runtime serves on the processor without them.
    for device, environment in {"cpu": {"LD_LIBRARY_PATH": ""}, setup.device: {}}.items():
        threads = {"device": device, "batching": {"threads": min(8, os.cpu_count() or 1), "instances": 1, "max_rows": 16}}
        with Gateway(setup, f"conformance-{device.replace(':', '')}", {model: threads for model in setup.models}, environment) as gateway:
            connection = http.client.HTTPConnection(gateway.address, timeout=120)
            reached = {name: model["device"] for name, model in gateway.status().items()}
            for model in setup.models:
                for rows in sizes:
                    answers[f"{model} {rows} {device}"] = {"numbers": ask(connection, request(model, sample(model, rows)))[0]}
                if reached[model] != device:
                    raise Failed(f"{model} runs on {reached[model]}, not on {device}")
    found = {}
    for model in setup.models:
        tolerance = TOLERANCE["FP16" if model.endswith("-fp16") else "FP32"]
        distances = []
        for rows in sizes:
            wanted, got = (answers[f"{model} {rows} {device}"]["numbers"] for device in ["cpu", setup.device])
            distances.append(float(np.abs(got - wanted).max() / np.abs(wanted).max()))
        found[model] = {"distance": max(distances), "tolerance": tolerance, "ok": max(distances) <= tolerance, "rows": sizes}
    return found


def part_missing(setup: Setup) -> dict:
    """CUDA asked for where it is not: at check and at serve, beside a model on the processor that has to serve."""
    cases = {
        "no device visible": ("cuda:0", {"CUDA_VISIBLE_DEVICES": ""}),
        "a device number that is not there": ("cuda:7", {}),
        "without CUDA's libraries": ("cuda:0", {"LD_LIBRARY_PATH": ""}),
        "without cuDNN": ("cuda:0", {"LD_LIBRARY_PATH": ":".join(each for each in libraries().split(":") if "cudnn" not in each)}),
    }
    found = {}
    for case, (device, environment) in cases.items():
        served = {"encoder": {"device": device, "batching": SMALL}, "encoder-other": {"device": "cpu", "batching": SMALL}}
        with Gateway(setup, "missing", served, environment) as gateway:
            status = gateway.status()
            encoder = status["encoder"]["versions"]["1"]
            numbers, _ = ask(http.client.HTTPConnection(gateway.address, timeout=60), request("encoder-other", sample("encoder", 1)))
            config = gateway.models.parent / "sluicegate.yaml"
            checked = subprocess.run(
                [setup.gateway, "check", "--config", str(config), "--onnxruntime", setup.onnxruntime],
                capture_output=True, text=True, timeout=120, env={**os.environ, "LD_LIBRARY_PATH": libraries(), **environment},
            )  # fmt: skip
        state, reason = encoder["state"], encoder.get("reason") or status["encoder"].get("reason") or ""
        if state == "live" and "LD_LIBRARY_PATH" in environment:
            reason = f"not tried: {device} opens without them on LD_LIBRARY_PATH, for the loader finds them elsewhere"
        ok = reason.startswith("not tried") or state == "failed" and device in reason and checked.returncode == 1 and device in checked.stdout + checked.stderr
        found[case] = {
            "device": device, "state": state, "reason": reason, "check_code": checked.returncode,
            "check_says": (checked.stdout + checked.stderr)[-1500:], "other_answers": bool(np.isfinite(numbers).all()),
            "ok": bool(ok and np.isfinite(numbers).all()),
        }  # fmt: skip
    return found


def part_auto(setup: Setup) -> dict:
    """What `auto` comes to, with a device and without one."""
    found = {}
    for case, environment, wanted in [
        ("with a device", {}, setup.device),
        ("no device visible", {"CUDA_VISIBLE_DEVICES": ""}, "cpu"),
        ("without CUDA's libraries", {"LD_LIBRARY_PATH": ""}, "cpu"),
    ]:
        with Gateway(setup, "auto", {model: {"batching": SMALL} for model in ["encoder", setup.models[-1]]}, environment) as gateway:
            connection = http.client.HTTPConnection(gateway.address, timeout=60)
            numbers, _ = ask(connection, request("encoder", sample("encoder", 1)))
            devices = sorted({model["device"] for model in gateway.status().values()})
            connection.request("GET", "/v2/models/encoder")
            says = json.load(connection.getresponse())["properties"].get("engine_fallback")
        if "LD_LIBRARY_PATH" in environment and devices == [setup.device]:
            says, wanted = "not tried: the loader finds them elsewhere", setup.device
        found[case] = {"devices": devices, "says": says, "ok": devices == [wanted] and bool(np.isfinite(numbers).all())}
    return found


def tool(setup: Setup, model: str, *arguments: str) -> object:
    """ONNX Runtime in process, in a process of its own."""
    command = [sys.executable, str(HERE / "inprocess.py"), setup.device, str(setup.model(model)), *arguments]
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries()}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    if done.returncode:
        raise Failed(done.stderr[-1500:])
    return json.loads(done.stdout.splitlines()[-1])


def part_options(setup: Setup) -> object:
    return tool(setup, "resnet50", "options", "1")


def part_throughput(setup: Setup) -> dict:
    """The best setting in process, then the gateway with as many rows a run and as many instances, in turn with it."""
    found = {}
    batches = "1,8" if setup.smoke else "8,32,64,128"
    for model in setup.models:
        swept = tool(setup, model, "sweep", "0.5", batches, "1,2")
        best = max(swept, key=lambda each: each["rate"])
        batch, callers = best["batch"], best["callers"]
        settings = {"device": setup.device, "batching": {"max_rows": batch, "max_delay": "5ms", "instances": callers, "execution": "threads"}}
        shapes = {"one": (1, 2 * batch * callers), "batch": (batch, 2 * callers)}
        runs: dict[str, list] = {"inprocess": [], "one": [], "batch": []}
        with Gateway(setup, f"throughput-{model}", {model: settings}) as gateway:
            for round in range(setup.rounds + 1):
                for shape, (rows, connections) in shapes.items():
                    seen = wrk(gateway.address, request(model, sample(model, rows)), connections, setup.seconds, setup.scratch, threads=4)
                    # The first round makes the sizes of batches known to the device.
                    if round:
                        runs[shape].append({"rate": seen.closed_rate * rows, "p50": seen.p50, "p99": seen.p99, "refused": seen.refused + seen.broken})
                if round:
                    [once] = tool(setup, model, "sweep", str(setup.seconds), str(batch), str(callers))
                    runs["inprocess"].append(once)
        ratios = {shape: [each["rate"] / base["rate"] for each, base in zip(runs[shape], runs["inprocess"])] for shape in shapes}
        found[model] = {
            "batch": batch, "callers": callers, "sweep": swept, "runs": runs,
            "ratio": {shape: statistics.median(each) for shape, each in ratios.items()},
        }  # fmt: skip
    return found


def part_latency(setup: Setup) -> dict:
    """One row on one connection, beside a call in process, and beside what HTTP alone takes with the same body."""
    found = {}
    for model in setup.models:
        asked, runs = request(model, sample(model, 1)), []
        with Gateway(setup, f"latency-{model}", {model: {"device": setup.device, "batching": SMALL | {"execution": setup.execution}}}) as gateway:
            for _ in range(setup.rounds):
                seen = wrk(gateway.address, asked, 1, setup.seconds, setup.scratch)
                once = tool(setup, model, "call", "1")
                runs.append({"gateway_p50": seen.p50, "gateway_p99": seen.p99, "refused": seen.refused + seen.broken, **once})
        bare = bare_handler(setup, asked)
        middle = {key: statistics.median(run[key] for run in runs) for key in ["gateway_p50", "gateway_p99", "p50", "p99"]}
        found[model] = {"runs": runs, **middle, "added": middle["gateway_p50"] - middle["p50"], "bare_p50": bare}
    return found


def bare_handler(setup: Setup, asked: Request) -> float | None:
    """The p50 of a handler that reads the body and runs nothing, where it was built."""
    program = Path(setup.gateway).parent / "empty"
    if not program.exists():
        return None
    running = Running(Server("empty", [str(program)], tells_address=True), setup.scratch / "run" / "empty")
    try:
        running.wait_until(lambda address: running.log.read_text().count("\n") > 0)
        same = Request("/models/m/predict", asked.body, asked.headers)
        return wrk(running.address, same, 1, 1, setup.scratch).p50
    finally:
        running.stop()


def memory_used(device: str) -> float:
    """MiB in use on the device, by all."""
    number = device.removeprefix("cuda:")
    command = ["nvidia-smi", f"--id={number}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def part_swaps(setup: Setup) -> dict:
    """Version after version while four callers ask; memory is read when the old version is gone."""
    swaps = 4 if setup.smoke else SWAPS
    settings = {"device": setup.device, "batching": SMALL}
    series: list[float] = []
    failures: list[str] = []
    answered, stop = [0], threading.Event()
    started = time.monotonic()
    with Gateway(setup, "swaps", {"encoder": settings}) as gateway:
        weights = [setup.model("encoder-other"), setup.model("encoder")]  # of even versions and of odd ones
        rows = sample("encoder", 1)
        asked = request("encoder", rows)
        known: dict[int, np.ndarray] = {}
        known[1] = ask(http.client.HTTPConnection(gateway.address, timeout=60), asked)[0]
        lock = threading.Lock()

        def call() -> None:
            connection = http.client.HTTPConnection(gateway.address, timeout=60)
            while not stop.is_set():
                try:
                    numbers, headers = ask(connection, asked)
                    version = int(headers["x-model-version"])
                    with lock:
                        answered[0] += 1
                        wanted = known.setdefault(version % 2, numbers)
                    if np.abs(numbers - wanted).max() > 1e-3 * np.abs(wanted).max():
                        failures.append(f"an answer of other weights than those of version {version}")
                except (OSError, http.client.HTTPException, Failed, KeyError) as error:
                    failures.append(repr(error)[:200])
                    connection.close()

        callers = [threading.Thread(target=call) for _ in range(1 if setup.smoke else 4)]
        for each in callers:
            each.start()
        try:
            for version in range(2, swaps + 2):
                hidden = gateway.models / "encoder" / f".{version}"
                hidden.mkdir()
                os.link(weights[version % 2], hidden / "model.onnx")
                hidden.rename(gateway.models / "encoder" / str(version))
                deadline = time.monotonic() + 60
                while True:
                    states = {number: each["state"] for number, each in gateway.states()["encoder"].items()}
                    old = states.get(str(version - 1), "gone")
                    if states.get(str(version)) == "live" and old not in ("live", "draining"):
                        break
                    if time.monotonic() > deadline:
                        raise Failed(f"version {version} did not replace the one before: {states}")
                    time.sleep(0.02)
                if setup.device != "cpu":
                    time.sleep(0.1)
                    series.append(memory_used(setup.device))
        finally:
            stop.set()
            for each in callers:
                each.join()
    told_apart = len(known) >= 2 and 0 in known and np.abs(known[0] - known[1]).max() > 1e-2 * np.abs(known[1]).max()
    first, last = (series[0], series[-1]) if series else (0.0, 0.0)
    grown = (last - first) / first if first else 0.0
    return {
        "swaps": swaps, "seconds": time.monotonic() - started, "answers": answered[0], "failed": len(failures), "failures": failures[:5],
        "memory_mib": series, "grown": grown, "told_apart": bool(told_apart),
        "ok": not failures and bool(told_apart) and grown <= MEMORY_MAY_GROW,
    }  # fmt: skip


def is_well(name: str, found: object) -> bool:
    if not isinstance(found, dict) or "failed_with" in found:
        return not isinstance(found, dict)
    checks = [found] if "ok" in found else [each for each in found.values() if isinstance(each, dict) and "ok" in each]
    return all(each["ok"] for each in checks)


def hardware() -> dict[str, str]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        name, driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].split(", ")
    except (OSError, subprocess.CalledProcessError, IndexError):
        name, driver = "no GPU", "none"
    return {"gpu": name, "driver": driver, "cpu": page.processor(), "cores": str(os.cpu_count())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", default=str(ROOT / "target/release/sluicegate"))
    parser.add_argument("--onnxruntime", help="the folder of the libraries; as a rule that of the installed package")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--parts", default="all", help="checks, measures, all, or names: " + ",".join(CHECKS + MEASURES))
    parser.add_argument("--out", type=Path, default=ROOT / "target/gpu")
    parser.add_argument("--smoke", action="store_true", help="shows that all of it works; its figures mean nothing")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--execution", default="threads", help="for the latency: threads or inline")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="for each figure")
    parser.add_argument("--page", type=Path, help="write the page from these figures alone")
    options = parser.parse_args()
    if options.page:
        print(page.publish(json.loads(options.page.read_text())))
        return 0
    import onnxruntime

    folder = options.onnxruntime or str(Path(onnxruntime.__file__).parent / "capi")
    scratch = options.out / "scratch"
    setup = Setup(str(Path(options.gateway).resolve()), folder, options.device, scratch.resolve(), options.smoke, options.models.split(","), options.rounds, options.seconds, options.execution)
    if not setup.model(MODELS[-1]).exists():
        models.main(setup.scratch)
    parts = {"checks": CHECKS, "measures": MEASURES, "all": CHECKS + MEASURES}.get(options.parts) or options.parts.split(",")
    figures: dict = {"machine": hardware(), "onnxruntime": onnxruntime.__version__, "commit": page.commit(), "device": options.device}
    well = True
    for name in parts:
        began = time.monotonic()
        try:
            figures[name] = globals()[f"part_{name}"](setup)
        except Exception as error:  # whatever it is, the other parts go on
            traceback.print_exc()
            figures[name] = {"failed_with": f"{type(error).__name__}: {error}"[:2000]}
        well &= is_well(name, figures[name])
        print(f"{name}: {'well' if is_well(name, figures[name]) else 'NOT WELL'}, {time.monotonic() - began:.1f} s", flush=True)
        (options.out / "figures.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps({key: value for key, value in figures.items() if key in CHECKS}, indent=1)[:6000])
    if not options.smoke and parts == CHECKS + MEASURES:
        print(page.publish(figures))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
