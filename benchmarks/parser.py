"""How fast `reasoning` takes outputs apart, and whether its time grows with their length alone.

    python benchmarks/parser.py [--json]

Fed are outputs of 2 KB, whole to `parse` and to `Splitter` in chunks of 4 KB of many outputs' text
and of 4 to 20 characters (the size of a token; one call each, so this measures Python's calls). For
the growth outputs of 1 MB and of 10 MB are compared, typical ones and ones made to hurt, in chunks
of 64 characters. CPU time, the best of several runs, because a busy machine stretches it too.
"""

import random
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial

from figures import argument_parser, figure, report
from langchain_glm4v.reasoning import Splitter, parse

RUNS = 3
MB = 1_000_000
GOALS = {"parser_mb_per_s": ">= 20", "parser_linear_10mb": "<= 1.3"}

THOUGHT = "The receipt lists five items, and 3 < 4; <b>the line</b> at the bottom says 42.50.\n"
ANSWER = "The total is <|begin_of_box|>42.50<|end_of_box|> euros, as the last line says. "
OUTPUT = f"<think>{THOUGHT * 18}</think>\n<answer>{ANSWER * 6}</answer>"


def pieces(text: str, sizes: Callable[[], int]) -> list[str]:
    """Cut `text` into pieces of these sizes."""
    found = []
    at = 0
    while at < len(text):
        size = sizes()
        found.append(text[at : at + size])
        at += size
    return found


def split(chunks: Iterable[str]) -> None:
    """Take the chunks of one output apart."""
    splitter = Splitter()
    for chunk in chunks:
        splitter.feed(chunk)
    splitter.flush()


def split_all(outputs: Iterable[Iterable[str]]) -> None:
    """Take several outputs apart."""
    for chunks in outputs:
        split(chunks)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of the best of several runs."""

    def run() -> float:
        before = time.process_time()
        work()
        return time.process_time() - before

    return min(run() for _ in range(RUNS))


def long_output(size: int) -> str:
    """A typical output of `size` characters."""
    return f"<think>{THOUGHT * (size // len(THOUGHT))}</think>\n<answer>{ANSWER}"


SHAPES: dict[str, Callable[[int], str]] = {
    "typical": long_output,
    "no tags": lambda size: "x " * (size // 2),
    "starts of tags": lambda size: "<answer>" + "</answe" * (size // 7),
    "nested thinking": lambda size: "<think>" * (size // 7),
    "boxes": lambda size: "<answer>" + "<|begin_of_box|>1" * (size // 17),
    "blanks": lambda size: "<think>x" + " \n" * (size // 2),
    "an answer in the thinking": lambda size: "<think><answer>" + "x</think>" * (size // 9),
}
"""Outputs of about a given size."""


def speeds() -> dict[str, float]:
    """Megabytes a second by way of feeding."""
    rng = random.Random(1)
    count = MB // len(OUTPUT)
    small = pieces(OUTPUT, lambda: rng.randint(4, 20))
    long = pieces(long_output(MB), lambda: 4096)
    ways: dict[str, Callable[[], object]] = {
        "parse, outputs of 2 KB": lambda: [parse(OUTPUT) for _ in range(count)],
        "Splitter, chunks of 4 KB": partial(split, long),
        "Splitter, 4 to 20 characters": partial(split_all, [small] * count),
    }
    return {name: 1 / seconds(work) for name, work in ways.items()}


def growth() -> dict[str, float]:
    """Time by byte at 10 MB over that at 1 MB, by shape."""
    factors = {}
    for name, shape in SHAPES.items():
        short, long = (pieces(shape(size), lambda: 64) for size in (MB, 10 * MB))
        factors[name] = seconds(partial(split_all, [long])) / seconds(
            partial(split_all, [short] * 10)  # as long in all, so that both meet the same noise
        )
    return factors


def main() -> int:
    """Measure, print, and fail if a goal is missed."""
    as_json = argument_parser(__doc__).parse_args().json
    by_way, by_shape = speeds(), growth()
    *goal_ways, small = by_way.values()
    values = {
        "parser_mb_per_s": min(goal_ways),
        "parser_mb_per_s_small_chunks": small,
        "parser_linear_10mb": max(by_shape.values()),
    }
    if not as_json:
        for name, speed in by_way.items():
            print(f"{name:<32} {speed:>7.1f} MB/s")
        for name, factor in by_shape.items():
            print(f"{name:<32} {factor:>7.2f} times the time by byte at 10 MB")
    found = {name: figure(value, GOALS.get(name, "")) for name, value in values.items()}
    return report(found, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
