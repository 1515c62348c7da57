"""`glm4v bench`: how fast a server answers, with many questions at once."""

import argparse
import base64
import contextlib
import http.client
import io
import json
import os
import re
import secrets
import statistics
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from langchain_glm4v.cli.finding import KEY_VARIABLE, Target, add_target, target
from langchain_glm4v.cli.terminal import print_json, say, table
from langchain_glm4v.cli.values import whole
from langchain_glm4v.errors import ServerError

QUESTION = "Describe the picture."
TIMEOUT = 600.0  # seconds without a byte
NO_PICTURE = "none"
# What no connection, a refusal, or a reply of another kind raises.
_NOT_ANSWERED = (OSError, ValueError, LookupError, TypeError, http.client.HTTPException)
# Figure -> how it is printed.
FIGURES: Mapping[str, str] = {
    "requests": "requests",
    "failed": "of which failed",
    "wall_s": "seconds in all",
    "requests_per_s": "requests a second",
    "prompt_tokens_per_s": "tokens of prompts a second",
    "output_tokens_per_s": "tokens of answers a second",
    "prompt_tokens": "tokens of a prompt, mean",
    "output_tokens": "tokens of an answer, mean",
    "first_token_p50_s": "seconds to the first token, median",
    "first_token_p99_s": "seconds to the first token, 99 %",
    "token_p50_s": "seconds between tokens, median",
}


@dataclass(frozen=True)
class Answer:
    """How an answer came; times are of `time.perf_counter()`.

    Attributes:
        asked: When the request was sent.
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


def _size(text: str) -> tuple[int, int] | None:
    """Width and height in pixels; None for no picture."""
    if text == NO_PICTURE:
        return None
    if not re.fullmatch(r"[1-9]\d{0,3}x[1-9]\d{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 1344x1008, up to 9999x9999")
    width, height = map(int, text.split("x"))
    return width, height


def _add_bench(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    for name, default, described in (
        ("requests", 32, "questions in all"),
        ("concurrency", 8, "questions at once"),
        ("tokens", 128, "tokens of each answer"),
    ):
        parser.add_argument(
            f"--{name}",
            type=whole(1),
            default=default,
            metavar="N",
            help=f"{described}. Default: {default}",
        )
    parser.add_argument(
        "--picture",
        type=_size,
        default="448x336",
        metavar="WIDTHxHEIGHT",
        help=f"pixels of the picture in each question, or {NO_PICTURE!r}. Default: %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _bench(args: argparse.Namespace) -> int:
    with target(args) as server:
        say(f"asking {server.base_url} {args.requests} questions, {args.concurrency} at once")
        contents = [_content(args.picture) for _ in range(args.requests)]
        model = server.model or _only_model(server)
        bodies = [body(model, content, args.tokens) for content in contents]
        outcomes = _outcomes(server, bodies, args.concurrency)
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    if not answers:
        raise ServerError(f"{server.base_url} answered no question: {outcomes[0]}")
    found = summary(answers, failed=len(outcomes) - len(answers))
    if args.json:
        print_json({"base_url": server.base_url, "model": model, **found})
    else:
        print(table([(told, f"{found[name]:,.4g}") for name, told in FIGURES.items()]))
    return 0 if len(answers) == len(outcomes) else 1


def _content(size: tuple[int, int] | None) -> list[dict[str, Any]]:
    """A question like no other: else the caches of the server would answer."""
    text = {"type": "text", "text": f"{secrets.token_hex(4)} {QUESTION}"}
    if size is None:
        return [text]
    from PIL import Image  # noqa: PLC0415

    data = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(data, "JPEG", quality=80)
    url = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return [{"type": "image_url", "image_url": {"url": url}}, text]


def body(model: str, content: list[dict[str, Any]], tokens: int) -> bytes:
    """A request that streams an answer of so many tokens, the same at each time."""
    fields = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(fields).encode()


def _request(
    server: Target, method: str, path: str, content: bytes | None
) -> http.client.HTTPResponse:
    at = urlsplit(server.base_url)
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = kind(at.hostname or "", at.port, timeout=TIMEOUT)
    key = server.api_key or os.environ.get(KEY_VARIABLE) or "EMPTY"
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request(method, f"{at.path.rstrip('/')}{path}", content, headers)
    reply = connection.getresponse()
    if reply.status != http.HTTPStatus.OK:
        message = f"{path} answered {reply.status}: {reply.read(300).decode(errors='replace')}"
        raise ValueError(message)
    return reply


def _only_model(server: Target) -> str:
    try:
        with _request(server, "GET", "/models", None) as reply:
            found: str = json.load(reply)["data"][0]["id"]
    except _NOT_ANSWERED as error:
        message = (
            f"{server.base_url} cannot be asked: {error}; check --base-url and ${KEY_VARIABLE}"
        )
        raise ServerError(message) from error
    return found


def _outcomes(server: Target, questions: Sequence[bytes], at_once: int) -> list[Answer | Exception]:
    """Ask questions, in threads that end with the program: after Ctrl-C nobody waits for them."""
    waiting = deque(questions)
    found: list[Answer | Exception] = []

    def work() -> None:
        with contextlib.suppress(IndexError):  # there are no more
            while True:
                found.append(_outcome(server, waiting.popleft()))

    threads = [threading.Thread(target=work, daemon=True) for _ in questions[:at_once]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _outcome(server: Target, question: bytes) -> Answer | Exception:
    """Ask one question; what went wrong, if it is not answered."""
    asked = time.perf_counter()
    try:
        with _request(server, "POST", "/chat/completions", question) as reply:
            return _read(reply, asked)
    except _NOT_ANSWERED as error:
        return error


def _read(reply: http.client.HTTPResponse, asked: float) -> Answer:
    first = last = 0.0
    usage: dict[str, int] = {}
    for line in reply:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[len(b"data: ") :])
        if "error" in event:
            raise ValueError(str(event["error"]))
        if event["choices"]:
            last = time.perf_counter()
            first = first or last  # the first event comes with the first token
        usage = event.get("usage") or usage
    return Answer(asked, first, last, usage["prompt_tokens"], usage["completion_tokens"])


def summary(answers: Sequence[Answer], *, failed: int = 0) -> dict[str, float]:
    """What a load's answers come to: rates by second, times in seconds."""
    wall = max(a.last for a in answers) - min(a.asked for a in answers)
    waits = sorted(a.first - a.asked for a in answers)
    return {
        "requests": len(answers) + failed,
        "failed": failed,
        "wall_s": wall,
        "requests_per_s": len(answers) / wall,
        "prompt_tokens_per_s": sum(a.prompt_tokens for a in answers) / wall,
        "output_tokens_per_s": sum(a.tokens for a in answers) / wall,
        "prompt_tokens": statistics.mean(a.prompt_tokens for a in answers),
        "output_tokens": statistics.mean(a.tokens for a in answers),
        "first_token_p50_s": statistics.median(waits),
        "first_token_p99_s": waits[min(len(waits) - 1, round(0.99 * len(waits)))],
        "token_p50_s": statistics.median(
            (a.last - a.first) / max(a.tokens - 1, 1) for a in answers
        ),
    }


COMMANDS: Mapping[str, Any] = {"bench": (_add_bench, _bench)}
