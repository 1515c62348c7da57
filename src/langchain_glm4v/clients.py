"""The HTTP clients of a chat model, and the requests made with them.

OpenAI's client takes keys, addresses and headers from variables of OpenAI's; none of them is ever
used or sent here. Its retries, timeouts and errors stay; its models of requests and replies, which
take most of the time and know no field of vLLM's, are left out: replies are plain dicts.
"""

import asyncio
import ipaddress
import json
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from langchain_openai.chat_models.base import (
    _handle_openai_api_error,
    _handle_openai_bad_request,
)
from openai import NotGiven
from openai._models import FinalRequestOptions

from langchain_glm4v.abilities import FAILED, Answer, Question
from langchain_glm4v.call_errors import (
    ContextLengthError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from langchain_glm4v.errors import (
    ReplyError,
)
from langchain_glm4v.media import stopping
from langchain_glm4v.stoppable_http import make_stoppable

_PATH = "/chat/completions"
_NO_JSON = (ValueError, RecursionError)
_CHECK_ADDRESS = "check that base_url leads to the /v1 of an OpenAI-compatible server"
_SEE_LOG = "see the server's log, or try again"
# What to do about an error, by its status; 500 stands for all from there on.
_REMEDIES = {
    401: "check api_key or GLM4V_API_KEY",
    403: "check api_key or GLM4V_API_KEY",
    404: "check that base_url ends in /v1 (not in /chat/completions) and that the model is one of "
    "{base_url}/models",
    413: "send fewer or smaller pictures",
    429: "make fewer requests at once, or try later",
    500: _SEE_LOG,
}
# What OpenAI, and BigModel and Z.ai, which number their errors, call it.
_SPENT = frozenset({"insufficient_quota", "1113", "1304", "1308", "1309", "1310"})
_PAY = "check the quota and the balance of its account"
# How vLLM 0.32 words it, in its renderer and in its engine.
_TOO_LONG = ("maximum context length", "maximum model length")
_QUOTED = 200  # characters of what a server sends, at most, in a message
# Arguments of the client's own `create`, and what its `post` calls them.
_OPTIONS = {
    "extra_headers": "headers",
    "extra_query": "params",
    "extra_body": "extra_json",
    "timeout": "timeout",
}
# What OPENAI_CUSTOM_HEADERS may not take out of a request, because no request works without.
_NEEDED_HEADERS = {"accept": "application/json", "content-type": "application/json"}

_tells_refusals: ContextVar[bool] = ContextVar("_tells_refusals", default=False)


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

    def is_of(self, client: openai.OpenAI) -> bool:
        """Whether `client` talks to this server with this key."""
        same_server = str(client.base_url).rstrip("/") == self.base_url.rstrip("/")
        return same_server and client.api_key == self.api_key

    def client(self, http_client: Any = None) -> openai.OpenAI:
        """Build a client, on `http_client` if there is one."""
        http = http_client
        if http is None:
            http = openai.DefaultHttpxClient(**self._http_options())
            make_stoppable(http)
        return _Client(**self._options(), http_client=http)

    def async_client(self, http_client: Any = None) -> openai.AsyncOpenAI:
        """Build an async client, on `http_client` if there is one."""
        http = http_client or openai.DefaultAsyncHttpxClient(**self._http_options())
        return _AsyncClient(**self._options(), http_client=http)

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


class _Client(openai.OpenAI):
    """A client whose requests end, retries included, when the scope they are made in does."""

    def _prepare_options(self, options: FinalRequestOptions) -> FinalRequestOptions:
        left = stopping.left()
        if left is not None:
            given = self.timeout if isinstance(options.timeout, NotGiven) else options.timeout
            # What is no number states the waits for connection and answer one by one.
            options.timeout = min(left, given) if isinstance(given, int | float) else left
        return options


class _AsyncClient(openai.AsyncOpenAI):
    """A client that makes no refused request again for a caller who does so: `telling_refusals`."""

    def _should_retry(self, response: httpx2.Response) -> bool:
        if _tells_refusals.get() and is_refusal(response):
            return False
        return super()._should_retry(response)


@contextmanager
def telling_refusals() -> Iterator[None]:
    """Have async requests that the server refuses for now fail at once, not after retries."""
    token = _tells_refusals.set(True)
    try:
        yield
    finally:
        _tells_refusals.reset(token)


def is_refusal(response: httpx2.Response) -> bool:
    """Whether the server may well answer later what it does not answer now."""
    status = response.status_code
    return status == 429 or (status == 503 and "retry-after" in response.headers)


def is_spent(refusal: openai.APIStatusError) -> bool:
    """Whether a quota or the money of an account is used up, which no waiting makes good."""
    told = (str(refusal.code), str(refusal.type))
    return refusal.status_code == 402 or (
        refusal.status_code == 429 and not _SPENT.isdisjoint(told)
    )


def retry_after(response: httpx2.Response) -> float:
    """Seconds for which the server wants to be left alone; 0 if it does not say."""
    told = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


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


def complete(
    client: openai.OpenAI, payload: Mapping[str, Any]
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Ask for a whole reply.

    Args:
        client: Sends the request.
        payload: The request's fields, and `extra_headers`, `extra_query`, `extra_body` and
            `timeout` as for the client's `chat.completions.create`.

    Returns:
        The reply, and the headers of the response.

    Raises:
        openai.APIError: As by the client's own methods; also for a reply that holds an error.
        ReplyError: If the reply is no JSON object.
    """
    return _decoded(
        client.post(_PATH, cast_to=httpx2.Response, **_arguments(payload, stream=False))
    )


async def acomplete(
    client: openai.AsyncOpenAI, payload: Mapping[str, Any]
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """As `complete`."""
    return _decoded(
        await client.post(_PATH, cast_to=httpx2.Response, **_arguments(payload, stream=False))
    )


class _Overhearing:
    """A decoder of events that keeps the beginning of what it decodes, for an error to quote.

    Attributes:
        beginning: Of the body; enough for `_QUOTED` characters.
    """

    def __init__(self, decoder: Any) -> None:
        self.beginning = b""
        self._decoder = decoder

    def iter_bytes(self, pieces: Iterator[bytes]) -> Iterator[Any]:
        found: Iterator[Any] = self._decoder.iter_bytes(self._kept(piece) for piece in pieces)
        return found

    def aiter_bytes(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        kept = (self._kept(piece) async for piece in pieces)
        found: AsyncIterator[Any] = self._decoder.aiter_bytes(kept)
        return found

    def _kept(self, piece: bytes) -> bytes:
        missing = 4 * _QUOTED - len(self.beginning)
        if missing > 0:
            self.beginning += piece[:missing]
        return piece


class Events(openai.Stream[object]):
    """The events of a stream: an iterator of their data, and a context manager that ends it.

    Raises:
        ReplyError: While iterating, if what comes is no JSON, or if no event comes.
        openai.APIError: While iterating, as by `openai.Stream`; also for an event with an error.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._decoder: Any = _Overhearing(self._decoder)
        self._begun: list[Any] = []
        self._checked = self._check()

    def begin(self) -> None:
        """Wait for the first event. Raises as iterating does."""
        try:
            self._begun.append(next(self._checked))
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Any]:
        while self._begun:
            yield self._begun.pop()
        yield from self._checked

    def _check(self) -> Iterator[Any]:
        empty = True
        try:
            for event in super().__iter__():
                stopping.left()  # raises once nobody waits any more
                empty = False
                yield event
        except _NO_JSON as error:
            raise _broken_event(self.response, error) from error
        if empty:
            raise _no_event(self.response, self._decoder.beginning)


class AsyncEvents(openai.AsyncStream[object]):
    """As `Events`, asynchronously."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._decoder: Any = _Overhearing(self._decoder)
        self._begun: list[Any] = []
        self._checked = self._check()

    async def begin(self) -> None:
        """As `Events.begin`."""
        try:
            self._begun.append(await anext(self._checked))
        except BaseException:
            await self.close()
            raise

    async def __aiter__(self) -> AsyncIterator[Any]:
        while self._begun:
            yield self._begun.pop()
        async for event in self._checked:
            yield event

    async def _check(self) -> AsyncIterator[Any]:
        empty = True
        try:
            async for event in super().__aiter__():
                empty = False
                yield event
        except _NO_JSON as error:
            raise _broken_event(self.response, error) from error
        if empty:
            raise _no_event(self.response, self._decoder.beginning)


def stream(client: openai.OpenAI, payload: Mapping[str, Any]) -> Events:
    """Ask for a reply event by event, and wait for the first.

    Args:
        client: As for `complete`.
        payload: As for `complete`.

    Returns:
        The events; `response.headers` holds the headers. Close them, or use them as a context
        manager: that ends the request, also half-way.

    Raises:
        ReplyError: What comes first is no JSON, or nothing comes.
        openai.APIError: As by the client's own methods; also for a first event with an error.
    """
    arguments = _arguments(payload, stream=True)
    events: Events = client.post(_PATH, cast_to=object, stream=True, stream_cls=Events, **arguments)
    events.begin()
    return events


async def astream(client: openai.AsyncOpenAI, payload: Mapping[str, Any]) -> AsyncEvents:
    """As `stream`, asynchronously."""
    events: AsyncEvents = await client.post(
        _PATH,
        cast_to=object,
        stream=True,
        stream_cls=AsyncEvents,
        **_arguments(payload, stream=True),
    )
    await events.begin()
    return events


def ask(client: openai.OpenAI, question: Question) -> Answer:
    """Ask a server something beside the real request.

    Returns:
        The JSON object of the reply; None if the server refuses or knows no such path, `FAILED` if
        it may know better the next time.

    Raises:
        openai.APIConnectionError: It cannot be reached.
    """
    try:
        return _answer(_sent(client, question))
    except (openai.APIStatusError, *_NO_JSON) as error:
        return _no_answer(error)


async def aask(client: openai.AsyncOpenAI, question: Question) -> Answer:
    """As `ask`."""
    try:
        return _answer(await _sent(client, question))
    except (openai.APIStatusError, *_NO_JSON) as error:
        return _no_answer(error)


def _sent(client: openai.OpenAI | openai.AsyncOpenAI, question: Question) -> Any:
    """The reply; of an async client, what to await for it."""
    url = root_of(client) + question.path
    if question.body is None:
        return client.get(url, cast_to=object)
    return client.post(url, cast_to=object, body=dict(question.body))


def _answer(reply: Any) -> Answer:
    return reply if isinstance(reply, dict) else None


def _no_answer(error: Exception) -> Answer:
    passing = isinstance(error, openai.APIStatusError) and _may_pass(error.status_code)
    return FAILED if passing else None


def _may_pass(status: int) -> bool:
    """Whether an error of this status tells nothing of what the server can do."""
    return status in (408, 429) or (status >= 500 and status != 501)


def root_of(client: openai.OpenAI | openai.AsyncOpenAI) -> str:
    """Address of the server, without the `/v1` of OpenAI's API."""
    return str(client.base_url).rstrip("/").removesuffix("/v1")


def _arguments(payload: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
    options = {
        name: payload[key]
        for key, name in _OPTIONS.items()
        # None means no limit for the timeout, and nothing for the others.
        if key in payload and (key == "timeout" or payload[key] is not None)
    }
    body = {key: value for key, value in payload.items() if key not in _OPTIONS}
    return {
        "body": {**body, "stream": stream},
        "options": {**options, "security": {"bearer_auth": True}},
    }


def _decoded(response: httpx2.Response) -> tuple[dict[str, Any], Mapping[str, str]]:
    try:
        reply = json.loads(response.content)
    except _NO_JSON:
        reply = None
    if not isinstance(reply, dict):
        raise ReplyError(
            f"the reply of {response.url} is no JSON object but of type {_kind(response)}, "
            f"{response.text[:_QUOTED]!r}: {_CHECK_ADDRESS}"
        )
    if error := reply.get("error"):
        message = error.get("message") if isinstance(error, dict) else None
        raise openai.APIError(str(message or error), response.request, body=error)
    return reply, response.headers


def _broken_event(response: httpx2.Response, error: Exception) -> ReplyError:
    return ReplyError(
        f"an event of {response.url} is no JSON ({type(error).__name__}: {error}): {_CHECK_ADDRESS}"
    )


def _no_event(response: httpx2.Response, beginning: bytes) -> ReplyError:
    kind = _kind(response)
    text = beginning.decode("utf-8", "replace")[:_QUOTED]
    remedy = _SEE_LOG if kind.startswith("text/event-stream") else _CHECK_ADDRESS
    return ReplyError(
        f"the server sent no event: the stream of {response.url} is of type {kind}, {text!r}: "
        f"{remedy}"
    )


def _kind(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "unknown"))


@contextmanager
def explained(base_url: str, remedy: str) -> Iterator[None]:
    """Turn the client's errors into LangChain's classes, and bare ones into what to do.

    Args:
        base_url: Address of the server.
        remedy: What to do if nothing answers there.

    Raises:
        ServerTimeoutError: The server took too long.
        ServerUnreachableError: No connection, or one that broke.
        ContextLengthError: The server finds the conversation too long.
        openai.APIError: Any other error of the client's, as the class that `langchain_openai` has
            for it.
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
    except openai.APIStatusError as error:
        _raise_explained(error, base_url)
    except openai.APIError as error:
        # An error inside a reply that began well.
        error.message = f"the server at {base_url} sent an error ({error.message}): {_SEE_LOG}"
        error.args = (error.message,)
        _handle_openai_api_error(error)


def _raise_explained(refusal: openai.APIStatusError, base_url: str) -> None:
    """Raise `refusal` as LangChain's class for it, with what the server said and what to do."""
    status, words = refusal.status_code, _words(refusal.body)
    said = f" ({words[:_QUOTED]})" if words else ""
    message = f"the server at {base_url} answered {status}{said}"
    if status == 400 and any(phrase in words for phrase in _TOO_LONG):
        message += ": shorten the conversation"
        raise ContextLengthError(message, setting="ask for less with max_tokens") from refusal
    if remedy := _PAY if is_spent(refusal) else _REMEDIES.get(min(status, 500)):
        message += f": {remedy.format(base_url=base_url.rstrip('/'))}"
    try:
        # They look for phrases in the whole of what the server said.
        if isinstance(refusal, openai.BadRequestError):
            _handle_openai_bad_request(refusal)
        _handle_openai_api_error(refusal)
    except openai.APIError as error:
        error.message = message
        error.args = (message,)
        raise


def _words(body: object) -> str:
    """What the server said, from the body of an error, in one line."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return " ".join(str(body or "").split())


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
