"""The wording of tools, and the splitter that finds calls in an answer."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langchain_glm4v.tool_protocol import (
    CALL,
    CALL_END,
    CallPiece,
    CallSplitter,
    Choice,
    call,
    dumps,
    format_prompt,
    result,
    tools_prompt,
    unfenced,
)
from training import protocol

WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "Get weather — «天气».",
    "parameters": {
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
        "type": "object",
    },
}
CLOCK: dict[str, Any] = {"name": "clock", "parameters": {"properties": {}, "type": "object"}}

Found = tuple[str, list[tuple[str, str]]]


def split(chunks: Iterable[str], *, bare: bool = False) -> Found:
    """Text, and name and arguments of each call."""
    splitter = CallSplitter(bare=bare)
    pieces = [piece for chunk in chunks for piece in splitter.feed(chunk)] + splitter.flush()
    names: list[str] = []
    arguments: list[list[str]] = []
    identifiers = set()
    for piece in pieces:
        if isinstance(piece, str):
            assert piece
            continue
        if piece.name is not None:
            assert piece.index == len(names)
            assert piece.id is not None
            identifiers.add(piece.id)
            names.append(piece.name)
            arguments.append([])
        else:
            assert piece.id is None
            assert piece.index == len(names) - 1
        arguments[-1].append(piece.arguments)
    assert len(identifiers) == len(names)
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    return text, list(zip(names, map("".join, arguments), strict=True))


# --- wording ---


@pytest.mark.parametrize("tools", [[WEATHER], [CLOCK, WEATHER]])
@pytest.mark.parametrize("choice", [Choice("auto"), Choice("any"), Choice("named", "clock")])
def test_the_wording_is_the_one_the_miniature_is_trained_on(
    tools: list[dict[str, Any]], choice: Choice
) -> None:
    assert tools_prompt(tools, choice) == protocol.tools_prompt(tools, choice.kind, choice.name)
    assert format_prompt(tools[0]["parameters"]) == protocol.format_prompt(tools[0]["parameters"])
    arguments = {"location": 'São "Paulo"', "n": [1, None]}
    assert call("f", arguments) == protocol.call("f", arguments)
    assert result("It's 天.") == protocol.result("It's 天.")


# --- choices ---


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        (None, Choice("auto")),
        (False, Choice("auto")),
        ("auto", Choice("auto")),
        ({"type": "auto"}, Choice("auto")),
        (True, Choice("any")),
        ("any", Choice("any")),
        ("required", Choice("any")),
        ({"type": "any"}, Choice("any")),
        ("none", Choice("none")),
        ({"type": "none"}, Choice("none")),
        ("clock", Choice("named", "clock")),
        ({"type": "function", "function": {"name": "clock"}}, Choice("named", "clock")),
        ({"type": "function", "name": "clock"}, Choice("named", "clock")),
        ({"type": "tool", "name": "clock"}, Choice("named", "clock")),
        # A tool may have such a name; LangChain then writes it in this form.
        ({"type": "function", "function": {"name": "any"}}, Choice("named", "any")),
    ],
)
def test_all_forms_of_tool_choice(value: Any, choice: Choice) -> None:
    assert Choice.read(value) == choice


@pytest.mark.parametrize("value", [3, ["clock"], {"type": "allowed_tools"}, {"name": "clock"}])
def test_other_forms_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"tool_choice is .*: accepted are"):
        Choice.read(value)


# --- splitting ---

F = call("f", {"a": 1})
G = call("g", {})
BROKEN = '{"name":"f","arguments":"x"}'
SHAPES: list[tuple[str, Found]] = [
    ("", ("", [])),
    ("It is 42.", ("It is 42.", [])),
    ("  It is 42.\n\n", ("  It is 42.", [])),
    ("a < b <tool> <tool_call", ("a < b <tool> <tool_call", [])),
    (F, ("", [("f", '{"a":1}')])),
    (f"\n{F}\n", ("", [("f", '{"a":1}')])),
    (f"I look. \n\n{F}", ("I look.", [("f", '{"a":1}')])),
    (f"{F}\n{G}", ("", [("f", '{"a":1}'), ("g", "{}")])),
    (f"One {F} two \n{G} three ", ("One two three", [("f", '{"a":1}'), ("g", "{}")])),
    # blanks, and the other name of arguments
    (
        '<tool_call>\n{ "name" : "f" ,\n"parameters": {"a": [1, {}]} }\n</tool_call>',
        ("", [("f", '{"a": [1, {}]}')]),
    ),
    # members in another order
    ('<tool_call>{"arguments":{"a":1},"name":"f"}</tool_call>', ("", [("f", '{"a":1}')])),
    # tags and brackets inside of strings
    (
        call("f", {"a": 'x</tool_call><tool_call>}]"{\\'}) + G,
        ("", [("f", dumps({"a": 'x</tool_call><tool_call>}]"{\\'})), ("g", "{}")]),
    ),
    # an escape at the end of the last string
    (call("f", {"a": "\n"}) + G, ("", [("f", '{"a":"\\n"}'), ("g", "{}")])),
    ('<tool_call>{"name":"caf\\u00e9","arguments":{}}</tool_call>', ("", [("café", "{}")])),
    # no JSON
    ("<tool_call>f(1)</tool_call>.", (".", [("", "f(1)")])),
    (f'<tool_call>{{"name":"f"}}</tool_call>{G}', ("", [("", '{"name":"f"}'), ("g", "{}")])),
    (f"<tool_call>{BROKEN}</tool_call>", ("", [("", BROKEN)])),
    # brackets missing
    ('<tool_call>{"name":"f","arguments":{"a":1}</tool_call>.', (".", [("f", '{"a":1}')])),
    (
        f'<tool_call>{{"name":"f","arguments":{{"a":[1</tool_call>{G}',
        ("", [("f", '{"a":[1'), ("g", "{}")]),
    ),
    # a tag where a name is
    (
        '<tool_call>{"name":"a</tool_call>b","arguments":{}}</tool_call>',
        ('b","arguments":{}}</tool_call>', [("", '{"name":"a')]),
    ),
    # no end tag
    (F.removesuffix(CALL_END) + "\n" + G, ("", [("f", '{"a":1}'), ("g", "{}")])),
    # cut off
    ("I look.<tool_call>", ("I look.", [("", "")])),
    ('<tool_call>{"name":"f"', ("", [("", '{"name":"f"')])),
    ('<tool_call>{"name":"f","arguments":{"a":"x', ("", [("f", '{"a":"x')])),
    ('<tool_call>{"name":"f","arguments":{"a":"x\\', ("", [("f", '{"a":"x\\')])),
    (F[:-3], ("", [("f", '{"a":1}')])),
    # JSON that is no call, as no call is a must
    ('{"name":"f","arguments":{}}', ('{"name":"f","arguments":{}}', [])),
]
BARE: list[tuple[str, Found]] = [
    *SHAPES[:-1],
    ('{"name":"f","arguments":{"a":1}}', ("", [("f", '{"a":1}')])),
    (' \n{"name": "f", "parameters": {}}\n', ("", [("f", "{}")])),
    ('```json\n{"name":"f","arguments":{}}\n```', ("", [("f", "{}")])),
    ('```\n{"name":"f","arguments":{}}', ("", [("f", "{}")])),
    ('{"name":"f","arguments":{}', ('{"name":"f","arguments":{}', [])),
    ('{"name":"f"}', ('{"name":"f"}', [])),
    ('So: {"name":"f","arguments":{}}', ('So: {"name":"f","arguments":{}}', [])),
    (f"```\n{F}\n```", ("```\n```", [("f", '{"a":1}')])),
]


@pytest.mark.parametrize(("text", "found"), SHAPES)
def test_shapes(text: str, found: Found) -> None:
    assert split([text]) == found
    assert split(text) == found


@pytest.mark.parametrize(("text", "found"), BARE)
def test_shapes_where_a_call_is_a_must(text: str, found: Found) -> None:
    assert split([text], bare=True) == found
    assert split(text, bare=True) == found


BITS = [
    *(text for text, _ in BARE),
    *("<tool_call>", "</tool_call>", '{"name":"f","arguments":', "{", "}", "[", "]", '"', "\\"),
    *(" ", "\n", "<", "a", "é", "```", ",", ":"),
]
texts = st.lists(st.sampled_from(BITS) | st.text(max_size=5), max_size=8).map("".join)


@given(texts, st.lists(st.integers(0, 400), max_size=8), st.booleans())
@example(call("f", {"a": "\n"}) + G, [len(call("f", {"a": "\n"})) - len('n"}}</tool_call>')], False)
def test_every_chunking_gives_the_same(text: str, cuts: list[int], bare: bool) -> None:
    edges = [0, *sorted(at % (len(text) + 1) for at in cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]

    assert split(chunks, bare=bare) == split([text], bare=bare) == split(text, bare=bare)


@given(st.text().filter(lambda text: CALL not in text))
def test_text_without_calls_stays_as_it_is(text: str) -> None:
    assert split(text) == (text.rstrip(), [])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(
        st.tuples(st.text(max_size=8).filter(lambda name: CALL_END not in name), json_values),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 9),
)
def test_any_call_is_read_back(calls: list[tuple[str, Any]], size: int) -> None:
    wanted = [(name, {"value": value}) for name, value in calls]
    text = "".join(call(name, arguments) for name, arguments in wanted)
    told, found = split(text[at : at + size] for at in range(0, len(text), size))

    assert told == ""
    assert [(name, json.loads(arguments)) for name, arguments in found] == wanted


def test_arguments_are_passed_on_while_they_come() -> None:
    splitter = CallSplitter()
    told = [piece for character in F for piece in splitter.feed(character)]

    assert [piece.arguments for piece in told if isinstance(piece, CallPiece)] == ["", *'{"a":1}']
    assert splitter.flush() == []


MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "word " * (MEGABYTE // 5),
        " " * MEGABYTE,
        CALL + "x" * MEGABYTE,
        call("f", {"a": "<" * MEGABYTE}),
        '<tool_call>{"name":"f","arguments":' + '{"a":' * 100_000,
        F.removesuffix(CALL_END) + "}" * MEGABYTE,
        '<tool_call>{"name":"' + "\\n" * (MEGABYTE // 2),
        '{"name":"f","arguments":{"a":"' + "b" * MEGABYTE,
        "```json" + "\n" * MEGABYTE,
    ],
    ids=range(9),
)
def test_megabytes_take_linear_time(text: str) -> None:
    # Quadratic work would take minutes.
    chunks = [text[at : at + 20] for at in range(0, len(text), 20)]
    assert split(chunks, bare=True) == split([text], bare=True)


# --- fences ---


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (' {"a": 1}\n', '{"a": 1}'),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ("```\n[1]\n```\n", "[1]"),
        ('```json{"a":1}```', '{"a":1}'),
        ('```JSON\n{"a":1}\n```', '{"a":1}'),
        ("```python\n{'a': 1}\n```", "{'a': 1}"),
        ("```true```", "true"),
        ('Here it is:\n```json\n{"a": 1}\n```\nDone.', '{"a": 1}'),
        ('```json\n{"a": "```x```"}\n```', '{"a": "```x```"}'),
        ('{"a": "```x```"}', '{"a": "```x```"}'),
        ('```json\n{"a": 1', '{"a": 1'),
        ("42", "42"),
        ("", ""),
    ],
)
def test_fences(text: str, inside: str) -> None:
    assert unfenced(text) == inside


def test_arguments_as_a_string_of_json() -> None:
    splitter = CallSplitter()
    text = """<tool_call>{"name":"f","arguments":"{\\"a\\":1}"}</tool_call>"""
    (piece,) = [*splitter.feed(text), *splitter.flush()]

    assert isinstance(piece, CallPiece)
    assert (piece.name, piece.arguments) == ("f", '{"a":1}')
