"""A vLLM that is none: it answers as one with the miniature, but writes what a test says.

And one that a managed server runs in place of vLLM, and a web server that answers whatever a test
says.
"""

import http.server
import importlib
import json
import os
import re
import shutil
import signal
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from email.message import Message
from pathlib import Path
from typing import Any

import httpx
import pytest
from jinja2 import Environment
from PIL import Image
from tokenizers import Tokenizer
from vision_server import Serve, serving

import tiny_glm4v
from langchain_glm4v import ChatGLM4V, chat_models, preparation, uploads
from langchain_glm4v.abilities import Answer, Question
from langchain_glm4v.server import process
from langchain_glm4v.server.options import CHAT_TEMPLATE
from langchain_glm4v.server.probes import CONVERSATION

# Parts of its type hints want NumPy's of another version.
av: Any = importlib.import_module("av")

CONTEXT = 8192
SOURCES = Path(__file__).parents[2] / "src"
# What the template that comes with the model does, as far as texts go.
STOCK = """[gMASK]<sop>
{%- for m in messages -%}
{%- if m.role == 'user' -%}{{ '<|user|>\n' }}{%- for p in m.content -%}{{ p.text }}{%- endfor -%}
{%- else -%}{{ '<|' + m.role + '|>\n' }}{{ m.content }}
{%- endif -%}
{%- endfor -%}<|assistant|>
"""


Ask = Callable[[Question], Answer]
Body = dict[str, Any]


class TinyVLLM:
    """Answers what is asked beside chats as vLLM 0.32 does, with the miniature's tokenizer."""

    def __init__(self, template: str) -> None:
        environment = Environment(keep_trailing_newline=True)
        self.template = environment.from_string(template)
        path = Path(tiny_glm4v.__file__).parent / "checkpoint" / "tokenizer.json"
        self.tokenizer = Tokenizer.from_file(str(path))
        self.asked: list[Question] = []

    def __call__(self, question: Question) -> Answer:
        self.asked.append(question)
        body = dict(question.body or {})
        match question.path:
            case "/v1/models":
                return {"data": [{"id": name, "max_model_len": CONTEXT} for name in ("glm", "b")]}
            case "/detokenize":
                return {"prompt": self.tokenizer.decode(body["tokens"], skip_special_tokens=False)}
            case "/v1/chat/completions":
                return {"choices": [{"message": {"content": "<think>I look", "reasoning": None}}]}
            case "/tokenize":
                text = body["prompt"] if "prompt" in body else self.render(body)
                ids = self.tokenizer.encode(text, add_special_tokens=False).ids
                return {"count": len(ids), "max_model_len": CONTEXT, "tokens": ids}
        return None

    def render(self, body: dict[str, Any]) -> str:
        # vLLM hands every text to such templates as a list.
        turns = [
            {**turn, "content": [{"type": "text", "text": turn["content"]}]}
            if isinstance(turn["content"], str)
            else turn
            for turn in body["messages"]
        ]
        fields = {"add_generation_prompt": True, **body, "messages": turns}
        return self.template.render(**fields)


def is_probe(body: Body) -> bool:
    """Whether a chat only finds out whether the server parses the reasoning."""
    return bool(body["messages"] == CONVERSATION[-1:])


class Writer(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A vLLM that writes one text, and goes on with it wherever it is cut.

    Args:
        ask: Answers what is asked beside chats.
        text: What the model writes; each word, tag and blank is a token.
        refuses: Says no to a request, by its message; else None.
    """

    def __init__(
        self, ask: Ask, text: str, refuses: Callable[[Body], str | None] = lambda _: None
    ) -> None:
        self.ask = ask
        self.text = text
        self.refuses = refuses
        self.bodies: list[Body] = []
        self.sent = 0  # events of streams

    def model(self, **fields: Any) -> ChatGLM4V:
        return ChatGLM4V(
            model="glm",
            http_client=httpx.Client(transport=self),
            http_async_client=httpx.AsyncClient(transport=self),
            **fields,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.reply(request.url.path, request.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.reply(request.url.path, await request.aread())

    def reply(self, path: str, content: bytes) -> httpx.Response:
        body = json.loads(content or "null")
        if not path.endswith("/chat/completions") or is_probe(body):
            answer = self.ask(Question(path, body))
            return httpx.Response(404) if answer is None else httpx.Response(200, json=answer)
        self.bodies.append(body)
        if message := self.refuses(body):
            return httpx.Response(400, json={"error": {"message": message, "code": 400}})
        tokens = self.tokens(body)
        limit = body.get("max_tokens") or len(tokens)
        ending = {"finish_reason": "stop" if limit >= len(tokens) else "length"}
        usage = {"prompt_tokens": 5, "completion_tokens": len(tokens[:limit])}
        usage["total_tokens"] = sum(usage.values())
        if body["stream"]:
            return httpx.Response(
                200,
                headers={"content-type": "text/event-stream"},
                stream=Events(self, self.events(tokens[:limit], ending, usage)),
            )
        written = {"role": "assistant", "content": "".join(tokens[:limit])}
        choices = [{"index": 0, "message": written, **ending}]
        return httpx.Response(200, json={"id": "1", "choices": choices, "usage": usage})

    def tokens(self, body: Body) -> list[str]:
        """What the model writes now."""
        text, last = self.text, body["messages"][-1]
        if body.get("continue_final_message"):
            assert last["role"] == "assistant"
            text = text.lstrip()
            if text.startswith(last["content"]):
                text = text[len(last["content"]) :]
            else:  # forced to answer
                assert last["content"].endswith("</think><answer>")
                text = self.text.partition("<answer>")[2]
        return re.findall(r"</?\w+>|\w+|\W", text)

    def events(self, tokens: list[str], ending: Body, usage: Body) -> Iterator[Body]:
        yield {"id": "1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        for token in tokens[:-1]:
            yield {"id": "1", "choices": [{"index": 0, "delta": {"content": token}}]}
        last = {"index": 0, "delta": {"content": "".join(tokens[-1:])}, **ending}
        yield {"id": "1", "choices": [last]}
        yield {"id": "1", "choices": [], "usage": usage}


class Events(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, writer: Writer, events: Iterator[Body]) -> None:
        self.writer = writer
        self.events = events

    def __iter__(self) -> Iterator[bytes]:
        for event in self.events:
            self.writer.sent += 1
            yield f"data: {json.dumps(event)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self:
            yield event


def write_film(path: Path, width: int, height: int) -> Path:
    """A film of 4 s that grows lighter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(40):
            image = Image.new("RGB", (width, height), (number * 5,) * 3)
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 4 s that grows lighter; 48 tokens."""
    return write_film(tmp_path_factory.mktemp("film") / "lighter.mp4", 112, 84)


@pytest.fixture(scope="session")
def large_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in 1,728 tokens."""
    return write_film(tmp_path_factory.mktemp("film") / "large.mp4", 672, 504)


@pytest.fixture
def vllm() -> TinyVLLM:
    """A vLLM with our template."""
    return TinyVLLM(CHAT_TEMPLATE.read_text(encoding="utf-8"))


@pytest.fixture
def serve(vllm: Any) -> Iterator[Serve]:
    """To be called with what the model says."""
    with ExitStack() as servers:
        yield lambda say: servers.enter_context(serving(vllm, say))


@pytest.fixture
def stock_vllm() -> TinyVLLM:
    """A vLLM with the template that comes with the model."""
    return TinyVLLM(STOCK)


@pytest.fixture
def writer() -> type[Writer]:
    """To be called: a server that writes what the test says."""
    return Writer


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of any server or medium."""
    monkeypatch.setattr(chat_models, "_abilities", {})
    monkeypatch.setattr(chat_models, "_uploads", {})
    monkeypatch.setattr(uploads, "_secret", lambda: bytes(32))  # and no user's is made
    monkeypatch.setattr(preparation, "_kept", preparation._Kept())


@pytest.fixture
def heeding_ctrl_c() -> Iterator[None]:
    """Ctrl-C ends this process: what a shell starts in its background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Web(http.server.ThreadingHTTPServer):
    """A web server on this machine.

    Attributes:
        routes: Path -> what answers a GET of it; without any, the answer is 404.
        seen: Path and headers of each request.
        names: Which host TLS was asked for, each time.
        connections: How often someone connected.
    """

    daemon_threads = True
    request_queue_size = 128  # may wait to be taken, on a busy machine

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), WebHandler)
        self.routes: dict[str, Callable[[WebHandler], Any]] = {}
        self.seen: list[tuple[str, Message]] = []
        self.names: list[str] = []
        self.connections = 0
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            context.sni_callback = lambda _, name, __: self.names.append(name)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.seen]

    def give(self, path: str, body: bytes = b"", status: str = "200 OK", **headers: str) -> str:
        """Answer a path from now on; in names of headers, an underscore stands for a hyphen."""
        fields = {"content_length": str(len(body)), **headers}
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
        answer = f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode() + body
        self.routes[path] = lambda handler: handler.wfile.write(answer)
        return self.url + path

    def get_request(self) -> tuple[Any, Any]:
        request = super().get_request()
        self.connections += 1
        return request

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may hang up at any moment."""


class WebHandler(http.server.BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers))
        self.close_connection = True
        if (answer := self.server.routes.get(self.path)) is None:
            self.send_error(404)
        else:
            answer(self)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve_web() -> Iterator[Callable[..., Web]]:
    """To be called, with a certificate for TLS: starts a web server."""
    with ExitStack() as servers:

        def start(certificate: Path | None = None) -> Web:
            server = servers.enter_context(Web(certificate))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            servers.callback(thread.join)
            servers.callback(server.shutdown)
            return server

        yield start


@pytest.fixture
def web(serve_web: Callable[..., Web]) -> Web:
    """A running web server, without TLS."""
    return serve_web()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that a server's process, and `find_engine`, find before the real vLLM."""
    folder = tmp_path / "stand_in"
    for module in (
        "vllm/__init__.py",
        "vllm/envs.py",
        "vllm/entrypoints/__init__.py",
        "vllm/entrypoints/cli/__init__.py",
        "vllm/model_executor/__init__.py",
        "vllm/model_executor/models/__init__.py",
        "vllm/model_executor/models/registry.py",
        # these take seconds to import and are not needed here
        "torchvision/__init__.py",
        "torchaudio.py",
        "torchcodec.py",
        "torch.py",
    ):
        (folder / module).parent.mkdir(parents=True, exist_ok=True)
        (folder / module).touch()
    (folder / "torch.py").write_text("class ops:\n    def load_library(path): pass\n")
    (folder / "vllm/envs.py").write_text("def compile_factors(): return {}\n")
    shutil.copy(
        Path(__file__).with_name("stand_in_vllm.py"), folder / "vllm/entrypoints/cli/main.py"
    )
    (folder / "vllm-0.0.0+cpu.dist-info").mkdir()
    (folder / "vllm-0.0.0+cpu.dist-info/METADATA").write_text("Name: vllm\nVersion: 0.0.0+cpu\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # the logs of failed starts are kept
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(process, "RESTART_DELAYS", (0.1, 0.1))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{SOURCES}")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The folder of a checkpoint that is none."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "glm4v"}))
    return str(folder)
