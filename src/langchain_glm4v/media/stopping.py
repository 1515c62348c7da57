"""Work that stops once nobody waits for its result any more.

That is after Ctrl-C, when a task is cancelled, or when the time for it is over.

A thread cannot be stopped from outside. So what works in threads belongs to a `Scope`, and for all
that takes long (a free process, a decoder, LibreOffice, the network) it waits by `wait`, which
raises soon after the scope was stopped. What waits by other means is to wait no longer than `left`
tells.
"""

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import lru_cache, partial
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

THREADS = 64
"""Calls of `in_thread` at once, at most; most of them wait for a server or a free process."""

_LOOK = 0.1  # seconds after which is looked whether the scope was stopped


class Scope:
    """Calls that are stopped together, and with the scope in which this one is made.

    Args:
        timeout: Seconds after which they are. Default: no limit.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self._outer = _scope.get()
        self._is_stopped = False
        self._end = math.inf if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float:
        """Seconds until the time is over, the outer scopes' included; infinite without a limit."""
        own = self._end - time.monotonic()
        return own if self._outer is None else min(own, self._outer.left)

    @property
    def is_stopped(self) -> bool:
        """Whether nobody waits for the results any more."""
        if self._is_stopped or time.monotonic() >= self._end:
            return True
        return self._outer is not None and self._outer.is_stopped

    def stop(self) -> None:
        """Let all that waits in this scope raise."""
        self._is_stopped = True

    def bound(self, function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """The function, to be called once in this scope, in any thread."""
        context = copy_context()
        context.run(_scope.set, self)
        return partial(context.run, function)


def wait(is_done: Callable[[float], bool], timeout: float | None = None) -> None:
    """Wait until something is done.

    Args:
        is_done: Waits for it as many seconds as it is given, and tells whether it is done.
        timeout: Seconds in all, at most. Default: no limit.

    Raises:
        TimeoutError: It took longer.
        CancelledError: The scope of this call was stopped.
    """
    scope = _scope.get()
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _LOOK if end is None else end - time.monotonic()
        if is_done(max(0, min(_LOOK, left))):
            return
        if scope is not None and scope.is_stopped:
            raise CancelledError
        if left <= 0:
            raise TimeoutError


def is_scoped() -> bool:
    """Whether this call belongs to a scope, which may be stopped."""
    return _scope.get() is not None


def left() -> float | None:
    """Seconds that this call may still take; None if there is no limit.

    Raises:
        CancelledError: The scope of this call was stopped.
    """
    scope = _scope.get()
    if scope is None:
        return None
    seconds = scope.left
    if scope.is_stopped:
        raise CancelledError
    return None if seconds == math.inf else seconds


async def in_thread(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """As `asyncio.to_thread`; but what is cancelled stops, and other libraries' threads stay free.

    Raises:
        Exception: What the function raises.
    """
    import asyncio  # noqa: PLC0415 - decoding processes have no use for it, and start faster

    scope = Scope()
    call = partial(scope.bound(function), *args, **kwargs)
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads(), call)
    finally:
        scope.stop()


@lru_cache(1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="glm4v-call")


_scope: ContextVar[Scope | None] = ContextVar("_scope", default=None)
# After a fork, the child has none of these threads.
os.register_at_fork(after_in_child=_threads.cache_clear)
