"""What a decoding process runs: one job after another, until its parent is gone.

Run as a script by `pool`, which need not find the package itself: an empty stand-in takes its place
here, and modules below it are imported as ever.
"""

import importlib
import os
import pickle
import resource
import sys
import types
from multiprocessing.connection import Connection
from pathlib import Path

PACKAGE = "langchain_glm4v"

MEMORY = 4 * 1024**3
"""Bytes of address space of a process, at most."""


def main() -> None:
    """Work on what comes through a connection.

    Its descriptor is the first argument; the second is that of the pipe with which to die.
    """
    connection, life = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(Path(__file__).parents[1])]
    sys.modules[PACKAGE] = package
    importlib.import_module(f"{PACKAGE}.media.confinement").die_with(life)
    parent: Connection = Connection(connection)
    while True:
        try:
            path, job = parent.recv()
            # Where the parent imports from, such as the target of `pip install --target`.
            sys.path += [place for place in path if place not in sys.path]
            parent.send_bytes(outcome(job))
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
    # What a decoder prints must not mix with what the program prints. Messages of Python, such as
    # that this script failed, still go to standard error.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    main()
