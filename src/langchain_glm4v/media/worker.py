"""What a decoding process runs: one job after another, until its parent is gone.

Run as a script by `pool`, which need not find the package itself: an empty stand-in takes its place
here, and modules below it are imported as ever.
"""

import os
import pickle
import resource
import signal
import sys
import types
from multiprocessing.connection import Connection
from pathlib import Path

PACKAGE = "langchain_glm4v"

MEMORY = 4 * 1024**3
"""Bytes of address space of a process, at most."""

_GRACE = 5  # seconds after which a job ends itself, if its parent is no more there to end it


def main() -> None:
    """Work on what comes through the connection whose descriptor is the first argument."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(Path(__file__).parents[1])]
    sys.modules[PACKAGE] = package
    parent: Connection = Connection(int(sys.argv[1]))
    while True:
        try:
            timeout, job = parent.recv()
            # The default action ends the process, also in the midst of a decoder's code.
            signal.alarm(timeout + _GRACE)
            parent.send_bytes(outcome(job))
            signal.alarm(0)
        except (EOFError, OSError):  # the parent is gone
            return


def outcome(job: bytes) -> bytes:
    """Do a job: what it returns, or what it raises, pickled beside whether it returned."""
    try:
        function, args = pickle.loads(job)
        return pickle.dumps((True, function(*args)), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return pickle.dumps((False, _portable(error)), pickle.HIGHEST_PROTOCOL)


def _portable(error: Exception) -> Exception:
    """The error itself if its class is Python's or ours, for the parent must have its class."""
    known = type(error).__module__ in ("builtins", f"{PACKAGE}.errors")
    return error if known else RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    # What a decoder prints must not mix with what the program prints.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    main()
