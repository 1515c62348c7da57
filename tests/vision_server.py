"""A server over HTTP that is none: it answers questions about media with what a test says."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from pydantic import SecretStr

from langchain_glm4v import ChatGLM4V
from langchain_glm4v.abilities import Answer, Question

Body: TypeAlias = dict[str, Any]
Say: TypeAlias = Callable[[Body], "str | Body | Refusal | None"]
"""What is answered to a request: the text that the model writes, a choice of its own making, a
refusal, or None, for nothing at all until the client hangs up."""
Serve: TypeAlias = Callable[[Say], "VisionServer"]
"""Starts a server that says so."""


@dataclass(frozen=True)
class Refusal:
    """An answer with an HTTP status and why."""

    status: int
    message: str
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class VisionServer(ThreadingHTTPServer):
    """A running server.

    Attributes:
        bodies: The requests for answers, as they came.
        say: Answers them.
        most: How many were waiting for an answer at once, at most.
        hung_up: How many clients went away before they were answered.
    """

    daemon_threads = True
    request_queue_size = 128  # may wait to be taken, on a busy machine

    def __init__(self, ask: Callable[[Question], Answer], say: Say) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ask = ask
        self.say = say
        self.bodies: list[Body] = []
        self.running = self.most = self.hung_up = 0
        self.lock = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def prompts(self) -> list[str]:
        """The texts of each request, joined."""
        return [text_of(body) for body in self.bodies]

    def model(self, **fields: Any) -> ChatGLM4V:
        return ChatGLM4V(base_url=self.url, api_key=SecretStr("key"), model="glm", **fields)

    def wait_for(self, is_so: Callable[[], bool]) -> bool:
        """Wait until something about clients is so; False if it is not within a minute."""
        with self.lock:
            return self.lock.wait_for(is_so, 60)

    def change(self, running: int = 0, hung_up: int = 0) -> None:
        with self.lock:
            self.running += running
            self.most = max(self.most, self.running)
            self.hung_up += hung_up
            self.lock.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may hang up at any moment."""


class _Handler(BaseHTTPRequestHandler):
    server: VisionServer

    def do_GET(self) -> None:
        self.reply(self.server.ask(Question(self.path)))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.path.endswith("/chat/completions"):
            self.reply(self.server.ask(Question(self.path, body)))
            return
        self.server.bodies.append(body)
        self.server.change(running=1)
        said = self.server.say(body)
        if said is None:
            self.connection.recv(1)  # ends when the client hangs up
            self.server.change(running=-1, hung_up=1)
            return
        self.server.change(running=-1)
        if isinstance(said, Refusal):
            error = {"message": said.message, "code": said.code}
            self.reply({"error": error}, said.status, said.headers)
            return
        written = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        choice = written if isinstance(said, str) else said
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        self.reply({"id": "1", "choices": [{"index": 0, **choice}], "usage": usage})

    def reply(
        self, answer: Answer, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        content = json.dumps(dict(answer) if answer is not None else {}).encode()
        self.send_response(404 if answer is None else status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def text_of(body: Body) -> str:
    """The texts of a request, joined."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "<medium>") for part in content)


@contextmanager
def serving(ask: Callable[[Question], Answer], say: Say) -> Iterator[VisionServer]:
    """Run a server."""
    with VisionServer(ask, say) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
