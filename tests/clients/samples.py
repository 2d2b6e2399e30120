"""The sample models, and what ONNX Runtime's own Python package says of them: the truth that the gateway is held to."""

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import yaml

from gateway import ROOT

MODELS = ROOT / "models"
DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64", "tensor(string)": "BYTES"}

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One version of one sample model."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def directory(self) -> Path:
        return MODELS / self.name / str(self.version)

    @cached_property
    def signature(self) -> dict[str, Any]:
        return yaml.safe_load((self.directory / "model.yaml").read_text())["signature"]

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(str(self.directory / "model.onnx"))

    def input(self, name: str) -> dict[str, Any]:
        return next(entry for entry in self.signature["inputs"] if entry["name"] == name)

    def rows(self, count: int, seed: int = 0) -> Tensors:
        """Random rows inside of the ranges and categories that the signature has."""
        random = np.random.default_rng(seed)
        return {each.name: self._values(random, each, count) for each in self.session.get_inputs()}

    def _values(self, random: np.random.Generator, tensor: Any, count: int) -> np.ndarray:
        about = self.input(tensor.name)
        inner = tensor.shape[1:]
        if "categories" in about:
            return random.choice(np.array(about["categories"], dtype=object), size=(count, *inner))
        columns = about.get("features", [about])
        low, high = ([column[bound] for column in columns] for bound in ("min", "max"))
        if tensor.type == "tensor(int64)":
            return random.integers(low, high, size=(count, *inner), endpoint=True)
        return random.uniform(low, high, size=(count, *inner)).astype(np.float32)

    def datatype(self, name: str) -> str:
        return next(DATATYPES[each.type] for each in self.session.get_inputs() if each.name == name)

    def expected(self, inputs: Tensors) -> Tensors:
        """What ONNX Runtime answers, its maps (ZipMap) written as one tensor."""
        names = [each.name for each in self.session.get_outputs()]
        return dict(zip(names, map(unmapped, self.session.run(None, inputs)), strict=True))

    def records(self, inputs: Tensors) -> list[dict[str, Any]]:
        """The same rows as the typed route takes them."""
        count = len(next(iter(inputs.values())))
        return [self._record({name: values[row] for name, values in inputs.items()}) for row in range(count)]

    def _record(self, row: Tensors) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for name, values in row.items():
            features = self.input(name).get("features")
            if features:
                record |= {feature["name"]: value for feature, value in zip(features, values.tolist(), strict=True)}
            else:
                record[name] = values.item() if values.size == 1 else values.tolist()
        return record

    def predictions(self, outputs: Tensors) -> list[dict[str, Any]]:
        """The answers as the typed route should tell them: labels by name, one number for each label."""
        labels = {entry["name"]: entry.get("labels", []) for entry in self.signature["outputs"]}
        count = len(next(iter(outputs.values())))
        return [{name: told(values[row], labels[name]) for name, values in outputs.items()} for row in range(count)]


def told(value: Any, labels: list[str]) -> Any:
    value = np.asarray(value, dtype=getattr(value, "dtype", object))
    if value.size == 1:
        single = value.item()
        return labels[single] if labels and isinstance(single, int) else single
    return dict(zip(labels, value.tolist(), strict=True)) if labels else value.tolist()


def unmapped(output: Any) -> np.ndarray:
    if isinstance(output, list):
        return np.array([[row[key] for key in sorted(row)] for row in output], dtype=np.float32)
    return output


SAMPLES = [Sample(path.parent.name, int(path.name)) for path in sorted(MODELS.glob("[!.]*/[0-9]*"))]
NAMES = sorted({sample.name for sample in SAMPLES})


def newest(name: str) -> Sample:
    return max((sample for sample in SAMPLES if sample.name == name), key=lambda sample: sample.version)


def held_out_payments() -> np.ndarray:
    """The payments that the metrics of every version of `fraud` were measured on."""
    columns = [feature["name"] for feature in newest("fraud").input("X")["features"]]
    with (MODELS / ".data/fraud-holdout.csv").open() as file:
        return np.array([[float(row[column]) for column in columns] for row in csv.DictReader(file)], dtype=np.float32)
