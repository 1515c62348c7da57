"""Processes that decode media, so that a file that crashes or hangs a decoder harms nothing else.

They start when the first medium is decoded, are kept for the next, and end with this process, in
whatever way it ends. One whose result nobody waits for any more is killed. Only they import the
decoders (Pillow, PyAV, PyMuPDF), which also keeps the interpreter's lock, and the event loop with
it, free while they work.
"""

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from langchain_glm4v.errors import MediaError
from langchain_glm4v.media import stopping
from langchain_glm4v.media.worker import MEMORY

Result = TypeVar("Result")

SIZE = min(4, os.cpu_count() or 1)
"""Processes at once, at most."""

TIMEOUT = 60
"""Seconds for one picture or page, at most, unless told otherwise."""

_END_TIMEOUT = 1  # seconds
_WORKER = Path(__file__).with_name("worker.py")


def call(
    function: Callable[..., Result], *args: Any, subject: str, timeout: int = TIMEOUT
) -> Result:
    """Call a function in another process; waits for a free one.

    Args:
        function: A function of a module of this package.
        *args: Its arguments; they and the result must be of Python's own types or of this package.
        subject: What is decoded, for error messages: "page 3 of 'scan.pdf'".
        timeout: Whole seconds after which the process is killed.

    Returns:
        What the function returns.

    Raises:
        MediaError: The process crashed, needed too much memory, or did not end in time.
        CancelledError: The scope of this call was stopped: see `stopping`.
        Exception: What the function raises, if it is an error of this package or of Python; else
            a `RuntimeError` with its text.
    """
    with free(_slots):
        worker = _idle_worker()
        try:
            returned, value = pickle.loads(worker.do(pickle.dumps((function, args)), timeout))
        except TimeoutError as error:
            worker.kill()
            raise MediaError(
                f"decoding {subject} took more than {timeout} s and was stopped: the file is "
                "damaged, or larger than it seems"
            ) from error
        except (EOFError, OSError) as error:
            raise MediaError(
                f"decoding {subject} crashed ({worker.kill()}): the file is damaged, or made to "
                "do harm"
            ) from error
        except BaseException:  # such as Ctrl-C: nobody waits for the result any more
            worker.kill()
            raise
        _idle.append(worker)
    if returned:
        result: Result = value
        return result
    if isinstance(value, MemoryError):
        raise MediaError(
            f"decoding {subject} needs more than {MEMORY // 1024**2} MiB of memory: make it smaller"
        ) from value
    raise value


@contextlib.contextmanager
def free(slots: threading.Semaphore) -> Iterator[None]:
    """Wait for one of the places of a semaphore, and hold it meanwhile.

    Raises:
        CancelledError: The scope of this call was stopped: see `stopping`.
    """
    stopping.wait(lambda seconds: slots.acquire(timeout=seconds))
    try:
        yield
    finally:
        slots.release()


def lifeline() -> tuple[Connection, Connection]:
    """A pipe for a process that is to end with this one: it calls `confinement.die_with`.

    Returns:
        The process's end, and ours, by which it lives; nothing is ever written.
    """
    life, ours = Pipe(duplex=False)
    _ours.add(ours)
    return life, ours


def each(
    function: Callable[[int], Result], numbers: Iterable[int], *, at_once: int = SIZE
) -> Iterator[Result]:
    """Call a function for one number after the other, some of them at once.

    Args:
        function: Called in threads; where the work is done in processes, they share it.
        numbers: Read only as far as needed.
        at_once: How many calls run at once, at most. Twice as many results are made before the
            first of them is taken, so that a slow one does not hold up the others.

    Yields:
        The results, in the order of the numbers. After an error, or Ctrl-C, the calls that still
        run are stopped.
    """
    scope = stopping.Scope()
    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix="glm4v-media") as threads:
        try:
            for number in numbers:
                running.append(threads.submit(scope.bound(function), number))
                if len(running) == 2 * at_once:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except GeneratorExit:
            raise  # without hurry: a process that may finish is of use for the next call
        except BaseException:
            scope.stop()
            raise
        finally:
            for future in running:
                future.cancel()


class _Worker:
    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        _ours.add(self._connection)
        life, self._lifeline = lifeline()
        with theirs, life:
            descriptors = [theirs.fileno(), life.fileno()]
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER), *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                # Ctrl-C is for this process: it decides what becomes of the work.
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def do(self, job: bytes, timeout: int) -> bytes:
        self._connection.send((sys.path, job))
        stopping.wait(self._connection.poll, timeout)
        return self._connection.recv_bytes()

    def end(self) -> None:
        """Let the process die, which has nothing to do or to tidy up."""
        self._connection.close()
        self._lifeline.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_TIMEOUT)

    def kill(self) -> str:
        """End the process; returns how it ended."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may be dying by itself
            self._process.wait(0.1)
        self._lifeline.close()
        self._process.kill()
        status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _idle_worker() -> _Worker:
    while _idle:
        with contextlib.suppress(IndexError):  # another thread was faster
            worker = _idle.pop()
            if worker.is_alive:
                return worker
            worker.kill()
    return _Worker()


def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _forget() -> None:
    """After a fork, the child has its own processes, and keeps none of its parent alive."""
    global _idle, _ours, _slots
    for connection in _ours:
        connection.close()
    _idle, _ours, _slots = [], WeakSet(), threading.BoundedSemaphore(SIZE)


_idle: list[_Worker] = []
_ours: WeakSet[Connection] = WeakSet()  # ends of pipes to other processes
_slots = threading.BoundedSemaphore(SIZE)
os.register_at_fork(after_in_child=_forget)
atexit.register(_end_all)
