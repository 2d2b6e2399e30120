"""The virtual environment of each peer, under .venv/peers: made where it is missing or its requirements have changed."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / ".venv/peers"

# What pins the rest; above it stand the packages that were asked for.
REST = "# What they bring with them"


def requirements(name: str) -> Path:
    return HERE / f"requirements-{name}.txt"


def python(name: str) -> str:
    return str(FOLDER / name / "bin/python")


def make(name: str) -> str | None:
    """Makes the environment `ready`; the reason where that does not work."""
    ready, wanted = FOLDER / name / "ready", requirements(name).read_text()
    if ready.is_file() and ready.read_text() == wanted:
        return None
    print(f"installing {name} into .venv/peers/{name}", file=sys.stderr)
    steps = [
        [sys.executable, "-m", "venv", "--clear", FOLDER / name],
        [python(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements(name)],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            return f"cannot be installed: {said[-1] if said else 'pip said nothing'}"
    ready.write_text(wanted)
    return None


def versions(name: str) -> str:
    """The packages that were asked for, as `fastapi 0.165.0, uvicorn 0.54.0`."""
    asked = requirements(name).read_text().partition(REST)[0].splitlines()
    return ", ".join(line.replace("==", " ") for line in asked if line and not line.startswith("#"))
