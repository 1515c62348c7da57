"""Scopes that end: by a call, by the clock, and with those around them."""

import threading
import time
from concurrent.futures import CancelledError

import pytest

from langchain_glm4v.media import stopping


def never(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def test_without_a_scope_there_is_no_limit() -> None:
    assert stopping.left() is None
    assert stopping.Scope().bound(stopping.left)() is None


def test_a_scope_ends_when_its_time_is_over() -> None:
    left = stopping.Scope(100).bound(stopping.left)()
    assert left is not None
    assert 0 < left <= 100
    scope = stopping.Scope(0.2)
    with pytest.raises(CancelledError):
        scope.bound(stopping.wait)(never)
    assert scope.is_stopped
    with pytest.raises(CancelledError):
        scope.bound(stopping.left)()


def test_the_shortest_time_counts() -> None:
    def inside() -> tuple[float, float]:
        return stopping.Scope(1000).left, stopping.Scope(10).left

    long, short = stopping.Scope(100).bound(inside)()
    assert 10 < long <= 100
    assert 0 < short <= 10


def test_a_stopped_scope_stops_those_within_in_other_threads() -> None:
    scope = stopping.Scope(1000)
    ended = threading.Event()

    def work() -> None:
        inner = stopping.Scope(1000)
        with pytest.raises(CancelledError):
            inner.bound(stopping.wait)(never)
        ended.set()

    thread = threading.Thread(target=scope.bound(work))
    thread.start()
    scope.stop()
    thread.join()
    assert ended.is_set()
