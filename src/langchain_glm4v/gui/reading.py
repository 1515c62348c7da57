"""From what a model wrote to what it wants done.

Models write one action in one of three ways: as a JSON object, as a call, or as a line of its own
kind. Around it there may be fences, box tags, explanations and sections such as "Memory:"; quotes
may be Python's. What is found must be one action: of several that differ, none is taken, because
one of them may be quoted from the screen.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, get_args

from langchain_glm4v.errors import ActionError
from langchain_glm4v.grounding import Box
from langchain_glm4v.gui.actions import Action, Direction, Point

MAX_TEXT = 10_000
"""Characters of an answer that are read, at most, from its begin: a plan is a few hundred."""

_SHOWN = 200  # characters of an answer in an error message
# Braces, and sections of an answer, that are tried, which bounds the time for hostile texts.
_MOST_OBJECTS = 64
_MOST_TEXTS = 16

_NUMBER = re.compile(r"-?\d++(?:\.\d++)?")
_ONLY_BRACKETS = re.compile(r"[\[\](){}<>\s,'\"]*+")
_TOKEN = re.compile(
    r""""(?:\\.|[^"\\])*+"|'(?:\\.|[^'\\])*+'|[{}]|\b(?:true|false|null)\b""", re.DOTALL
)
_FLAGS = {
    **dict.fromkeys(("true", "1", "yes"), True),
    **dict.fromkeys(("false", "0", "no", "none", ""), False),
}
_PYTHON = {"true": "True", "false": "False", "null": "None"}
# A quote ends a string only in front of a comma or bracket: models leave apostrophes as they are.
_VALUE = (
    r"'(?:\\.|[^'\\]|'(?!\s*+[,)]))*+'"
    r'|"(?:\\.|[^"\\]|"(?!\s*+[,)]))*+"'
    r"|\[{1,2}+[\d\s.,-]*+\]{1,2}+|\([\d\s.,-]*+\)|[^\s,()'\"\[\]]++"
)
_ARGUMENT = re.compile(rf"(\w++)\s*+=\s*+({_VALUE})", re.DOTALL)
_CALL = re.compile(
    rf"(?<![\w.])(\w++)\s*+\(\s*+"
    rf"((?:\w++\s*+=\s*+(?:{_VALUE})\s*+(?:,\s*+|(?=\))))*+)\)",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}

_NAMES = "Memory_Updated|Memory|Reason|Thought|Action"
_HEADINGS = (
    re.compile(rf"^[\s*#>-]*+({_NAMES})[\s*]*+[::][ *]*+", re.MULTILINE | re.IGNORECASE),
    # All in one line.
    re.compile(rf"(?<!\S)\**+({_NAMES})\**+[::]\**+"),
)
_FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Call:
    """An action as it was written, not understood yet.

    Attributes:
        name: Its name, in lower case.
        arguments: What stands with it.
        text: The whole as written.
        marks: What numbers in it mean.
    """

    name: str
    arguments: Mapping[str, Any]
    text: str = field(compare=False)
    marks: Sequence[Box] = field(default=(), compare=False, repr=False)

    def point(self, key: str) -> Point:
        """A point, or the middle of a box, in any brackets.

        Raises:
            ActionError: There is none, or it is outside the screen.
        """
        found = self.optional_point(key)
        if found is None:
            raise self._error(f"{key} is missing")
        return found

    def optional_point(self, key: str) -> Point | None:
        """As `point`; None if nothing is given."""
        written = str(self.arguments.get(key) or "")
        numbers = list(map(float, _NUMBER.findall(written)))
        if not _ONLY_BRACKETS.fullmatch(_NUMBER.sub("", written)):
            raise self._error(f"{key} is {shown(written)}, which is no point or box")
        match numbers:
            case []:
                return None
            case [x, y]:
                return Point(x, y)
            case [left, top, right, bottom]:
                return Point((left + right) / 2, (top + bottom) / 2)
        raise self._error(f"{key} is {shown(written)}: give one point or one box")

    def text_of(self, key: str) -> str:
        """A text.

        Raises:
            ActionError: There is none.
        """
        value = self.arguments.get(key)
        if not isinstance(value, str | int | float) or value == "":
            raise self._error(f"{key} is missing")
        return str(value)

    def flag(self, key: str) -> bool:
        """Whether something is said to be true; False if nothing is said.

        Raises:
            ActionError: It is neither true nor false.
        """
        written = str(self.arguments.get(key, "")).strip().lower()
        if written not in _FLAGS:
            raise self._error(f"{key} is {shown(written)}: give true or false")
        return _FLAGS[written]

    def direction(self, key: str = "direction") -> Direction:
        """One of the four directions.

        Raises:
            ActionError: It is none of them.
        """
        found = str(self.arguments.get(key, "")).strip().lower()
        for direction in get_args(Direction):
            if found == direction:
                return direction  # type: ignore[no-any-return]
        raise self._error(f"{key} is {shown(found)}: accepted are {', '.join(get_args(Direction))}")

    def count(self, key: str, default: int, most: int) -> int:
        """A whole number from 1 to `most`; `default` if nothing is given.

        Raises:
            ActionError: It is no such number.
        """
        written = str(self.arguments.get(key, default)).strip()
        if not (written.isdecimal() and len(written) < 9 and 1 <= int(written) <= most):
            raise self._error(f"{key} is {shown(written)}: give a whole number from 1 to {most}")
        return int(written)

    def keys(self, *names: str) -> tuple[str, ...]:
        """Keys joined by a plus sign, under the first of some names that is given.

        Raises:
            ActionError: There are none.
        """
        given = next((name for name in names if self.arguments.get(name)), names[0])
        found = tuple(part.strip().lower() for part in self.text_of(given).split("+"))
        if not all(found):
            raise self._error(f"{given} is {shown(self.text_of(given))}: write keys as in 'ctrl+c'")
        return tuple("enter" if key == "return" else key for key in found)

    def mark(self, key: str = "mark") -> Box:
        """What a number means.

        Raises:
            ActionError: Nothing has this number, or there are several.
        """
        written = self.text_of(key)
        if not written.isdecimal() or "more" in self.arguments:
            raise self._error("there are several numbers: give one")
        if len(written) < 9 and 1 <= int(written) <= len(self.marks):
            return self.marks[int(written) - 1]
        known = f"numbers go from 1 to {len(self.marks)}" if self.marks else "nothing has a number"
        raise self._error(f"nothing has the number {shown(written)}: {known}")

    def _error(self, problem: str) -> ActionError:
        return ActionError(f"in {shown(self.text)}, {problem}")


Builder: TypeAlias = Callable[[Call], Action]
"""Understands a call; raises `ActionError` if it makes no sense."""

Finder: TypeAlias = Callable[[str], Iterator[Call]]
"""Finds what may be actions in a text."""


def shown(text: str) -> str:
    """A text as error messages quote it."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= _SHOWN else f"{flat[:_SHOWN]}…")


def sections(answer: str) -> tuple[Sequence[str], Sequence[str], dict[str, str]]:
    """Take an answer apart at its headings ("Memory:", "Reason:", "Action:" …).

    Returns:
        The texts that may have an action: what stands before the first heading, and sections named
        "Action"; such sections that may be a part of a memory, into which models copy from the
        screen: none of the prompts has an action just behind it; and each section by its heading in
        lower case, of sections with the same heading the last.
    """
    # Headings begin lines, unless an action comes earlier that stands within one.
    heading = min(_HEADINGS, key=lambda heading: _first_action(heading, answer))
    parts = heading.split(answer)
    named = [
        (name.lower(), text.strip()) for name, text in zip(parts[1::2], parts[2::2], strict=True)
    ]
    own, copied = [parts[0].strip()], list[str]()
    in_memory = False
    for name, text in named:
        if name == "action":
            (copied if in_memory else own).append(text)
        else:
            in_memory = name.startswith("memory")
    return own, copied, dict(named)


def one_action(
    places: Sequence[Sequence[str]],
    finder: Finder,
    builders: Mapping[str, Builder],
    marks: Sequence[Box],
) -> tuple[Action, str] | None:
    """Find the one action in the first of some places that has any.

    Args:
        places: Where to look, the likeliest place first; the texts of a place count alike.
        finder: Knows how actions are written.
        builders: Name of an action -> what understands it; calls of other names are no actions.
        marks: What numbers mean.

    Returns:
        The action, and how it was written; None if there is none.

    Raises:
        ActionError: There are several, or it makes no sense.
    """
    for place in places:
        texts = [text for text in dict.fromkeys(place) if text]
        if len(texts) > _MOST_TEXTS:
            raise ActionError(f"there are {len(texts)} sections with actions: give one action")
        calls = [call for text in texts for call in finder(text[:MAX_TEXT])]
        found = [
            (builders[call.name](Call(call.name, call.arguments, call.text, marks)), call.text)
            for call in calls
            if call.name in builders
        ]
        differing = [written for action, written in found if action != found[0][0]]
        if differing:
            listed = "; ".join(map(shown, [found[0][1], *differing[:2]]))
            raise ActionError(f"there are several actions ({listed}): give one at a time")
        if found:
            return found[0]
    return None


def find_objects(text: str) -> Iterator[Call]:
    """JSON objects with an `action_type`, or Python's dicts, be they in further braces."""
    end = 0
    for start in [found.start() for found in re.finditer("{", text)][:_MOST_OBJECTS]:
        if start < end:
            continue
        value, stop = _object_at(text, start)
        if isinstance(value, dict) and isinstance(value.get("action_type"), str):
            end = stop
            yield Call(value["action_type"].strip().lower(), value, text[start:stop])


def find_calls(text: str) -> Iterator[Call]:
    """Calls such as `left_click(start_box='[500,300]')`."""
    for found in _CALL.finditer(text):
        arguments = {key: _plain(value) for key, value in _ARGUMENT.findall(f"{found[2]})")}
        yield Call(found[1].lower(), arguments, found[0])


def find_mobile(text: str) -> Iterator[Call]:
    """Objects, and the calls of AutoGLM: `do(action="Tap", element=[500,300])`."""
    yield from find_objects(text)
    for call in find_calls(text):
        kind = str(call.arguments.get("action", "")).strip().lower()
        yield Call(f"{call.name} {kind}".strip(), call.arguments, call.text)


# One number; several in one bracket are taken too, so that they can be told from one.
_MARK = r"(?P<mark>\d++(?:[\s,;、，；]++\d++(?=[\d\s,;、，；]*+\]))*+)"
# Each begins a line. An answer may have several lines, a text too, if its bracket closes a line.
_LINES: Mapping[str, re.Pattern[str]] = {
    name: re.compile(rf"^[\s*`>-]*+{pattern}", re.IGNORECASE | re.MULTILINE)
    for name, pattern in {
        "click": rf"click\s*+\[?\s*+{_MARK}\s*+\]?+(?!\w)(?P<more>[^\n]*[\d\[])?+",
        "type": rf"type\s*+\[?\s*+{_MARK}\s*+\]?+\s*+[;,:]?+\s*+"
        r"(?:\[(?P<text>[^\]]*+(?:\](?![`.]?[^\S\n]*$)[^\]]*+)*+)\]|(?P<bare>[^\[\s].*+))",
        "scroll": rf"scroll\s*+\[?\s*+(?:{_MARK}|window)\s*+\]?+\s*+[;,:]?+\s*+"
        r"\[?\s*+(?P<direction>\w++)\s*+\]?+",
        "wait": r"wait\b",
        "goback": r"go_?back\b",
        "fail": r"fail\W*+$",
        "key": r"key\s*+[;,:]\s*+\[?\s*+(?P<keys>[\w+]++)\s*+\]?+",
        "answer": r"answer\s*+[;,:]\s*+(?P<text>[\s\S]++)",
    }.items()
}
_WRAPPED = re.compile(r"<content>(.*?)(?:</content>)?|\[(.*)\]", re.DOTALL)


def find_lines(text: str) -> Iterator[Call]:
    """Lines such as `Type [2]; [some text]`."""
    text = _FENCE.sub("", text)
    if found := _LINES["answer"].search(text):
        yield from find_lines(text[: found.start()])
        answer = found["text"].strip()
        if wrapped := _WRAPPED.fullmatch(answer):
            answer = (wrapped[1] or wrapped[2] or "").strip()
        yield Call("answer", {"text": answer}, found[0])
        return
    for name, pattern in _LINES.items():
        for found in pattern.finditer(text):
            given = {key: value for key, value in found.groupdict().items() if value is not None}
            if "bare" in given:
                given["text"] = given.pop("bare").strip()
            yield Call(name, given, found[0].strip())


def _first_action(heading: re.Pattern[str], answer: str) -> int:
    """Where the first "Action" stands among headings of a kind; the answer's end if none does."""
    names = heading.finditer(answer)
    starts = (name.start(1) for name in names if name[1].lower() == "action")
    return next(starts, len(answer))


def _object_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON or Python value that begins at a place, and its end; None if there is none."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        return _literal_at(text, start)


def _literal_at(text: str, start: int) -> tuple[Any, int]:
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            piece = _TOKEN.sub(
                lambda found: _PYTHON.get(found[0], found[0]), text[start : token.end()]
            )
            try:
                return ast.literal_eval(piece), token.end()
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                break
    return None, start


def _plain(value: str) -> str:
    """A value of a call without its quotes."""
    if value[:1] not in ("'", '"'):
        return value
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), value[1:-1])
