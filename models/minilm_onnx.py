"""The encoder that minilm.py fetched as ONNX, for ONNX Runtime: `python models/minilm_onnx.py .models`, no PyTorch needed.

Reads .models/minilm/1, writes .models/minilm-onnx/1, whole or not at all; one that is there is kept. The graph is written as
PyTorch's exporter writes it, in the form that ONNX Runtime fuses. It works for any `bert` with such a config.json.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
TYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


def main(registry: Path) -> None:
    source, model = registry / "minilm/1", registry / "minilm-onnx"
    if model.is_dir():
        return
    config = json.loads((source / "config.json").read_text())
    graph = Encoder(config, tensors(source / "model.safetensors")).build()
    with tempfile.TemporaryDirectory(prefix=".minilm-onnx-", dir=registry) as scratch:
        whole = Path(scratch) / "minilm-onnx"
        shutil.copytree(source, whole / "1", ignore=shutil.ignore_patterns("*.safetensors"))
        (whole / "1/model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
        os.replace(whole, model)


def tensors(path: Path) -> dict[str, np.ndarray]:
    """A safetensors file: the length of its JSON head, the head, and the bytes that it has offsets into."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:begin])
    head.pop("__metadata__", None)
    return {name: tensor(data[begin:], about) for name, about in head.items()}


def tensor(data: bytes, about: dict) -> np.ndarray:
    begin, end = about["data_offsets"]
    return np.frombuffer(data[begin:end], TYPES[about["dtype"]]).reshape(about["shape"])


class Encoder:
    """BERT, node by node."""

    def __init__(self, config: dict, weights: dict[str, np.ndarray]) -> None:
        if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
            sys.exit(f"no bert with gelu: {config['model_type']}, {config['hidden_act']}")
        self.config = config
        self.weights = weights
        self.heads = config["num_attention_heads"]
        self.width = config["hidden_size"]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def build(self) -> onnx.ModelProto:
        states = self.embed()
        mask = self.mask()
        for layer in range(self.config["num_hidden_layers"]):
            states = self.layer(f"encoder.layer.{layer}", states, mask)
        self.nodes[-1].output[0] = "last_hidden_state"
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "T"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["N", "T", self.width])
        graph = helper.make_graph(self.nodes, "minilm", inputs, [output], list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    def embed(self) -> str:
        tables = [self.weight(f"embeddings.{table}_embeddings.weight") for table in ("word", "token_type", "position")]
        # Counted by the mask: the same with padding on either side.
        places = self.node("CumSum", "attention_mask", self.integer("along", 1))
        places = self.node("Sub", places, self.integer("first", 1))
        words, kinds = self.node("Gather", tables[0], "input_ids"), self.node("Gather", tables[1], "token_type_ids")
        both = self.node("Add", words, kinds)
        return self.norm("embeddings.LayerNorm", self.node("Add", both, self.node("Gather", tables[2], places)))

    def mask(self) -> str:
        """What is added to attention: 0 for a token, and for padding so little that its share is 0."""
        wide = self.node("Unsqueeze", "attention_mask", self.integers("heads", [1]))
        wide = self.node("Unsqueeze", wide, self.integers("queries", [2]))
        ones = self.node("Cast", wide, to=TensorProto.FLOAT)
        return self.node("Mul", self.node("Sub", self.scalar("one", 1.0), ones), self.scalar("nothing", -10_000.0))

    def layer(self, name: str, states: str, mask: str) -> str:
        query, key, value = (self.linear(f"{name}.attention.self.{part}", states) for part in ("query", "key", "value"))
        query, key, value = self.split(query, [0, 2, 1, 3]), self.split(key, [0, 2, 3, 1]), self.split(value, [0, 2, 1, 3])
        size = self.scalar("root_of_size", (self.width / self.heads) ** 0.5)
        scores = self.node("Add", self.node("Div", self.node("MatMul", query, key), size), mask)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        mixed = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = self.node("Reshape", mixed, self.integers("joined", [0, 0, self.width]))
        attended = self.linear(f"{name}.attention.output.dense", mixed)
        states = self.norm(f"{name}.attention.output.LayerNorm", self.node("Add", attended, states))
        inner = self.gelu(self.linear(f"{name}.intermediate.dense", states))
        return self.norm(f"{name}.output.LayerNorm", self.node("Add", self.linear(f"{name}.output.dense", inner), states))

    def split(self, states: str, order: list[int]) -> str:
        shape = self.integers("split", [0, 0, self.heads, self.width // self.heads])
        return self.node("Transpose", self.node("Reshape", states, shape), perm=order)

    def linear(self, name: str, states: str) -> str:
        weight = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T.astype(np.float32))
        return self.node("Add", self.node("MatMul", states, weight), self.weight(f"{name}.bias"))

    def norm(self, name: str, states: str) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("LayerNormalization", states, scale, bias, axis=-1, epsilon=self.config["layer_norm_eps"])

    def gelu(self, states: str) -> str:
        error = self.node("Erf", self.node("Div", states, self.scalar("root_of_two", 2**0.5)))
        scaled = self.node("Mul", states, self.node("Add", error, self.scalar("one", 1.0)))
        return self.node("Mul", scaled, self.scalar("half", 0.5))

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name].astype(np.float32))

    def scalar(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def integer(self, name: str, value: int) -> str:
        return self.constant(name, np.array(value, np.int64))

    def integers(self, name: str, values: list[int]) -> str:
        return self.constant(name, np.array(values, np.int64))

    def constant(self, name: str, values: np.ndarray) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
