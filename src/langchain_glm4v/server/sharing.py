"""Where the servers of a user are found, so that programs which want the same one share it.

A folder of the user's own holds a socket for each server, at which its keeper (`keeper`) answers,
and two locks for each that is shared: one so that of several programs one starts it and the others
join, and one that all its users have, so that the last one knows that he is. Beside these lies a
secret that the user's programs have in common.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from langchain_glm4v._version import __version__
from langchain_glm4v.errors import ServerStartError

if TYPE_CHECKING:  # whoever only looks for servers need not load them
    from langchain_glm4v.server.options import ServerOptions
    from langchain_glm4v.server.preflight import Checkpoint, Engine

POLL_INTERVAL = 0.2  # seconds
SECRET_BYTES = 32
WAITING = "waiting for another program that starts it"


def folder() -> Path:
    """The user's folder for servers, made if it is not there.

    It is in XDG_RUNTIME_DIR, else in the folder for temporary files.

    Raises:
        ServerStartError: It cannot be made, or others may write to it.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = (
        Path(runtime, "glm4v") if runtime else Path(tempfile.gettempdir(), f"glm4v-{os.getuid()}")
    )
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        message = f"the folder for servers cannot be made: {error}; set XDG_RUNTIME_DIR to another"
        raise ServerStartError(message) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        message = (
            f"{str(path)!r} is no folder of this user alone, and keys are handed over there: "
            "remove it, or set XDG_RUNTIME_DIR to a folder of your own"
        )
        raise ServerStartError(message)
    return path


def secret() -> bytes:
    """A secret of the user, made when it is first asked for; the same in all their programs.

    Raises:
        ServerStartError: The user's folder cannot be used.
        OSError: The secret cannot be read or written.
    """
    path = folder() / "secret"
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    with tempfile.NamedTemporaryFile(dir=path.parent) as fresh:  # for this user alone
        fresh.write(secrets.token_bytes(SECRET_BYTES))
        fresh.flush()
        with contextlib.suppress(FileExistsError):  # another program was first
            os.link(fresh.name, path)
    return path.read_bytes()


def name(options: "ServerOptions", checkpoint: "Checkpoint", engine: "Engine") -> str:
    """What programs call a server that they may share: the same if they want the same."""
    variables = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("VLLM_", "CUDA_", "HF_")) or key == "PYTHONPATH"
    }
    asked = [vars(options), vars(checkpoint), vars(engine), sys.prefix, __version__, variables]
    text = json.dumps(asked, default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def alone(name: str, report: Callable[[str], None]) -> Iterator[None]:
    """While this runs, no other thread or program starts the server of this name, or joins it.

    Args:
        name: See `name`.
        report: Called with a short line if another one does.

    Raises:
        ServerStartError: The lock cannot be made.
    """
    waited = False
    with _lock(folder() / f"{name}.lock") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited:
                    report(WAITING)
                waited = True
                time.sleep(POLL_INTERVAL)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a forked child may have the file open too


def use(name: str, *, is_new: bool) -> IO[str]:
    """What a program that uses a shared server has open as long as it does.

    Args:
        name: See `name`.
        is_new: Whether the program starts the server, and is the first.

    Raises:
        ServerStartError: The lock cannot be made.
    """
    path = folder() / f"{name}.users"
    if is_new:  # an earlier server's users may still be there
        path.unlink(missing_ok=True)
    lock = _lock(path)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def is_last(lock: IO[str]) -> bool:
    """Whether nobody else uses a server. To the others, this program does no more from now on.

    Args:
        lock: See `use`.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which gives up the shared lock first
    except BlockingIOError:
        return False
    return True


def _lock(path: Path) -> IO[str]:
    try:
        return path.open("w")
    except OSError as error:
        message = f"no lock can be made: {error}; set XDG_RUNTIME_DIR to another folder"
        raise ServerStartError(message) from error


def join(name: str) -> socket.socket | None:
    """A connection to the keeper of a server; None if there is none."""
    try:
        return _connect(name)
    except OSError:
        return None


def _connect(name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)  # else it waits while a keeper hangs, and its queue is full
        with _address(f"{name}.sock") as address:
            connection.connect(address)
        connection.setblocking(True)
    except OSError:
        connection.close()
        raise
    return connection


def open_door(name: str) -> tuple[socket.socket, Path]:
    """The socket at which the keeper of a new server answers, and where it is.

    Raises:
        ServerStartError: It cannot be made.
    """
    path = folder() / f"{name}.sock"
    door = socket.socket(socket.AF_UNIX)
    try:
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)  # of a program that was killed here
        with _address(fresh.name) as address:
            door.bind(address)
        door.listen()
        fresh.replace(path)  # one that is found is listened at, unless its keeper was killed
    except OSError as error:
        door.close()
        message = f"no socket can be made at {str(path)!r}: {error}; set XDG_RUNTIME_DIR to another"
        raise ServerStartError(message) from error
    return door, path


def names() -> list[str]:
    """The names of all servers of this user; of some the keeper may have been killed."""
    with contextlib.suppress(OSError):
        return sorted(path.stem for path in folder().glob("*.sock"))
    return []


def remove_dead() -> None:
    """Remove the sockets of keepers that were killed."""
    for name in names():
        path = folder() / f"{name}.sock"
        with contextlib.suppress(OSError):
            found = path.stat().st_ino
            try:
                _connect(name).close()
            except ConnectionRefusedError:
                if path.stat().st_ino == found:  # else a new server has its own there meanwhile
                    path.unlink()


@contextmanager
def _address(name: str) -> Iterator[str]:
    """Address of a socket in the folder: 107 bytes at most, and the folder's path may be longer."""
    inside = os.open(folder(), os.O_PATH)
    try:
        yield f"/proc/self/fd/{inside}/{name}"
    finally:
        os.close(inside)
