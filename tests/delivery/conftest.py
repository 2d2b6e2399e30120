"""What the tests share."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# The programs that write the table, the schema, the boards and the image are imported by their tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from gateway import loopback  # noqa: E402


@pytest.fixture
def address() -> Callable[[], str]:
    """Addresses of loopback, one for each gateway."""
    return loopback
