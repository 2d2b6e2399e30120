"""Models made for one promise each: an identity for every element type, and a few that sample models cannot stand in for."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

# The protocol's name of each element type: ONNX's, and numpy's as tritonclient has it.
ELEMENTS = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "BF16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "BYTES": (TensorProto.STRING, np.object_),
}

# The protocol has no JSON for these two.
BINARY_ALONE = {"FP16", "BF16"}

TEXTS = ["", "plain", "Prüfung", "日本語", "🐧 \"quoted\" \\ \n", "a" * 300]


def identity(datatype: str) -> str:
    return f"identity-{datatype.lower()}"


def values(datatype: str) -> np.ndarray:
    """Elements [3, 2] of a type, its extremes among them."""
    _, element = ELEMENTS[datatype]
    if datatype == "BYTES":
        return np.array(TEXTS, dtype=np.object_).reshape(3, 2)
    if datatype == "BOOL":
        return np.array([[True, False], [False, True], [True, True]])
    whole = np.issubdtype(element, np.integer)
    info = np.iinfo(element) if whole else ml_dtypes.finfo(element)
    elements = [info.min, info.max, 0, 1, *([3, 100] if whole else [0.1, -1.5])]
    return np.array([element(each) for each in elements], dtype=element).reshape(3, 2)


def write(registry: Path) -> list[str]:
    """Writes every model into a directory registry; gives their names."""
    models = {identity(datatype): node_model("Identity", element) for datatype, (element, _) in ELEMENTS.items()}
    models["reciprocal"] = node_model("Reciprocal", TensorProto.FLOAT)
    for name, model in models.items():
        onnx.checker.check_model(model)
        file = registry / name / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(model.SerializeToString())
    return list(models)


def node_model(operator: str, element: int) -> onnx.ModelProto:
    """y = operator(x) over [N, 2]."""
    tensors = [helper.make_tensor_value_info(name, element, ["N", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], operator, tensors[:1], tensors[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
