"""Trains and exports every sample model in this folder: `python models/train.py`.

One function a model. Seeds are fixed, so the same arguments give the same files.
README.md says what the models are for.
"""

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from onnx import TensorProto, checker, helper, numpy_helper
from palmerpenguins import load_penguins
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn import datasets, metrics
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

sys.dont_write_bytecode = True  # a __pycache__ in this folder would look like a model

import generator  # noqa: E402
from export import (  # noqa: E402
    BATCH,
    OPSETS,
    Sample,
    check,
    csv_bytes,
    digest,
    holdout_figures,
    to_onnx,
    with_both_scores,
    without_scaler,
    write,
    write_figures,
)

ROOT = Path(__file__).resolve().parent
HOLDOUT = ROOT / ".data" / "fraud-holdout.csv"
SEED = 20261122
CLASSIFIER = {"label": [], "probabilities": [2]}


def main():
    args = arguments()
    samples = [*fraud(), breast_cancer(), digits(), penguins(), diabetes()]  # all are checked before one is written
    figures = [write(ROOT, sample, args.git_commit, args.trained_at) for sample in samples]
    figures.append(write_holdout())
    write_figures(ROOT / "README.md", figures)
    for sample in samples:
        print(sample.folder, ", ".join(f"{name} {value:.4f}" for name, value in sample.metrics.items()))


def arguments():
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--git-commit", default=head(), help="default: HEAD, or none where there is no commit yet")
    parser.add_argument("--trained-at", default=now, help="RFC 3339, default: now")
    return parser.parse_args()


def head():
    git = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return git.stdout.strip() if git.returncode == 0 else None


# fraud: the model of the rollouts. 1 serves, 2 is better, 3 looks as good as 2 and is not.


def fraud():
    features, is_fraud = generator.payments(20_000, SEED)
    newer, newer_is_fraud = generator.payments(20_000, SEED + 1)
    too_early = generator.late_chargebacks(newer, newer_is_fraud, SEED + 2)
    linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, is_fraud)
    return [
        fraud_version(1, "logistic regression", linear, features, is_fraud, "payments-2026-10"),
        fraud_version(2, "gradient boosting", boosted(features, is_fraud), features, is_fraud, "payments-2026-10"),
        fraud_version(3, "gradient boosting", boosted(newer, too_early), newer, too_early, "payments-2026-11"),
    ]


def boosted(features, labels):
    model = GradientBoostingClassifier(n_estimators=60, max_depth=4, learning_rate=0.25, random_state=SEED)
    return model.fit(features, labels)


def fraud_version(version, method, trained, features, is_fraud, dataset):
    held_out, truth = fraud_holdout()
    linear = version == 1
    exported = without_scaler(trained) if linear else trained
    graph = to_onnx(exported, f"fraud-{version}", [("X", FloatTensorType([None, 8]))], CLASSIFIER)
    if not linear:
        graph = with_both_scores(graph)
    for rows in (features, held_out):
        check(graph, {"X": rows}, answers(trained, rows))
    return Sample(
        model="fraud",
        version=version,
        graph=graph,
        description=f"flags card payments that are likely fraud ({method})",
        signature=classifier_signature("X", FRAUD_FEATURES, ["legitimate", "fraud"], held_out[truth == 1][0]),
        dataset=described(dataset, payments_frame(features, is_fraud)),
        metrics=binary_metrics(trained, held_out, truth),
        source="made up by `generator.py`",
        licence="this project's own",
    )


def fraud_holdout():
    return generator.payments(2_000, SEED + 3)


def write_holdout():
    frame = payments_frame(*fraud_holdout())
    data = csv_bytes(frame)
    HOLDOUT.parent.mkdir(exist_ok=True)
    HOLDOUT.write_bytes(data)
    frauds = frame[generator.LABEL].sum()
    return holdout_figures(HOLDOUT.relative_to(ROOT), f"{len(frame):,} payments, {frauds} of them fraud", data)


def payments_frame(features, is_fraud):
    return pd.DataFrame(features, columns=generator.COLUMNS).assign(**{generator.LABEL: is_fraud})


FRAUD_FEATURES = [
    {"name": "amount", "unit": "EUR", "min": 0, "max": 50_000, "description": "what is paid"},
    {"name": "hour", "min": 0, "max": 23, "description": "hour of the day where the card holder lives"},
    {"name": "merchant_risk", "min": 0, "max": 1, "description": "disputed payments at merchants of this kind"},
    {"name": "distance_km", "unit": "km", "min": 0, "max": 20_100, "description": "from the card holder's home"},
    {"name": "transactions_last_day", "min": 0, "max": 200, "description": "payments with this card in 24 hours"},
    {"name": "account_age_days", "unit": "days", "min": 0, "max": 20_000, "description": "since it was opened"},
    {"name": "is_foreign", "min": 0, "max": 1, "description": "1: the merchant is in another country"},
    {"name": "chip_used", "min": 0, "max": 1, "description": "1: the chip was read, 0: only the number was given"},
]


# breast-cancer: many named columns, and the only model with a ZipMap.


def breast_cancer():
    data = datasets.load_breast_cancer()
    names = [name.replace(" ", "_") for name in data.feature_names]
    features = data.data.astype(np.float32)
    train, held_out, labels, truth = train_test_split(
        features, data.target, test_size=0.25, stratify=data.target, random_state=SEED
    )
    trained = GradientBoostingClassifier(n_estimators=100, max_depth=2, random_state=SEED).fit(train, labels)
    inputs = [("X", FloatTensorType([None, len(names)]))]
    graph = to_onnx(trained, "breast-cancer-1", inputs, CLASSIFIER, zipmap=True)
    check(graph, {"X": features}, answers(trained, features))
    ranges = [{"name": name, "min": 0, "max": headroom(column)} for name, column in zip(names, features.T, strict=True)]
    return Sample(
        model="breast-cancer",
        version=1,
        graph=graph,
        description="tells malignant from benign tumours by the cell nuclei in a digitised image (gradient boosting)",
        signature=classifier_signature("X", ranges, list(data.target_names), held_out[0]),
        dataset=described("breast-cancer-wisconsin", pd.DataFrame(train, columns=names).assign(target=labels)),
        metrics=binary_metrics(trained, held_out, truth),
        source="Breast Cancer Wisconsin (Diagnostic), UCI, as bundled with scikit-learn",
        licence="CC BY 4.0",
    )


def headroom(column):
    """Twice the largest value, rounded up to one significant digit."""
    twice = 2 * float(column.max())
    digit = 10.0 ** np.floor(np.log10(twice))
    return json_number(float(f"{np.ceil(twice / digit) * digit:.1g}"))


# digits: an image in, plain ONNX operators only, so that every engine runs it.


def digits():
    data = datasets.load_digits()
    images = data.images.astype(np.float32).reshape(-1, 1, 8, 8)
    train, held_out, labels, truth = train_test_split(
        images, data.target, test_size=0.25, stratify=data.target, random_state=SEED
    )
    trained = MLPClassifier(hidden_layer_sizes=(48,), max_iter=400, random_state=SEED)
    trained.fit(flat(train) / 16, labels)
    graph = digits_graph(trained)
    wanted = {"digit": trained.predict(flat(images) / 16), "probabilities": trained.predict_proba(flat(images) / 16)}
    check(graph, {"image": images}, wanted)
    image = {"name": "image", "min": 0, "max": 16, "description": "one channel, 8 rows of 8 pixels: 0 white, 16 black"}
    return Sample(
        model="digits",
        version=1,
        graph=graph,
        description="reads one handwritten digit (a network with one hidden layer)",
        signature={
            "inputs": [image],
            "outputs": [{"name": "digit", "kind": "label"}, {"name": "probabilities", "kind": "probability"}],
            "example": {"image": held_out[0].astype(int).tolist()},
        },
        dataset=described("optical-digits", pd.DataFrame(flat(train)).assign(digit=labels)),
        metrics=multiclass_metrics(trained, flat(held_out) / 16, truth),
        source="Optical Recognition of Handwritten Digits, UCI, as bundled with scikit-learn",
        licence="CC BY 4.0",
    )


def digits_graph(trained):
    """Flatten, two layers, softmax; the division by 16 is in the first layer's weights."""
    hidden, output = (weights.astype(np.float32) for weights in trained.coefs_)
    weights = {"w1": hidden / 16, "b1": trained.intercepts_[0], "w2": output, "b2": trained.intercepts_[1]}
    graph = helper.make_graph(
        name="digits-1",
        nodes=[
            helper.make_node("Flatten", ["image"], ["pixels"], axis=1),
            helper.make_node("Gemm", ["pixels", "w1", "b1"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "w2", "b2"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["digit"], axis=1, keepdims=0),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        inputs=[helper.make_tensor_value_info("image", TensorProto.FLOAT, [BATCH, 1, 8, 8])],
        outputs=[
            helper.make_tensor_value_info("digit", TensorProto.INT64, [BATCH]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [BATCH, 10]),
        ],
        initializer=[numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSETS[""])], ir_version=8)
    checker.check_model(model, full_check=True)
    return model


def flat(images):
    return images.reshape(len(images), -1)


# penguins: several named inputs of three types, and text as the answer.


def penguins():
    data = load_penguins().dropna().drop(columns="year")
    data = data.astype({"flipper_length_mm": int, "body_mass_g": int})
    train, held_out = train_test_split(data, test_size=0.25, stratify=data.species, random_state=SEED)
    columns = [column["name"] for column in PENGUIN_INPUTS]
    text = ["island", "sex"]
    numbers = [name for name in columns if name not in text]
    prepare = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), text), (StandardScaler(), numbers))
    trained = make_pipeline(prepare, LogisticRegression()).fit(train[columns], train.species)
    kinds = {"f": FloatTensorType, "i": Int64TensorType}
    inputs = [(name, kinds.get(data[name].dtype.kind, StringTensorType)([None, 1])) for name in columns]
    graph = to_onnx(trained, "penguins-1", inputs, {"species": [], "probabilities": [3]})
    label, probabilities = answers(trained, data[columns]).values()
    check(graph, penguin_feeds(data[columns]), {"species": label, "probabilities": probabilities})
    return Sample(
        model="penguins",
        version=1,
        graph=graph,
        description="tells the species of a penguin by its measurements (logistic regression)",
        signature={
            "inputs": PENGUIN_INPUTS,
            "outputs": [
                {"name": "species", "kind": "label"},
                {"name": "probabilities", "kind": "probability", "labels": trained.classes_.tolist()},
            ],
            "example": held_out[columns].iloc[0].to_dict(),
        },
        dataset=described("palmer-penguins", train),
        metrics=multiclass_metrics(trained, held_out[columns], held_out.species),
        source="Palmer Archipelago penguins (Gorman, Williams, Fraser 2014), from the Python package `palmerpenguins`",
        licence="CC0 1.0",
    )


def penguin_feeds(frame):
    types = {"f": np.float32, "i": np.int64}
    return {name: frame[[name]].to_numpy(types.get(frame[name].dtype.kind, object)) for name in frame}


PENGUIN_INPUTS = [
    {"name": "island", "categories": ["Biscoe", "Dream", "Torgersen"], "description": "where it was seen"},
    {"name": "bill_length_mm", "unit": "mm", "min": 20, "max": 80},
    {"name": "bill_depth_mm", "unit": "mm", "min": 5, "max": 35},
    {"name": "flipper_length_mm", "unit": "mm", "min": 120, "max": 300},
    {"name": "body_mass_g", "unit": "g", "min": 1500, "max": 9000},
    {"name": "sex", "categories": ["female", "male"]},
]


# diabetes: a regression.


def diabetes():
    data = datasets.load_diabetes(scaled=False)
    names = [column["name"] for column in DIABETES_FEATURES]
    features = data.data.astype(np.float32)
    train, held_out, labels, truth = train_test_split(features, data.target, test_size=0.25, random_state=SEED)
    trained = make_pipeline(StandardScaler(), LinearRegression()).fit(train, labels)
    graph = to_onnx(without_scaler(trained), "diabetes-1", [("X", FloatTensorType([None, 10]))], {"progression": [1]})
    check(graph, {"X": features}, {"progression": trained.predict(features).reshape(-1, 1)})
    predicted = trained.predict(held_out)
    return Sample(
        model="diabetes",
        version=1,
        graph=graph,
        description="how far diabetes will have progressed in a year (linear regression)",
        signature={
            "inputs": [{"name": "X", "features": DIABETES_FEATURES}],
            "outputs": [{"name": "progression", "kind": "value"}],
            "example": record(names, held_out[0]),
        },
        dataset=described("diabetes-lars", pd.DataFrame(train, columns=names).assign(progression=labels)),
        metrics={
            "r2": metrics.r2_score(truth, predicted),
            "mae": metrics.mean_absolute_error(truth, predicted),
            "rmse": metrics.root_mean_squared_error(truth, predicted),
        },
        source="Efron, Hastie, Johnstone, Tibshirani: Least Angle Regression (2004), as bundled with scikit-learn",
        licence="none stated by its authors; distributed within scikit-learn (BSD-3-Clause)",
    )


DIABETES_FEATURES = [
    {"name": "age", "unit": "years", "min": 18, "max": 110},
    {"name": "sex", "min": 1, "max": 2, "description": "1 or 2; the source does not say which is which"},
    {"name": "bmi", "unit": "kg/m2", "min": 10, "max": 70, "description": "body mass index"},
    {"name": "bp", "unit": "mm Hg", "min": 40, "max": 200, "description": "mean blood pressure"},
    {"name": "tc", "unit": "mg/dl", "min": 50, "max": 500, "description": "total serum cholesterol"},
    {"name": "ldl", "unit": "mg/dl", "min": 10, "max": 400, "description": "low-density lipoproteins"},
    {"name": "hdl", "unit": "mg/dl", "min": 10, "max": 200, "description": "high-density lipoproteins"},
    {"name": "tch", "min": 1, "max": 20, "description": "total cholesterol over HDL"},
    {"name": "ltg", "min": 2, "max": 9, "description": "probably the logarithm of the serum triglycerides"},
    {"name": "glu", "unit": "mg/dl", "min": 30, "max": 300, "description": "blood sugar"},
]


# What the models share.


def answers(classifier, rows):
    """What the ONNX model must give back, under the names in CLASSIFIER."""
    return {"label": classifier.predict(rows), "probabilities": classifier.predict_proba(rows)}


def classifier_signature(name, features, labels, example):
    labels = [str(label) for label in labels]
    return {
        "inputs": [{"name": name, "features": features}],
        "outputs": [
            {"name": "label", "kind": "label", "labels": labels},
            {"name": "probabilities", "kind": "probability", "labels": labels},
        ],
        "example": record([feature["name"] for feature in features], example),
    }


def record(names, row):
    return {name: json_number(value) for name, value in zip(names, row, strict=True)}


def json_number(value):
    """An integer where it is whole, or else the shortest number that gives the same float32."""
    return int(value) if value % 1 == 0 else float(str(value))


def described(name, frame):
    return {"name": name, "digest": digest(csv_bytes(frame)), "rows": len(frame)}


def binary_metrics(classifier, rows, truth):
    predicted = classifier.predict(rows)
    return {
        "f1": metrics.f1_score(truth, predicted),
        "precision": metrics.precision_score(truth, predicted),
        "recall": metrics.recall_score(truth, predicted),
        "accuracy": metrics.accuracy_score(truth, predicted),
        "auc": metrics.roc_auc_score(truth, classifier.predict_proba(rows)[:, 1]),
    }


def multiclass_metrics(classifier, rows, truth):
    predicted = classifier.predict(rows)
    return {
        "f1_macro": metrics.f1_score(truth, predicted, average="macro"),
        "accuracy": metrics.accuracy_score(truth, predicted),
        "log_loss": metrics.log_loss(truth, classifier.predict_proba(rows)),
    }


if __name__ == "__main__":
    main()
