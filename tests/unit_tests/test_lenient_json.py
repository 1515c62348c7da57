"""JSON as models write it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_glm4v.lenient_json import loads, partial_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def is_part(part: Any, whole: Any) -> bool:
    """Whether all that `part` tells is the begin of what `whole` tells."""
    match part, whole:
        case dict(), dict():
            return all(key in whole and is_part(part[key], whole[key]) for key in part)
        case list(), list():
            return len(part) <= len(whole) and all(map(is_part, part, whole))
        case str(), str():
            return whole.startswith(part)
        case bool() | None, _:
            return part is whole
        case int() | float(), int() | float():
            return True  # more digits may come
    return False


@given(json_values.map(lambda value: [value]), st.booleans(), st.data())
def test_every_begin_of_json_tells_a_part(
    value: Any, ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    at = data.draw(st.integers(1, len(text)))
    earlier = data.draw(st.integers(1, at))
    told = partial_json(text[:at])
    assert is_part(told, value)
    assert is_part(partial_json(text[:earlier]), told)
    assert partial_json(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "b', {"a": 1}),
        ('{"a": 1, "b":', {"a": 1}),
        ('{"a": 1,', {"a": 1}),
        ('{"a": {"b": [1, {"c": tru', {"a": {"b": [1, {}]}}),
        ('{"a": [1, 2] x', {"a": [1, 2]}),
        ('{"a": "x\\', {"a": "x"}),
        ('{"a": "x\\u00', {"a": "x"}),
        ('{"a": [1, 12.', {"a": [1, 12]}),
        ("[-1.5e", [-1.5]),
        ("[1E+", [1]),
        ("[1, -", [1]),
        ("12.", 12),
        ('{"a": "1.', {"a": "1."}),
        ('"x\\ud83d', "x"),
        ('"x\\ud83d\\ude', "x"),
        ('"\\n\\ud83d\\', "\n"),
        ('"x\\ud83d\\ude00', "x😀"),
        ('"x\\\\ud83d', "x\\ud83d"),
        ('{"a": "x\\\\', {"a": "x\\"}),
        ('{"a": "x\\"', {"a": 'x"'}),
        ('{"a": "}], ', {"a": "}], "}),
        ('{"a": "x\ny', {"a": "x\ny"}),
        ('"x', "x"),
        ("12", 12),
    ],
)
def test_begins(text: str, value: Any) -> None:
    assert partial_json(text) == value


@pytest.mark.parametrize("text", ["", "tr", "Hello", "{]", "}", '{"a":1}}'])
def test_no_begin_of_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|closes nothing"):
        partial_json(text)


# --- whole JSON, or nearly ---


@given(json_values)
def test_json_bare_and_fenced(value: Any) -> None:
    assert loads(json.dumps(value)) == value
    assert loads(f"Here:\n```json\n{json.dumps(value)}\n```\nThat is it.") == value


# Python writes other characters, such as \x1c, in ways that JSON does not know.
plain_texts = st.text(alphabet="ab'\"\\ \n红é{}[],:", max_size=9)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | plain_texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_texts, inner, max_size=3),
    ).map(lambda value: {"a": value})
)
def test_python_literals(value: Any) -> None:
    assert loads(repr(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "{'a': True, 'b': None, \"c\": 'it\\'s \"it\"'}",
            {"a": True, "b": None, "c": 'it\'s "it"'},
        ),
        ('{{"a": {"b": 1}}}', {"a": {"b": 1}}),
        ('{"a": "None of \'these\'"}', {"a": "None of 'these'"}),
        ("```\n{'a': 1}\n```", {"a": 1}),
        ('{"a": "one\ntwo"}', {"a": "one\ntwo"}),
    ],
)
def test_what_is_nearly_json(text: str, value: Any) -> None:
    assert loads(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "it's", "{'a': 1", "{'a': 1} and more", "{'a': Nothing}", "{'a': '}", "{1, 2}", "{{}"],
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data"):
        loads(text)


@pytest.mark.parametrize(
    "text", ["'\\" * 500_000, "[" + "-" * 500_000, "'" * 500_001, "{{" * 99_999], ids=range(4)
)
def test_no_text_takes_long(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        loads(text)
