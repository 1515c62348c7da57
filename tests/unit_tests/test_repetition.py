"""The guard against endless repetition."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_glm4v.repetition import RepetitionGuard, is_periodic


def repeats_after(text: str, size: int) -> int | None:
    """Characters after which the guard speaks up."""
    guard = RepetitionGuard()
    for at in range(0, len(text), size):
        if guard.repeats(text[at : at + size]):
            return at + size
    return None


@pytest.mark.parametrize("size", [1, 3, 700, 100_000])
@pytest.mark.parametrize("pattern", ["a", "word ", "The total is 42. Wait, let me check again.\n"])
@pytest.mark.parametrize("before", ["", "<think>I look at the picture. "])
def test_endless_repetition_is_found(pattern: str, before: str, size: int) -> None:
    text = before + pattern * (40_000 // len(pattern))
    found = repeats_after(text, size)

    assert found is not None
    limit = len(before) + max(640, 40 * len(pattern)) + 400 + size
    assert found <= max(limit, size)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=" * 600,
        ("| " + " | ".join(["   "] * 6) + " |\n") * 30,  # an empty table
        "".join(f"| {number} | item | 0.00 |\n" for number in range(2000)),
        "".join(f"{number}: the end of every line is one and the same\n" for number in range(900)),
        "".join(random.Random(1).choices("abc ", k=20_000)),
    ],
)
def test_text_that_is_wanted_passes(text: str) -> None:
    assert repeats_after(text, 7) is None


def test_a_repetition_that_ended_passes() -> None:
    assert not is_periodic("word " * 1000 + "and so it ends, said the old man.")


@given(st.text(max_size=300), st.text(min_size=1, max_size=12), st.integers(0, 11))
def test_any_pattern_at_the_end(before: str, pattern: str, cut: int) -> None:
    repeated = pattern * 800
    assert is_periodic(before + repeated[: len(repeated) - cut])
    assert not is_periodic(before[:100] + pattern * 3)
