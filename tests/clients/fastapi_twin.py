"""FastAPI itself, with the sample models' records as Pydantic models: what a 422 should say, asked of the source."""

from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ConfigDict, Field, create_model

from samples import Sample


def twin(sample: Sample) -> TestClient:
    """An application that takes one record at `/one` and a list of records at `/many`."""
    record = record_of(sample)
    app = FastAPI()

    @app.post("/one")
    def one(body: record) -> None: ...

    @app.post("/many")
    def many(body: list[record]) -> None: ...

    return TestClient(app)


def record_of(sample: Sample) -> type:
    fields: dict[str, Any] = {}
    for tensor in sample.session.get_inputs():
        about = sample.input(tensor.name)
        element = int if tensor.type == "tensor(int64)" else float
        for feature in about.get("features", []):
            fields[feature["name"]] = (bounded(element, feature), ...)
        if "features" not in about:
            fields[tensor.name] = (nested(element, about, tensor.shape[1:]), ...)
    return create_model("Record", __config__=ConfigDict(extra="forbid"), **fields)


def nested(element: type, about: dict[str, Any], shape: list[int]) -> Any:
    value = Literal[tuple(about["categories"])] if "categories" in about else bounded(element, about)
    if shape == [1]:
        return value
    for size in reversed(shape):
        value = Annotated[list[value], Field(min_length=size, max_length=size)]
    return value


def bounded(element: type, about: dict[str, Any]) -> Any:
    return Annotated[element, Field(ge=about.get("min"), le=about.get("max"))]
