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


def last_lines(path: Path, number: int) -> tuple[str, int]:
    """The last lines of a log, and the byte behind them; nothing of one that is not there."""
    try:
        with path.open("rb") as log:
            lines = deque(log, maxlen=number)
            return b"".join(lines).decode(errors="replace"), log.tell()
    except FileNotFoundError:
        return "", 0


def follow(path: Path, is_over: Callable[[], bool], *, after: int = 0) -> Iterator[str]:
    """What is added to a log, also where another file takes the place of a full one.

    Args:
        path: The log; it may not be there yet.
        is_over: Whether nothing more will come.
        after: Byte at which to begin.
    """
    log: TextIO | None = None
    try:
        while True:
            over = is_over()  # asked before reading, so that the last lines are not missed
            with contextlib.suppress(FileNotFoundError):
                if log is None:
                    log = path.open(encoding="utf-8", errors="replace")
                    log.seek(after)
                    after = 0
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
    for text in follow(path, lambda: False):
        sys.stderr.write(text)
        sys.stderr.flush()
