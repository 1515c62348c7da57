"""Load for a server: questions about pictures, asked one after the other or many at once."""

import asyncio
import base64
import io
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
from PIL import Image

QUESTION = "Describe the picture."
WORDS = "one two three four five six seven eight nine ten "
Content: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True)
class Server:
    """Where to ask, and as whom."""

    base_url: str
    api_key: str
    model: str


@dataclass(frozen=True)
class Answer:
    """How an answer came; times are `time.perf_counter()`.

    Attributes:
        asked: When the request began.
        first: When the first token was there.
        last: When the last token was there.
        prompt_tokens: Tokens of the question, by the server's count.
        tokens: Tokens of the answer, by the server's count.
    """

    asked: float
    first: float
    last: float
    prompt_tokens: int
    tokens: int


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
            bodies = [_body(server.model, question, tokens) for question in questions]
            return await asyncio.gather(*(_ask(client, turn, body) for body in bodies))

    return asyncio.run(run())


def _body(model: str, question: Content, tokens: int) -> bytes:
    return json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()


async def _ask(client: httpx.AsyncClient, turn: asyncio.Semaphore, body: bytes) -> Answer:
    headers = {"Content-Type": "application/json"}
    first = last = 0.0
    usage: dict[str, int] = {}
    async with turn:
        asked = time.perf_counter()
        async with client.stream(
            "POST", "chat/completions", content=body, headers=headers
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


def summary(answers: Sequence[Answer]) -> dict[str, float]:
    """What a load's answers come to: rates by second, times in seconds."""
    wall = max(a.last for a in answers) - min(a.asked for a in answers)
    waits = sorted(a.first - a.asked for a in answers)
    return {
        "requests": len(answers),
        "wall_s": wall,
        "requests_per_s": len(answers) / wall,
        "output_tokens_per_s": sum(a.tokens for a in answers) / wall,
        "prompt_tokens_per_s": sum(a.prompt_tokens for a in answers) / wall,
        "prompt_tokens": statistics.mean(a.prompt_tokens for a in answers),
        "output_tokens": statistics.mean(a.tokens for a in answers),
        "first_token_p50_s": statistics.median(waits),
        "first_token_p99_s": waits[min(len(waits) - 1, round(0.99 * len(waits)))],
        "token_p50_s": statistics.median(
            (a.last - a.first) / max(a.tokens - 1, 1) for a in answers
        ),
    }
