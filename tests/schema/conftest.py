"""Finds what these tests share with those of the clients: the gateway as a process, and models that are made."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "clients"))
