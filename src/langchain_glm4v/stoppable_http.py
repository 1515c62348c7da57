"""Requests of a sync client that end soon after the scope they are made in was stopped.

A thread that reads from a socket cannot be interrupted. So it reads for a moment at a time, and
looks in between whether anybody still waits: see `media.stopping`.
"""

from collections.abc import Iterable
from typing import Any

import httpcore2
import httpx2

from langchain_glm4v.media import stopping

_LEAST = 0.001  # seconds; without any, a socket would not wait at all


def make_stoppable(client: httpx2.Client) -> None:
    """Let the requests of a client, which has made none yet, end with their scope."""
    made: Any = client
    for transport in (made._transport, *made._mounts.values()):
        if transport is not None:
            transport._pool._network_backend = _Backend()


class _Backend(httpcore2.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(
            super().connect_tcp(host, port, timeout, local_address, socket_options=socket_options)
        )


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not stopping.is_scoped():  # the main thread's is interrupted by Ctrl-C as it is
            return self._inner.read(max_bytes, timeout)
        found: list[bytes] = []

        def has_read(seconds: float) -> bool:
            try:
                found.append(self._inner.read(max_bytes, max(seconds, _LEAST)))
            except httpcore2.ReadTimeout:
                return False
            return True

        try:
            stopping.wait(has_read, timeout)
        except TimeoutError as error:
            raise httpcore2.ReadTimeout(str(error)) from error
        return found[0]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
