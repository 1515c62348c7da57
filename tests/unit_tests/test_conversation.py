"""Fitting a conversation to its server."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_glm4v.conversation import LEFT_OUT, count_images, fold, prune_images
from langchain_glm4v.errors import TooManyImagesError

Turn = dict[str, Any]


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def picture(name: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"https://host/{name}.png"}}


def turn(role: str, *content: str | dict[str, Any]) -> Turn:
    if len(content) == 1 and isinstance(content[0], str):
        return {"role": role, "content": content[0]}
    parts = [text(part) if isinstance(part, str) else part for part in content]
    return {"role": role, "content": parts}


HISTORY = [
    turn("system", "Be brief."),
    turn("user", picture("a"), "Compare", picture("b")),
    turn("assistant", "Same."),
    turn("user", "And", picture("c")),
    turn("assistant", "Other."),
    turn("user", picture("d"), "Now?"),
    turn("user", picture("e")),
]


def left(wire: list[Turn]) -> str:
    """Names of the pictures that stay."""
    return "".join(
        part["image_url"]["url"][-5]
        for turn in wire
        if isinstance(turn["content"], list)
        for part in turn["content"]
        if part["type"] == "image_url"
    )


@pytest.mark.parametrize(
    ("keep", "names"), [(9, "abcde"), (5, "abcde"), (4, "bcde"), (3, "cde"), (2, "de")]
)
def test_the_newest_pictures_stay(keep: int, names: str) -> None:
    before = copy.deepcopy(HISTORY)
    pruned = prune_images(HISTORY, keep)

    assert left(pruned) == names
    assert before == HISTORY
    assert [turn["role"] for turn in pruned] == [turn["role"] for turn in HISTORY]


def test_what_stands_in_the_place_of_a_picture() -> None:
    assert prune_images(HISTORY, 4)[1] == turn(
        "user", f"{LEFT_OUT['picture']}Compare", picture("b")
    )


@pytest.mark.parametrize("prefix", [[], [turn("assistant", "<think></think><answer>")]])
def test_the_question_keeps_its_pictures(prefix: list[Turn]) -> None:
    with pytest.raises(TooManyImagesError, match="has 2 pictures, and 1 can be sent"):
        prune_images(HISTORY + prefix, 1)
    assert left(prune_images(HISTORY + prefix, 2)) == "de"


def test_a_first_question_with_too_many() -> None:
    with pytest.raises(TooManyImagesError, match="has 1 pictures, and 0 can be sent"):
        prune_images([turn("user", picture("a"))], 0)


turns = st.builds(
    turn,
    st.sampled_from(["user", "assistant"]),
    st.sampled_from(["Hi", picture("a")]),
    st.sampled_from(["Hi", picture("b")]),
)


@given(st.lists(turns, max_size=6), st.integers(0, 6))
def test_pruning_keeps_as_many_as_it_may(wire: list[Turn], keep: int) -> None:
    total = sum(map(count_images, wire))
    try:
        pruned = prune_images(wire, keep)
    except TooManyImagesError:
        assert total > keep
        return
    assert sum(map(count_images, pruned)) == min(keep, total)
    assert left(pruned) == left(wire)[max(total - keep, 0) :]
    assert str(pruned).count(LEFT_OUT["picture"]) == max(total - keep, 0)


def test_folding_a_conversation() -> None:
    assert fold(HISTORY) == [
        turn(
            "user",
            "Be brief.\n\nUser: ",
            picture("a"),
            "Compare",
            picture("b"),
            "\n\nAssistant: Same.\n\nUser: And",
            picture("c"),
            "\n\nAssistant: Other.\n\nUser: ",
            picture("d"),
            "Now?\n\nUser: ",
            picture("e"),
        )
    ]


def test_folding_texts() -> None:
    wire = [
        turn("system", "Be brief."),
        turn("user", "Hi"),
        turn("assistant", text("Hello")),
        turn("system", "Be kind."),
        turn("user", "And now?"),
    ]

    assert fold(wire) == [
        turn("user", "Be brief.\n\nBe kind.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: And now?")
    ]


def test_a_system_prompt_before_one_question() -> None:
    wire = [turn("system", "Be brief."), turn("user", picture("a"), "What?")]

    assert fold(wire) == [turn("user", "Be brief.\n\n", picture("a"), "What?")]


@pytest.mark.parametrize(
    "wire",
    [
        [],
        [turn("user", "Hi")],
        [turn("user", picture("a"), "Hi")],
        [turn("user", "Hi"), turn("assistant", "<think>")],
        [turn("assistant", "<think>")],
    ],
)
def test_what_needs_no_folding(wire: list[Turn]) -> None:
    assert fold(wire) == wire


def test_a_reply_that_is_begun_stays_the_last_turn() -> None:
    prefix = turn("assistant", "<think></think><answer>")
    wire = [turn("system", "Be brief."), turn("user", "Hi"), prefix]

    assert fold(wire) == [turn("user", "Be brief.\n\nHi"), prefix]
