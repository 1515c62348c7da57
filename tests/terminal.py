"""Running programs on a terminal, in tests."""

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence


def on_terminal(
    command: Sequence[str], stream: str = "stderr", environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a program of which one stream, "stdout" or "stderr", is a terminal.

    Returns:
        Its exit code, and what it showed there.
    """
    ours, theirs = pty.openpty()
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
    shown = b""
    try:
        child = subprocess.Popen(
            command, stdout=streams["stdout"], stderr=streams["stderr"], env=environment
        )
        os.close(theirs)
        while True:  # while it runs, for a terminal takes no more than a few pages unread
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:  # all of it is read
                break
        return child.wait(), shown.decode()
    finally:
        os.close(ours)
