"""Many different calls at once, good and bad, each of which can be told from all others.

The number of a call stands in its picture, page, film or text, and is what it asks for; it is in
the id of the request as well, which vLLM gives back.
"""

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import openai
import pymupdf
from langchain_core.messages import BaseMessage, HumanMessage
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel

from langchain_glm4v import ChatGLM4V, GLM4VError

# Parts of its type hints want NumPy's of another version.
av: Any = importlib.import_module("av")

AT_ONCE = 16
SIZE = (224, 168)
BROKEN = {"type": "image", "base64": "@@", "mime_type": "image/png"}
QUESTION = "What is the Code?"

Block: TypeAlias = dict[str, Any]
Call: TypeAlias = Callable[[ChatGLM4V, "Media", int], Awaitable[str]]


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        number: Of the call.
        kind: Of the call: a key of `GOOD` or `BAD`.
        answer: The text that came; empty if none did.
        error: What was raised instead, or after a part of the answer.
        seconds: That it took.
    """

    number: int
    kind: str
    answer: str
    error: Exception | None
    seconds: float

    @property
    def is_right(self) -> bool:
        """Whether a good call was answered with its own number."""
        return self.error is None and code(self.number) in self.answer

    @property
    def is_clear(self) -> bool:
        """Whether what was raised is an error that this package documents."""
        return isinstance(self.error, GLM4VError | openai.APIError)


class Code(BaseModel):
    """What a slip says."""

    code: str


class Media:
    """The files of calls.

    Args:
        folder: Where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def picture(self, number: int) -> Block:
        """A slip with the number of a call."""
        path = self._folder / f"{code(number)}.png"
        if not path.exists():
            drawn = Image.new("RGB", SIZE, "white")
            pen = ImageDraw.Draw(drawn)
            pen.text((24, 60), f"Code: {code(number)}", "black", ImageFont.load_default(24))
            drawn.save(path)
        return {"type": "image", "path": str(path)}

    def page(self, number: int) -> Block:
        """The same as a page."""
        path = self._folder / f"{code(number)}.pdf"
        with pymupdf.open() as pdf:
            page = pdf.new_page(width=SIZE[0], height=SIZE[1])
            page.insert_image(page.rect, filename=self.picture(number)["path"])
            pdf.save(path)
        return {"type": "file", "path": str(path), "longest_side": SIZE[0]}

    def film(self, number: int) -> Block:
        """Two seconds of the number."""
        path = self._folder / f"{code(number)}.mp4"
        drawn = Image.new("RGB", SIZE, (245, 245, 245))
        ImageDraw.Draw(drawn).text((90, 66), code(number), (10, 10, 10), ImageFont.load_default(28))
        with av.open(path, "w") as container:
            stream: Any = container.add_stream("libx264", 2)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for _ in range(4):
                container.mux(stream.encode(av.VideoFrame.from_image(drawn)))
            container.mux(stream.encode(None))
        return {"type": "video", "path": str(path)}


def code(number: int) -> str:
    """How a number is written: as one of 400 that the miniature was seen to read without error."""
    return str(100 + number % 400)


def _asked(text: str, *blocks: Block) -> list[BaseMessage]:
    return [HumanMessage([*blocks, {"type": "text", "text": text}])]


async def _whole(model: ChatGLM4V, messages: list[BaseMessage], number: int) -> str:
    reply = await model.ainvoke(messages, request_id=str(number))
    if not reply.response_metadata["id"].endswith(f"-{number}"):
        raise AssertionError(f"call {number} got the reply {reply.response_metadata['id']}")
    return reply.text


async def _streamed(model: ChatGLM4V, messages: list[BaseMessage], number: int) -> str:
    stream = model.astream(messages, request_id=str(number))
    return "".join([chunk.text async for chunk in stream])


async def _structured(model: ChatGLM4V, media: Media, number: int) -> str:
    chain = model.with_structured_output(Code)
    return str((await chain.ainvoke(_asked(QUESTION, media.picture(number)))).code)


async def _abandoned(model: ChatGLM4V, media: Media, number: int) -> str:
    del media
    endless: dict[str, Any] = {
        "max_tokens": 7000,
        "repetition_guard": False,
        "extra_body": {"ignore_eos": True},
    }
    stream = model.astream(f"Hello {number}", **endless)
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    return ""


GOOD: dict[str, Call] = {
    "picture": lambda m, f, n: _whole(m, _asked(QUESTION, f.picture(n)), n),
    "streamed picture": lambda m, f, n: _streamed(m, _asked(QUESTION, f.picture(n)), n),
    "text": lambda m, _, n: _whole(m, _asked(f"My code is {code(n)}. What is my code?"), n),
    "streamed text": lambda m, _, n: _streamed(
        m, _asked(f"My code is {code(n)}. What is my code?"), n
    ),
    "page": lambda m, f, n: _whole(m, _asked(QUESTION, f.page(n)), n),
    "structured": _structured,
    "film": lambda m, f, n: _whole(m, _asked("Describe the video.", f.film(n)), n),
}
BAD: dict[str, Call] = {
    "broken base64": lambda m, _, n: _whole(m, _asked("?", BROKEN), n),
    "too long": lambda m, _, n: _whole(m, _asked("word " * 20_000), n),
    "unknown model": lambda m, _, n: _whole(
        m.model_copy(update={"model_name": "nobody"}), _asked("?"), n
    ),
    "abandoned stream": _abandoned,
}
# What a cycle of calls is made of, and one bad call after these.
CYCLE_KINDS = (
    *("picture", "text", "streamed picture", "picture", "streamed text", "page", "text"),
    *("picture", "structured", "streamed picture", "picture", "film", "text", "picture"),
    *("streamed text", "page", "structured", "picture", "streamed picture"),
)


def kind(number: int) -> str:
    """What kind of call has a number: of 20 calls one is bad."""
    cycle, place = divmod(number, len(CYCLE_KINDS) + 1)
    return CYCLE_KINDS[place] if place < len(CYCLE_KINDS) else [*BAD][cycle % len(BAD)]


async def call(model: ChatGLM4V, media: Media, number: int) -> Outcome:
    """Make one call."""
    began = time.monotonic()
    answer, error = "", None
    try:
        answer = await {**GOOD, **BAD}[kind(number)](model, media, number)
    except Exception as raised:
        error = raised
    return Outcome(number, kind(number), answer, error, time.monotonic() - began)


async def calls(
    model: ChatGLM4V,
    media: Media,
    numbers: Iterable[int],
    on_outcome: Callable[[Outcome], object],
) -> None:
    """Make calls, 16 at once.

    Args:
        model: Is called.
        media: Has their files.
        numbers: Of the calls; taken one by one, so they may depend on the time.
        on_outcome: Called after each with what became of it.
    """
    waiting = iter(numbers)

    async def work() -> None:
        for number in waiting:
            on_outcome(await call(model, media, number))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
