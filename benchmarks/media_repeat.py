"""What a second question about a document costs, beside the first.

    python benchmarks/media_repeat.py [--json]

A real vLLM server is started on the miniature. Documents of 20 pages of text are made, each of its
own words and shown in 280 pixels, so that all pages fit into the context, and of each two questions
are asked and streamed. The second should send next to nothing, for the server knows the pages by
name, and wait next to nothing, for they are in its prefix cache. One document more goes ahead, so
that start-up is not counted. Bytes are those of the request's body. The time to the first token
runs from the call, the rendering of pages included, and, as "server", from the moment at which the
request is sent. The figures are medians over the documents of the ratios of the second question to
the first.
"""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
from langchain_core.messages import HumanMessage

from figures import Figure, argument_parser, figure, report
from langchain_glm4v import ChatGLM4V

DOCUMENTS = 5
PAGES = 20
LONGEST_SIDE = 280  # pixels: 7x10 tokens a page, so that 20 of them fit into the context
CONTEXT = 8192  # tokens
QUESTIONS = ("How many pages are there?", "Which of them is the longest?")
LINES = 40
SEED = 4

GOALS = {"repeat_bytes_vs_first": "<= 0.05", "repeat_ttft_vs_first": "<= 0.3"}


@dataclass
class Cost:
    """What a question took.

    Attributes:
        bytes: Of the body of the request.
        ttft: Seconds from the call to the first token.
        server: Seconds from the sending of the request to the first token.
    """

    bytes: int
    ttft: float
    server: float


@dataclass
class Sent:
    """The last request for a chat that was sent: its bytes, and when that was."""

    bytes: int = 0
    at: float = 0.0

    def note(self, request: httpx.Request) -> None:
        """Called by the HTTP client for each request."""
        if request.url.path.endswith("/chat/completions"):
            self.bytes, self.at = len(request.read()), time.perf_counter()


def make_document(path: Path, chance: random.Random) -> None:
    """Write a PDF of text that no other has."""
    pymupdf: Any = import_module("pymupdf")
    with pymupdf.open() as document:
        for _ in range(PAGES):
            page = document.new_page()  # A4
            for line in range(LINES):
                words = (f"{chance.randrange(16**6):06x}" for _ in range(9))
                page.insert_text((60, 60 + 18 * line), " ".join(words), fontsize=11)
        document.save(path)


def ask(model: ChatGLM4V, sent: Sent, path: Path, question: str) -> Cost:
    """Stream an answer."""
    pages = {"type": "file", "path": str(path), "longest_side": LONGEST_SIDE}
    messages = [HumanMessage([pages, {"type": "text", "text": question}])]
    first = 0.0
    called = time.perf_counter()
    for chunk in model.stream(messages):
        if not first and (chunk.text or "reasoning_content" in chunk.additional_kwargs):
            first = time.perf_counter()
    return Cost(sent.bytes, first - called, first - sent.at)


def measure(folder: Path) -> list[list[Cost]]:
    """The costs of both questions about each document."""
    chance, sent = random.Random(SEED), Sent()
    results = []
    with (
        httpx.Client(event_hooks={"request": [sent.note]}, trust_env=False, timeout=300) as client,
        ChatGLM4V.managed(
            model="tiny", max_model_len=CONTEXT, temperature=0, max_tokens=8, http_client=client
        ) as model,
    ):
        for number in range(1 + DOCUMENTS):
            path = folder / f"{number}.pdf"
            make_document(path, chance)
            results.append([ask(model, sent, path, question) for question in QUESTIONS])
    return results[1:]


def figures(results: Sequence[Sequence[Cost]]) -> dict[str, Figure]:
    """The figures: medians of the ratios."""
    found: dict[str, Figure] = {}
    for field in ("bytes", "ttft", "server"):
        ratios = [getattr(second, field) / getattr(first, field) for first, second in results]
        name = f"repeat_{field}_vs_first"
        found[name] = figure(statistics.median(ratios), GOALS.get(name, ""))
    return found


def main() -> int:
    """Measure, print, and fail if a goal is missed."""
    as_json = argument_parser(__doc__).parse_args().json
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder))
    if not as_json:
        print(f"{PAGES} pages of {LONGEST_SIDE} pixels; medians of {DOCUMENTS} documents")
        print(f"{'question':<10}{'bytes':>12}{'to first token s':>18}{'of these, server s':>20}")
        for place, name in enumerate(("first", "second")):
            sent, ttft, server = (
                statistics.median(getattr(costs[place], field) for costs in results)
                for field in ("bytes", "ttft", "server")
            )
            print(f"{name:<10}{sent:>12,}{ttft:>18.2f}{server:>20.2f}")
    return report(figures(results), as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
