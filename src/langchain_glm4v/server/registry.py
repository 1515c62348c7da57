"""Servers shared within this process: one for all who ask for the same."""

import threading
from collections.abc import Callable

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


class Lease:
    """One user's hold on a shared server, got from `acquire`.

    Attributes:
        server: The server; it was running when the lease was got.
    """

    def __init__(self, server: GLM4VServer, shared: _Shared) -> None:
        self.server = server
        self._shared = shared
        self._held = True

    def release(self, *, drain: bool = True) -> None:
        """Give the server back; its last user's release stops it. Later calls do nothing.

        Args:
            drain: Whether a server that is stopped may finish its requests.
        """
        shared = self._shared
        with shared.lock:
            if not self._held:
                return
            self._held = False
            if shared.server is not self.server:  # it died and was replaced
                return
            shared.users -= 1
            if shared.users == 0:
                shared.server = None
                self.server.stop(drain=drain)


def acquire(options: ServerOptions, on_progress: Callable[[str], None] | None = None) -> Lease:
    """Get hold of a running server for `options`; start one only if this process has none.

    A server still in use when the interpreter exits is stopped then.

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
            if shared.server is not None:
                shared.server.stop(drain=False)  # it died: its helpers may be left
            server = GLM4VServer(**vars(options), on_progress=on_progress)
            shared.server, shared.users = server.start(), 0
        shared.users += 1
        return Lease(shared.server, shared)
