"""The end of a log, and what is added to it."""

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

POLL_INTERVAL = 0.2  # seconds


def last_lines(path: Path, number: int) -> list[str]:
    """The last lines of a log, with their line feeds.

    Raises:
        OSError: It cannot be read.
    """
    with path.open(encoding="utf-8", errors="replace") as log:
        return list(deque(log, maxlen=number))


def follow(path: Path, is_over: Callable[[], bool], *, from_end: bool) -> Iterator[str]:
    """What is added to a log, also where another file takes the place of a full one.

    Args:
        path: The log; it may not be there yet.
        is_over: Whether nothing more will come.
        from_end: Whether what is there already is left out.
    """
    log: TextIO | None = None
    try:
        while True:
            over = is_over()  # asked before reading, so that the last lines are not missed
            with contextlib.suppress(FileNotFoundError):
                if log is None:
                    log = path.open(encoding="utf-8", errors="replace")
                    if from_end:
                        log.seek(0, os.SEEK_END)
                        from_end = False
            while log and (text := log.read(1 << 16)):
                yield text
            if over:
                return
            if log and not _is_at(log, path):
                yield log.read()  # what came before it was put aside
                log.close()
                log = None
            else:
                time.sleep(POLL_INTERVAL)
    finally:
        if log:
            log.close()


def _is_at(log: TextIO, path: Path) -> bool:
    """Whether an open file is the one at `path`; also if there is none."""
    try:
        return os.path.samestat(os.fstat(log.fileno()), path.stat())
    except FileNotFoundError:
        return True


def echo(path: Path) -> None:
    """Write a log to standard error as it grows, until the program ends."""
    for text in follow(path, lambda: False, from_end=False):
        sys.stderr.write(text)
        sys.stderr.flush()
