"""From a trained scikit-learn model to `<model>/<version>/{model.onnx, model.yaml}` and the figures in README.md.

Nothing is written that ONNX Runtime does not answer as scikit-learn does.
"""

import copy
import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import skl2onnx
import sklearn
import yaml

BATCH = "N"
OPSETS = {"": 17, "ai.onnx.ml": 3}
TOLERANCE = 1e-4


@dataclass
class Sample:
    """One version of one model, ready to be written."""

    model: str
    version: int
    graph: onnx.ModelProto
    description: str
    signature: dict
    dataset: dict
    metrics: dict
    source: str
    licence: str

    @property
    def folder(self):
        return f"{self.model}/{self.version}"


def to_onnx(estimator, name, inputs, outputs, zipmap=False):
    """`estimator` as ONNX. `outputs` gives each output's name and what follows the batch in its shape."""
    options = {id(estimator): {"zipmap": zipmap}} if sklearn.base.is_classifier(estimator) else None
    graph = skl2onnx.to_onnx(estimator, initial_types=inputs, options=options, target_opset=OPSETS, name=name)
    _order_opsets(graph)
    _rename_outputs(graph.graph, list(outputs))
    _name_dimensions(graph.graph, outputs)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def without_scaler(pipeline):
    """The linear model of a (StandardScaler, linear model) pipeline, with the scaling in its coefficients."""
    scaler, linear = (step for _, step in pipeline.steps)
    folded = copy.deepcopy(linear)
    folded.coef_ = linear.coef_ / scaler.scale_
    folded.intercept_ = linear.intercept_ - folded.coef_ @ scaler.mean_
    return folded


def with_both_scores(graph):
    """The trees of a binary classifier, written so that every engine reads them alike.

    skl2onnx writes only the second class's score, and a start value beside the trees. Engines differ on both. So each
    leaf gets a score for each class, -s and s, of which the logistic function makes the two probabilities, and the
    start value goes into the leaves of the first tree, one of which every row meets.
    """
    trees = next(node for node in graph.graph.node if node.op_type == "TreeEnsembleClassifier")
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in trees.attribute}
    (start,) = attributes.pop("base_values")
    leaves = zip(*(attributes[f"class_{of}"] for of in ("treeids", "nodeids", "weights")), strict=True)
    scores = [(tree, node, weight + start if tree == 0 else weight) for tree, node, weight in leaves]
    attributes |= {
        "class_ids": [0, 1] * len(scores),
        "class_treeids": [tree for tree, _, _ in scores for _ in range(2)],
        "class_nodeids": [node for _, node, _ in scores for _ in range(2)],
        "class_weights": [sign * score for _, _, score in scores for sign in (-1, 1)],
    }
    del trees.attribute[:]
    trees.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in attributes.items())
    return graph


def check(graph, feeds, expected):
    """Raises unless ONNX Runtime answers `feeds` with `expected`."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    if names != list(expected):
        raise SystemExit(f"{graph.graph.name}: the outputs are {names}, not {list(expected)}")
    for name, got in zip(names, session.run(names, feeds), strict=True):
        if isinstance(got, list):  # ZipMap: one map a row
            got = np.array([list(row.values()) for row in got])
        want = np.asarray(expected[name])
        if got.shape != want.shape or not _same(got, want):
            raise SystemExit(f"{graph.graph.name}: ONNX Runtime and scikit-learn disagree on {name}")


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def csv_bytes(frame):
    """`frame` as CSV, whole numbers without a decimal point; the same frame gives the same bytes."""
    whole = {name: int for name in frame.select_dtypes("number") if (frame[name] % 1 == 0).all()}
    return frame.astype(whole).to_csv(index=False, lineterminator="\n").encode()


class Plain(yaml.SafeDumper):
    """YAML that says a thing again instead of pointing back to it."""

    def ignore_aliases(self, data):
        return True


def write(root, sample, git_commit, trained_at):
    """Writes the two files of one version; returns its figures."""
    data = sample.graph.SerializeToString(deterministic=True)
    lineage = {
        "git_commit": git_commit,
        "dataset": sample.dataset,
        "trained_at": trained_at,
        "run": f"models/train.py {sample.folder}",
        "framework": f"scikit-learn {sklearn.__version__}",
        "metrics": {name: round(float(value), 4) for name, value in sample.metrics.items()},
    }
    card = {
        "description": sample.description,
        "signature": sample.signature,
        "lineage": {key: value for key, value in lineage.items() if value is not None},
        "files": {"model.onnx": digest(data)},
    }
    folder = root / sample.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.yaml").write_text(
        yaml.dump(card, Dumper=Plain, sort_keys=False, default_flow_style=None, width=10_000)
    )
    return _figures(sample, card, len(data))


def holdout_figures(path, content, data):
    return f"### {path}\n\n{content}; {len(data):,} bytes, `{digest(data)}`\n"


def write_figures(readme, blocks):
    """Replaces what stands between the two markers in README.md."""
    start, end = "<!-- figures: written by train.py -->\n", "<!-- end of figures -->"
    before, rest = readme.read_text().split(start)
    _, after = rest.split(end)
    readme.write_text(before + start + "\n" + "\n".join(blocks) + "\n" + end + after)


def _order_opsets(graph):
    """skl2onnx writes the operator sets in any order, and some of them twice."""
    versions = sorted({(opset.domain, opset.version) for opset in graph.opset_import})
    del graph.opset_import[:]
    graph.opset_import.extend(onnx.helper.make_opsetid(*version) for version in versions)


def _rename_outputs(graph, names):
    renamed = {name: f"inner_{name}" for name in names}  # where a tensor inside has the name already
    renamed |= dict(zip((output.name for output in graph.output), names, strict=True))
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for output in graph.output:
        output.name = renamed[output.name]


def _name_dimensions(graph, outputs):
    """One symbol for the batch everywhere, so that engines know that it is the same."""
    for value in graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            element = value.type.tensor_type.elem_type
            shape = [BATCH, *outputs[value.name]]
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, shape))


def _same(got, want):
    if want.dtype.kind == "f":
        return np.allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE)
    return (got == want).all()


def _figures(sample, card, size):
    operators = Counter(node.op_type for node in sample.graph.graph.node)
    dataset = sample.dataset
    return "\n".join(
        [
            f"### {sample.folder}",
            "",
            "| | |",
            "|---|---|",
            f"| made | {sample.description} |",
            f"| data | {sample.source} |",
            f"| licence of the data | {sample.licence} |",
            f"| trained on | `{dataset['name']}`, {dataset['rows']:,} rows, `{dataset['digest']}` |",
            f"| held out | {', '.join(f'{k} {v}' for k, v in card['lineage']['metrics'].items())} |",
            f"| inputs | {_ports(sample.graph.graph.input)} |",
            f"| outputs | {_ports(sample.graph.graph.output)} |",
            f"| operators | {', '.join(f'{n} × {op}' if n > 1 else op for op, n in operators.items())} |",
            f"| `model.onnx` | {size:,} bytes, `{card['files']['model.onnx']}` |",
            "",
        ]
    )


def _ports(values):
    return ", ".join(f"`{value.name}` {_type(value.type)}" for value in values)


def _type(kind):
    if kind.HasField("sequence_type"):
        return "sequence of maps (ZipMap)"
    tensor = kind.tensor_type
    name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{name} [{', '.join(d.dim_param or str(d.dim_value) for d in tensor.shape.dim)}]"
