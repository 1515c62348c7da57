"""JSON as models write it: in fences, as Python's literals, or not whole yet."""

import contextlib
import json
import re
from typing import Any

from langchain_glm4v.tool_protocol import unfenced

_MARK = re.compile(r'["\\{}\[\],]')
_HALF_NUMBER = re.compile(r"(?<=\d)(?:\.|[eE][+-]?)\Z")
# Also the first of two escapes that make one character.
_HALF_ESCAPE = re.compile(
    r"\\(u[0-9a-fA-F]{0,3})?|\\u[dD][89abAB][0-9a-fA-F]{2}(\\(u[0-9a-fA-F]{0,3})?)?"
)
# Escapes outside strings too, so that no text takes long.
_PYTHON = re.compile(
    r"'((?:[^'\\]|\\.)*+)'|\"(?:[^\"\\]|\\.)*+\"|\\.|\b(?:True|False|None)\b", re.DOTALL
)
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_INSIDE = re.compile(r"\\(.)|\"", re.DOTALL)


def loads(text: str) -> Any:
    """Read JSON, fenced or bare: all of the text, apart from a fence.

    Strings may hold line breaks. What is no JSON may be a dict or list of Python's, with its quotes
    and constants, and may stand in two pairs of braces, as templates write them.

    Raises:
        ValueError: It is none of these.
        RecursionError: It is nested too deeply.
    """
    bare = unfenced(text)
    try:
        return json.loads(bare, strict=False)
    except ValueError:
        if bare.startswith("{{") and bare.endswith("}}"):
            bare = bare[1:-1]
        with contextlib.suppress(ValueError):  # then the text as it stands is what is wrong
            return json.loads(_PYTHON.sub(_as_json, bare), strict=False)
        raise


def _as_json(found: re.Match[str]) -> str:
    """A token of Python's in JSON; others as they are."""
    inside = found[1]
    if inside is None:
        return _CONSTANTS.get(found[0], found[0])
    return f'"{_INSIDE.sub(_as_in_json, inside)}"'


def _as_in_json(found: re.Match[str]) -> str:
    """A quote or an escape within single quotes, as within double ones."""
    if found[0] == '"':
        return r"\""
    return "'" if found[1] == "'" else found[0]


def partial_json(text: str) -> Any:
    """Read JSON that is not whole yet: what is open is closed, what is half told is left out.

    As a text grows, all that was told of it stays, but that a number may get more digits.

    Linear, unlike LangChain's own, which takes minutes for some long answers.

    Raises:
        ValueError: It tells nothing yet, or is no JSON.
        RecursionError: It is nested too deeply.
    """
    closers: list[str] = []
    settled = 0  # up to here it is whole, but for the brackets to be closed
    former = escape = len(text)  # where the last two escapes of strings begin
    in_string = False
    for mark in _MARK.finditer(text):
        at = mark.start()
        if at == escape + 1:  # escaped
            continue
        match mark[0]:
            case "\\":
                former, escape = escape, at
            case '"':
                in_string = not in_string
            case _ if in_string:
                pass
            case ",":
                settled = at
            case "{" | "[" as opened:
                closers.append("}" if opened == "{" else "]")
                settled = at + 1
            case closed:
                if not closers or closers.pop() != closed:
                    raise ValueError(f"{closed} closes nothing")
                settled = at + 1
    end = "".join(reversed(closers))
    if in_string:
        halves = (at for at in (former, escape) if _HALF_ESCAPE.fullmatch(text, at))
        told = text[: next(halves, len(text))] + '"'
    else:
        told = text[:-3] + _HALF_NUMBER.sub("", text[-3:])
    try:
        return json.loads(told + end, strict=False)
    except ValueError:
        return json.loads(text[:settled] + end, strict=False)
