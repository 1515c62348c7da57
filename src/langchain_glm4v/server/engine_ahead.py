"""The engine's process, begun before vLLM asks for it.

vLLM spawns its engine once it has read the model's configuration: another Python, which imports
vLLM anew, after the first has done so. Here the server, while it is still empty, forks a process
that imports vLLM at the same time and then becomes the first that is spawned: it gets what a
spawned one would have got, the arguments, the environment and the open files under their numbers.

A fork of the server where vLLM asks for the engine would not do: the server's threads have computed
by then (OpenMP), and the copy waits for threads that it does not have (seen with vLLM 0.26 on an
H200). Import nothing of the package here; `entrypoint.py` loads this file by its path.
"""

import fcntl
import json
import multiprocessing.util
import os
import socket
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

# Open files are handed over under the numbers that they have in the server. The waiting process
# keeps these numbers free; its own files have higher ones.
KEPT_NUMBERS = 256

_util: Any = multiprocessing.util


def begin(import_all: Callable[[], None], own: Collection[str] = ()) -> None:
    """Fork the process that will be spawned first.

    Call it before there are threads. If the process is gone when it is wanted, or cannot take over,
    a spawned one takes its place.

    Args:
        import_all: Imports in that process what it will need. After an ImportError, the process
            ends, or if it is to take over already, becomes one that is spawned as usual.
        own: Environment variables that stay as they are in that process; the others become what
            they are in the server when it is handed over.
    """
    here, there = socket.socketpair()
    process = os.fork()
    if process == 0:
        here.close()
        _import_and_wait(there, import_all, own)
    there.close()
    spawn = _util.spawnv_passfds

    def hand_over(path: Any, arguments: Sequence[Any], files: Sequence[int]) -> int:
        # vLLM has `--numa-bind` done by another program in Python's place.
        is_python = os.fsdecode(path) == sys.executable
        if "--multiprocessing-fork" not in arguments or not is_python:
            return int(spawn(path, arguments, files))
        _util.spawnv_passfds = spawn
        with here:
            taken = _sent(here, arguments, files)
        return process if taken else int(spawn(path, arguments, files))

    _util.spawnv_passfds = hand_over


def _sent(here: socket.socket, arguments: Sequence[Any], files: Sequence[int]) -> bool:
    """Whether the waiting process was told what to become; if not, it ends."""
    numbers = sorted({int(number) for number in files})
    told = {
        "arguments": [os.fsdecode(argument) for argument in arguments],
        "numbers": numbers,
        "environment": dict(os.environ),
    }
    if numbers[-1] >= KEPT_NUMBERS:
        return False
    try:
        socket.send_fds(here, [json.dumps(told).encode()], numbers)
    except OSError:
        return False
    return True


def _import_and_wait(
    there: socket.socket, import_all: Callable[[], None], own: Collection[str]
) -> NoReturn:
    """Be the process that waits, until it is told what to become or the server is gone."""
    there = _out_of_the_way(there)
    try:
        import_all()
        is_ready = True
    except ImportError:  # told by what is spawned, for here it would hide the server's last words
        is_ready = False
        there.shutdown(socket.SHUT_RD)  # what comes later is spawned; what came already counts
    message, files, _, _ = socket.recv_fds(there, 1, KEPT_NUMBERS)
    while part := there.recv(1 << 20):
        message += part
    if not message:
        sys.exit(0)
    told = json.loads(message)
    os.closerange(sys.stderr.fileno() + 1, KEPT_NUMBERS)
    for number, file in zip(told["numbers"], files, strict=True):
        os.dup2(file, number, inheritable=not is_ready)
        os.close(file)
    arguments = told["arguments"]
    if not is_ready:
        os.execve(sys.executable, arguments, told["environment"])
    _change_environment(told["environment"] | {name: os.environ[name] for name in own})
    # As in a spawned process: `multiprocessing` looks there for what it is.
    sys.argv[1:] = ["--multiprocessing-fork"]
    exec(arguments[arguments.index("-c") + 1], {})  # `spawn_main(…)`, which ends this process
    sys.exit(1)


def _change_environment(wanted: Mapping[str, str]) -> None:
    """Change what differs and no more: vLLM finds the place for its process title by the rest."""
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(dict(wanted.items() - os.environ.items()))


def _out_of_the_way(there: socket.socket) -> socket.socket:
    """Keep the low numbers of open files from being taken; gives `there` under a high one."""
    moved = socket.socket(fileno=fcntl.fcntl(there, fcntl.F_DUPFD_CLOEXEC, KEPT_NUMBERS))
    there.close()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number in range(sys.stderr.fileno() + 1, KEPT_NUMBERS):
        if number != nothing:
            os.dup2(nothing, number, inheritable=False)
    return moved
