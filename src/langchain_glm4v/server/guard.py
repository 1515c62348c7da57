"""What stands before vLLM's endpoints: a key, a health check that knows, sleep while nobody asks.

vLLM asks for its key at some paths only; `/tokenize`, `/invocations`, `/metrics` and more stay
open. Here only the health check does. And vLLM can be sent to sleep, which frees the GPU, only by
an endpoint that comes with others for debugging; here it falls asleep by itself, and the next
request wakes it.

vLLM's health check fails only once the engine's process is gone. Here it fails too if the engine
does nothing any more, and it tells which server answers: another program may have taken the port of
one that died.

Loaded by the server process (`entrypoint`) as a module of its own. Import nothing of the package.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

KEY_VARIABLE = "VLLM_API_KEY"
SLEEP_VARIABLE = "GLM4V_SLEEP_AFTER"  # seconds; not there: never
HANG_VARIABLE = "GLM4V_ENGINE_HANG_TIMEOUT"  # seconds
# Of the server, and what the health check's reply tells it in; `keeper` has both too.
ID_VARIABLE = "GLM4V_SERVER_ID"
ID_HEADER = "X-GLM4V-Server"
HEALTH_PATH = "/health"
OPEN_PATHS = frozenset({HEALTH_PATH, "/ping"})
# What needs no engine: these neither wake it nor keep it awake.
SLEEPING_PATHS = OPEN_PATHS | {"/metrics", "/version", "/load", "/v1/models"}
PREFLIGHT_HEADERS = {b"origin", b"access-control-request-method"}

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

REFUSAL = json.dumps(
    {
        "error": {
            "message": "no such key: send the server's key as 'Authorization: Bearer …'",
            "type": "Unauthorized",
            "code": 401,
        }
    }
).encode()


class Guard:
    """ASGI middleware around vLLM's app.

    Args:
        app: vLLM's.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._key = hashlib.sha256(os.environ[KEY_VARIABLE].encode()).digest()
        seconds = os.environ.get(SLEEP_VARIABLE)
        self._doze = Doze(float(seconds)) if seconds else None
        self._pulse = Pulse(float(os.environ[HANG_VARIABLE]))
        self._id = os.environ[ID_VARIABLE].encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through if it may."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path == HEALTH_PATH:
            await self._tell_health(scope, receive, send)
        elif path in OPEN_PATHS or _is_preflight(scope):
            await self._app(scope, receive, send)
        elif not self._has_key(scope):
            await _refuse(scope, send)
        elif self._doze is None or path in SLEEPING_PATHS:
            await self._app(scope, receive, send)
        else:
            async with self._doze.awake(scope["app"].state.engine_client):
                await self._app(scope, receive, send)

    async def _tell_health(self, scope: Scope, receive: Receive, send: Send) -> None:
        header = (ID_HEADER.lower().encode(), self._id)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        if self._pulse.is_lost(scope["app"].state.engine_client):
            await send_named({"type": "http.response.start", "status": 503})
            await send_named({"type": "http.response.body", "body": b"the engine hangs"})
        else:
            await self._app(scope, receive, send_named)

    def _has_key(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, key = given.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        return kind.lower() == b"bearer" and hmac.compare_digest(digest, self._key)


def _is_preflight(scope: Scope) -> bool:
    """Whether a browser asks, without a key, whether it may ask with one.

    Starlette's CORS middleware, which vLLM always has, answers what has both headers. Any other
    OPTIONS would reach the endpoint, and `/metrics` answers that as it answers GET.
    """
    names = {name for name, _ in scope["headers"]}
    return scope.get("method") == "OPTIONS" and names >= PREFLIGHT_HEADERS


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": REFUSAL})


class Pulse:
    """Whether the engine still does what it is asked to.

    Args:
        patience: Seconds that it may take for a step, in which it hears nothing.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._asked_at = 0.0
        self._reply: asyncio.Task[None] | None = None

    def is_lost(self, engine: Any) -> bool:
        """Whether it left a question unanswered for too long. Asks the next if it did not."""
        now = time.monotonic()
        if self._reply is None or self._reply.done():
            self._reply, self._asked_at = asyncio.create_task(_ask(engine)), now
        return now - self._asked_at > self._patience


async def _ask(engine: Any) -> None:
    with contextlib.suppress(Exception):  # a reply as well; vLLM says what it means
        await engine.is_sleeping()


class Doze:
    """Sends the engine to sleep after a while without requests, and wakes it for the next.

    Asleep, it keeps its weights in the machine's memory and nothing on the GPU.

    Args:
        after: Seconds.
    """

    def __init__(self, after: float) -> None:
        self._after = after
        self._running = 0
        self._idle_since = time.monotonic()
        self._is_asleep = False
        self._turning = asyncio.Lock()  # while it falls asleep or wakes
        self._watch: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def awake(self, engine: Any) -> AsyncIterator[None]:
        """While this runs, the engine is awake."""
        self._running += 1
        try:
            if self._watch is None:
                self._watch = asyncio.create_task(self._sleep_when_idle(engine))
            async with self._turning:
                if self._is_asleep:
                    await engine.wake_up()
                    self._is_asleep = False
            yield
        finally:
            self._running -= 1
            self._idle_since = time.monotonic()

    async def _sleep_when_idle(self, engine: Any) -> None:
        while True:
            left = self._idle_since + self._after - time.monotonic()
            await asyncio.sleep(max(left, self._after / 10))  # it is past while a request runs
            async with self._turning:
                idle_for = time.monotonic() - self._idle_since
                if self._running or self._is_asleep or idle_for < self._after:
                    continue
                with contextlib.suppress(Exception):  # vLLM says in its log what is wrong
                    await engine.sleep(1)
                    self._is_asleep = True
