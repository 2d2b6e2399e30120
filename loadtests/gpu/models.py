"""Makes the models for the measurements on a GPU, with random weights: an encoder and a ResNet-50, in FP32 and FP16.

    python models.py FOLDER

The encoder is that of ../peers/make_models.py. Each model lies at FOLDER/<name>.onnx; `encoder-other` is the encoder with other
weights, to tell versions apart. Seeds are fixed, so the same packages give the same files.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.append(str(Path(__file__).resolve().parent.parent / "peers"))

import make_models

LAYOUT = [(64, 3), (128, 4), (256, 6), (512, 3)]
CLASSES = 1000


def resnet50() -> onnx.ModelProto:
    """ResNet-50 as it is deployed: 53 convolutions, its normalisation folded into the weights, logits as its answer."""
    g = make_models.Graph(make_models.SEED + 2)

    def convolution(x: str, before: int, after: int, size: int, stride: int = 1) -> str:
        kernel, bias = g.weight(after, before, size, size, fan_in=before * size * size), g.bias(after)
        return g.add("Conv", x, kernel, bias, kernel_shape=[size, size], strides=[stride] * 2, pads=[size // 2] * 4)

    x = g.add("Relu", convolution("image", 3, 64, 7, stride=2))
    x = g.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    width = 64
    for stage, (inner, blocks) in enumerate(LAYOUT):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            y = g.add("Relu", convolution(x, width, inner, 1))
            y = g.add("Relu", convolution(y, inner, inner, 3, stride))
            y = convolution(y, inner, 4 * inner, 1)
            skipped = convolution(x, width, 4 * inner, 1, stride) if block == 0 else x
            x = g.add("Relu", g.add("Add", y, skipped))
            width = 4 * inner
    x = g.add("Flatten", g.add("GlobalAveragePool", x))
    x = g.add("Gemm", x, g.weight(width, CLASSES, fan_in=width), g.bias(CLASSES))
    pixels = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])
    return g.model("resnet50", [pixels], (x, "logits", ["N", CLASSES]))


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with weights, inputs and outputs in FP16; integers stay."""
    halved = onnx.ModelProto.FromString(model.SerializeToString())
    for weight in halved.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    for value in [*halved.graph.input, *halved.graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(halved)
    return halved


def other(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with every table of words negated: as fast, and with other answers."""
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    weight = changed.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    return changed


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    encoder, image = make_models.transformer(), resnet50()
    made = {"encoder": encoder, "encoder-fp16": half(encoder), "encoder-other": other(encoder), "resnet50": image, "resnet50-fp16": half(image)}
    for name, model in made.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
