"""Servers shared within this process: one for all who ask for the same."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from langchain_glm4v.server.options import ServerOptions
from langchain_glm4v.server.process import GLM4VServer


class _Shared:
    """A server and the number of its users; the lock lets one thread start it while others wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.server: GLM4VServer | None = None
        self.users = 0


_shared: dict[ServerOptions, _Shared] = {}
_shared_lock = threading.Lock()


def acquire(
    options: ServerOptions, on_progress: Callable[[str], None] | None = None
) -> GLM4VServer:
    """Return a running server for `options`; start one only if this process has none.

    Each call wants one `release`. A server still in use when the interpreter exits is stopped then.

    Args:
        options: What the server must be like.
        on_progress: Called with a short line whenever a start reaches a new stage.

    Raises:
        ServerError: As `GLM4VServer.start` does.
    """
    with _shared_lock:
        shared = _shared.setdefault(options, _Shared())
    with shared.lock:
        if shared.server is None or not shared.server.is_running:
            server = GLM4VServer(**_fields(options), on_progress=on_progress)
            shared.server, shared.users = server.start(), 0
        shared.users += 1
        return shared.server


def release(server: GLM4VServer) -> None:
    """Give back a server got from `acquire`; the last user's release stops it."""
    shared = _shared[server.options]
    with shared.lock:
        if shared.server is not server:  # it died and was replaced
            return
        shared.users -= 1
        if shared.users == 0:
            shared.server = None
            server.stop()


def _fields(options: ServerOptions) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
