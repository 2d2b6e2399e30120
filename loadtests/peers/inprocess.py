"""ONNX Runtime in process, without a server: how many rows a second one setting runs; for the engine's environment.

    python inprocess.py MODEL ROW SECONDS THREADS CALLERS BATCH SPIN     rows a second, as JSON
    python inprocess.py MODEL ROW answer                                 the answer to the row, as JSON
    python inprocess.py MODEL ROW call                                   microseconds of one call, as JSON

MODEL is the .onnx file, ROW the raw little-endian numbers of one row.
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime

ELEMENTS = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def open_session(model: str, threads: int, spin: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def read_row(session: onnxruntime.InferenceSession, file: str) -> dict[str, np.ndarray]:
    [tensor] = session.get_inputs()
    row = np.frombuffer(Path(file).read_bytes(), ELEMENTS[tensor.type])
    return {tensor.name: row.reshape(1, *tensor.shape[1:])}


def rows_a_second(model: str, file: str, seconds: float, threads: int, callers: int, batch: int, spin: bool) -> float:
    """Each caller has a session of its own, as an instance of a server has, and calls without a pause."""
    sessions = [open_session(model, threads, spin) for _ in range(callers)]
    feed = {name: np.repeat(row, batch, axis=0) for name, row in read_row(sessions[0], file).items()}
    for session in sessions:
        session.run(None, feed)
    spans: list[tuple[int, float]] = []

    def call(session: onnxruntime.InferenceSession) -> None:
        runs, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            session.run(None, feed)
            runs += 1
        spans.append((runs, time.monotonic() - began))

    callers_threads = [threading.Thread(target=call, args=[session]) for session in sessions]
    for each in callers_threads:
        each.start()
    for each in callers_threads:
        each.join()
    return sum(runs * batch / span for runs, span in spans)


def answer(model: str, file: str) -> list:
    """The answers as plain lists, a tensor flattened."""
    session = open_session(model, 1, spin=False)
    answers = session.run(None, read_row(session, file))
    return [each.ravel().tolist() if isinstance(each, np.ndarray) else list(each[0].values()) for each in answers]


def call_microseconds(model: str, file: str) -> float:
    session = open_session(model, 1, spin=False)
    feed = read_row(session, file)
    for _ in range(1000):
        session.run(None, feed)
    began = time.perf_counter()
    for _ in range(10_000):
        session.run(None, feed)
    return (time.perf_counter() - began) * 1e6 / 10_000


if __name__ == "__main__":
    model, file, *rest = sys.argv[1:]
    if rest == ["answer"]:
        print(json.dumps(answer(model, file)))
    elif rest == ["call"]:
        print(json.dumps(call_microseconds(model, file)))
    else:
        seconds, threads, callers, batch, spin = rest
        print(json.dumps(rows_a_second(model, file, float(seconds), int(threads), int(callers), int(batch), spin == "1")))
