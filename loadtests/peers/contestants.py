"""Who is measured, and how each is started. README.md beside this file says why with these settings."""

import json
import os
from pathlib import Path

import environments
from environments import HERE, ROOT
from processes import Server

CORES = len(os.sched_getaffinity(0))
SERVERS = HERE / "servers"
BREAST_CANCER = ROOT / "models/breast-cancer/1/model.onnx"
MODELS = ROOT / "models"


def gateway(name: str, models: Path, batching: dict | None = None) -> Server:
    """Sluicegate; without `batching`, on nothing but its defaults."""
    addresses = ["--http", "127.0.0.1:{0}", "--grpc", "127.0.0.1:0", "--ops", "127.0.0.1:{1}"]
    command = [str(ROOT / "target/release/sluicegate"), "serve", *addresses]
    if batching is None:
        return Server(name, [*command, "--models", str(models)], directory=ROOT)
    registries = {"local": {"type": "directory", "path": str(models)}}
    config = json.dumps({"registries": registries, "batching": batching})  # which is YAML too
    command += ["--config", "{folder}/sluicegate.yaml"]
    return Server(name, command, files={"sluicegate.yaml": config}, directory=ROOT)


def empty() -> Server:
    return Server("empty axum handler", [str(ROOT / "target/release/empty")], tells_address=True)


def fastapi(name: str, app: str, model: Path, workers: int) -> Server:
    listen = ["--host", "127.0.0.1", "--port", "{0}", "--workers", str(workers)]
    tuned = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    # A worker that was frozen is not dead.
    patient = ["--timeout-worker-healthcheck", "3600"]
    uvicorn = [environments.python("fastapi"), "-m", "uvicorn", f"{app}:app", "--app-dir", str(SERVERS)]
    return Server(name, uvicorn + listen + tuned + patient, told(model))


def litserve(name: str, program: str, model: Path, **settings: str) -> Server:
    command = [environments.python("litserve"), str(SERVERS / f"{program}.py"), "{0}"]
    return Server(name, command, told(model) | settings)


def bentoml(name: str, service: str, model: Path) -> Server:
    listen = ["--working-dir", str(SERVERS), "--host", "127.0.0.1", "--port", "{0}"]
    command = [environments.python("bentoml"), "-m", "bentoml", "serve", service, *listen]
    return Server(name, command, told(model) | {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": "."})


def mlserver(name: str, served: str, model: Path, workers: int, batch: int, delay: float) -> Server:
    ports = {"http_port": "{0}", "grpc_port": "{1}", "metrics_port": "{2}"}
    # Its documentation: off in production.
    settings = {"debug": False, "host": "127.0.0.1", "parallel_workers": workers, "use_structured_logging": False} | ports
    batching = {"max_batch_size": batch, "max_batch_time": delay}
    model_settings = {"name": served, "implementation": "mlserver_onnx.OnnxModel", **batching}
    files = {"settings.json": json.dumps(settings), "model-settings.json": json.dumps(model_settings)}
    command = [environments.python("mlserver"), "-c", "from mlserver.cli import main; main()", "start", "{folder}"]
    return Server(name, command, told(model) | {"PYTHONPATH": str(SERVERS)}, files)


def told(model: Path) -> dict[str, str]:
    # What serves one model on one thread needs no threads of other libraries.
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "DO_NOT_TRACK": "1"}
    return {"PEERS_MODEL": str(model), "PEERS_CORES": str(CORES), **quiet}
