"""What `ChatGLM4V` costs beside `ChatOpenAI` and the raw `openai` client.

    python benchmarks/chat_overhead.py [--json]

All three talk to one local server that answers at once (`stub_server.py`, a process of its own), in
turn within each round: one call after the other, and 64 at once with asyncio. Wall time is compared
for whole replies; for streams CPU time of the client's process by event that the server sent,
because the server takes part of the wall time. The figures are medians over the rounds of the
ratios within a round. `ChatGLM4V` takes thinking and answer apart meanwhile, the others do not.
"""

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from pydantic import SecretStr

from figures import Figure, argument_parser, figure, report
from langchain_glm4v import ChatGLM4V

ROUNDS = 7
CALLS = 40  # of a round, one after the other
STREAMS = 6  # of a round, one after the other
AT_ONCE = 64
QUESTION = "What is the total?"
PEER, RAW, OURS = "ChatOpenAI", "openai", "ChatGLM4V"

GOALS = {
    "invoke_wall_vs_chatopenai": "<= 1.0",
    "invoke64_wall_vs_chatopenai": "<= 1.0",
    "stream_cpu_per_chunk_vs_chatopenai": "<= 0.8",
    "stream64_cpu_per_chunk_vs_chatopenai": "<= 0.8",
}
"""Figures and what they should be; the first word is the task."""

Seconds: TypeAlias = float


@dataclass(frozen=True)
class Client:
    """The four ways to call a model.

    Attributes:
        invoke: Get a whole reply.
        ainvoke: The same with asyncio.
        stream: Get a reply event by event and drop it.
        astream: The same with asyncio.
    """

    invoke: Callable[[], object]
    ainvoke: Callable[[], Coroutine[Any, Any, object]]
    stream: Callable[[], None]
    astream: Callable[[], Coroutine[Any, Any, None]]


def langchain_client(model: BaseChatModel) -> Client:
    """Calls of a LangChain model."""

    def stream() -> None:
        for _ in model.stream(QUESTION):
            pass

    async def astream() -> None:
        async for _ in model.astream(QUESTION):
            pass

    return Client(lambda: model.invoke(QUESTION), lambda: model.ainvoke(QUESTION), stream, astream)


def raw_client(client: OpenAI, aclient: AsyncOpenAI) -> Client:
    """Calls of OpenAI's client."""
    request: dict[str, Any] = {
        "model": "glm",
        "messages": [{"role": "user", "content": QUESTION}],
    }
    streamed = {**request, "stream": True, "stream_options": {"include_usage": True}}

    def stream() -> None:
        for _ in client.chat.completions.create(**streamed):
            pass

    async def astream() -> None:
        async for _ in await aclient.chat.completions.create(**streamed):
            pass

    return Client(
        lambda: client.chat.completions.create(**request),
        lambda: aclient.chat.completions.create(**request),
        stream,
        astream,
    )


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """Address of a stub server while it runs, and how many events its streams have."""
    script = Path(__file__).with_name("stub_server.py")
    process = subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:  # leaving closes its standard input, which ends it
        assert process.stdout is not None
        port, events = process.stdout.readline().split()
        yield f"http://127.0.0.1:{port}/v1", int(events)


def clients(url: str) -> dict[str, Client]:
    """The three that are compared, by name."""
    key = SecretStr("EMPTY")
    return {
        RAW: raw_client(
            OpenAI(base_url=url, api_key="EMPTY"), AsyncOpenAI(base_url=url, api_key="EMPTY")
        ),
        PEER: langchain_client(
            ChatOpenAI(model="glm", base_url=url, api_key=key, stream_usage=True)
        ),
        OURS: langchain_client(ChatGLM4V(model="glm", base_url=url, api_key=key)),
    }


def tasks(loop: asyncio.AbstractEventLoop, events: int) -> dict[str, Callable[[Client], Seconds]]:
    """What is measured, by name; `events` is the number of events of a stream."""

    def times(count: int, call: Callable[[], object]) -> Callable[[], object]:
        return lambda: [call() for _ in range(count)]

    def at_once(call: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], object]:
        async def gathered() -> None:
            await asyncio.gather(*(call() for _ in range(AT_ONCE)))

        return lambda: loop.run_until_complete(gathered())

    def measured(clock: Callable[[], float], work: Callable[[], object], units: int) -> Seconds:
        gc.collect()
        before = clock()
        work()
        return (clock() - before) / units

    wall, cpu = time.perf_counter, time.process_time
    return {
        "invoke": lambda client: measured(wall, times(CALLS, client.invoke), CALLS),
        "invoke64": lambda client: measured(wall, at_once(client.ainvoke), AT_ONCE),
        "stream": lambda client: measured(cpu, times(STREAMS, client.stream), STREAMS * events),
        "stream64": lambda client: measured(cpu, at_once(client.astream), AT_ONCE * events),
    }


def measure(rounds: int) -> dict[str, dict[str, list[Seconds]]]:
    """Seconds by task and client, of each round after a first one that warms up."""
    loop = asyncio.new_event_loop()
    results: dict[str, dict[str, list[Seconds]]] = {}
    with server() as (url, events):
        compared = clients(url)
        for _ in range(rounds + 1):
            for task, measured in tasks(loop, events).items():
                for name, client in compared.items():
                    results.setdefault(task, {}).setdefault(name, []).append(measured(client))
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    return {
        task: {name: seconds[1:] for name, seconds in by_name.items()}
        for task, by_name in results.items()
    }


def ratio(of: list[Seconds], to: list[Seconds]) -> float:
    """Median of the ratios within a round."""
    return statistics.median(one / other for one, other in zip(of, to, strict=True))


def figures(results: dict[str, dict[str, list[Seconds]]]) -> dict[str, Figure]:
    """The figures, those without a goal included."""
    found: dict[str, Figure] = {}
    for name, goal in GOALS.items():
        seconds = results[name.partition("_")[0]]
        found[name] = figure(ratio(seconds[OURS], seconds[PEER]), goal)
        to_raw = name.replace("chatopenai", "raw_client")
        found[to_raw] = figure(ratio(seconds[OURS], seconds[RAW]))
    return found


def main() -> int:
    """Measure, print, and fail if a goal is missed."""
    as_json = argument_parser(__doc__).parse_args().json
    os.environ["LANGSMITH_TRACING"] = "false"
    results = measure(ROUNDS)
    if not as_json:
        print(f"microseconds, median of {ROUNDS} rounds; wall by call, CPU by streamed event")
        print(f"{'task':<12}" + "".join(f"{name:>14}" for name in (RAW, PEER, OURS)))
        for task, seconds in results.items():
            medians = (statistics.median(seconds[name]) * 1e6 for name in (RAW, PEER, OURS))
            print(f"{task:<12}" + "".join(f"{median:>14.1f}" for median in medians))
    return report(figures(results), as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
