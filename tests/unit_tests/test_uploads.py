"""Media that a server has already are not sent again."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks

from langchain_glm4v import ChatGLM4V
from langchain_glm4v.abilities import Answer, Question
from langchain_glm4v.media.image import data_url
from langchain_glm4v.media.video import Clip
from langchain_glm4v.turns import VideoPart, picture_part, text_part
from langchain_glm4v.uploads import Uploads, named

Ask = Callable[[Question], Answer]
Body = dict[str, Any]

TEXT = "<think>I look.</think><answer>It is 42 euros."
# One red pixel, and one blue.
RED, BLUE = (
    "data:image/bmp;base64,Qk06AAAAAAAAADYAAAAoAAAAAQAAAAEAAAABABgAAAAAAAQAAADEDgAAxA4AAAAAAAAAAAAA"
    + pixel
    for pixel in ("AAD/AA==", "/wAAAA==")
)
MISSED = "Cache miss for image at index 0 but data is not provided."


class Memory:
    """Refuses as vLLM does what it has forgotten, or never had."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def refuses(self, body: Body) -> str | None:
        parts = [part for turn in body["messages"] for part in turn["content"] if "uuid" in part]
        if any(part["image_url"] is None and part["uuid"] not in self.names for part in parts):
            return MISSED
        self.names |= {part["uuid"] for part in parts}
        return None


def asked_about(*urls: str, text: str = "What is it?") -> list[HumanMessage]:
    pictures = [{"type": "image", "url": url} for url in urls]
    return [HumanMessage([*pictures, {"type": "text", "text": text}])]


def sent(body: Body) -> list[bool]:
    """Of each picture in a request, whether its content was sent."""
    parts = [part for turn in body["messages"] for part in turn["content"]]
    return [part["image_url"] is not None for part in parts if "uuid" in part]


async def test_a_picture_is_sent_once(writer: type[Any], vllm: Ask) -> None:
    server = writer(vllm, TEXT, Memory().refuses)
    model: ChatGLM4V = server.model()
    messages = [
        model.invoke(asked_about(RED)),
        await model.ainvoke(asked_about(RED, text="And now?")),
        add_ai_message_chunks(*model.stream(asked_about(BLUE, RED))),
        add_ai_message_chunks(*[c async for c in model.astream(asked_about(BLUE, RED))]),
    ]

    assert [message.text for message in messages] == ["It is 42 euros."] * 4
    assert [sent(body) for body in server.bodies] == [[True], [False], [True, False], [False] * 2]


async def test_what_the_server_has_forgotten_is_sent_again(writer: type[Any], vllm: Ask) -> None:
    memory = Memory()
    server = writer(vllm, TEXT, memory.refuses)
    model: ChatGLM4V = server.model()
    for call in (model.invoke, lambda question: list(model.stream(question))):
        call(asked_about(RED))
        memory.names.clear()
        call(asked_about(RED))
    await model.ainvoke(asked_about(RED))
    memory.names.clear()
    await model.ainvoke(asked_about(RED))

    whole, name = [True], [False]
    again = [name, whole]
    assert [sent(body) for body in server.bodies] == [whole, *again, name, *again, name, *again]


def test_a_server_that_does_not_go_by_names_is_sent_everything(
    writer: type[Any], vllm: Ask
) -> None:
    def refuses(body: Body) -> str | None:
        return None if all(sent(body)) else "image_url is not a valid dict"

    server = writer(vllm, TEXT, refuses)
    model: ChatGLM4V = server.model()
    for _ in range(4):
        model.invoke(asked_about(RED))

    tried = [[False], [True]]
    assert [sent(body) for body in server.bodies] == [[True], *tried, *tried, [True]]


def test_another_refusal_is_the_caller_s(writer: type[Any], vllm: Ask) -> None:
    bad: list[bool] = []
    server = writer(vllm, TEXT, lambda _: "temperature must be non-negative" if bad else None)
    model: ChatGLM4V = server.model()
    model.invoke(asked_about(RED))
    bad.append(True)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        model.invoke(asked_about(RED))
    bad.clear()
    model.invoke(asked_about(RED))

    assert [sent(body) for body in server.bodies] == [[True], [False], [True], [False]]


def test_names_depend_on_content_and_salt() -> None:
    def names(url: str, salt: str | None = None) -> list[str]:
        picture, _ = named([turn(url)], salt)[0]["content"]
        return [picture["uuid"]]

    assert names(RED) == names(RED) != names(BLUE)
    assert len({*names(RED), *names(RED, "a"), *names(RED, "b")}) == 3


def test_programs_of_a_user_have_a_secret_in_common(tmp_path: Path) -> None:
    program = "from langchain_glm4v import uploads; print(uploads._secret().hex())"

    def told(runtime: Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", program],
            env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
            stdout=subprocess.PIPE,
            text=True,
        )

    first, *others = {child.communicate()[0] for child in [told(tmp_path) for _ in range(4)]}
    assert others == []
    assert len(bytes.fromhex(first)) == 32
    assert (tmp_path / "glm4v/secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "glm4v").iterdir()] == ["secret"]
    # Where none can be kept, each has its own.
    assert len({told(tmp_path / "missing").communicate()[0] for _ in range(2)} - {first}) == 2


def test_names_of_videos_depend_on_their_seconds() -> None:
    """A film that stands still has the same frames at all of them."""

    def name(*milliseconds: int) -> str:
        kwargs = {"fps": 1000, "frames_indices": [*milliseconds]}
        clip = Clip("data:video/jpeg;base64,a,a", kwargs, 28, 28, (0.0, 1.0), 1.0, 0.0, (0,), 2)
        asked = {"role": "user", "content": [VideoPart(clip)]}
        return str(named([asked], None)[0]["content"][0]["uuid"])

    assert name(2000, 3000) == name(2000, 3000) != name(10_000, 11_000)


def test_only_what_is_in_the_request_gets_a_name() -> None:
    given = [{"role": "system", "content": "Be brief."}, turn("https://example.org/a.png")]

    assert named(given, None) == given


def test_old_names_are_forgotten() -> None:
    uploads = Uploads()
    payloads = [
        {"messages": named([turn(data_url(bytes([n % 256, n // 256]), "x/y"))], None)}
        for n in range(4097)
    ]
    for payload in payloads:
        uploads.note_sent(payload)

    assert uploads.without_known(payloads[0]) is payloads[0]
    assert uploads.without_known(payloads[1]) is not payloads[1]


def turn(url: str) -> Body:
    return {"role": "user", "content": [picture_part(url), text_part("What is it?")]}
