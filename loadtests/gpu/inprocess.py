"""ONNX Runtime in process, without a server, on the device that the gateway uses and with its settings.

    python inprocess.py DEVICE MODEL sweep SECONDS BATCH,… CALLERS,…    rows a second of each, as JSON
    python inprocess.py DEVICE MODEL call SECONDS                       microseconds of a call of one row: p50 and p99, as JSON
    python inprocess.py DEVICE MODEL options SECONDS                    the provider's settings beside each other, as JSON

Each caller has a session of its own, as an instance of the gateway has.
"""

import json
import sys
import threading
import time

import numpy as np
import onnxruntime

# As crates/engine/src/onnx/cuda.rs sets them.
GATEWAY = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
WORDS = 8192


def open_session(model: str, device: str, settings: dict[str, str] = GATEWAY) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device == "cpu":
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    cuda = ("CUDAExecutionProvider", {"device_id": device.removeprefix("cuda:"), **settings})
    session = onnxruntime.InferenceSession(model, options, providers=[cuda])
    # From Python the runtime falls back to the processor without an error.
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise SystemExit(f"CUDA cannot be used: {session.get_providers()}")
    return session


def rows_for(kind: str, shape: list, rows: int) -> np.ndarray:
    """The same rows at every call; the gateway is sent the same."""
    random = np.random.default_rng(7)
    if kind == "tensor(int64)":
        return random.integers(0, WORDS, (rows, *shape[1:]), np.int64)
    return random.standard_normal((rows, *shape[1:]), np.float32).astype(np.float16 if kind == "tensor(float16)" else np.float32)


def feed(session: onnxruntime.InferenceSession, rows: int) -> dict[str, np.ndarray]:
    [tensor] = session.get_inputs()
    return {tensor.name: rows_for(tensor.type, tensor.shape, rows)}


def rate(sessions: list, batches: list[int], seconds: float) -> float:
    """Rows a second; where there are several sizes of batch, they take turns."""
    feeds = [feed(sessions[0], batch) for batch in batches]
    for session in sessions:
        for each in feeds * 3:
            session.run(None, each)
    spans: list[tuple[int, float]] = []

    def call(session: onnxruntime.InferenceSession) -> None:
        rows, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            for batch, each in zip(batches, feeds):
                session.run(None, each)
                rows += batch
        spans.append((rows, time.monotonic() - began))

    callers = [threading.Thread(target=call, args=[session]) for session in sessions]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    return sum(rows / span for rows, span in spans)


def sweep(device: str, model: str, seconds: float, batches: list[int], callers: list[int]) -> list[dict]:
    sessions = [open_session(model, device) for _ in range(max(callers))]
    return [
        {"batch": batch, "callers": count, "rate": rate(sessions[:count], [batch], seconds)} for batch in batches for count in callers
    ]


def call(device: str, model: str, seconds: float) -> dict[str, float]:
    session = open_session(model, device)
    row = feed(session, 1)
    for _ in range(50):
        session.run(None, row)
    micros, began = [], time.monotonic()
    while time.monotonic() - began < seconds:
        at = time.perf_counter()
        session.run(None, row)
        micros.append((time.perf_counter() - at) * 1e6)
    return {"p50": float(np.percentile(micros, 50)), "p99": float(np.percentile(micros, 99)), "calls": len(micros)}


def options(device: str, model: str, seconds: float) -> list[dict]:
    """Rate at one size of batch, and with two in turn; what the first call of a new size takes; how far answers are from the processor's."""
    reference = open_session(model, "cpu")
    wanted = reference.run(None, feed(reference, 4))[0].astype(np.float64)
    found = []
    for tf32 in ["1", "0"]:
        for search in ["EXHAUSTIVE", "HEURISTIC", "DEFAULT"]:
            session = open_session(model, device, {"use_tf32": tf32, "cudnn_conv_algo_search": search})
            first = []
            for rows in [4, 5, 6, 7]:
                rows = feed(session, rows)
                at = time.perf_counter()
                session.run(None, rows)
                first.append((time.perf_counter() - at) * 1e3)
            got = session.run(None, feed(session, 4))[0].astype(np.float64)
            found.append(
                {
                    "tf32": tf32,
                    "search": search,
                    "first_ms": first,
                    "rate_32": rate([session], [32], seconds),
                    "rate_31_32": rate([session], [31, 32], seconds),
                    "distance": float(np.abs(got - wanted).max() / np.abs(wanted).max()),
                }
            )
    return found


def main() -> None:
    device, model, what, seconds, *rest = sys.argv[1:]
    numbers = [[int(number) for number in each.split(",")] for each in rest]
    found = {"sweep": sweep, "call": call, "options": options}[what](device, model, float(seconds), *numbers)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
