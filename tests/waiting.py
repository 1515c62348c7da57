"""Waiting in tests for what other threads and processes do."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], within: float = 120) -> None:
    """Wait until a condition holds.

    Args:
        condition: Asked again and again.
        within: Seconds after which the test fails: many, because a busy machine may be slow.
    """
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"nothing came of it in {within:g} s"
        time.sleep(0.05)
