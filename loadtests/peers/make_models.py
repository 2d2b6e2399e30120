"""Makes the two larger models with random weights, and one row for each with ONNX Runtime's answer; for the engine's environment.

    python make_models.py FOLDER

Seeds are fixed, so the same packages give the same files.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9
SEED = 20261122


class Graph:
    """A graph under construction: every method adds a node and gives the name of what it makes."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, *shape: int, fan_in: int) -> str:
        return self.constant(self.random.normal(0, fan_in**-0.5, shape).astype(np.float32))

    def bias(self, size: int) -> str:
        # Not zero: ONNX Runtime would leave the addition out.
        return self.constant(self.random.normal(0, 0.02, size).astype(np.float32))

    def add(self, operator: str, *inputs: str, **attributes) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def model(self, name: str, inputs: list, output: tuple[str, str, list]) -> onnx.ModelProto:
        made, called, shape = output
        self.nodes.append(helper.make_node("Identity", [made], [called]))
        result = helper.make_tensor_value_info(called, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, name, inputs, [result], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model


def image() -> onnx.ModelProto:
    """A residual network of 18 convolution layers, half as wide as ResNet-18, its normalisation folded into the weights."""
    g = Graph(SEED)

    def convolution(x: str, before: int, after: int, size: int, stride: int = 1) -> str:
        fan_in = before * size * size
        kernel, bias = g.weight(after, before, size, size, fan_in=fan_in), g.bias(after)
        return g.add("Conv", x, kernel, bias, kernel_shape=[size, size], strides=[stride] * 2, pads=[size // 2] * 4)

    x = g.add("Relu", convolution("image", 3, 32, 7, stride=2))
    x = g.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    width = 32
    for stage, wider in enumerate([32, 64, 128, 256]):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            inner = g.add("Relu", convolution(x, width, wider, 3, stride))
            inner = convolution(inner, wider, wider, 3)
            skipped = x if stride == 1 and width == wider else convolution(x, width, wider, 1, stride)
            x = g.add("Relu", g.add("Add", inner, skipped))
            width = wider
    x = g.add("Flatten", g.add("GlobalAveragePool", x))
    x = g.add("Softmax", g.add("Gemm", x, g.weight(width, 1000, fan_in=width), g.bias(1000)), axis=1)
    pixels = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])
    return g.model("image", [pixels], (x, "probabilities", ["N", 1000]))


TOKENS, WORDS, WIDTH, HEADS, LAYERS, INNER = 128, 8192, 384, 12, 6, 1536


def transformer() -> onnx.ModelProto:
    """An encoder as MiniLM is: 6 layers, 384 wide, 12 heads, 128 tokens, the mean over the tokens as its answer."""
    g = Graph(SEED + 1)

    def linear(x: str, before: int, after: int) -> str:
        return g.add("Add", g.add("MatMul", x, g.weight(before, after, fan_in=before)), g.bias(after))

    def normal(x: str) -> str:
        return g.add("LayerNormalization", x, g.constant(np.ones(WIDTH, np.float32)), g.bias(WIDTH), axis=-1, epsilon=1e-12)

    def heads(x: str, order: list[int]) -> str:
        split = g.constant(np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
        return g.add("Transpose", g.add("Reshape", x, split), perm=order)

    def gelu(x: str) -> str:
        scaled = g.add("Div", x, g.constant(np.float32(2**0.5)))
        raised = g.add("Add", g.add("Erf", scaled), g.constant(np.float32(1)))
        return g.add("Mul", g.add("Mul", x, raised), g.constant(np.float32(0.5)))

    words = g.add("Gather", g.weight(WORDS, WIDTH, fan_in=1), "input_ids")
    x = normal(g.add("Add", words, g.weight(TOKENS, WIDTH, fan_in=1)))
    for _ in range(LAYERS):
        query = heads(linear(x, WIDTH, WIDTH), [0, 2, 1, 3])
        key = heads(linear(x, WIDTH, WIDTH), [0, 2, 3, 1])
        value = heads(linear(x, WIDTH, WIDTH), [0, 2, 1, 3])
        scale = g.constant(np.float32((WIDTH // HEADS) ** 0.5))
        attention = g.add("Softmax", g.add("Div", g.add("MatMul", query, key), scale), axis=-1)
        seen = g.add("Transpose", g.add("MatMul", attention, value), perm=[0, 2, 1, 3])
        seen = g.add("Reshape", seen, g.constant(np.array([0, 0, WIDTH], np.int64)))
        x = normal(g.add("Add", x, linear(seen, WIDTH, WIDTH)))
        x = normal(g.add("Add", x, linear(gelu(linear(x, WIDTH, INNER)), INNER, WIDTH)))
    x = g.add("ReduceMean", x, axes=[1], keepdims=0)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["N", TOKENS])
    return g.model("transformer", [ids], (x, "embedding", ["N", WIDTH]))


def write(folder: Path, name: str, model: onnx.ModelProto, row: np.ndarray) -> None:
    """The model in the layout of a registry; beside it its row and the answer, as raw little-endian numbers."""
    file = folder / "models" / name / "1" / "model.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(model.SerializeToString())
    [answer] = onnxruntime.InferenceSession(file).run(None, {model.graph.input[0].name: row})
    (folder / f"{name}.row").write_bytes(row.tobytes())
    (folder / f"{name}.answer").write_bytes(answer.tobytes())


def main(folder: Path) -> None:
    random = np.random.default_rng(SEED)
    write(folder, "image", image(), random.random((1, 3, 224, 224), np.float32))
    write(folder, "transformer", transformer(), random.integers(0, WORDS, (1, TOKENS), np.int64))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
