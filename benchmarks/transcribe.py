"""How fast scanned pages become text, beside a plain loop and the way olmOCR drives a server.

    python benchmarks/transcribe.py [--json] [--pages 60] [--many 1000]

On one managed server of the miniature, in turns: `GLM4VLoader`; a loop that renders a page, asks
`ChatOpenAI`, and goes to the next; and all pages at once, each rendered by poppler's programs as a
PNG, as olmOCR's pipeline does it. Meanwhile the server's own count of running requests is looked
at. Then the loader alone, on a server that answers at once: what 100 and 1,000 pages cost the
client in memory and processor time. Needs poppler-utils for olmOCR's way.
"""

import asyncio
import base64
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from PIL import Image
from pydantic import SecretStr

from figures import Figure, argument_parser, figure, report
from langchain_glm4v import ChatGLM4V, GLM4VLoader, GLM4VServer
from langchain_glm4v.reasoning import parse
from langchain_glm4v.server import metrics
from processes import cpu_seconds, peak_mib
from slips import PROMPT, SIZE, write_pdf

pymupdf: Any = importlib.import_module("pymupdf")  # it has no type hints

LONGEST = max(SIZE)
TOKENS = 256  # of an answer, at most
LOOK = 0.05  # seconds between two looks at the server
# As olmOCR's renderer calls poppler: the size of the page, then the page.
PDFINFO = ("pdfinfo", "-f", "{page}", "-l", "{page}", "-box", "-enc", "UTF-8", "{path}")
PDFTOPPM = ("pdftoppm", "-png", "-f", "{page}", "-l", "{page}", "-r", "72", "{path}")
MOST_AT_ONCE = 1600  # requests of olmOCR's pipeline

Way: TypeAlias = Callable[[GLM4VServer, Path, int], list[str]]
"""Transcribes the pages of a document."""


def loader(server: GLM4VServer, path: Path, count: int) -> list[str]:
    """Ours."""
    with _model(server.base_url, server.api_key, server.served_model_name) as model:
        return [document.page_content for document in _loader(path, model).lazy_load()][:count]


def _model(base_url: str, api_key: str, name: str) -> ChatGLM4V:
    return ChatGLM4V(
        base_url=base_url,
        api_key=SecretStr(api_key),
        model=name,
        temperature=0,
        max_tokens=TOKENS,
    )


def _loader(path: Path, model: ChatGLM4V) -> GLM4VLoader:
    return GLM4VLoader(path, llm=model, prompt=PROMPT, longest_side=LONGEST)


def loop(server: GLM4VServer, path: Path, count: int) -> list[str]:
    """Render, ask, next."""
    chat = ChatOpenAI(
        base_url=server.base_url,
        api_key=SecretStr(server.api_key),
        model=server.served_model_name,
        temperature=0,
        max_completion_tokens=TOKENS,
        extra_body={"skip_special_tokens": False},
    )
    document = pymupdf.open(path)
    texts = []
    for page in document:
        pixels = page.get_pixmap(dpi=72)
        file = io.BytesIO()
        Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples).save(file, "PNG")
        reply = chat.invoke([HumanMessage(_question(file.getvalue()))])
        texts.append(parse(str(reply.content)).answer)
    return texts[:count]


def olmocr(server: GLM4VServer, path: Path, count: int) -> list[str]:
    """All pages at once, each with two programs of poppler's and a request of its own."""

    async def output(command: Sequence[str], page: int) -> bytes:
        filled = [part.format(page=page, path=path) for part in command]
        process = await asyncio.create_subprocess_exec(*filled, stdout=subprocess.PIPE)
        return (await process.communicate())[0]

    async def main() -> list[str]:
        # Pages are rendered a few at once, but all of them before any answer is needed.
        rendering = asyncio.Semaphore(max(1, len(os.sched_getaffinity(0)) - 2))
        asking = asyncio.Semaphore(MOST_AT_ONCE)
        headers = {"Authorization": f"Bearer {server.api_key}"}
        async with httpx.AsyncClient(timeout=600, trust_env=False, headers=headers) as client:

            async def page(number: int) -> str:
                async with rendering:
                    await output(PDFINFO, number)
                    png = await output(PDFTOPPM, number)
                body = {
                    "model": server.served_model_name,
                    "messages": [{"role": "user", "content": _question(png)}],
                    "temperature": 0,
                    "max_tokens": TOKENS,
                    "skip_special_tokens": False,
                }
                async with asking:
                    reply = await client.post(f"{server.base_url}/chat/completions", json=body)
                reply.raise_for_status()
                return parse(reply.json()["choices"][0]["message"]["content"]).answer

            return await asyncio.gather(*(page(n + 1) for n in range(count)))

    return asyncio.run(main())


def _question(png: bytes) -> list[dict[str, Any] | str]:
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": PROMPT},
    ]


WAYS: dict[str, Way] = {"loader": loader, "loop": loop, "olmocr": olmocr}


@contextmanager
def idle_share(server: GLM4VServer) -> Iterator[Callable[[], float]]:
    """How often the server had no request running during the block, 0 to 1."""
    running: list[bool] = []
    over = threading.Event()

    def look() -> None:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        url = server.base_url.removesuffix("/v1") + "/metrics"
        with httpx.Client(trust_env=False, headers=headers, timeout=10) as client:
            while not over.wait(LOOK):
                load = metrics.load(metrics.parse(client.get(url).text))
                running.append(bool(load.running))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: 1 - sum(running) / max(1, len(running))
    finally:
        over.set()
        thread.join()


def on_vllm(folder: Path, count: int) -> dict[str, Figure]:
    """Pages per second of each way on one server, and how often it had nothing to do."""
    found: dict[str, Figure] = {}
    speeds = {}
    with GLM4VServer("tiny") as server:
        warm_up = folder / "warm_up.pdf"
        write_pdf(warm_up, 4, seed=1)
        for name, way in WAYS.items():
            way(server, warm_up, 4)
            # Pages of its own: the server keeps what it has seen.
            path = folder / f"{name}.pdf"
            texts = write_pdf(path, count, seed=2 + list(WAYS).index(name))
            with idle_share(server) as share:
                began = time.perf_counter()
                read = way(server, path, count)
                seconds = time.perf_counter() - began
            idle = share()
            speeds[name] = count / seconds
            right = sum(a.strip() == b for a, b in zip(read, texts, strict=True))
            found[f"{name}_pages_per_s"] = figure(speeds[name])
            found[f"{name}_pages_right"] = figure(right / count)
            found[f"{name}_server_idle"] = figure(idle, "<= 0.05" if name == "loader" else "")
    found["loader_vs_loop"] = figure(speeds["loader"] / speeds["loop"], ">= 2.7")
    found["loader_vs_olmocr"] = figure(speeds["loader"] / speeds["olmocr"])
    return found


def on_stub(folder: Path, few: int, many: int) -> dict[str, Figure]:
    """What pages cost the client, on a server that answers at once."""
    stub = Path(__file__).with_name("stub_server.py")
    server = subprocess.Popen(
        [sys.executable, stub], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    url = f"http://127.0.0.1:{server.stdout.readline().split()[0]}/v1"
    costs = {}
    for count in (few, many):
        path = folder / f"{count}.pdf"
        write_pdf(path, count)
        client = [sys.executable, __file__, "--client", url, str(path)]
        costs[count] = json.loads(subprocess.check_output(client))
    server.stdin.close()
    server.wait()
    assert costs[many]["pages"] == many
    return {
        "client_cpu_s_per_page": figure(costs[many]["cpu_s"] / many, "<= 0.15"),
        f"peak_mib_{few}_pages": figure(costs[few]["peak_mib"]),
        f"peak_mib_{many}_pages": figure(costs[many]["peak_mib"]),
        "peak_many_vs_few": figure(costs[many]["peak_mib"] / costs[few]["peak_mib"], "<= 1.1"),
    }


def client(url: str, path: Path) -> None:
    """What a client of its own costs; printed as JSON."""
    began = cpu_seconds()  # without the imports
    with _model(url, "key", "glm") as model:
        count = sum(1 for _ in _loader(path, model).lazy_load())
    print(json.dumps({"pages": count, "cpu_s": cpu_seconds() - began, "peak_mib": peak_mib()}))


def main() -> int:
    """Measure, print, and fail if a goal is missed."""
    if sys.argv[1:2] == ["--client"]:
        client(sys.argv[2], Path(sys.argv[3]))
        return 0
    parser = argument_parser(__doc__)
    parser.add_argument("--pages", type=int, default=60, help="pages on the miniature")
    parser.add_argument("--many", type=int, default=1000, help="pages on a server of no cost")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = on_vllm(Path(folder), given.pages) | on_stub(Path(folder), 100, given.many)
    return report(found, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
