"""What the tests share: an address of loopback for each gateway, so that all of them have the ports of the chart."""

import itertools
import os
from collections.abc import Callable

import pytest

# Another network of 127/8 for each run of the tests on this machine.
COUNT = itertools.count(1)


@pytest.fixture
def address() -> Callable[[], str]:
    process = os.getpid()

    def next_address() -> str:
        return f"127.{64 + process % 128}.{process // 128 % 256}.{next(COUNT)}"

    return next_address
