"""The bodies that are sent and how each answer is read: to a flat list of numbers, to be held against ONNX Runtime's."""

import array
import http.client
import json
import math
import sys
import urllib.request

from load import Request

TOLERANCE = 1e-4
JSON = {"content-type": "application/json"}
LENGTH = "Inference-Header-Content-Length"


def typed(path: str, value: object) -> Request:
    return Request(path, json.dumps(value).encode(), JSON)


def v2_json(model: str, tensor: dict, data: list) -> Request:
    body = {"inputs": [{**tensor, "data": data}]}
    return Request(f"/v2/models/{model}/infer", json.dumps(body).encode(), JSON)


def v2_binary(model: str, tensor: dict, raw: bytes) -> Request:
    """The head as JSON, then the tensor as raw little-endian numbers; the answer is asked for in the same form."""
    parameters = {"binary_data_size": len(raw)}
    body = {"inputs": [{**tensor, "parameters": parameters}], "parameters": {"binary_data_output": True}}
    head = json.dumps(body, separators=(",", ":")).encode()
    headers = {"content-type": "application/octet-stream", LENGTH: str(len(head))}
    return Request(f"/v2/models/{model}/infer", head + raw, headers)


def raw(path: str, body: bytes) -> Request:
    return Request(path, body, {"content-type": "application/octet-stream"})


def ask(address: str, request: Request) -> tuple[bytes, dict[str, str]] | None:
    """The answer and its headers; nothing where there is none, or one other than 200."""
    return fetch(urllib.request.Request(f"http://{address}{request.path}", request.body, request.headers))


def fetch(asked: urllib.request.Request | str) -> tuple[bytes, dict[str, str]] | None:
    # Straight to loopback, whatever proxy the environment names.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(asked, timeout=60) as answer:
            return answer.read(), {name.lower(): value for name, value in answer.headers.items()}
    except (OSError, http.client.HTTPException):
        return None


# Readers: from an answer and its headers to numbers.


def read_typed(body: bytes, _: dict) -> list[float]:
    """`{"label": ..., "probabilities": {...}}`, alone or in a list: 0 for malignant, 1 for benign, and the probabilities."""
    answer = json.loads(body)
    answer = answer[0] if isinstance(answer, list) else answer
    labels = ["malignant", "benign"]
    return [labels.index(answer["label"]), *(answer["probabilities"][label] for label in labels)]


def read_embedding(body: bytes, _: dict) -> list[float]:
    return json.loads(body)["embedding"]


def read_raw(body: bytes, _: dict) -> list[float]:
    return floats(body)


def read_v2(body: bytes, headers: dict) -> list[float]:
    length = headers.get(LENGTH.lower())
    head = json.loads(body[: int(length)] if length else body)
    rest = body[int(length) :] if length else b""
    numbers: list[float] = []
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            numbers += flat(output["data"])
        else:
            numbers += integers(rest[:size]) if output["datatype"] == "INT64" else floats(rest[:size])
            rest = rest[size:]
    return numbers


def flat(data: object) -> list[float]:
    return [number for each in data for number in flat(each)] if isinstance(data, list) else [data]


def floats(raw: bytes) -> list[float]:
    return elements("f", raw)


def integers(raw: bytes) -> list[float]:
    return elements("q", raw)


def elements(kind: str, raw: bytes) -> list[float]:
    numbers = array.array(kind)
    numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def same(got: list[float], wanted: list[float]) -> bool:
    return len(got) == len(wanted) and all(math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE) for a, b in zip(got, wanted))
