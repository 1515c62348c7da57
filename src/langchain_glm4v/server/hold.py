"""A program's connection to the keeper of a server: it holds the server as long as it is open."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable

from langchain_glm4v.server.keeper import Facts, Status

WELCOME_TIMEOUT = 10.0  # seconds for a keeper to say what there is


class Hold:
    """What a keeper tells this program, and what the program tells it. Safe for threads.

    Args:
        connection: To the keeper. It is closed with this object.

    Attributes:
        is_open: Whether the keeper is there.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.is_open = True
        self._connection = connection
        self._changed = threading.Condition()
        self._facts: Facts | None = None
        self._status: Status | None = None
        threading.Thread(target=self._read, name="keeper's news", daemon=True).start()

    @property
    def facts(self) -> Facts | None:
        """What the keeper said of the server; None if it said nothing, and is gone or hangs."""
        with self._changed:
            self._changed.wait_for(lambda: self._facts or not self.is_open, WELCOME_TIMEOUT)
            return self._facts

    @property
    def status(self) -> Status | None:
        """What the keeper said last; None if it said nothing, and is gone or hangs."""
        with self._changed:
            self._changed.wait_for(lambda: self._status or not self.is_open, WELCOME_TIMEOUT)
            return self._status

    def wait(self, condition: Callable[[Status], bool], timeout: float | None) -> bool:
        """Wait until the server is in some state, or the keeper is gone.

        Args:
            condition: What is waited for.
            timeout: Seconds, at most.

        Returns:
            Whether that came.
        """

        def is_over() -> bool:
            return not self.is_open or (self._status is not None and condition(self._status))

        with self._changed:
            return self._changed.wait_for(is_over, timeout)

    def tell(self, do: str, *, drain: bool = False, keep_log: bool = False) -> None:
        """Tell the keeper to do something: see `keeper`. Does nothing if it is gone."""
        message = {"do": do, "drain": drain, "keep_log": keep_log}
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """Close the connection; the keeper takes it for a user that died."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def disown(self) -> None:
        """In a forked child: leave the connection to the parent."""
        # `close` would not: the reader, whose thread is not in the child, still has it.
        os.close(self._connection.detach())
        self.is_open = False

    def _read(self) -> None:
        # TypeError: of another version of this package
        with (
            contextlib.suppress(OSError, ValueError, TypeError),
            self._connection.makefile("rb") as lines,
        ):
            for line in lines:
                fields = json.loads(line)
                with self._changed:
                    if self._facts is None:
                        self._facts = Facts(**fields)
                    else:
                        self._status = Status(**fields)
                    self._changed.notify_all()
        with self._changed:
            self.is_open = False
            self._changed.notify_all()
