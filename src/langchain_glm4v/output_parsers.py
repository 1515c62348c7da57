"""Output parsers for chains: reasoning and answer apart, boxes, JSON.

They read the output of any client: messages of `ChatGLM4V`, which are split already, messages of
others with the model's tags in their text (`<think>…</think><answer>…`), or with the reasoning in a
field or a content block of its own, and plain strings. A server must not remove the tags: vLLM does
unless a request says `"skip_special_tokens": false`, for which `ChatOpenAI` has `extra_body`.

The parsers of values read whole messages, because only the finish reason tells an answer that was
cut off from one that is wrong. Of a stream, they give what can be told of the unfinished answer,
again and again.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers.transform import (
    BaseCumulativeTransformOutputParser,
    BaseTransformOutputParser,
)
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import Field, field_validator

from langchain_glm4v import lenient_json
from langchain_glm4v.content_blocks import PROVIDER
from langchain_glm4v.endings import Cut, cut_of
from langchain_glm4v.grounding import Box, find_boxes
from langchain_glm4v.reasoning import Kind, Piece, Splitter
from langchain_glm4v.tool_protocol import BOXES, format_prompt, unfenced

Chunk: TypeAlias = str | BaseMessage
"""A whole output, or a part of one, of whatever client."""

_CUT: Mapping[Cut | None, str] = {
    "length": "max_tokens cut it off: allow more, or set a thinking_budget",
    "repetition": "it repeated itself endlessly and was cut off: ask again, or in other words",
}
_STILL_THINKING = "it ends amid the thinking: allow more max_tokens, or set a thinking_budget"
# An answer of boxes alone, maybe in a fence.
_BOXES_ALONE = re.compile(r"\s*+(?:```\w*+\s*+)?[\[({（【]")
# A partial answer is read again only when it has grown by this share, which keeps the whole linear.
_GROWTH = 1.02


@dataclass(frozen=True, slots=True)
class Output:
    """A whole output of the model.

    Attributes:
        reasoning: The thinking; "" if it is not told.
        answer: The answer, without tags.
        boxes: What stood in the box tags of the answer.
        cut: Why it is not whole; "" if nothing cut it, as far as is known.
        message: The message that it is from, if it is from one.
    """

    reasoning: str
    answer: str
    boxes: Sequence[str]
    cut: str
    message: BaseMessage | None


class ThinkAnswerOutputParser(BaseTransformOutputParser[Any]):
    """Takes an output apart into reasoning and answer.

    A stream comes piece by piece. Of a client that leaves the model's tags in the text, what stands
    outside any tag is held back until it is clear whether it is the answer.

    An answer that was cut off is given as far as it goes; only one that was cut off before its
    first word is an error, where the answer is what is wanted.

    Attributes:
        returns: "answer": its text; "reasoning": that of the thinking, "" if it is not told;
            "both": a dict with these two keys, whose pieces add up. Default: "answer".
    """

    returns: Literal["answer", "reasoning", "both"] = "answer"

    @property
    def _type(self) -> str:
        return "glm4v_think_answer"

    def get_format_instructions(self) -> str:
        """Tell a model to write as GLM-4.1V-Thinking does by itself."""
        return (
            "# Format\nThink first, between <think> and </think>. "
            "Then answer, between <answer> and </answer>."
        )

    def parse(self, text: str) -> Any:
        """Take a whole output apart."""
        return self.parse_result([Generation(text=text)])

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Take the output of the first generation apart.

        Args:
            result: Generations, of which the first counts.
            partial: Whether more may follow; then no answer is no error.

        Raises:
            OutputParserException: The answer is wanted, and the output ends before it.
        """
        output = read_output(result[0])
        if not partial:
            self._check(output)
        if self.returns == "both":
            return {"reasoning": output.reasoning, "answer": output.answer}
        return output.reasoning if self.returns == "reasoning" else output.answer

    def _check(self, output: Output) -> None:
        if self.returns == "answer" and output.cut and not output.answer:
            raise _unusable(output.reasoning, output.cut)

    def _transform(self, input: Iterator[Chunk]) -> Iterator[Any]:  # noqa: A002
        stream = _Pieces(self.returns)
        for chunk in input:
            yield from stream.add(chunk)
        yield from stream.end()
        self._check(stream.output)

    async def _atransform(self, input: AsyncIterator[Chunk]) -> AsyncIterator[Any]:  # noqa: A002
        stream = _Pieces(self.returns)
        async for chunk in input:
            for piece in stream.add(chunk):
                yield piece
        for piece in stream.end():
            yield piece
        self._check(stream.output)


class AnswerParser(BaseCumulativeTransformOutputParser[Any]):
    """Base of the parsers of values: refuses answers that were cut off, by saying so.

    A stream gives what can be told of the unfinished answer, then the value, and raises at its end
    as a whole message does.

    Raises:
        ValueError: `diff` is set, a field of LangChain's base: a stream gives values, no patches.
    """

    @field_validator("diff")
    @classmethod
    def _no_diff(cls, diff: bool) -> bool:
        if diff:
            raise ValueError("streams give whole values, no patches: leave diff out")
        return diff

    def parse(self, text: str) -> Any:
        """Parse a whole output."""
        return self.parse_result([Generation(text=text)])

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse the output of the first generation.

        Args:
            result: Generations, of which the first counts.
            partial: Whether more may follow; an answer that tells nothing yet is None then.

        Raises:
            OutputParserException: The answer was cut off, or is not of the wanted form.
        """
        output = read_output(result[0])
        if partial:
            return self.read_partial(output.answer)
        if output.cut:
            raise _unusable(output.answer or output.reasoning, output.cut)
        try:
            return self.read(output)
        except Exception as error:  # also what the checks of a user's class raise
            raise _unusable(output.answer, f"{type(error).__name__}: {error}") from error

    def texts(self) -> Callable[[Chunk], str]:
        """For a stream: tells the part of each of its chunks that `read_partial` reads."""
        return _Reader().answer

    def read(self, output: Output) -> Any:
        """Turn a whole output into the value; raises what says that it is none."""
        raise NotImplementedError

    def read_partial(self, text: str) -> Any:  # noqa: ARG002 - for those that can
        """What an unfinished answer tells; None: nothing yet."""
        return None

    def _transform(self, input: Iterator[Chunk]) -> Iterator[Any]:  # noqa: A002
        stream = _Values(self)
        for chunk in input:
            yield from stream.add(chunk)
        yield from stream.end()

    async def _atransform(self, input: AsyncIterator[Chunk]) -> AsyncIterator[Any]:  # noqa: A002
        stream = _Values(self)
        async for chunk in input:
            for value in stream.add(chunk):
                yield value
        for value in stream.end():
            yield value


class BoxOutputParser(AnswerParser):
    """Reads the boxes of an answer, with the labels that it has for them.

    Only those in box tags, if there are any. A stream of an answer that begins with a box gives
    those that are whole, more and more; one that begins with words gives them at its end, because
    words may lead to box tags.

    Attributes:
        size: Width and height of a picture: then the boxes come as tuples of its pixels (left, top,
            right, bottom), as `PIL.Image.crop` takes them, and what lies outside is left out.
            Default: None: as `Box`, in thousandths, as they are.
    """

    size: tuple[int, int] | None = None

    @property
    def _type(self) -> str:
        return "glm4v_boxes"

    def get_format_instructions(self) -> str:
        """Ask for boxes; "Where is …?" must say of what."""
        return BOXES

    def read(self, output: Output) -> list[Any]:
        """Find the boxes; "[]" and nothing at all are no boxes, other words an error."""
        boxes = find_boxes(output.answer, output.boxes)
        told = "\n".join(output.boxes) or output.answer
        if not boxes and "".join(unfenced(told).split()) not in ("", "[]", "[[]]"):
            raise ValueError("no four numbers stand together in it")
        return self._scaled(boxes)

    def read_partial(self, text: str) -> list[Any] | None:
        """Find the boxes whose last number has ended, where it is clear that they count."""
        if not _BOXES_ALONE.match(text):
            return None
        return self._scaled(find_boxes(text.rstrip(".0123456789"))) or None

    def _scaled(self, boxes: list[Box]) -> list[Any]:
        if self.size is None:
            return boxes
        inside = filter(None, (box.clipped() for box in boxes))
        return [box.to_pixels(*self.size) for box in inside]


class JsonAnswerOutputParser(AnswerParser):
    """Reads JSON: the whole answer, bare or in a code fence, or else its last box.

    Python's literals are read too. A stream gives what can be told of unfinished JSON.

    Attributes:
        wanted: Given as `schema`: a pydantic class, of which an instance is made; or a TypedDict, a
            function or a JSON schema, which only the format instructions know. Default: None: any
            JSON.
    """

    wanted: Any = Field(default=None, alias="schema")

    @property
    def _type(self) -> str:
        return "glm4v_json"

    def get_format_instructions(self) -> str:
        """Ask for JSON that fits the schema, in the words that structured output uses."""
        return format_prompt(
            {"type": "object"} if self.wanted is None else json_schema(self.wanted)
        )

    def read(self, output: Output) -> Any:
        """Parse strictly: half a JSON object is none."""
        try:
            return self._built(lenient_json.loads(output.answer))
        except ValueError:
            boxes = [box for box in output.boxes if box]
            if not boxes or boxes[-1] == output.answer:
                raise
            return self._built(lenient_json.loads(boxes[-1]))

    def read_partial(self, text: str) -> Any:
        """Close what is open in the JSON; with a class, only what it takes counts."""
        try:
            return self._built(lenient_json.partial_json(unfenced(text)))
        except Exception:  # as in `parse_result`
            return None

    def _built(self, value: Any) -> Any:
        schema = self.wanted
        if not (isinstance(schema, type) and is_basemodel_subclass(schema)):
            return value
        # `pydantic.v1` has the older name alone.
        build = getattr(schema, "model_validate", None) or schema.parse_obj  # type: ignore[attr-defined]
        return build(value)


class CallParser(JsonAnswerOutputParser):
    """Reads the arguments of the first tool call."""

    @property
    def _type(self) -> str:
        return "glm4v_call"

    def texts(self) -> Callable[[Chunk], str]:
        """The arguments in each chunk."""
        return _arguments

    def read(self, output: Output) -> Any:
        """Take the arguments; a call that is no valid one is none."""
        if not isinstance(output.message, AIMessage) or not output.message.tool_calls:
            raise ValueError("there is no valid tool call in it")
        return self._built(output.message.tool_calls[0]["args"])


class ChoiceParser(AnswerParser):
    """Reads one of several choices.

    Attributes:
        choices: Text of each choice -> its value.
    """

    choices: dict[str, Any]

    @property
    def _type(self) -> str:
        return "glm4v_choice"

    def read(self, output: Output) -> Any:
        """Find the choice that the answer names; blanks, case and a full stop do not matter."""
        text = output.answer.strip()
        if text in self.choices:
            return self.choices[text]
        folded = _folded(text)
        found = [value for name, value in self.choices.items() if _folded(name) == folded]
        if len(found) != 1:
            raise ValueError(f"none of {', '.join(map(repr, self.choices))}")
        return found[0]


def json_schema(schema: Any) -> dict[str, Any]:
    """The schema of a class, a function or a tool; a JSON schema as it is.

    LangChain's own conversion drops what stands at the root of a schema that is no object's.
    """
    if isinstance(schema, Mapping) and not {"name", "function"} & schema.keys():
        is_known = schema.get("type") == "object" and "title" in schema
        return convert_to_json_schema(dict(schema)) if is_known else dict(schema)
    return convert_to_json_schema(schema)


def read_output(generation: Generation) -> Output:
    """Take a whole output apart, whatever client it is from."""
    message = generation.message if isinstance(generation, ChatGeneration) else None
    reader = _Reader()
    reader.feed(generation.text if message is None else message)
    reader.flush(cut_of(generation.generation_info or {}))
    return reader.output(message)


def whole(chunks: Sequence[Chunk]) -> Generation:
    """The generation that all chunks of a stream make, or its only message."""
    first: Any = chunks[0]
    rest = list(chunks[1:])
    if isinstance(first, str):
        return Generation(text=first + "".join(map(str, rest)))
    return ChatGeneration(message=first + rest if rest else first)


class _Reader:
    """Takes one output apart, as a whole or chunk by chunk."""

    def __init__(self) -> None:
        self._splitter: Splitter | None = None  # none for outputs that are split already
        self._told: dict[Kind, list[str]] = {"reasoning": [], "answer": []}
        self._boxes: Sequence[str] = ()
        self._cut: Cut | None = None

    def feed(self, chunk: Chunk) -> list[Piece]:
        """Take the next chunk in; returns what is settled by now."""
        if isinstance(chunk, str):
            return self._noted(self._split(chunk, ""))
        metadata = chunk.response_metadata
        self._cut = cut_of(metadata) or self._cut
        reasoning, text = _reasoning_of(chunk), str(chunk.text)
        if metadata.get("model_provider") != PROVIDER:
            return self._noted(self._split(text, reasoning))
        if boxes := chunk.additional_kwargs.get("boxes"):
            self._boxes = [*self._boxes, *boxes]
        return self._noted([("reasoning", reasoning), ("answer", text)])

    def answer(self, chunk: Chunk) -> str:
        """Take the next chunk in; returns what is settled of the answer."""
        return "".join(text for kind, text in self.feed(chunk) if kind == "answer")

    def flush(self, cut: Cut | None = None) -> list[Piece]:
        """End the output; returns what was held back."""
        self._cut = self._cut or cut
        if self._splitter is None:
            return []
        pieces = self._splitter.flush(finish_reason=self._cut)
        self._boxes = self._splitter.boxes
        return self._noted(pieces)

    def output(self, message: BaseMessage | None = None) -> Output:
        """All of it, once it has ended."""
        reasoning, answer = map("".join, (self._told["reasoning"], self._told["answer"]))
        cut = _CUT.get(self._cut, "")
        if reasoning and not answer and self._splitter and not self._splitter.complete:
            cut = cut or _STILL_THINKING
        return Output(reasoning, answer, self._boxes, cut, message)

    def _split(self, text: str, reasoning: str) -> list[Piece]:
        if not text and not reasoning:
            return []
        if self._splitter is None:
            # A client that tells the reasoning apart leaves the answer alone in the text.
            self._splitter = Splitter(eager=bool(reasoning))
        return [("reasoning", reasoning), *self._splitter.feed(text)]

    def _noted(self, pieces: list[Piece]) -> list[Piece]:
        pieces = [(kind, text) for kind, text in pieces if text]
        for kind, text in pieces:
            self._told[kind].append(text)
        return pieces


class _Pieces:
    """Gives what is wanted of one stream as it comes."""

    def __init__(self, returns: str) -> None:
        self._returns = returns
        self._reader = _Reader()
        self._missing = ["reasoning", "answer"] if returns == "both" else []

    def add(self, chunk: Chunk) -> Iterator[Any]:
        yield from self._wanted(self._reader.feed(chunk))

    def end(self) -> Iterator[Any]:
        yield from self._wanted(self._reader.flush())
        for kind in self._missing:
            yield AddableDict({kind: ""})

    @property
    def output(self) -> Output:
        return self._reader.output()

    def _wanted(self, pieces: list[Piece]) -> Iterator[Any]:
        for kind, text in pieces:
            if self._returns == "both":
                self._missing = [other for other in self._missing if other != kind]
                yield AddableDict({kind: text})
            elif kind == self._returns:
                yield text


class _Values:
    """Parses one stream as it grows."""

    def __init__(self, parser: AnswerParser) -> None:
        self._parser = parser
        self._text_of = parser.texts()
        self._chunks: list[Chunk] = []
        self._texts: list[str] = []
        self._length = 0
        self._next = 0.0
        self._told: Any = None

    def add(self, chunk: Chunk) -> Iterator[Any]:
        text = self._text_of(chunk)
        self._chunks.append(chunk)
        self._texts.append(text)
        self._length += len(text)
        if text and self._length >= self._next:
            self._next = self._length * _GROWTH
            yield from self._tell(self._parser.read_partial("".join(self._texts)))

    def end(self) -> Iterator[Any]:
        if self._chunks:
            yield from self._tell(self._parser.parse_result([whole(self._chunks)]))

    def _tell(self, value: Any) -> Iterator[Any]:
        if value is not None and value != self._told:
            self._told = value
            yield value


def _reasoning_of(message: BaseMessage) -> str:
    """The reasoning that a client tells apart from the text."""
    extras = message.additional_kwargs
    told = extras.get("reasoning_content") or extras.get("reasoning")
    if isinstance(told, str):
        return told
    if isinstance(message.content, str):
        return ""
    blocks = message.content_blocks
    return "".join(block.get("reasoning", "") for block in blocks if block["type"] == "reasoning")


def _arguments(chunk: Chunk) -> str:
    """The arguments of tool calls in a chunk."""
    pieces = chunk.tool_call_chunks if isinstance(chunk, AIMessageChunk) else []
    return "".join(piece["args"] or "" for piece in pieces)


def _folded(choice: str) -> str:
    return choice.strip().rstrip(".。").casefold()


def _unusable(text: str, reason: str) -> OutputParserException:
    shown = text if len(text) <= 200 else f"{text[:100]} … {text[-100:]}"
    return OutputParserException(f"the answer {shown!r} is unusable: {reason}", llm_output=text)
