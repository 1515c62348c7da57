"""Waiting in tests for what other threads and processes do."""

import time
from collections.abc import Callable
from pathlib import Path


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


def wait_for_end(process: int) -> None:
    """Wait until a process has ended, whether its parent has taken note of that or not."""
    wait_until(lambda: _has_ended(process))


def _has_ended(process: int) -> bool:
    try:
        told = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return True
    return told.rpartition(")")[2].split()[0] == "Z"
