"""What is asked of a server that is up: does it read, write and answer as it should?

Uses `http.client`, which knows nothing of proxies.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_glm4v.errors import SelfCheckError, ServerError, TemplateError

CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "are you?"}],
    },
]
RENDERED = (
    "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHello<|assistant|>\nHi."
    "<|user|>\nWho are you?<|assistant|>\n"
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>")

ANSWER_TOKENS = 12
# Four light squares, each of 28 pixels, as PNG: the smallest that the model's grid takes.
PICTURE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAADgAAAA4CAAAAACN7WTCAAAAJklEQVR42u3LMREA"
    "AAgEoNf+Oc1hBc8Zdmry0xFFURRFURRFUTxZ+mUBVi6HX5oAAAAASUVORK5CYII="
)


@dataclass(frozen=True)
class Client:
    """The few requests that this package itself makes of a server on this machine."""

    host: str
    port: int
    api_key: str = field(repr=False)
    timeout: float = 30.0

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send `body` as JSON and return the reply, itself a JSON object.

        Raises:
            OSError: The server cannot be reached, or did not reply in time.
            ValueError: It refused the request, or the reply is no JSON.
        """
        parsed: dict[str, Any] = json.loads(self._ask("POST", path, json.dumps(body)))
        return parsed

    def get(self, path: str) -> str:
        """Ask for what is at `path`.

        Raises:
            OSError: The server cannot be reached, or did not reply in time.
            ValueError: It refused the request.
        """
        return self._ask("GET", path).decode(errors="replace")

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.api_key}"}
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            content = reply.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"{path} gave no whole reply: {error!r}") from error
        finally:
            connection.close()
        if reply.status != http.HTTPStatus.OK:
            message = f"{path} answered {reply.status}: {content[:200].decode(errors='replace')}"
            raise ValueError(message)
        return content


def check(client: Client, model: str, *, has_images: bool, is_trained: bool = True) -> None:
    """Check that a server that is up does what this package builds on.

    Args:
        client: Asks it.
        model: What it calls the model.
        has_images: Whether it takes pictures.
        is_trained: Whether the model has real weights, so that it says something.

    Raises:
        TemplateError: It garbles conversations, or splits or hides the tags.
        SelfCheckError: It gives no answer, or a senseless one.
    """
    with _told(TemplateError, "the chat template cannot be checked"):
        check_rendering(client, model)
        check_tags(client, model)
    with _told(SelfCheckError, "the server gives no answer"):
        check_answer(client, model, has_images=has_images, is_trained=is_trained)


@contextmanager
def _told(error_type: type[ServerError], what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, ServerError):
            raise
        raise error_type(f"{what}: {error!r}; see the server's log") from error


def check_rendering(client: Client, model: str) -> None:
    """Check that `model` gets system prompts and earlier turns as text.

    Raises:
        TemplateError: It does not; the message says what differs.
    """
    tokens = client.post("/tokenize", {"model": model, "messages": CONVERSATION})["tokens"]
    rendered = client.post("/detokenize", {"model": model, "tokens": tokens})["prompt"]
    if rendered != RENDERED:
        message = (
            f"the server renders a conversation as {rendered!r} instead of {RENDERED!r}; "
            "leave --chat-template and --chat-template-content-format out of extra_args"
        )
        raise TemplateError(message)


def check_tags(client: Client, model: str) -> None:
    """Check that each tag is one token, and that it is seen where the model writes it.

    Raises:
        TemplateError: One is not.
    """
    asked = {"model": model, "add_special_tokens": False}
    tokens = {tag: client.post("/tokenize", {**asked, "prompt": tag})["tokens"] for tag in TAGS}
    if split := [f"{tag} ({len(ids)})" for tag, ids in tokens.items() if len(ids) != 1]:
        message = (
            f"the tokenizer splits tags that must be one token: {', '.join(split)}; "
            "the checkpoint is not a GLM-4.1V-Thinking one"
        )
        raise TemplateError(message)
    for tag, ids in tokens.items():
        body = {
            "model": model,
            "prompt": "tag",
            "max_tokens": 1,
            "allowed_token_ids": ids,
            "skip_special_tokens": False,
            "include_stop_str_in_output": True,
        }
        written = client.post("/v1/completions", body)["choices"][0]["text"]
        if written != tag:
            message = (
                f"the server shows the tag {tag} as {written!r}, so thinking and answer cannot be "
                "told apart; leave options about reasoning and tokens out of extra_args"
            )
            raise TemplateError(message)


def check_answer(client: Client, model: str, *, has_images: bool, is_trained: bool) -> None:
    """Check that the server answers a question, about a picture if it takes any.

    Raises:
        SelfCheckError: The answer is empty, or one token over and over, as of damaged numbers.
    """
    picture = {"type": "image_url", "image_url": {"url": PICTURE}}
    content = [*([picture] if has_images else []), {"type": "text", "text": "What is 2+2?"}]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "skip_special_tokens": False,
    }
    message = client.post("/v1/chat/completions", body)["choices"][0]["message"]
    text = (message.get("reasoning") or "") + (message.get("content") or "")
    if is_trained and len(set(text.split() if " " in text else text)) < 2:
        raise SelfCheckError(
            f"the server answers a question with {text[:40]!r}; the weights or their number type "
            "do not fit this machine: give another dtype or quantization, or fetch them again"
        )
