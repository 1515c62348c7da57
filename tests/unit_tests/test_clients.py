"""Requests over real sockets, and every way in which one can fail."""

import json
import re
import socketserver
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, TypeAlias

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelRateLimitError,
)

from langchain_glm4v.call_errors import (
    ContextLengthError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from langchain_glm4v.clients import (
    Connection,
    acomplete,
    astream,
    complete,
    explained,
    retry_after,
    stream,
    telling_refusals,
)
from langchain_glm4v.errors import (
    ReplyError,
)
from langchain_glm4v.media import stopping

PAYLOAD = {"model": "glm", "messages": [{"role": "user", "content": "Hi"}]}
STALL = b"stall"  # the server says no more, and keeps the connection
EVENT_STREAM = b"text/event-stream"
DONE = b"data: [DONE]\n\n"


def response(body: bytes, status: int = 200, kind: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-type: %b\r\ncontent-length: %d\r\nretry-after-ms: 1\r\n\r\n"
    return head % (status, kind, len(body)) + body


def failure(status: int, message: str = "no") -> bytes:
    return response(json.dumps({"error": {"message": message}}).encode(), status)


def events(*data: bytes, cut: bool = False) -> bytes:
    body = b"".join(b"data: %b\n\n" % each for each in data)
    whole = response(body + DONE, kind=EVENT_STREAM)
    return whole.removesuffix(DONE) if cut else whole


@dataclass
class Server:
    """Answers request after request with what the test wrote down; the last answer repeats."""

    replies: list[bytes] = field(default_factory=list)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # head, body
    connections: int = 0
    hung_up: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def connection(self, **options: Any) -> Connection:
        return Connection(self.url, "key", **{"max_retries": 0, **options})

    def take(self) -> bytes:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            server.connections += 1
            while first := self.rfile.readline():
                head = first
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    head += line
                length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                body = json.loads(self.rfile.read(int(length)))
                server.requests.append((head.decode().lower(), body))
                reply = server.take()
                self.wfile.write(reply.removesuffix(STALL))
                if reply.endswith(STALL):
                    self.rfile.read(1)  # ends when the client hangs up
                    server.hung_up.set()
                    return
                if not reply.endswith((b"}", DONE)):
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as tcp:
        tcp.daemon_threads = True
        server.url = f"http://127.0.0.1:{tcp.server_address[1]}/v1"
        threading.Thread(target=tcp.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        tcp.shutdown()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


Way: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]


async def by_complete(connection: Connection, payload: dict[str, Any] = PAYLOAD) -> Any:
    with connection.client() as client:
        return complete(client, payload)[0]


async def by_acomplete(connection: Connection, payload: dict[str, Any] = PAYLOAD) -> Any:
    async with connection.async_client() as client:
        return (await acomplete(client, payload))[0]


async def by_stream(connection: Connection, payload: dict[str, Any] = PAYLOAD) -> Any:
    with connection.client() as client, stream(client, payload) as found:
        return list(found)


async def by_astream(connection: Connection, payload: dict[str, Any] = PAYLOAD) -> Any:
    async with connection.async_client() as client, await astream(client, payload) as found:
        return [event async for event in found]


WHOLE, STREAMED = [by_complete, by_acomplete], [by_stream, by_astream]
every_way = pytest.mark.parametrize("way", WHOLE + STREAMED)
whole_ways = pytest.mark.parametrize("way", WHOLE)
streamed_ways = pytest.mark.parametrize("way", STREAMED)


@whole_ways
async def test_a_whole_reply(server: Server, way: Way) -> None:
    server.replies = [response(b'{"choices": [], "unknown": {"a": [1]}}')]

    assert await way(server.connection()) == {"choices": [], "unknown": {"a": [1]}}
    assert server.requests[0][1] == {**PAYLOAD, "stream": False}


@streamed_ways
async def test_a_stream(server: Server, way: Way) -> None:
    server.replies = [events(b'{"a": 1}', b'{"choices": [{"delta": {"x": null}}]}')]

    assert await way(server.connection()) == [{"a": 1}, {"choices": [{"delta": {"x": None}}]}]
    assert server.requests[0][1] == {**PAYLOAD, "stream": True}


@every_way
async def test_fields_that_openai_does_not_know(server: Server, way: Way) -> None:
    server.replies = [events(b"{}") if way in STREAMED else response(b"{}")]
    extras = {
        "extra_body": {"top_k": 2, "model": "other"},
        "extra_headers": {"X-Tenant": "a"},
        "extra_query": {"q": "1"},
        "timeout": 5,
    }
    await way(server.connection(), {**PAYLOAD, **extras})
    await way(server.connection(), {**PAYLOAD, **dict.fromkeys(extras)})

    (head, body), (plain_head, plain_body) = server.requests
    assert head.startswith("post /v1/chat/completions?q=1 ")
    assert "x-tenant: a" in head
    assert "authorization: bearer key" in head
    assert (body["top_k"], body["model"]) == (2, "other")
    assert not {"extra_body", "extra_headers", "extra_query", "timeout"} & body.keys()
    assert plain_head.startswith("post /v1/chat/completions ")
    assert plain_body["model"] == "glm"


def test_headers(server: Server) -> None:
    server.replies = [response(b"{}"), events(b"{}")]
    with server.connection().client() as client:
        assert complete(client, PAYLOAD)[1]["content-type"] == "application/json"
        with stream(client, PAYLOAD) as found:
            assert found.response.headers["content-type"] == "text/event-stream"


@every_way
async def test_a_passing_error_is_tried_again(server: Server, way: Way) -> None:
    whole = events(b"{}") if way in STREAMED else response(b"{}")
    server.replies = [failure(503), failure(429), whole]
    await way(server.connection(max_retries=2))

    assert len(server.requests) == 3


@every_way
@pytest.mark.parametrize(
    ("status", "message", "error", "kind"),
    [
        (400, "no", openai.BadRequestError, ModelInvalidRequestError),
        (400, "prompt is too long", openai.BadRequestError, ContextOverflowError),
        (401, "no", openai.AuthenticationError, ModelAuthenticationError),
        (404, "no", openai.NotFoundError, ModelNotFoundError),
        (422, "no", openai.UnprocessableEntityError, openai.APIStatusError),
        (429, "no", openai.RateLimitError, ModelRateLimitError),
        (500, "no", openai.InternalServerError, ModelAPIError),
    ],
)
async def test_errors_are_langchains_too(
    server: Server, way: Way, *, status: int, message: str, error: type[Exception], kind: type
) -> None:
    server.replies = [failure(status, message)]
    with pytest.raises(error, match=message) as raised, explained(server.url, "start one"):
        await way(server.connection())

    assert isinstance(raised.value, kind)


@every_way
@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "check api_key or GLM4V_API_KEY"),
        (403, "check api_key or GLM4V_API_KEY"),
        (404, r"base_url ends in /v1 .* one of {url}/models"),
        (413, "fewer or smaller pictures"),
        (429, "fewer requests at once, or try later"),
        (500, "server's log, or try again"),
        (503, "server's log, or try again"),
    ],
)
async def test_an_error_says_who_answered_what_and_what_to_do(
    server: Server, way: Way, *, status: int, remedy: str
) -> None:
    server.replies = [failure(status, "no\nway " + "x" * 300)]
    expected = remedy.format(url=server.url)
    with (
        pytest.raises(openai.APIStatusError) as raised,
        explained(server.url + "/", ""),
    ):
        await way(server.connection())

    quoted = "no way " + "x" * 193
    whole = rf"the server at {server.url}/ answered {status} \({quoted}\): .*{expected}.*"
    assert re.fullmatch(whole, str(raised.value))
    assert raised.value.message == str(raised.value)


@every_way
@pytest.mark.parametrize("code", ["insufficient_quota", "1113", 1113])
async def test_who_has_nothing_left_is_not_told_to_try_later(
    server: Server, way: Way, code: str | int
) -> None:
    body = {"error": {"message": "no", "code": code}}
    server.replies = [response(json.dumps(body).encode(), 429)]
    with (
        pytest.raises(openai.RateLimitError, match=r"quota and the balance of its account$"),
        explained(server.url, ""),
    ):
        await way(server.connection())


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("3", 3),
        ("0.5", 0.5),
        *((told, 0) for told in ("-3", "nan", "soon", "", formatdate(0, usegmt=True))),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999", 0),
    ],
)
def test_how_long_a_server_wants_to_be_left_alone(told: str, seconds: float) -> None:
    assert retry_after(httpx2.Response(429, headers={"retry-after": told})) == seconds
    assert retry_after(httpx2.Response(429)) == 0


def test_until_when_a_server_wants_to_be_left_alone() -> None:
    told = formatdate(time.time() + 86400, usegmt=True)
    seconds = retry_after(httpx2.Response(429, headers={"retry-after": told}))
    assert seconds == pytest.approx(86400, abs=600)


async def test_refusals_are_told_at_once_to_those_who_ask_again_themselves(server: Server) -> None:
    server.replies = [failure(500), failure(429)]
    async with server.connection(max_retries=2).async_client() as client:
        with telling_refusals(), pytest.raises(openai.RateLimitError):
            await acomplete(client, PAYLOAD)
        assert len(server.requests) == 2
        with pytest.raises(openai.RateLimitError):
            await acomplete(client, PAYLOAD)
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>\n<title>Bad</title>\n</html>", " (<html> <title>Bad</title> </html>)"),
        (b'{"detail": "Not Found"}', " (Not Found)"),
        (b'{"error": "Unauthorized"}', " (Unauthorized)"),
        (b'{"error": {"message": null, "x": 1}}', " ({'message': None, 'x': 1})"),
        (b"[1]", " ([1])"),
        (b"", ""),
    ],
)
async def test_the_servers_own_words(server: Server, body: bytes, said: str) -> None:
    server.replies = [response(body, 422)]
    with pytest.raises(openai.UnprocessableEntityError) as raised, explained(server.url, ""):
        await by_complete(server.connection())

    assert str(raised.value) == f"the server at {server.url} answered 422{said}"


@every_way
@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000",
        "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
    ],
)
async def test_too_long_for_the_server(server: Server, way: Way, words: str) -> None:
    server.replies = [failure(400, words)]
    with (
        pytest.raises(ContextLengthError, match=f"{re.escape(words)}.*max_tokens"),
        explained(server.url, ""),
    ):
        await way(server.connection())


@every_way
async def test_nothing_listens(way: Way) -> None:
    with serving() as server:
        connection = server.connection()
    with (
        pytest.raises(ServerUnreachableError, match=f"{server.url}.*start one"),
        explained(server.url, "start one"),
    ):
        await way(connection)


@every_way
async def test_no_answer_in_time(server: Server, way: Way) -> None:
    server.replies = [STALL]
    with pytest.raises(ServerTimeoutError, match="max_tokens"), explained(server.url, ""):
        await way(server.connection(timeout=0.05))


@streamed_ways
async def test_the_next_event_is_late(server: Server, way: Way) -> None:
    server.replies = [events(b'{"a": 1}', cut=True) + STALL]
    with pytest.raises(ServerTimeoutError), explained(server.url, ""):
        await way(server.connection(timeout=0.05))


@every_way
async def test_the_connection_breaks(server: Server, way: Way) -> None:
    server.replies = [events(b'{"a": 1}', cut=True)]
    with (
        pytest.raises(ServerUnreachableError, match="start one"),
        explained(server.url, "start one"),
    ):
        await way(server.connection())


@whole_ways
@pytest.mark.parametrize("body", [b"<html>Hello</html>", b"[1]", b"", b"\xff{", b"[" * 100_000])
async def test_a_reply_that_is_no_object(server: Server, way: Way, body: bytes) -> None:
    server.replies = [response(body, kind=b"text/html")]
    with pytest.raises(ReplyError, match=r"type text/html.*base_url"):
        await way(server.connection())


@streamed_ways
@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 100_000])
async def test_an_event_that_is_no_json(server: Server, way: Way, data: bytes) -> None:
    server.replies = [events(b'{"a": 1}', data)]
    with pytest.raises(ReplyError, match=r"an event of .*base_url"):
        await way(server.connection())


@streamed_ways
@pytest.mark.parametrize(
    ("kind", "body", "remedy"),
    [
        (b"text/html", b"<html>" + b"x" * 500, "base_url"),
        (b"application/json", b'{"choices": []}', "base_url"),
        (b"application/json", b"", "base_url"),
        (EVENT_STREAM, b"", "server's log"),
        (EVENT_STREAM, b": a comment\n\n", "server's log"),
        (EVENT_STREAM, DONE, "server's log"),
    ],
)
async def test_a_stream_without_events(
    server: Server, way: Way, *, kind: bytes, body: bytes, remedy: str
) -> None:
    server.replies = [response(body, kind=kind)]
    with pytest.raises(ReplyError) as raised:
        await way(server.connection())

    came = f"is of type {kind.decode()}, {body.decode()[:200]!r}: "
    assert str(raised.value).startswith("the server sent no event: ")
    assert came in str(raised.value)
    assert remedy in str(raised.value)


@every_way
@pytest.mark.parametrize("error", [{"message": "engine died"}, "engine died"])
async def test_an_error_in_a_reply(server: Server, way: Way, error: object) -> None:
    body = json.dumps({"error": error}).encode()
    server.replies = [events(b'{"a": 1}', body) if way in STREAMED else response(body)]
    expected = "engine died" if way in WHOLE or isinstance(error, dict) else "error"
    message = rf"the server at {server.url} sent an error \(.*{expected}.*\): see the server's log"
    with pytest.raises(openai.APIError, match=message), explained(server.url, ""):
        await way(server.connection())


async def test_an_error_before_the_first_event_comes_before_the_stream(server: Server) -> None:
    server.replies = [events(b'{"error": {"message": "engine died"}}')]
    with server.connection().client() as client, pytest.raises(openai.APIError, match="died"):
        stream(client, PAYLOAD)
    async with server.connection().async_client() as async_client:
        with pytest.raises(openai.APIError, match="died"):
            await astream(async_client, PAYLOAD)


def test_leaving_a_stream_early_hangs_up(server: Server) -> None:
    server.replies = [events(b'{"a": 1}', cut=True) + STALL]
    with server.connection().client() as client:
        with stream(client, PAYLOAD) as found:
            assert next(iter(found)) == {"a": 1}
        assert server.hung_up.wait(60)


async def test_leaving_an_async_stream_early_hangs_up(server: Server) -> None:
    server.replies = [events(b'{"a": 1}', cut=True) + STALL]
    async with server.connection().async_client() as client:
        async with await astream(client, PAYLOAD) as found:
            assert await anext(aiter(found)) == {"a": 1}
        assert server.hung_up.wait(60)


async def test_an_async_stream_read_to_its_end_gives_its_connection_back(server: Server) -> None:
    server.replies = [events(b'{"a": 1}')]
    async with server.connection().async_client() as client:
        for _ in range(3):
            async with await astream(client, PAYLOAD) as found:
                assert [event async for event in found] == [{"a": 1}]

    assert server.connections == 1


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with serving() as running:
        yield running


@given(body=st.binary(max_size=200))
def test_any_bytes(shared_server: Server, body: bytes) -> None:
    """Whatever comes, the error is ours or OpenAI's."""
    with shared_server.connection().client() as client:
        for kind in (b"application/json", EVENT_STREAM):
            shared_server.replies = [response(body, kind=kind)]
            for ask in (complete, lambda *request: list(stream(*request))):
                with suppress(ReplyError, openai.APIError):
                    ask(client, PAYLOAD)


# --- time ---


def test_a_request_ends_with_the_time_of_its_scope(server: Server) -> None:
    """And is not made again, though the client would."""
    server.replies = [STALL]
    ends = pytest.raises((openai.APITimeoutError, CancelledError))
    with server.connection(max_retries=2, timeout=60).client() as client, ends:
        stopping.Scope(3).bound(complete)(client, PAYLOAD)  # in which it is asked, surely
    assert server.hung_up.wait(60)
    assert len(server.requests) == 1


def test_a_shorter_time_of_its_own_counts(server: Server) -> None:
    server.replies = [STALL]
    with server.connection().client() as client, pytest.raises(openai.APITimeoutError):
        stopping.Scope(1000).bound(complete)(client, {**PAYLOAD, "timeout": 0.5})
    assert server.hung_up.wait(60)


def test_a_stream_ends_with_its_scope(server: Server) -> None:
    server.replies = [events(b"1", b"2", b"3")]
    scope = stopping.Scope()

    def read(client: openai.OpenAI) -> list[Any]:
        found = []
        with stream(client, PAYLOAD) as coming:
            for event in coming:
                found.append(event)
                scope.stop()
        return found

    with server.connection().client() as client, pytest.raises(CancelledError):
        scope.bound(read)(client)
