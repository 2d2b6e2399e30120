"""What the tests share: gateways on both engines, started at their first use and kept to the end of the run."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import zoo
from gateway import Gateway, running
from samples import MODELS, NAMES, SAMPLES

# kserve's client and the browser's driver look for a proxy in the environment.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"

ENGINES = ["onnxruntime", "tract"]

# What tract cannot load, and the operator or type that it has to name.
REFUSED_BY_TRACT = {
    "breast-cancer": "TreeEnsembleClassifier",  # as the exporter writes it for two classes
    "penguins": "OneHotEncoder",
    zoo.identity("BYTES"): "BYTES",
    zoo.identity("BF16"): "BF16",
}


def loads(engine: str, model: str) -> bool:
    return engine != "tract" or model not in REFUSED_BY_TRACT


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test runs on both engines; those that take a sample or an element type run with each that the engine loads."""
    names = metafunc.fixturenames
    if "engine" not in names:
        return
    if "sample" in names:
        axis, cases, model = "sample", SAMPLES, lambda sample: sample.name
    elif "datatype" in names:
        axis, cases, model = "datatype", list(zoo.ELEMENTS), zoo.identity
    else:
        metafunc.parametrize("engine", ENGINES)
        return
    pairs = [(engine, case) for engine in ENGINES for case in cases if loads(engine, model(case))]
    metafunc.parametrize(("engine", axis), pairs, ids=lambda value: str(value))


@pytest.fixture(scope="session")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Gateway]]:
    """`gateways(engine, kind)`: `samples` serves the sample models, `zoo` the made ones, each version beside the others;
    `everything` serves what it can of both, nothing being declared."""
    registry = tmp_path_factory.mktemp("zoo")
    made = zoo.write(registry)
    registries = {"samples": MODELS, "zoo": registry}
    contents = {"samples": NAMES, "zoo": made}
    started: dict[tuple[str, str], Gateway] = {}
    with ExitStack() as stack:

        def get(engine: str, kind: str) -> Gateway:
            if (engine, kind) not in started:
                directory = tmp_path_factory.mktemp(f"{kind}-{engine}")
                names = [name for name in contents.get(kind, []) if loads(engine, name)]
                models = [{"name": name, "registry": kind, "also": "all"} for name in names]
                gateway = running(directory, engine, registries, models or None)
                started[engine, kind] = stack.enter_context(gateway)
            return started[engine, kind]

        yield get


@pytest.fixture
def gateway(gateways: Callable[..., Gateway], engine: str) -> Gateway:
    """The sample models."""
    return gateways(engine, "samples")


@pytest.fixture
def made(gateways: Callable[..., Gateway], engine: str) -> Gateway:
    """The models of the zoo."""
    return gateways(engine, "zoo")


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Gateway, Path]]]:
    """A gateway for each engine whose callers may load and unload, and its registry: one sample model, to be changed.
    Every test leaves both as they were."""
    running_ones: dict[str, tuple[Gateway, Path]] = {}
    with ExitStack() as stack:

        def get(engine: str) -> tuple[Gateway, Path]:
            if engine not in running_ones:
                directory = tmp_path_factory.mktemp(f"control-{engine}")
                registry = directory / "models"
                shutil.copytree(MODELS / "fraud", registry / "fraud")
                gateway = running(directory, engine, {"own": registry}, None, protocols={"control": True})
                running_ones[engine] = stack.enter_context(gateway), registry
            return running_ones[engine]

        yield get


@pytest.fixture
def controlled(started, engine: str) -> Gateway:
    return started(engine)[0]


@pytest.fixture
def registry(started, engine: str) -> Path:
    return started(engine)[1]
