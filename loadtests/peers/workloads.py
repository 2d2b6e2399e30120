"""What is measured: which requests, over how many connections, to whom; a workload is one table of the page."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import contestants as who
import protocol
from load import Request
from processes import Server
from protocol import typed, v2_binary, v2_json
from sweep import Setting, Sweep

US = "Sluicegate"
EMPTY = "empty axum handler"
CALL = "bare engine call"
IN_PROCESS = "ONNX Runtime in process"
ONE_WORKER = "FastAPI, one worker"
MANY_WORKERS = "FastAPI, a worker a core"
LITSERVE, LITSERVE_AT_ONCE = "LitServe", "LitServe without a window"
BENTOML = "BentoML"
MLSERVER, MLSERVER_ONE, MLSERVER_PLAIN = "MLServer", "MLServer, one process", "MLServer without batching"
MLSERVERS = [MLSERVER, MLSERVER_ONE, MLSERVER_PLAIN]
TUNED = "Sluicegate, tuned"

# Where a request takes a good part of a second, a measurement takes longer by this.
LONG = 2

Reader = Callable[[bytes, dict], list[float]]


@dataclass(frozen=True)
class Row:
    """One line of a table: a request to a server. Without a reader, the answer is not looked at."""

    name: str
    server: str
    request: Request
    connections: int
    read: Reader | None


@dataclass
class Workload:
    name: str
    title: str
    about: str
    servers: dict[str, Server]
    rows: list[Row]
    wanted: list[float]
    base: str = US
    needs: dict[str, str] = field(default_factory=dict)  # which environment a server needs
    call: tuple[Path, Path] | None = None  # measure the bare engine call with this model and row
    sweep: Sweep | None = None  # of models whose runs are long
    tuned: Callable[[Setting], dict[str, Server]] = lambda setting: {}  # servers that follow what the sweep found best

    def seconds(self, asked: float) -> float:
        return asked * LONG if self.sweep else asked


@dataclass(frozen=True)
class Inputs:
    """What the bodies are made of, and ONNX Runtime's answers to them."""

    scratch: Path
    example: dict[str, float]
    answers: dict[str, list[float]]


def tabular_servers() -> dict[str, Server]:
    model = who.BREAST_CANCER
    return {
        US: who.gateway(US, who.MODELS),
        EMPTY: who.empty(),
        ONE_WORKER: who.fastapi(ONE_WORKER, "fastapi_tabular", model, 1),
        MANY_WORKERS: who.fastapi(MANY_WORKERS, "fastapi_tabular", model, who.CORES),
        LITSERVE: who.litserve(LITSERVE, "litserve_tabular", model),
        BENTOML: who.bentoml(BENTOML, "bentoml_tabular:Tumours", model),
        LITSERVE_AT_ONCE: who.litserve(LITSERVE_AT_ONCE, "litserve_tabular", model, PEERS_MAX_DELAY="0"),
        MLSERVER: who.mlserver(MLSERVER, "breast-cancer", model, who.CORES, 16, 0.003),
        MLSERVER_ONE: who.mlserver(MLSERVER_ONE, "breast-cancer", model, 0, 16, 0.001),
        MLSERVER_PLAIN: who.mlserver(MLSERVER_PLAIN, "breast-cancer", model, 0, 0, 0),
    }


ENVIRONMENTS = {
    ONE_WORKER: "fastapi",
    MANY_WORKERS: "fastapi",
    LITSERVE: "litserve",
    LITSERVE_AT_ONCE: "litserve",
    BENTOML: "bentoml",
    **dict.fromkeys(MLSERVERS, "mlserver"),
}


def tabular(inputs: Inputs, name: str, title: str, about: str, connections: int, names: list[str]) -> Workload:
    """One row of 30 named numbers as each server takes it."""
    example = inputs.example
    tensor = {"name": "X", "shape": [1, 30], "datatype": "FP32"}
    ours = typed("/models/breast-cancer/predict", example)
    v2 = v2_json("breast-cancer", tensor, list(example.values()))
    requests: dict[str, tuple[Request, Reader | None]] = {
        US: (ours, protocol.read_typed),
        EMPTY: (ours, None),
        BENTOML: (typed("/predict", {"rows": [example]}), protocol.read_typed),
        **dict.fromkeys(MLSERVERS, (v2, protocol.read_v2)),
    }
    plain = (typed("/predict", example), protocol.read_typed)
    made = [Row(each, each, *swap(requests.get(each, plain), connections)) for each in names]
    servers = {each: server for each, server in tabular_servers().items() if each in names}
    return Workload(name, title, about, servers, made, inputs.answers["breast-cancer"], needs=ENVIRONMENTS)


def swap(request: tuple[Request, Reader | None], connections: int) -> tuple[Request, int, Reader | None]:
    return request[0], connections, request[1]


def tabular_16(inputs: Inputs) -> Workload:
    about = "One row of 30 named numbers as JSON, gradient boosting; MLServer takes the same numbers as a V2 tensor."
    everyone = [US, EMPTY, ONE_WORKER, MANY_WORKERS, LITSERVE, BENTOML, *MLSERVERS]
    return tabular(inputs, "tabular-16", "One tabular row, 16 connections", about, 16, everyone)


def tabular_64(inputs: Inputs) -> Workload:
    some = [US, EMPTY, ONE_WORKER, MANY_WORKERS]
    return tabular(inputs, "tabular-64", "One tabular row, 64 connections", "The same row.", 64, some)


def tabular_1(inputs: Inputs) -> Workload:
    about = "The same row, one request after the other. The bare engine call is ONNX Runtime's own, made from Python in process."
    some = [US, EMPTY, ONE_WORKER, LITSERVE_AT_ONCE, MLSERVER_PLAIN]
    made = tabular(inputs, "tabular-1", "One tabular row, one connection", about, 1, some)
    made.call = (who.BREAST_CANCER, inputs.scratch / "breast-cancer.row")
    return made


def tabular_binary_16(inputs: Inputs) -> Workload:
    about = "The same row to the gateway in its three forms."
    tensor = {"name": "X", "shape": [1, 30], "datatype": "FP32"}
    binary = v2_binary("breast-cancer", tensor, (inputs.scratch / "breast-cancer.row").read_bytes())
    as_json = v2_json("breast-cancer", tensor, list(inputs.example.values()))
    rows = [
        Row("V2, binary tensors", US, binary, 16, protocol.read_v2),
        Row("V2, JSON", US, as_json, 16, protocol.read_v2),
        Row("typed JSON", US, typed("/models/breast-cancer/predict", inputs.example), 16, protocol.read_typed),
    ]
    servers = {US: who.gateway(US, who.MODELS)}
    title = "One tabular row in binary, 16 connections"
    answer = inputs.answers["breast-cancer"]
    return Workload("tabular-binary-16", title, about, servers, rows, answer, base="V2, binary tensors")


def image(inputs: Inputs) -> Workload:
    model, row = made_model(inputs, "image")
    about = (
        "A residual network of 18 convolution layers (0.5 billion multiplications a row) over FP32 [1, 3, 224, 224], "
        "588 KiB a request, as a V2 binary tensor; to FastAPI as raw bytes."
    )
    tensor = {"name": "image", "shape": [1, 3, 224, 224], "datatype": "FP32"}
    binary = v2_binary("image", tensor, row.read_bytes())
    servers = {
        US: who.gateway(US, inputs.scratch / "models"),
        "FastAPI": who.fastapi("FastAPI", "fastapi_image", model, 1),
    }
    rows = [Row(TUNED, TUNED, binary, 4, protocol.read_v2), Row(US, US, binary, 4, protocol.read_v2)]
    rows += [Row(f"{TUNED}, {n} connections", TUNED, binary, n, protocol.read_v2) for n in (2, 8)]
    rows.append(Row("FastAPI", "FastAPI", protocol.raw("/predict", row.read_bytes()), 4, protocol.read_raw))
    made = Workload("image", "One image, 4 connections", about, servers, rows, inputs.answers["image"], base=TUNED)
    made.needs = {"FastAPI": "fastapi"}
    made.sweep = Sweep(model, row, [1, 2, 4, 8])
    made.tuned = lambda best: {TUNED: tuned_gateway(made, inputs, batching(best, 4))}
    return made


def transformer(inputs: Inputs) -> Workload:
    model, row = made_model(inputs, "transformer")
    about = (
        "An encoder of 6 layers, 384 wide, 12 heads, over 128 tokens, from 32 clients of one row each, as V2 binary tensors; "
        "as JSON to LitServe and MLServer, which have no other form."
    )
    ids = protocol.integers(row.read_bytes())
    tensor = {"name": "input_ids", "shape": [1, len(ids)], "datatype": "INT64"}
    binary = v2_binary("transformer", tensor, row.read_bytes())
    servers = {US: who.gateway(US, inputs.scratch / "models")}
    rows = [
        Row(TUNED, TUNED, binary, 32, protocol.read_v2),
        Row(US, US, binary, 32, protocol.read_v2),
        Row(LITSERVE, LITSERVE, typed("/predict", {"input_ids": ids}), 32, protocol.read_embedding),
        Row(MLSERVER, MLSERVER, v2_json("transformer", tensor, ids), 32, protocol.read_v2),
    ]
    answer = inputs.answers["transformer"]
    made = Workload("transformer", "A transformer, 32 connections", about, servers, rows, answer, base=TUNED, needs=ENVIRONMENTS)
    made.sweep = Sweep(model, row, [1, 2, 4, 8, 16, 32])

    def tuned(best: Setting) -> dict[str, Server]:
        found = batching(best, 32)
        batch, delay = found["max_rows"], 0.01
        return {
            TUNED: tuned_gateway(made, inputs, found),
            LITSERVE: who.litserve(LITSERVE, "litserve_transformer", model, PEERS_BATCH=str(batch), PEERS_MAX_DELAY=str(delay)),
            MLSERVER: who.mlserver(MLSERVER, "transformer", model, who.CORES, batch if batch > 1 else 0, delay),
        }

    made.tuned = tuned
    return made


def batching(best: Setting, connections: int) -> dict[str, int]:
    """The gateway's setting for what was best in process; an instance must not take the rows that another would run."""
    return {"max_rows": min(best.batch, max(1, connections // best.callers)), "instances": best.callers, "threads": best.threads}


def tuned_gateway(workload: Workload, inputs: Inputs, found: dict[str, int]) -> Server:
    workload.about += f" Tuned, by what was best in process: `batching: {json.dumps(found)}`."
    return who.gateway(TUNED, inputs.scratch / "models", found)


def made_model(inputs: Inputs, name: str) -> tuple[Path, Path]:
    return inputs.scratch / "models" / name / "1/model.onnx", inputs.scratch / f"{name}.row"


WORKLOADS = {
    "tabular-16": tabular_16,
    "tabular-64": tabular_64,
    "tabular-1": tabular_1,
    "tabular-binary-16": tabular_binary_16,
    "image": image,
    "transformer": transformer,
}
