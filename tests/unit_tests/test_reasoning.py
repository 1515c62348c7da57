"""The output language: every shape seen in the wild, and every way to cut it into chunks."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_glm4v.reasoning import ParsedOutput, Splitter, parse

BOX, END_BOX = "<|begin_of_box|>", "<|end_of_box|>"

# name: text, reasoning, answer, boxes
SHAPES: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "full contract": ("<think>a b</think><answer>c d</answer>", "a b", "c d", ()),
    "lines between blocks": ("\n<think>\na\n</think>\n\n<answer>\nc\n</answer>\n", "a", "c", ()),
    "end tag was the stop token": ("<think>a</think><answer>c", "a", "c", ()),
    "think tag is in the prompt": ("a</think><answer>c</answer>", "a", "c", ()),
    "think tag is in the prompt, nothing thought": ("</think><answer>c", "", "c", ()),
    "no thinking": ("<answer>c</answer>", "", "c", ()),
    "answer tag is in the prompt": ("c</answer>", "", "c", ()),
    "answer without its tag": ("<think>a</think>1+x", "a", "1+x", ()),
    "thinking never closed": ("<think>a b", "a b", "", ()),
    "thinking never closed, answer begun": ("<think>a<answer>c</answer>", "a", "c", ()),
    "thinks again behind a closed prefix": (
        "<think>\n</think>\na\n</think>\n<answer>c",
        "a",
        "c",
        (),
    ),
    "thinks twice": ("<think>a </think><think>b</think><answer>c", "a b", "c", ()),
    "nested thinking": ("<think>a <think>b</think> c</think><answer>d", "a b c", "d", ()),
    "think inside the answer": (
        "<think>a</think><answer>b <think>c</think> d</answer>",
        "a",
        "b <think>c</think> d",
        (),
    ),
    "thinking talks about the answer tag": (
        "<think>I put it in <answer></answer> tags.</think><answer>c",
        "I put it in <answer></answer> tags.",
        "c",
        (),
    ),
    "answer talks about the answer tag": (
        "<think>a</think><answer>use <answer> here",
        "a",
        "use <answer> here",
        (),
    ),
    "answer restated": (
        "<think>a</think><answer>c</answer>So it is\n<answer>c</answer>",
        "a",
        "c",
        (),
    ),
    "no tags": ("A cat on a mat.\n", "", "A cat on a mat.", ()),
    "nothing": ("", "", "", ()),
    "thinking without an answer": ("<think>a</think>\n", "a", "", ()),
    "text between thinking and answer": ("<think>a</think> So:<answer>c", "a So:", "c", ()),
    "box": (f"<think>a</think><answer>It is {BOX}42{END_BOX}.</answer>", "a", "It is 42.", ("42",)),
    "box without answer tag": (f"<think>a</think>{BOX} 42 {END_BOX}", "a", "42", ("42",)),
    "box without any tag": (f"{BOX}42{END_BOX}", "", "42", ("42",)),
    "box in the thinking alone": (
        f"<think>{BOX}1{END_BOX}</think><answer>2</answer>",
        "1",
        "2",
        (),
    ),
    "two boxes": (f"<answer>{BOX}1{END_BOX} and {BOX}2{END_BOX}", "", "1 and 2", ("1", "2")),
    "empty box": (f"<answer>{BOX}{END_BOX}c", "", "c", ("",)),
    "box never closed": (f"<answer>c {BOX}42", "", "c 42", ("42",)),
    "box closed by the end tag": (f"<answer>c {BOX}42</answer>", "", "c 42", ("42",)),
    "box begun twice": (f"<answer>{BOX}1}}{BOX}2{END_BOX}", "", "1}2", ("2",)),
    "box end alone": (f"<answer>{{c}}{END_BOX}", "", "{c}", ()),
    "box tags misspelt": ("<answer><|start_of_box|>1</|end_of_box|>", "", "1", ("1",)),
    "boxed in LaTeX": (r"<answer>\boxed{\frac{1}{2}}", "", r"\boxed{\frac{1}{2}}", ()),
    "coordinates": (f"<answer>{BOX}[[1,2,3,4]]{END_BOX}", "", "[[1,2,3,4]]", ("[[1,2,3,4]]",)),
    "JSON in a fence": (
        '<answer>```json\n{"a": "<b>"}\n```</answer>',
        "",
        '```json\n{"a": "<b>"}\n```',
        (),
    ),
    "HTML": (
        "<think>a</think><answer><html><thead><answered></html>",
        "a",
        "<html><thead><answered></html>",
        (),
    ),
    "two languages": ("<think>看图</think><answer>一只猫 cat", "看图", "一只猫 cat", ()),
    "role token behind the answer": ("<think>a</think><answer>c\n<|user|>\n", "a", "c", ()),
    "end of text behind no tags": ("c<|endoftext|>", "", "c", ()),
    "role token inside the answer": (
        "<answer>the <|user|> token",
        "",
        "the <|user|> token",
        (),
    ),
    "role token in front": ("<|assistant|>\n<think>a</think><answer>c", "a", "c", ()),
    "phone action": (
        "<answer>do(action='Tap', element=[1,2])",
        "",
        "do(action='Tap', element=[1,2])",
        (),
    ),
    "end tag cut in two": ("<think>a</think><answer>c</ans", "a", "c", ()),
    "think tag cut in two": ("<think>a</thi", "a", "", ()),
    "comparison at the end": ("<answer>1 <", "", "1 <", ()),
}


@pytest.mark.parametrize(
    ("text", "reasoning", "answer", "boxes"), SHAPES.values(), ids=SHAPES.keys()
)
def test_shape(text: str, reasoning: str, answer: str, boxes: tuple[str, ...]) -> None:
    parsed = parse(text, finish_reason="stop")

    assert (parsed.reasoning, parsed.answer, parsed.boxes) == (reasoning, answer, boxes)
    assert parsed.raw == text


@pytest.mark.parametrize(
    ("text", "finish_reason", "stop_reason", "complete"),
    [
        ("<think>a</think><answer>c", "stop", 151348, True),
        ("<think>a</think><answer>c", "length", None, False),
        ("<think>a</think><answer>c</answer>", "length", None, True),
        ("<think>a</think><answer>c", "repetition", "repetition_detected", False),
        ("<think>a</think><answer>c", None, "repetition_detected", False),
        ("<think>a</think><answer>c", None, None, True),
        ("<think>a", "length", None, False),
        ("<think>a", "stop", "a stop string", False),
        ("<think>a</think>", "stop", None, False),
        ("<think>a</think>c", "stop", None, True),
        ("c", "stop", None, True),
        ("c", "length", None, False),
        ("", "tool_calls", None, True),
    ],
)
def test_complete(
    text: str, finish_reason: str | None, stop_reason: int | str | None, *, complete: bool
) -> None:
    assert parse(text, finish_reason=finish_reason, stop_reason=stop_reason).complete is complete


def test_reasoning_streams_before_it_ends() -> None:
    splitter = Splitter()

    assert splitter.feed("<think>one two") == [("reasoning", "one two")]


def test_answer_streams_before_it_ends() -> None:
    splitter = Splitter()

    assert splitter.feed("<think>a</think><answer>one <b>two") == [
        ("reasoning", "a"),
        ("answer", "one <b>two"),
    ]


def test_a_start_of_a_tag_is_held_until_it_is_none() -> None:
    splitter = Splitter()

    assert splitter.feed("<answer>x </ans") == [("answer", "x")]
    assert splitter.feed("wers>") == [("answer", " </answers>")]


@pytest.mark.parametrize("text", ["no tags yet", "<think>a</think>perhaps the answer"])
def test_what_is_open_is_held(text: str) -> None:
    splitter = Splitter()

    assert "perhaps" not in str(splitter.feed(text))
    assert ("answer", text.removeprefix("<think>a</think>")) in splitter.flush()


def test_eager_decides_at_once() -> None:
    assert Splitter(eager=True).feed("no tags yet") == [("answer", "no tags yet")]
    assert Splitter(eager=True).feed("<think>a</think>\nb") == [("reasoning", "a"), ("answer", "b")]
    assert parse("b </think> c", eager=True).answer == "b </think> c"


@pytest.mark.parametrize(
    ("text", "reasoning", "answer", "complete"),
    [
        ("<think>a</think><answer>b", "a", "b", True),
        ("<think>a</think>\n<answer> b\n", "a", " b\n", True),
        ("<answer></answer><think><answer>", "", "</answer><think><answer>", True),
        (f"<think>{BOX}a{END_BOX}</think><answer>{BOX}b", "a", f"{BOX}b", True),
        ("a <b> </think><answer>c", "a <b>", "c", True),
        ("<think>a</think>b", "ab", "", False),
        ("<think>a <ans", "a", "", False),
        ("", "", "", False),
    ],
)
def test_strict(text: str, reasoning: str, answer: str, *, complete: bool) -> None:
    parsed = parse(text, strict=True)

    assert (parsed.reasoning, parsed.answer, parsed.boxes) == (reasoning, answer, ())
    assert parsed.complete is complete
    assert not parse(text, finish_reason="length", strict=True).complete


def test_a_strict_answer_streams_at_once() -> None:
    splitter = Splitter(strict=True)

    assert splitter.feed("<think>a") == [("reasoning", "a")]
    assert splitter.feed("</think><answer>b <") == [("answer", "b <")]
    assert splitter.feed("/answer") == [("answer", "/answer")]


FRAGMENTS = st.sampled_from(
    [
        *("<think>", "</think>", "<answer>", "</answer>", BOX, END_BOX),
        *("<|user|>", "<|endoftext|>", "<|start_of_box|>", "</|end_of_box|>"),
        *("<", "</", "<th", "ink>", "</answ", "<|", "|>", "<|begin_of", "</|end_"),
        *(" ", "\n", "\u3000", "word", "字", "{", "\x00"),
    ]
)
TEXTS = st.lists(FRAGMENTS | st.text(max_size=3), max_size=24).map("".join)
PLAIN = st.text(st.characters(exclude_characters="<>"), max_size=20)


def split(
    text: str, cuts: list[int], *, eager: bool = False, strict: bool = False
) -> tuple[list[tuple[str, str]], Splitter]:
    splitter = Splitter(eager=eager, strict=strict)
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces: list[tuple[str, str]] = []
    for start, end in pairwise(edges):
        pieces += splitter.feed(text[start:end])
    return pieces + splitter.flush(), splitter


def joined(pieces: list[tuple[str, str]], kind: str) -> str:
    return "".join(text for of, text in pieces if of == kind)


@given(TEXTS, st.lists(st.integers(0, 500), max_size=30), st.booleans(), st.booleans())
def test_every_chunking_gives_the_same(
    text: str, cuts: list[int], eager: bool, strict: bool
) -> None:
    pieces, splitter = split(text, cuts, eager=eager, strict=strict)
    reply = ParsedOutput(
        joined(pieces, "reasoning"),
        joined(pieces, "answer"),
        splitter.boxes,
        splitter.complete,
        text,
    )

    assert reply == parse(text, eager=eager, strict=strict)
    kinds = [kind for kind, _ in pieces]
    assert kinds == sorted(kinds, reverse=True), "reasoning comes before the answer"
    assert all(piece for _, piece in pieces)


@given(TEXTS)
def test_character_by_character(text: str) -> None:
    pieces, _ = split(text, list(range(len(text))))

    assert joined(pieces, "answer") == parse(text).answer


@given(PLAIN, PLAIN, st.booleans(), st.lists(st.integers(0, 80), max_size=20))
def test_no_piece_of_a_tag_leaks(
    thought: str,
    answer: str,
    closed: bool,
    cuts: list[int],
) -> None:
    text = f"<think>{thought}</think>\n<answer>{answer}" + "</answer>" * closed
    pieces, _ = split(text, cuts)

    assert joined(pieces, "reasoning") == thought.strip()
    assert joined(pieces, "answer") == answer.strip()


@given(PLAIN)
def test_parsing_an_answer_again_changes_nothing(answer: str) -> None:
    once = parse(f"<think>a</think><answer>{answer}</answer>").answer

    assert parse(once).answer == once


def test_deep_nesting_and_length_are_no_trouble() -> None:
    depth = 100_000

    assert parse("<think>" * depth + "a" + "</think>" * depth + "<answer>c").answer == "c"
    assert parse(f"<answer>{BOX * depth}1{END_BOX * depth}").boxes == ("1",)
    assert parse("<" * depth).answer == "<" * depth
