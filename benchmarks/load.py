"""Load for a server: questions about pictures, asked one after the other or many at once."""

import asyncio
import base64
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
from PIL import Image

from langchain_glm4v.cli.bench import Answer, body

QUESTION = "Describe the picture."
WORDS = "one two three four five six seven eight nine ten "
Content: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True)
class Server:
    """Where to ask, and as whom."""

    base_url: str
    api_key: str
    model: str


def pictures(count: int, width: int, height: int) -> list[Content]:
    """Questions about JPEGs of noise, coarse and fine, each as large in bytes as a photo.

    They are cut from one picture, each at a place of its own.
    """
    bands = []
    for _ in range(3):
        coarse = Image.effect_noise((width // 8, height // 8), 120).resize((width * 2, height * 2))
        bands.append(Image.blend(coarse, Image.effect_noise(coarse.size, 60), 0.2))
    whole = Image.merge("RGB", bands)
    places = ((n * 37 % width, n * 53 % height) for n in range(count))
    return [_about(whole.crop((x, y, x + width, y + height))) for x, y in places]


def _about(picture: Image.Image) -> Content:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=90)
    url = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": QUESTION},
    ]


def text(number: int, words: int) -> Content:
    """A question of about `words` words that begins like none of another number."""
    return [{"type": "text", "text": f"{number:04d} " + WORDS * (words // 10)}]


def ask(
    server: Server, questions: Sequence[Content], *, tokens: int, at_once: int = 1
) -> list[Answer]:
    """Ask all questions, never more than `at_once` at a time; each answer has `tokens` tokens.

    Raises:
        httpx.HTTPStatusError: The server refused one.
    """

    async def run() -> list[Answer]:
        turn = asyncio.Semaphore(at_once)
        limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        async with httpx.AsyncClient(
            base_url=f"{server.base_url}/",
            headers={"Authorization": f"Bearer {server.api_key}"},
            limits=limits,
            timeout=httpx.Timeout(600.0),
            trust_env=False,
        ) as client:
            bodies = [body(server.model, question, tokens) for question in questions]
            return await asyncio.gather(*(_ask(client, turn, asked) for asked in bodies))

    return asyncio.run(run())


async def _ask(client: httpx.AsyncClient, turn: asyncio.Semaphore, question: bytes) -> Answer:
    headers = {"Content-Type": "application/json"}
    first = last = 0.0
    usage: dict[str, int] = {}
    async with turn:
        asked = time.perf_counter()
        async with client.stream(
            "POST", "chat/completions", content=question, headers=headers
        ) as reply:
            if reply.is_error:
                await reply.aread()
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                if event["choices"]:
                    last = time.perf_counter()
                    first = first or last  # the first event comes with the first token
                usage = event.get("usage") or usage
    return Answer(asked, first, last, usage["prompt_tokens"], usage["completion_tokens"])
