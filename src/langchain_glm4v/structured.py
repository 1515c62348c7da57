"""Answers of a wanted form: JSON by a schema, one of several choices, boxes.

The request asks for the form and, where the server can, a grammar binds the answer to it, with the
thinking left free. The parsers here turn the answer into what the caller asked for. They read whole
messages, because only the finish reason tells an answer that was cut off from one that is wrong.
"""

import enum
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, get_args, get_origin

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers.transform import BaseCumulativeTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableGenerator
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict

from langchain_glm4v.errors import RequestError
from langchain_glm4v.grounding import Box, find_boxes
from langchain_glm4v.tool_protocol import unfenced

Model: TypeAlias = Runnable[LanguageModelInput, BaseMessage]
Builder: TypeAlias = Callable[[Any], Any]
"""Turns a parsed JSON value, or the text of an answer, into what the caller gets; may raise."""

_JSON_MARK = re.compile(r'["\\{}\[\],]')
_HALF_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{0,3})?")
_CUT = {
    "length": "max_tokens cut it off: allow more, or set a thinking_budget",
    "repetition": "it repeated itself endlessly and was cut off: ask again, or in other words",
}
# A partial answer is read again only when it has grown by this share, which keeps the whole linear.
_GROWTH = 1.02


def choices_of(schema: Any) -> dict[str, Any] | None:
    """The choices that an enum or a `Literal` of strings allows: text -> value; None for others."""
    if isinstance(schema, type) and issubclass(schema, enum.Enum):
        return {str(member.value): member for member in schema}
    if get_origin(schema) is Literal:
        return {str(value): value for value in get_args(schema)}
    return None


def response_format(schema: Any, method: Literal["json_schema", "json_mode"]) -> dict[str, Any]:
    """The `response_format` that asks for JSON.

    Args:
        schema: A pydantic class, a TypedDict, a function or a dict.
        method: "json_mode": any JSON object will do, whatever the schema.

    Raises:
        ValueError: There is no JSON schema in it.
    """
    if method == "json_mode":
        return {"type": "json_object"}
    wanted = {"name": "answer", "schema": _json_schema(schema)}
    return {"type": "json_schema", "json_schema": wanted}


def _json_schema(schema: Any) -> dict[str, Any]:
    """The schema of a class, a function or a tool; a JSON schema as it is.

    LangChain's own conversion drops what stands at the root of a schema that is no object's.
    """
    if isinstance(schema, Mapping) and not {"name", "function"} & schema.keys():
        is_known = schema.get("type") == "object" and "title" in schema
        return convert_to_json_schema(dict(schema)) if is_known else dict(schema)
    return convert_to_json_schema(schema)


def builder_of(schema: Any) -> Builder | None:
    """What turns parsed JSON into an instance of `schema`; None: the JSON itself is wanted."""
    if not (isinstance(schema, type) and is_basemodel_subclass(schema)):
        return None
    build: Builder = getattr(schema, "model_validate", None) or schema.parse_obj  # type: ignore[attr-defined]
    return build


class AnswerParser(BaseCumulativeTransformOutputParser[Any]):
    """Base of the parsers here: refuses answers that were cut off, by saying so.

    A stream gives what can be told of the unfinished answer, then the value, and raises at its end
    as a whole message does.
    """

    def parse(self, text: str) -> Any:
        """Parse a whole answer."""
        return self.parse_result([Generation(text=text)])

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse the answer of the first generation.

        Args:
            result: Generations, of which the first counts.
            partial: Whether more may follow; an answer that tells nothing yet is None then.

        Raises:
            OutputParserException: The answer was cut off, or is not of the wanted form.
        """
        generation = result[0]
        if partial:
            return self.read_partial(generation.text)
        reason = _finish_reason(generation)
        if reason in _CUT:
            raise _unusable(generation.text, _CUT[reason])
        try:
            return self.read(generation)
        except Exception as error:  # also what the checks of a user's class raise
            raise _unusable(generation.text, f"{type(error).__name__}: {error}") from error

    def text_of(self, chunk: str | BaseMessage) -> str:
        """The part of a chunk that `read_partial` reads."""
        return chunk if isinstance(chunk, str) else str(chunk.text)

    def read(self, generation: Generation) -> Any:
        """Turn a whole answer into the value; raises what says that it is none."""
        raise NotImplementedError

    def read_partial(self, text: str) -> Any:  # noqa: ARG002 - for those that can
        """What an unfinished answer tells; None: nothing yet."""
        return None

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:  # noqa: A002
        stream = _Stream(self)
        for chunk in input:
            yield from stream.add(chunk)
        yield from stream.end()

    async def _atransform(
        self,
        input: AsyncIterator[str | BaseMessage],  # noqa: A002
    ) -> AsyncIterator[Any]:
        stream = _Stream(self)
        async for chunk in input:
            for value in stream.add(chunk):
                yield value
        for value in stream.end():
            yield value


class JsonAnswerParser(AnswerParser):
    """Reads JSON, fenced or bare, and builds an instance of it if asked to.

    Attributes:
        build: Makes the value of the parsed JSON; None: the JSON itself is the value.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    build: Builder | None = None

    @property
    def _type(self) -> str:
        return "glm4v_json"

    def read(self, generation: Generation) -> Any:
        """Parse strictly: half a JSON object is none."""
        return self._built(json.loads(unfenced(generation.text), strict=False))

    def read_partial(self, text: str) -> Any:
        """Close what is open in the JSON; with `build`, only what it takes counts."""
        try:
            return self._built(partial_json(unfenced(text)))
        except Exception:  # as in `parse_result`
            return None

    def _built(self, value: Any) -> Any:
        return value if self.build is None else self.build(value)


class CallParser(JsonAnswerParser):
    """Reads the arguments of the first tool call."""

    @property
    def _type(self) -> str:
        return "glm4v_call"

    def text_of(self, chunk: str | BaseMessage) -> str:
        """The arguments in a chunk."""
        pieces = chunk.tool_call_chunks if isinstance(chunk, AIMessageChunk) else []
        return "".join(piece["args"] or "" for piece in pieces)

    def read(self, generation: Generation) -> Any:
        """Take the arguments; a call that is no valid one is none."""
        message = generation.message if isinstance(generation, ChatGeneration) else None
        if not isinstance(message, AIMessage) or not message.tool_calls:
            raise ValueError("there is no valid tool call in it")
        return self._built(message.tool_calls[0]["args"])


class ChoiceParser(AnswerParser):
    """Reads one of several choices.

    Attributes:
        choices: Text of each choice -> its value.
    """

    choices: dict[str, Any]

    @property
    def _type(self) -> str:
        return "glm4v_choice"

    def read(self, generation: Generation) -> Any:
        """Find the choice that the answer names; blanks, case and a full stop do not matter."""
        text = generation.text.strip()
        if text in self.choices:
            return self.choices[text]
        folded = _folded(text)
        found = [value for name, value in self.choices.items() if _folded(name) == folded]
        if len(found) != 1:
            raise ValueError(f"none of {', '.join(map(repr, self.choices))}")
        return found[0]


class BoxesParser(AnswerParser):
    """Reads the boxes of an answer as a list of `Box`."""

    @property
    def _type(self) -> str:
        return "glm4v_boxes"

    def read(self, generation: Generation) -> list[Box]:
        """Boxes of the box tags; of the whole answer if the model left the tags out."""
        message = getattr(generation, "message", None)
        tagged = message.additional_kwargs.get("boxes") if isinstance(message, AIMessage) else None
        text = "\n".join(tagged) if tagged else generation.text
        boxes = find_boxes(text)
        if not boxes and text.strip() not in {"", "[]"}:
            raise ValueError("no four numbers stand together in it")
        return boxes


def chain(model: Model, parser: AnswerParser, *, include_raw: bool) -> Runnable[Any, Any]:
    """The model with its parser.

    Args:
        model: The model, bound to the wanted form.
        parser: Reads its answers.
        include_raw: Whether to give a dict with `raw` (the message), `parsed` and `parsing_error`,
            which never raises for a bad answer, instead of the value alone. A stream of it gives
            the chunks of the message, then the other two.
    """
    if not include_raw:
        return model | parser
    return model | RunnableGenerator(partial(_outcomes, parser), partial(_aoutcomes, parser))


def choices_from(choices: Sequence[str]) -> dict[str, Any]:
    """Check choices given as texts.

    Raises:
        RequestError: There are fewer than two, or two alike, or one is empty.
    """
    if not isinstance(choices, Sequence) or not all(
        isinstance(choice, str) and choice.strip() for choice in choices
    ):
        raise RequestError(f"choices are {choices!r}: each must be a text that is not empty")
    if isinstance(choices, str) or len(choices) < 2 or len(set(choices)) < len(choices):
        raise RequestError(f"choices are {choices!r}: give two or more texts, all different")
    return {choice: choice for choice in choices}


def partial_json(text: str) -> Any:
    """Read JSON that is not whole yet: what is open is closed, what is half told is left out.

    Linear, unlike LangChain's own, which takes minutes for some long answers.

    Raises:
        ValueError: It tells nothing yet, or is no JSON.
        RecursionError: It is nested too deeply.
    """
    closers: list[str] = []
    settled = 0  # up to here it is whole, but for the brackets to be closed
    escape = len(text)  # where the last escape of a string begins
    in_string = False
    for mark in _JSON_MARK.finditer(text):
        at = mark.start()
        if at == escape + 1:  # escaped
            continue
        match mark[0]:
            case "\\":
                escape = at
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
    told = text
    if in_string:
        told = (text[:escape] if _HALF_ESCAPE.fullmatch(text, escape) else text) + '"'
    try:
        return json.loads(told + end, strict=False)
    except ValueError:
        return json.loads(text[:settled] + end, strict=False)


def _outcomes(parser: AnswerParser, messages: Iterator[BaseMessage]) -> Iterator[AddableDict]:
    """Give `raw`, `parsed` and `parsing_error` of a message as it comes."""
    chunks = []
    for message in messages:
        chunks.append(message)
        yield AddableDict(raw=message)
    yield _outcome(parser, chunks)


async def _aoutcomes(
    parser: AnswerParser, messages: AsyncIterator[BaseMessage]
) -> AsyncIterator[AddableDict]:
    chunks = []
    async for message in messages:
        chunks.append(message)
        yield AddableDict(raw=message)
    yield _outcome(parser, chunks)


def _outcome(parser: AnswerParser, chunks: Sequence[BaseMessage]) -> AddableDict:
    try:
        return AddableDict(parsed=parser.parse_result([_whole(chunks)]), parsing_error=None)
    except OutputParserException as error:
        return AddableDict(parsed=None, parsing_error=error)


class _Stream:
    """Parses one stream as it grows."""

    def __init__(self, parser: AnswerParser) -> None:
        self._parser = parser
        self._chunks: list[str | BaseMessage] = []
        self._texts: list[str] = []
        self._length = 0
        self._next = 0.0
        self._told: Any = None

    def add(self, chunk: str | BaseMessage) -> Iterator[Any]:
        text = self._parser.text_of(chunk)
        self._chunks.append(chunk)
        self._texts.append(text)
        self._length += len(text)
        if text and self._length >= self._next:
            self._next = self._length * _GROWTH
            yield from self._tell(self._parser.read_partial("".join(self._texts)))

    def end(self) -> Iterator[Any]:
        if self._chunks:
            yield from self._tell(self._parser.parse_result([_whole(self._chunks)]))

    def _tell(self, value: Any) -> Iterator[Any]:
        if value is not None and value != self._told:
            self._told = value
            yield value


def _whole(chunks: Sequence[str | BaseMessage]) -> Generation:
    """The generation that all chunks of a stream make, or its only message."""
    first: Any = chunks[0]
    rest = list(chunks[1:])
    if isinstance(first, str):
        return Generation(text=first + "".join(map(str, rest)))
    return ChatGeneration(message=first + rest if rest else first)


def _finish_reason(generation: Generation) -> str:
    if not isinstance(generation, ChatGeneration):
        return ""
    found = generation.message.response_metadata.get("finish_reason")
    return str(found or (generation.generation_info or {}).get("finish_reason") or "")


def _folded(choice: str) -> str:
    return choice.strip().rstrip(".。").casefold()


def _unusable(text: str, reason: str) -> OutputParserException:
    shown = text if len(text) <= 200 else f"{text[:100]} … {text[-100:]}"
    return OutputParserException(f"the answer {shown!r} is unusable: {reason}", llm_output=text)
