"""The guard before vLLM's endpoints, in Starlette as vLLM uses it."""

import asyncio
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from langchain_glm4v.server.guard import Guard

PATHS = ("/v1/chat/completions", "/tokenize", "/invocations", "/metrics", "/sleep", "/", "/nothing")
KEY = "secret"


class Engine:
    """Notes what is asked of it. A real one sleeps on a GPU only."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.is_responding = asyncio.Event()
        self.is_responding.set()

    async def is_sleeping(self) -> bool:
        await self.is_responding.wait()
        return False

    async def sleep(self, level: int) -> None:
        self.log.append(f"sleep {level}")

    async def wake_up(self) -> None:
        await asyncio.sleep(0.01)
        self.log.append("wake")


def app(engine: Engine) -> Starlette:
    async def answer(request: Request) -> PlainTextResponse:
        engine.log.append(request.url.path)
        await asyncio.sleep(float(request.query_params.get("seconds", "0")))
        return PlainTextResponse("answer")

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    async def measure(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("answer")(scope, receive, send)
        engine.log.append(scope["method"])

    made = Starlette(
        routes=[WebSocketRoute("/v1/realtime", talk), Mount("/mounted", measure)]
        + [Route(path, answer, methods=["GET", "POST"]) for path in (*PATHS[:-1], "/health")]
    )
    made.add_middleware(CORSMiddleware, allow_origins=["*"])
    made.add_middleware(Guard)
    made.state = SimpleNamespace(engine_client=engine)  # type: ignore[assignment]
    return made


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setenv("GLM4V_ENGINE_HANG_TIMEOUT", "1000")
    monkeypatch.setenv("GLM4V_SERVER_ID", "0123")
    monkeypatch.delenv("GLM4V_SLEEP_AFTER", raising=False)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "given",
    [
        "",
        "secret",
        "Bearer",
        "Bearer ",
        "Bearer secre",
        "Bearer secrets",
        "Basic secret",
        "Bearer \xff",
    ],
)
def test_without_the_key_nothing_is_reached(path: str, given: str) -> None:
    engine = Engine()
    with TestClient(app(engine)) as client:
        headers = {b"Authorization": given.encode("latin-1")} if given else {}
        for method in ("GET", "POST"):
            reply = client.request(method, path, headers=headers)
            assert reply.status_code == 401
            assert "Bearer" in reply.json()["error"]["message"]
    assert engine.log == []


@pytest.mark.parametrize("given", ["Bearer secret", "bearer  secret "])
def test_with_the_key_all_is_reached(given: str) -> None:
    engine = Engine()
    with TestClient(app(engine)) as client:
        for path in PATHS[:-1]:
            assert client.get(path, headers={"Authorization": given}).text == "answer"
    assert engine.log == list(PATHS[:-1])


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "PUT", "get", "TRACE"])
def test_endpoint_that_knows_no_methods_needs_the_key_for_all(method: str) -> None:
    engine = Engine()
    with TestClient(app(engine)) as client:
        for headers in ({}, {"Origin": "http://a"}, {"Access-Control-Request-Method": "GET"}):
            assert client.request(method, "/mounted", headers=headers).status_code == 401
    assert engine.log == []


def test_browsers_may_ask_without_the_key_whether_they_may_ask_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLM4V_SLEEP_AFTER", "1000")
    engine = Engine()
    headers = {"Origin": "http://a", "Access-Control-Request-Method": "POST"}
    with TestClient(app(engine)) as client:
        for path in (PATHS[0], "/mounted"):
            reply = client.options(path, headers=headers)
            assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert engine.log == []


def test_health_check_needs_no_key() -> None:
    with TestClient(app(Engine())) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health/../tokenize").status_code == 401


def test_path_of_the_health_check_before_a_prefix_is_of_no_use() -> None:
    with TestClient(app(Engine()), root_path="/tokenize") as client:
        assert client.get("/tokenize").status_code == 401


def test_websockets_need_the_key() -> None:
    with TestClient(app(Engine())) as client:
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/realtime"):
            pass
        headers = {"Authorization": f"Bearer {KEY}"}
        with client.websocket_connect("/v1/realtime", headers=headers):
            pass


async def test_engine_sleeps_while_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM4V_SLEEP_AFTER", "0.2")
    engine = Engine()
    chat, headers = PATHS[0], {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app(engine)), base_url="http://server", headers=headers
    ) as client:
        await client.get(f"{chat}?seconds=0.6")  # longer than it stays awake unused
        assert engine.log == [chat]
        while "sleep 1" not in engine.log:
            await asyncio.sleep(0.05)
        await client.get("/metrics")
        await client.get("/health")
        assert engine.log == [chat, "sleep 1", "/metrics", "/health"]
        await asyncio.gather(*(client.get(chat) for _ in range(5)))
        assert engine.log[4:10] == ["wake", *[chat] * 5]  # and asleep again, if it took long


async def test_health_check_tells_of_an_engine_that_hangs_and_which_server_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLM4V_ENGINE_HANG_TIMEOUT", "0.2")
    engine = Engine()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app(engine)), base_url="http://server"
    ) as client:

        async def health() -> int:
            reply = await client.get("/health")
            assert reply.headers["X-GLM4V-Server"] == "0123"
            return reply.status_code

        for _ in range(3):
            assert await health() == 200
            await asyncio.sleep(0.15)
        engine.is_responding.clear()
        assert await health() == 200
        await asyncio.sleep(0.3)
        assert await health() == 503
        engine.is_responding.set()
        await asyncio.sleep(0)
        assert await health() == 200
