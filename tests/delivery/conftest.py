"""What the tests share."""

from collections.abc import Callable

import pytest

from gateway import loopback


@pytest.fixture
def address() -> Callable[[], str]:
    """Addresses of loopback, one for each gateway."""
    return loopback
