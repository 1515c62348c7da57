"""The HTTP clients of a chat model.

OpenAI's client takes keys, addresses and headers from variables of OpenAI's; none of them is ever
used or sent here.
"""

import asyncio
import ipaddress
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from langchain_glm4v.errors import ServerTimeoutError, ServerUnreachableError

# What OPENAI_CUSTOM_HEADERS may not take out of a request, because no request works without.
_NEEDED_HEADERS = {"accept": "application/json", "content-type": "application/json"}


@dataclass(frozen=True)
class Connection:
    """How a server is reached.

    Attributes:
        base_url: Address of the server, with `/v1`.
        api_key: Key of the server.
        headers: Sent with every request; they win over all others.
        query: Sent with every request.
        organization: Sent as `OpenAI-Organization`, unless None.
        timeout: Seconds, or the `Timeout` of httpx; None: no limit.
        max_retries: Further attempts after an error that may pass; None: the client's default.
        proxy: Address of a proxy. None: the usual variables, except for servers on this machine.
    """

    base_url: str
    api_key: str
    headers: Mapping[str, str] | None = None
    query: Mapping[str, object] | None = None
    organization: str | None = None
    timeout: Any = None
    max_retries: int | None = None
    proxy: str | None = None

    def client(self, http_client: Any = None) -> openai.OpenAI:
        """Build a client, on `http_client` if there is one."""
        http = http_client or openai.DefaultHttpxClient(**self._http_options())
        return openai.OpenAI(**self._options(), http_client=http)

    def async_client(self, http_client: Any = None) -> openai.AsyncOpenAI:
        """Build an async client, on `http_client` if there is one."""
        http = http_client or openai.DefaultAsyncHttpxClient(**self._http_options())
        return openai.AsyncOpenAI(**self._options(), http_client=http)

    def _http_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"proxy": self.proxy, "verify": _tls()}
        if self.proxy is None and _is_this_machine(self.base_url):
            options["trust_env"] = False  # the variables name proxies
        return options

    def _options(self) -> dict[str, Any]:
        retries = {} if self.max_retries is None else {"max_retries": self.max_retries}
        return {
            "base_url": self.base_url,
            "api_key": self.api_key,
            "timeout": self.timeout,
            "default_headers": self._headers(),
            "default_query": self.query,
            **retries,
        }

    def _headers(self) -> dict[str, Any]:
        lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
        names = [
            name.strip() for name, colon, _ in (line.partition(":") for line in lines) if colon
        ]
        return {
            **{
                name: _NEEDED_HEADERS.get(name.lower(), openai.Omit())
                for name in names
                if name.lower() != "authorization"
            },
            "Authorization": f"Bearer {self.api_key}",
            "OpenAI-Organization": self.organization or openai.Omit(),
            "OpenAI-Project": openai.Omit(),
            **(self.headers or {}),
        }


class LoopLocal:
    """Stands for an async client of which each event loop has its own.

    The connections of an async client work in the event loop that opened them alone, while a chat
    model may be used from several, one after the other or in threads.
    """

    def __init__(self, build: Callable[[], openai.AsyncOpenAI]) -> None:
        self._build = build
        self._clients: dict[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = {}
        self._lock = threading.Lock()

    @property
    def current(self) -> openai.AsyncOpenAI:
        """The client of the running event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._clients:
                # What a closed loop left behind can only be dropped.
                self._clients = {k: v for k, v in self._clients.items() if not k.is_closed()}
                self._clients[loop] = self._build()
            return self._clients[loop]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current, name)

    @property
    def completions(self) -> "LoopLocalCompletions":
        """Stands for `chat.completions` of each event loop's client."""
        return LoopLocalCompletions(self)

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        with self._lock:
            client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()


class LoopLocalCompletions:
    """Stands for `chat.completions` of each event loop's client."""

    def __init__(self, clients: LoopLocal) -> None:
        self._clients = clients

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clients.current.chat.completions, name)


@contextmanager
def explained(base_url: str, remedy: str) -> Iterator[None]:
    """Turn the client's bare "Connection error." into which server, why, and what to do.

    Args:
        base_url: Address of the server.
        remedy: What to do if nothing answers there.

    Raises:
        ServerTimeoutError: The server took too long.
        ServerUnreachableError: No connection, or one that broke.
    """
    try:
        yield
    except openai.APITimeoutError as error:
        message = (
            f"the server at {base_url} did not answer in time: ask for less with max_tokens, "
            "or set a longer timeout"
        )
        raise ServerTimeoutError(message, error.request) from error
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = str(cause) or type(cause).__name__
        message = f"no answer from the server at {base_url} ({reason}): {remedy}"
        raise ServerUnreachableError(message, error.request) from error


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    # Reading the certificates takes longer than all else that a constructor does.
    return httpx2.create_ssl_context()


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
