"""`ChatGLM4V` against replies as vLLM writes them."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ModelConnectionError, ModelTimeoutError
from langchain_core.globals import set_llm_cache
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    trim_messages,
)
from langchain_core.runnables import ConfigurableField
from PIL import Image
from pydantic import BaseModel, SecretStr, ValidationError

from langchain_glm4v import (
    ChatGLM4V,
    ContextLengthError,
    MediaNotFoundError,
    RequestError,
    ServerTimeoutError,
    ServerUnreachableError,
    UnsupportedByServerError,
)

THOUGHT, ANSWER = "I look.\nThe total is 42.", "It is 42 <b>euros</b>."
RAW = f"<think>{THOUGHT}</think>\n<answer>It is <|begin_of_box|>42<|end_of_box|> <b>euros</b>."
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


class FakeVLLM(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers every request with one output, as vLLM 0.32 writes it.

    Args:
        raw: The output.
        ending: Of each choice, or of the last event of a stream; None breaks a stream off.
        fields: More fields of the message; of a stream, sent before the output.
        size: Characters in an event of a stream.
    """

    def __init__(
        self,
        raw: str = RAW,
        ending: dict[str, Any] | None = None,
        *,
        fields: dict[str, Any] | None = None,
        size: int = 3,
        breaks_off: bool = False,
    ) -> None:
        self.raw = raw
        self.ending = {"finish_reason": "stop", "stop_reason": 151348, **(ending or {})}
        self.fields = fields or {}
        self.size = size
        self.breaks_off = breaks_off
        self.requests: list[httpx.Request] = []
        self.closed_streams = 0

    def model(self, **fields: Any) -> ChatGLM4V:
        return ChatGLM4V(
            model="glm",
            http_client=httpx.Client(transport=self),
            http_async_client=httpx.AsyncClient(transport=self),
            **fields,
        )

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self.reply(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self.reply(request)

    def reply(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/chat/completions"):
            return httpx.Response(404)  # as a server that is no vLLM
        self.requests.append(request)
        body = json.loads(request.content)
        if not body["stream"]:
            return httpx.Response(200, json=self.completion(body.get("n", 1)))
        events = [f"data: {json.dumps(event)}\n\n".encode() for event in self.events()]
        return httpx.Response(
            200,
            headers={"content-type": "text/event-stream"},
            stream=EventStream([*events, b"data: [DONE]\n\n"], self),
        )

    def completion(self, n: int) -> dict[str, Any]:
        message = {
            "role": "assistant",
            "content": self.raw,
            "refusal": None,
            "reasoning": None,
            "tool_calls": [],
            **self.fields,
        }
        choices = [
            {"index": index, "message": message, "logprobs": None, **self.ending}
            for index in range(n)
        ]
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "served",
            "choices": choices,
            "usage": USAGE,
        }

    def events(self) -> Iterator[dict[str, Any]]:
        pieces = [self.raw[at : at + self.size] for at in range(0, len(self.raw), self.size)]
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{key: value} for key, value in self.fields.items()]
        deltas += [{"content": piece} for piece in pieces]
        for delta in deltas:
            yield self.event([{"index": 0, "delta": delta, "finish_reason": None}])
        if not self.breaks_off:
            yield self.event([{"index": 0, "delta": {"content": ""}, **self.ending}])
            yield {**self.event([]), "usage": USAGE}

    def event(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "served",
            "choices": choices,
        }


class EventStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, events: list[bytes], server: FakeVLLM) -> None:
        self.events = events
        self.server = server

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.events)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self.events:
            yield event

    def close(self) -> None:
        self.server.closed_streams += 1

    async def aclose(self) -> None:
        self.server.closed_streams += 1


class Tokens(BaseCallbackHandler):
    """Collects what callbacks are shown of a stream."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.seen += [token, kwargs["chunk"].message]

    def on_stream_event(self, event: Any, **_: Any) -> None:
        self.seen.append(event)


def added(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def check(message: BaseMessage) -> None:
    """The message holds all of RAW, taken apart."""
    assert isinstance(message, AIMessage)
    assert message.text == ANSWER
    assert message.additional_kwargs == {"reasoning_content": THOUGHT, "boxes": ["42"]}
    assert [
        {key: value for key, value in block.items() if key != "index"}
        for block in message.content_blocks
    ] == [{"type": "reasoning", "reasoning": THOUGHT}, {"type": "text", "text": ANSWER}]
    expected = {
        "finish_reason": "stop",
        "stop_reason": 151348,
        "model_name": "served",
        "model_provider": "glm4v",
        "id": "chatcmpl-1",
    }
    assert expected.items() <= message.response_metadata.items()
    assert message.usage_metadata is not None
    assert message.usage_metadata["input_tokens"] == 5
    assert message.usage_metadata["output_tokens"] == 7


@pytest.mark.parametrize("output_version", ["v0", "v1"])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.asyncio
async def test_every_way_to_call(output_version: str, *, streaming: bool) -> None:
    model = FakeVLLM().model(output_version=output_version, streaming=streaming)

    check(model.invoke("Hi"))
    check(await model.ainvoke("Hi"))
    check(added(list(model.stream("Hi"))))
    check(added([chunk async for chunk in model.astream("Hi")]))
    for message in (*model.batch(["Hi"] * 3), *await model.abatch(["Hi"] * 3)):
        check(message)


@pytest.mark.asyncio
async def test_event_streams() -> None:
    model = FakeVLLM().model()
    events = model.stream_events("Hi", version="v3")

    assert "".join(events.reasoning) == THOUGHT
    assert "".join(events.text) == ANSWER
    check(events.output)
    check(await (await model.astream_events("Hi", version="v3")).output)


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.asyncio
async def test_nobody_sees_pieces_of_tags(size: int) -> None:
    model = FakeVLLM(RAW.replace("<b>", "").replace("</b>", ""), size=size).model()
    tokens = Tokens()
    config: Any = {"callbacks": [tokens]}
    shown: list[Any] = [
        *model.stream("Hi", config),
        *[chunk async for chunk in model.astream("Hi", config)],
        *model.stream_events("Hi", config, version="v3"),
        *[event async for event in await model.astream_events("Hi", config, version="v3")],
    ]

    assert tokens.seen
    assert "<" not in repr(shown + tokens.seen)


def test_chunks_arrive_while_the_model_writes() -> None:
    chunks = list(FakeVLLM().model().stream("Hi"))

    assert len([chunk for chunk in chunks if "reasoning_content" in chunk.additional_kwargs]) > 3
    assert len([chunk for chunk in chunks if chunk.text]) > 3


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("raw", ["It is 42.", "\n<answer>It is 42."])
def test_a_server_that_splits_by_itself(field: str, raw: str) -> None:
    model = FakeVLLM(raw, fields={field: "I look."}).model()
    chunks = list(model.stream("Hi"))

    for message in (model.invoke("Hi"), added(chunks)):
        assert message.text == "It is 42."
        assert message.additional_kwargs["reasoning_content"] == "I look."
    assert len([chunk for chunk in chunks if chunk.text]) > 1, "nothing is held back"


def test_thinking_that_is_cut_off() -> None:
    ending = {"finish_reason": "length", "stop_reason": None}
    model = FakeVLLM("<think>I look.", ending).model()

    for message in (model.invoke("Hi"), added(list(model.stream("Hi")))):
        assert message.text == ""
        assert message.additional_kwargs == {"reasoning_content": "I look."}
        assert message.response_metadata["finish_reason"] == "length"
        assert "stop_reason" not in message.response_metadata


@pytest.mark.asyncio
async def test_a_stream_that_breaks_off_loses_nothing() -> None:
    model = FakeVLLM("<think>I look.</think>It is 42.", breaks_off=True).model()

    assert added(list(model.stream("Hi"))).text == "It is 42."
    assert added([chunk async for chunk in model.astream("Hi")]).text == "It is 42."


@pytest.mark.asyncio
async def test_a_stream_left_early_is_closed() -> None:
    fake = FakeVLLM()
    model = fake.model()
    stream = model.stream("Hi")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert fake.closed_streams == 1

    astream = model.astream("Hi")
    await anext(astream)
    await astream.aclose()  # type: ignore[attr-defined]
    assert fake.closed_streams == 2


@pytest.mark.parametrize("output_version", ["v0", "v1"])
def test_tool_calls_after_reasoning(output_version: str) -> None:
    call = {
        "id": "call-1",
        "type": "function",
        "index": 0,
        "function": {"name": "add", "arguments": '{"a": 1}'},
    }
    fake = FakeVLLM("", {"finish_reason": "tool_calls"}, fields={"reasoning": "I add."})
    fake.fields["tool_calls"] = [call]
    model = fake.model(output_version=output_version)

    for message in (model.invoke("Hi"), added(list(model.stream("Hi")))):
        assert [(call["name"], call["args"]) for call in message.tool_calls] == [("add", {"a": 1})]
        kinds = [block["type"] for block in message.content_blocks]
        assert kinds == ["reasoning", "tool_call"]


def test_several_choices() -> None:
    result = FakeVLLM().model(n=2).generate([[HumanMessage("Hi")]])

    assert [generation.text for generation in result.generations[0]] == [ANSWER, ANSWER]


def test_request() -> None:
    fake = FakeVLLM()
    model = fake.model(top_k=2, repetition_penalty=1.1, temperature=0, max_tokens=9, stop=["x"])
    model.invoke("Hi")

    assert fake.bodies == [
        {
            "model": "glm",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": False,
            "temperature": 0,
            "top_p": 0.6,
            "max_tokens": 9,
            "stop": ["x"],
            "top_k": 2,
            "repetition_penalty": 1.1,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
        }
    ]


@pytest.mark.parametrize(
    ("fields", "stated"),
    [
        ({}, (0.8, 0.6, 2)),
        ({"sampling": "deterministic"}, (0.0, 1.0, 1)),
        ({"sampling": "gui", "temperature": 0.5, "top_k": 7}, (0.5, 0.6, 7)),
        ({"top_p": 0.9, "extra_body": {"top_k": 5}}, (0.8, 0.9, 5)),
    ],
)
def test_every_request_states_its_sampling(
    fields: dict[str, Any], stated: tuple[float, float, int]
) -> None:
    fake = FakeVLLM()
    fake.model(**fields).invoke("Hi")

    body = fake.bodies[0]
    assert (body["temperature"], body["top_p"], body["top_k"]) == stated
    assert "repetition_penalty" not in body


def test_settings_of_a_single_call() -> None:
    fake = FakeVLLM()
    model = fake.model(top_k=2, extra_body={"min_p": 0.1, "seed": 1})
    model.invoke("Hi", top_k=3, temperature=0.5, stop=["y"])
    model.invoke("Hi", extra_body={"top_k": 4, "seed": 2})
    model.invoke("Hi")

    assert [body["top_k"] for body in fake.bodies] == [3, 4, 2]
    assert [body["seed"] for body in fake.bodies] == [1, 2, 1]
    assert {body["min_p"] for body in fake.bodies} == {0.1}
    assert (fake.bodies[0]["temperature"], fake.bodies[0]["stop"]) == (0.5, ["y"])
    assert all(body["skip_special_tokens"] is False for body in fake.bodies)


def test_a_response_format_does_not_make_the_client_read_thinking_as_json() -> None:
    class Total(BaseModel):
        total: int

    fake = FakeVLLM('<think>I look.</think><answer>{"total": 42}', {"finish_reason": "length"})
    model = fake.model()
    for response_format in (Total, {"type": "json_object"}):
        messages = [
            model.invoke("Hi", response_format=response_format),
            added(list(model.stream("Hi", response_format=response_format))),
        ]
        assert [message.text for message in messages] == ['{"total": 42}'] * 2

    # This server has no grammar that would leave the thinking free, so words must do.
    assert all("response_format" not in body for body in fake.bodies)
    assert "# Format" in fake.bodies[0]["messages"][0]["content"]
    assert [turn["role"] for turn in fake.bodies[2]["messages"]] == ["user"]


def test_a_missing_picture_stops_the_call_before_the_request(tmp_path: Path) -> None:
    fake = FakeVLLM()
    message = HumanMessage([{"type": "image", "path": str(tmp_path / "no.png")}])

    with pytest.raises(MediaNotFoundError):
        fake.model().invoke([message])
    assert fake.requests == []


FOREIGN_VARIABLES = {
    "OPENAI_API_KEY": "sk-leak",
    "OPENAI_ADMIN_KEY": "sk-leak",
    "OPENAI_BASE_URL": "http://leak.invalid/v1",
    "OPENAI_API_BASE": "http://leak.invalid/v1",
    "OPENAI_ORG_ID": "leak",
    "OPENAI_ORGANIZATION": "leak",
    "OPENAI_PROJECT_ID": "leak",
    "OPENAI_PROXY": "http://leak.invalid",
    "OPENAI_CUSTOM_HEADERS": "X-Leak: leak\nauthorization: Bearer sk-leak\nX-Other:leak\n"
    "Content-Type: leak\naccept: leak",
    "LANGSMITH_GATEWAY": "true",
    "LANGSMITH_GATEWAY_API_KEY": "lsv2_leak",
    "LANGSMITH_API_KEY": "lsv2_leak",
}


@pytest.mark.parametrize("own", [{}, {"base_url": "http://glm.invalid/v1", "api_key": "own"}])
@pytest.mark.asyncio
async def test_variables_of_openai_are_never_used(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str]
) -> None:
    for name, value in FOREIGN_VARIABLES.items():
        monkeypatch.setenv(name, value)
    fake = FakeVLLM()
    model = fake.model(**own)
    model.invoke("Hi")
    await model.ainvoke("Hi")

    for request in fake.requests:
        assert str(request.url).startswith(own.get("base_url", "http://127.0.0.1:8000/v1"))
        assert request.headers.get_list("authorization") == [
            f"Bearer {own.get('api_key', 'EMPTY')}"
        ]
        assert request.headers["content-type"] == "application/json"
        sent = f"{request.url} {request.headers.raw!r} {request.content!r}"
        assert "leak" not in sent.lower()
        assert "openai-" not in sent.lower()


def test_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM4V_BASE_URL", "http://glm.invalid:9/v1")
    monkeypatch.setenv("GLM4V_API_KEY", "own")
    model = ChatGLM4V()

    assert model.openai_api_base == "http://glm.invalid:9/v1"
    assert model.openai_api_key.get_secret_value() == "own"
    assert "own" not in repr(model)


def test_headers_and_organization_given_by_hand() -> None:
    fake = FakeVLLM()
    fake.model(default_headers={"X-Tenant": "a"}, organization="b").invoke("Hi")

    assert fake.requests[0].headers["x-tenant"] == "a"
    assert fake.requests[0].headers["openai-organization"] == "b"


class Recorder(ThreadingHTTPServer):
    """A server on this machine that notes what it is asked and answers as vLLM."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Recorder

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if not self.path.endswith("/chat/completions"):
            self.send_error(404)
            return
        self.server.paths.append(self.path)
        body = json.dumps(FakeVLLM().completion(1)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def recorder() -> Iterator[tuple[str, list[str]]]:
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.paths
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.mark.enable_socket
@pytest.mark.usefixtures("proxied")
@pytest.mark.asyncio
async def test_requests_to_this_machine_take_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder() as (url, paths), recorder() as (proxy, proxied_paths):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("ALL_PROXY", proxy)
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            async with ChatGLM4V(base_url=url.replace("127.0.0.1", host) + "/v1") as model:
                check(model.invoke("Hi"))
                check(await model.ainvoke("Hi"))

    assert paths == ["/v1/chat/completions"] * 6
    assert proxied_paths == []


@pytest.mark.enable_socket
@pytest.mark.usefixtures("proxied")
@pytest.mark.asyncio
async def test_other_requests_take_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder() as (proxy, paths):
        with ChatGLM4V(base_url="http://glm.invalid/v1", openai_proxy=proxy) as model:
            check(model.invoke("Hi"))
        monkeypatch.setenv("HTTP_PROXY", proxy)
        async with ChatGLM4V(base_url="http://glm.invalid/v1") as model:
            check(await model.ainvoke("Hi"))

    assert paths == ["http://glm.invalid/v1/chat/completions"] * 2


@pytest.mark.enable_socket
def test_one_model_in_several_event_loops() -> None:
    with recorder() as (url, paths):
        model = ChatGLM4V(base_url=f"{url}/v1", max_retries=0)

        async def two() -> tuple[BaseMessage, ...]:
            return await asyncio.gather(model.ainvoke("Hi"), model.ainvoke("Hi"))

        for reply in [*asyncio.run(two()), *asyncio.run(two())]:
            check(reply)
        with ThreadPoolExecutor() as threads:
            for replies in threads.map(lambda _: asyncio.run(two()), range(4)):
                check(replies[1])

    assert len(paths) == 12


@pytest.mark.asyncio
async def test_close() -> None:
    model = ChatGLM4V()
    client = model.root_async_client.current
    await model.aclose()
    model.close()
    assert model.root_client.is_closed()
    assert client.is_closed()
    with pytest.raises(ServerUnreachableError, match="was closed; make a new one"):
        model.invoke("Hi")


async def called_in_every_way(model: ChatGLM4V, check: Callable[[], Any]) -> None:
    with check():
        model.invoke("Hi")
    with check():
        list(model.stream("Hi"))
    with check():
        await model.ainvoke("Hi")
    with check():
        async for _ in model.astream("Hi"):
            pass


@pytest.mark.enable_socket
@pytest.mark.asyncio
async def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        model = ChatGLM4V(base_url=url, max_retries=0)

        def unreachable() -> AbstractContextManager[Any]:
            return pytest.raises(
                ServerUnreachableError, match=rf"server at {url} \(.+\): set base_url or GLM4V_BASE"
            )

        await called_in_every_way(model, unreachable)
    assert issubclass(ServerUnreachableError, openai.APIConnectionError | ModelConnectionError)


@pytest.mark.enable_socket
@pytest.mark.asyncio
async def test_no_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        model = ChatGLM4V(base_url=url, max_retries=0, timeout=0.05)

        def late() -> AbstractContextManager[Any]:
            return pytest.raises(ServerTimeoutError, match=f"server at {url} .* longer timeout")

        await called_in_every_way(model, late)
    assert issubclass(ServerTimeoutError, openai.APITimeoutError | ModelTimeoutError)


def test_close_leaves_a_client_given_by_hand_open() -> None:
    fake = FakeVLLM()
    with fake.model() as model:
        model.invoke("Hi")
    assert model.http_client
    assert not model.http_client.is_closed


def test_managed_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="temprature"):
        ChatGLM4V.managed(temprature=0)
    with pytest.raises(TypeError, match="api_key, base_url cannot be set"):
        ChatGLM4V.managed(base_url="http://glm.invalid/v1", api_key="x")


def test_identity() -> None:
    model = ChatGLM4V(model="glm", top_k=2)

    assert model._llm_type == "chat-glm4v"
    assert model._identifying_params["base_url"] == "http://127.0.0.1:8000/v1"
    assert model._identifying_params["extra_body"]["top_k"] == 2
    assert model._get_ls_params()["ls_provider"] == "glm4v"
    other = ChatGLM4V(model="glm", top_k=2, base_url="http://glm.invalid/v1")
    assert model._get_llm_string() != other._get_llm_string()


def test_profile_by_name() -> None:
    profile = ChatGLM4V().profile
    assert profile is not None
    assert profile["max_input_tokens"] == 65_536
    assert profile["image_inputs"] is True
    assert profile["tool_calling"] is True
    assert profile["video_inputs"] is True
    assert ChatGLM4V(model="somebody/something").profile is None


def test_defaults() -> None:
    model = ChatGLM4V()

    assert model.model_name == "zai-org/GLM-4.1V-9B-Thinking"
    assert model.stream_usage is True
    assert model.stream_chunk_timeout is None
    assert model.openai_api_key == SecretStr("EMPTY")


@pytest.mark.parametrize("fields", [{"n": 0}, {"n": 2, "streaming": True}])
def test_impossible_numbers_of_choices(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        ChatGLM4V(**fields)


# --- caches, counts, and what needs no server ---


def picture_at(path: Path, shade: int) -> HumanMessage:
    Image.new("L", (56, 56), shade).save(path)
    return HumanMessage([{"type": "image", "path": str(path)}])


async def test_a_cache_knows_servers_options_and_the_content_of_files(tmp_path: Path) -> None:
    fake = FakeVLLM()
    cache = InMemoryCache()
    model = fake.model(cache=cache)
    asked = [picture_at(tmp_path / "a.png", 0)]

    async def asks_again(model: ChatGLM4V, **options: Any) -> bool:
        before = len(fake.requests)
        check_answer(model.invoke(asked, **options))
        new = len(fake.requests) - before
        check_answer(await model.ainvoke(asked, **options))
        assert len(fake.requests) - before == new, "the second time is the cache's"
        return bool(new)

    assert await asks_again(model)
    assert not await asks_again(fake.model(cache=cache))
    assert not await asks_again(fake.model(cache=cache, api_key="another"))
    assert await asks_again(fake.model(cache=cache, base_url="http://glm.invalid/v1"))
    assert await asks_again(fake.model(cache=cache, top_k=7))
    assert await asks_again(fake.model(cache=cache, cache_salt="a"))
    assert await asks_again(fake.model(cache=cache, sampling="gui"))
    assert await asks_again(model, max_images=3)
    picture_at(tmp_path / "a.png", 255)
    assert await asks_again(model)
    picture_at(tmp_path / "a.png", 0)
    assert not await asks_again(model)
    assert "media_digest" not in str(fake.bodies)


def check_answer(message: BaseMessage) -> None:
    assert message.text == ANSWER
    assert message.additional_kwargs["reasoning_content"] == THOUGHT


def test_the_cache_of_all_models() -> None:
    fake = FakeVLLM()
    set_llm_cache(InMemoryCache())
    try:
        for _ in range(2):
            check_answer(fake.model().invoke("Hi"))
            check_answer(fake.model(cache=False).invoke("Hi"))
    finally:
        set_llm_cache(None)

    assert len(fake.requests) == 3


@pytest.mark.disable_socket
def test_nothing_but_a_call_needs_the_network() -> None:
    model = ChatGLM4V(thinking="off", thinking_budget=5)
    model.bind_tools([{"name": "f", "description": "F."}], tool_choice="any")
    for method in ("json_schema", "json_mode", "function_calling"):
        schema = {"title": "A", "type": "object", "properties": {}}
        model.with_structured_output(schema, method=method, include_raw=True)
    model.with_choices(["a", "b"])
    model.with_boxes()
    model._get_request_payload("Hi", thinking="auto", thinking_budget=None)


def test_counts_on_vllm(writer: type[Any], vllm: Any) -> None:
    model = writer(vllm, RAW).model()

    assert model.get_num_tokens("<think>") == 1
    assert model.get_token_ids("Hi there") == vllm.tokenizer.encode("Hi there").ids
    count = model.get_num_tokens_from_messages([HumanMessage("Hi")])
    prompt = "[gMASK]<sop><|user|>\nHi<|assistant|>\n"
    assert count == model.get_num_tokens(prompt)
    tools = [{"name": "f", "description": "F."}]
    assert model.get_num_tokens_from_messages([HumanMessage("Hi")], tools) > count + 20
    # Longer than the server takes: that is for the caller to mend, by this very count.
    long = [HumanMessage("Hi " * 20_000)]
    assert model.get_num_tokens_from_messages(long) > 8192
    kept = trim_messages([*long, *long, HumanMessage("Hi")], max_tokens=count, token_counter=model)
    assert [message.content for message in kept] == ["Hi"]


def test_counts_without_vllm() -> None:
    model = FakeVLLM().model()

    with pytest.warns(UserWarning, match="does not count .* an estimate, never too low"):
        assert model.get_num_tokens_from_messages([HumanMessage("Hi")]) == 4 + 2 + 2
    with pytest.raises(UnsupportedByServerError, match="has no /tokenize"):
        model.get_num_tokens("Hi")


def test_too_long_a_conversation_is_not_sent(writer: type[Any], vllm: Any) -> None:
    server = writer(vllm, RAW)
    with pytest.raises(ContextLengthError, match=r"has \d+ tokens and 'glm' takes 8192"):
        server.model().invoke("Hi " * 20_000)
    assert server.bodies == []


# --- sharing and copies ---


def test_a_stream_carries_one_reply() -> None:
    for model in (FakeVLLM().model(n=2), FakeVLLM().model().bind(n=2)):
        with pytest.raises(RequestError, match="n is 2, and a stream carries one reply"):
            list(model.stream("Hi"))


@pytest.mark.parametrize("most", [0, -1, None, "3"])
def test_an_impossible_number_of_pictures(most: Any) -> None:
    with pytest.raises(RequestError, match=r"max_images is .*: it must be a whole number above 0"):
        FakeVLLM().model().invoke("Hi", max_images=most)


@pytest.mark.enable_socket
def test_a_configured_address_is_the_one_that_is_asked() -> None:
    with recorder() as (one, paths_of_one), recorder() as (two, paths_of_two):
        model = ChatGLM4V(base_url=f"{one}/v1").configurable_fields(
            openai_api_base=ConfigurableField(id="address")
        )
        model.invoke("Hi", {"configurable": {"address": f"{two}/v1"}})

    assert (len(paths_of_one), len(paths_of_two)) == (0, 1)


def test_a_copy_of_a_closed_model_is_closed() -> None:
    model = ChatGLM4V()
    copy = model.model_copy()
    model.close()
    with pytest.raises(ServerUnreachableError, match="was closed; make a new one"):
        copy.invoke("Hi")


class Recovering(FakeVLLM):
    """A server that fails at the first question and then answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def reply(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/chat/completions"):
            return super().reply(request)
        self.asked.append(path)
        if len(self.asked) == 1:
            return httpx.Response(503)
        if path == "/v1/models":
            return httpx.Response(200, json={"data": []})
        return httpx.Response(404)


def test_a_server_that_fails_once_is_asked_again() -> None:
    server = Recovering()
    model = server.model(base_url="http://recovering.invalid/v1", max_retries=0)
    for _ in range(3):
        model.invoke("Hi")

    assert server.asked == ["/v1/models", "/tokenize"] * 2


def test_tokens_of_a_server_that_fails_just_now() -> None:
    model = Recovering().model(max_retries=0)
    with pytest.raises(UnsupportedByServerError, match="it cannot tell tokens"):
        model.get_num_tokens("Hi")
