"""How tools, their calls and results, and wanted JSON are written for models without native tools.

GLM-4.1V knows nothing of tool calls, so all of it is plain text: the tools stand in the system
prompt, a call is `<tool_call>{"name":…,"arguments":{…}}</tool_call>` in the answer, several follow
each other, and a result comes back as `<tool_response>…</tool_response>` in a user turn. The
wording is the one that the miniature is trained on.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from langchain_glm4v.errors import RequestError

Schema: TypeAlias = Mapping[str, Any]
"""A tool (name, description, parameters), or a JSON schema."""

CALL, CALL_END = "<tool_call>", "</tool_call>"
RESULT, RESULT_END = "<tool_response>", "</tool_response>"
TAGS = (CALL, CALL_END, RESULT, RESULT_END)

TOOLS_HEAD = "# Tools\nYou may call these tools. Each line is one tool:"
TOOLS_HOW = f'To call a tool, answer with only: {CALL}{{"name":"…","arguments":{{…}}}}{CALL_END}'
CHOICES = {
    "auto": "Call a tool if it helps, else answer in words.",
    "any": "You must call a tool.",
    "named": "You must call the tool {name}.",
}
FORMAT = "# Format\nAnswer with only one JSON object that fits this schema:\n{schema}"
ONE_OF = "# Format\nAnswer with only one of these, word for word:\n{choices}"
BOXES = (
    "# Format\nAnswer with only the boxes, in thousandths of the picture's sides: "
    "[[left,top,right,bottom],…]"
)

# The end tag, or where it was forgotten, the next call.
_CALL_OVER = re.compile(f"{CALL_END}|(?={CALL})")
# What stands in front of the arguments of a call as the grammar writes it, blanks allowed.
_HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*"((?:[^"\\]++|\\.)*+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_BARE_START = re.compile(r"\s*([{`]|\Z)")
_JSON_MARK = re.compile(r'["\\{}\[\]<]')
_FENCE = "```"
# What may stand behind the opening of a fence, such as "json" or "JSON".
_LANGUAGE = re.compile(r"^[A-Za-z][\w+-]*(?=[\s{\[])")
# Held text is read again only once it has grown by this share, which keeps the whole linear.
_GROWTH = 1.02


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tools may be called.

    Attributes:
        kind: "auto": the model decides; "any": at least one; "named": `name`; "none": none.
        name: The tool that must be called, of kind "named".
    """

    kind: Literal["auto", "any", "named", "none"]
    name: str = ""

    @classmethod
    def read(cls, value: Any) -> "Choice":
        """Read any form of LangChain's, OpenAI's or Anthropic's `tool_choice`.

        Raises:
            RequestError: It has none of these forms.
        """
        match value:
            case None | False | "auto" | {"type": "auto"}:
                return cls("auto")
            case True | "any" | "required" | {"type": "any" | "required"}:
                return cls("any")
            case "none" | {"type": "none"}:
                return cls("none")
            case {"function": {"name": str(name)}} | {
                "type": "tool" | "function",
                "name": str(name),
            }:
                return cls("named", name)
            case str(name):
                return cls("named", name)
            case _:
                raise RequestError(
                    f"tool_choice is {value!r}: accepted are 'auto', 'any', 'none' and the name "
                    "of a tool"
                )


NO_CHOICE = Choice("none")


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A part of a tool call, as a stream gives it.

    Attributes:
        index: Which call of the message, from 0.
        name: Name of the tool, in the first piece of a call; else None.
        id: Id of the call, in the first piece; else None.
        arguments: A further part of the arguments' JSON.
    """

    index: int
    name: str | None
    id: str | None
    arguments: str


AnswerPiece: TypeAlias = str | CallPiece


def dumps(value: Any) -> str:
    """JSON as it stands in prompts and answers: no blanks, no escapes for other scripts."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is; None if it is none."""
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def tools_prompt(tools: Sequence[Schema], choice: Choice) -> str:
    """System text that offers `tools` (name, description, parameters each)."""
    listed = "\n".join(map(dumps, tools))
    return f"{TOOLS_HEAD}\n{listed}\n{TOOLS_HOW}\n{CHOICES[choice.kind].format(name=choice.name)}"


def format_prompt(schema: Schema) -> str:
    """System text that asks for JSON by a schema."""
    return FORMAT.format(schema=dumps(schema))


def choices_prompt(choices: Sequence[str]) -> str:
    """System text that asks for one of several texts."""
    return ONE_OF.format(choices="\n".join(choices))


def call(name: str, arguments: Mapping[str, Any]) -> str:
    """One tool call as the model writes it."""
    return f"{CALL}{dumps({'name': name, 'arguments': arguments})}{CALL_END}"


def result(text: str) -> str:
    """A tool's result as a user turn shows it to the model."""
    return f"{RESULT}{text}{RESULT_END}"


def unfenced(text: str) -> str:
    """The JSON in a text: all of it, or what its code fence holds, be the fence closed or not."""
    text = text.strip()
    before, fence, rest = text.partition(_FENCE)
    if not fence or before.startswith(("{", "[", '"')):
        return text
    inside, end, _ = rest.rpartition(_FENCE)
    return _LANGUAGE.sub("", inside if end else rest).strip()


class CallSplitter:
    """Splits the stream of an answer into text and tool calls.

    Feed every chunk, then flush once. Arguments are passed on while they come. Blanks in front of a
    call and at the end vanish. The joined pieces are the same however the answer is cut into
    chunks.

    Args:
        bare: Take an answer that is one JSON object with a name and arguments, without tags, for a
            call too, and hold such an answer back until its end. Right where a call is a must and
            no grammar guards it.
    """

    def __init__(self, *, bare: bool = False) -> None:
        self._bare = bare
        self._text = ""  # held back: what it is, more text must tell
        self._chunks: list[str] = []  # behind it, not looked at yet
        self._length = 0  # of all that
        self._next = 0.0  # length from which on it is worth looking
        self._read = self._read_text
        self._calls = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the next character belongs to a backslash

    def feed(self, chunk: str) -> list[AnswerPiece]:
        """Take the next chunk in; returns what is settled by now."""
        self._chunks.append(chunk)
        self._length += len(chunk)
        if self._length < self._next:
            return []
        self._gather()
        pieces = [] if self._bare else self._read_all()
        self._length = len(self._text)
        self._next = self._length * _GROWTH
        return pieces

    def flush(self) -> list[AnswerPiece]:
        """End the stream; returns what was still held back."""
        self._gather()
        if self._bare and (found := _bare_call(self._text)):
            return [self._begin(*found)]
        pieces = self._read_all()
        if self._read == self._read_head:  # cut off: the text shows what was wanted
            pieces.append(self._begin("", self._text))
        elif self._read == self._read_text:
            pieces += _some(self._text.rstrip())
        return pieces

    def _gather(self) -> None:
        self._text = "".join((self._text, *self._chunks))
        self._chunks.clear()
        self._bare = self._bare and bool(_BARE_START.match(self._text))

    def _read_all(self) -> list[AnswerPiece]:
        pieces: list[AnswerPiece] = []
        while self._read(pieces):
            pass
        return pieces

    def _read_text(self, pieces: list[AnswerPiece]) -> bool:
        before, tag, rest = self._text.partition(CALL)
        if tag:
            pieces += _some(before.rstrip())
            self._text, self._read = rest, self._read_head
            return True
        # Blanks wait: those between two calls are no text of the answer.
        settled = before[: len(before) - _overlap(before, CALL)].rstrip()
        pieces += _some(settled)
        self._text = before[len(settled) :]
        return False

    def _read_head(self, pieces: list[AnswerPiece]) -> bool:
        content, tag, rest = self._text.partition(CALL_END)
        if head := _HEAD.match(content):
            pieces.append(self._begin(_unquoted(head[1]), ""))
            self._text, self._read = self._text[head.end() :], self._read_arguments
            return True
        if tag:
            pieces.append(self._begin(*(_bare_call(content) or ("", content))))
            self._text, self._read = rest, self._read_text
        return bool(tag)

    def _read_arguments(self, pieces: list[AnswerPiece]) -> bool:
        end = self._end_of_arguments()
        arguments, self._text = self._text[:end], self._text[end:]
        if arguments:
            pieces.append(CallPiece(self._calls - 1, None, None, arguments))
        return self._read == self._read_end

    def _end_of_arguments(self) -> int:
        """Where the JSON object of the arguments ends in the text, or the end of the text."""
        skipped = int(self._escaped)
        self._escaped = False
        for mark in _JSON_MARK.finditer(self._text):
            if mark.start() < skipped:
                continue
            if mark[0] == '"':
                self._in_string = not self._in_string
            elif mark[0] == "\\":
                skipped = mark.end() + 1
            elif self._in_string:
                continue
            elif mark[0] == "<":  # no JSON: the call is broken, and its end tag comes
                self._depth = 0
                self._read = self._read_end
                return mark.start()
            else:
                self._depth += 1 if mark[0] in "{[" else -1
                if self._depth == 0:
                    self._read = self._read_end
                    return mark.end()
        self._escaped = skipped > len(self._text)
        return len(self._text)

    def _read_end(self, pieces: list[AnswerPiece]) -> bool:  # noqa: ARG002 - as the other readers
        end = _CALL_OVER.search(self._text)
        if end:
            self._text, self._read = self._text[end.end() :], self._read_text
        return bool(end)

    def _begin(self, name: str, arguments: str) -> CallPiece:
        self._calls += 1
        return CallPiece(self._calls - 1, name, f"call_{secrets.token_hex(12)}", arguments)


def _some(text: str) -> list[AnswerPiece]:
    return [text] if text else []


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` with which `tag` begins."""
    at = text.rfind(tag[0], max(0, len(text) - len(tag) + 1))
    return len(text) - at if at >= 0 and tag.startswith(text[at:]) else 0


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def _bare_call(text: str) -> tuple[str, str] | None:
    """Name and arguments of a call written as one JSON object, fenced or not; None for all else."""
    match json_object(unfenced(text)):
        case {"name": str(name), "arguments": arguments} | {
            "name": str(name),
            "parameters": arguments,
        }:
            # OpenAI's own form has the arguments as a string of JSON.
            given = json_object(arguments) if isinstance(arguments, str) else arguments
            return (name, dumps(given)) if isinstance(given, dict) else None
        case _:
            return None
