"""Turns what a server sends back into LangChain's messages.

    chat.completion       -> read_completion   -> ChatResult
    chat.completion.chunk -> StreamReader.read -> ChatGenerationChunk

Replies are plain dicts; no HTTP happens here. Their text is raw: `reasoning.Splitter` tells
thinking from answer in it, `tool_protocol.CallSplitter` finds the tool calls of the answer.
"""

import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import (
    ToolCallChunk,
    invalid_tool_call,
    tool_call,
    tool_call_chunk,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_openai.chat_models.base import _create_usage_metadata

from langchain_glm4v.content_blocks import PROVIDER
from langchain_glm4v.errors import ReplyError
from langchain_glm4v.reasoning import Piece, Splitter
from langchain_glm4v.tool_protocol import CallPiece, CallSplitter, json_object

# What a reply of an unforeseen shape raises on the way.
_MISSHAPEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_Call: TypeAlias = tuple[str, str | None, str]  # name, id, arguments
_THOUGHT = "<think></think>"  # stands for the reasoning that the server split off
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*("|\\?\Z)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reading:
    """How the text of a reply is to be read.

    Attributes:
        given: What the prompt already holds of the output, such as `"<think></think>"`.
        eager: As for `reasoning.Splitter`. Goes without saying where the server sends the reasoning
            in a field of its own.
        strict: As for `reasoning.Splitter`: our own grammar wrote the output.
        calls: Whether the answer may hold tool calls in the protocol of `tool_protocol`.
        bare_calls: As `bare` of `tool_protocol.CallSplitter`.
    """

    given: str = ""
    eager: bool = False
    strict: bool = False
    calls: bool = False
    bare_calls: bool = False


def read_completion(
    response: Mapping[str, Any], reading: Reading, *, headers: Mapping[str, str] | None = None
) -> ChatResult:
    """Turn a whole reply into messages, one for each choice.

    Args:
        response: A `chat.completion`.
        reading: How its text is to be read.
        headers: Of the HTTP response, for `response_metadata["headers"]`.

    Returns:
        The messages. As with OpenAI's, each has the usage of the whole request.

    Raises:
        ReplyError: If `response` is no `chat.completion`.
    """
    with well_formed("chat.completion", response):
        return _read_completion(response, reading, headers)


class StreamReader:
    """Turns the events of one stream into chunks of a message.

    Read every event, then take the rest. The chunks add up to the message that `read_completion`
    makes of the same reply, but for the arguments of its invalid tool calls: they end with
    superfluous braces, without which LangChain would mend the JSON of a call that was cut off, and
    offer it as valid.

    Args:
        reading: How the text is to be read.
        headers: Of the HTTP response, for `response_metadata["headers"]`.
    """

    def __init__(self, reading: Reading, *, headers: Mapping[str, str] | None = None) -> None:
        self._output = _Output(reading)
        self._native = _CallChunks(none="{}")
        self._calls = _CallChunks(none="")
        self._info = _known(headers=headers and dict(headers))  # for the next chunk
        self._usage: _Usage | None = None  # the latest figures
        self._usage_told = False
        self._begun = False
        self._ended = False

    def read(self, event: Mapping[str, Any]) -> ChatGenerationChunk | None:
        """Read the next event.

        Args:
            event: A `chat.completion.chunk`.

        Returns:
            What is settled by now; None if the event settles nothing.

        Raises:
            ReplyError: If `event` is no `chat.completion.chunk`.
        """
        with well_formed("chat.completion.chunk", event):
            return self._read(event)

    def rest(self) -> list[ChatGenerationChunk]:
        """End the stream; returns what was held back if it broke off without a finish reason.

        Raises:
            ReplyError: If no event had a choice, or the usage told so far is none.
        """
        if self._ended:
            return []
        if not self._begun:
            raise ReplyError(
                "the stream ended before anything of an answer came: see the server's log, or try "
                "again"
            )
        with well_formed("chat.completion.chunk", self._usage):
            parts = self._end(None, None)
            chunk = self._chunk(parts, self._call_chunks({}, parts))
        return [] if chunk is None else [chunk]

    def _read(self, event: Mapping[str, Any]) -> ChatGenerationChunk | None:
        if usage := event.get("usage"):
            self._usage = _Usage(usage, event.get("service_tier"))
        choices = event.get("choices")
        # Some hosts send empty choices after the end, which only bring the usage.
        if self._ended or not choices or choices[0].get("delta") is None:
            return self._chunk(_Parts(), [])
        choice = choices[0]
        self._begun = True
        parts = self._output.feed(choice["delta"])
        if logprobs := choice.get("logprobs"):
            self._info["logprobs"] = logprobs
        if choice.get("finish_reason"):
            parts += self._end(choice["finish_reason"], choice.get("stop_reason"))
            # Adding chunks joins their strings, so what is said once stands in one chunk alone.
            self._info |= _ending(choice) | _origin(event)
        return self._chunk(parts, self._call_chunks(choice["delta"], parts))

    def _end(self, finish_reason: str | None, stop_reason: int | str | None) -> "_Parts":
        self._ended = True
        return self._output.flush(finish_reason, stop_reason)

    def _call_chunks(self, delta: Mapping[str, Any], parts: "_Parts") -> list[ToolCallChunk]:
        native = self._native.read(_native_pieces(delta), ended=self._ended)
        return native + self._calls.read(parts.calls, ended=self._ended)

    def _chunk(self, parts: "_Parts", calls: list[ToolCallChunk]) -> ChatGenerationChunk | None:
        metadata: dict[str, Any] = {"model_provider": PROVIDER}
        usage: UsageMetadata | None = None
        # Some hosts send the figures so far with every event.
        if self._ended and self._usage and not self._usage_told:
            self._usage_told = True
            usage, how = self._usage.metadata([self._output])
            metadata |= how
        extras = parts.extras()
        info, self._info = self._info, {}
        if not (parts.answer or extras or calls or info or usage):
            return None
        message = AIMessageChunk(
            content=parts.answer,
            additional_kwargs=extras,
            response_metadata=metadata,
            tool_call_chunks=calls,
            usage_metadata=usage,
        )
        return ChatGenerationChunk(message=message, generation_info=info or None)


@dataclass(slots=True)
class _Parts:
    """What a piece of output holds."""

    reasoning: str = ""
    answer: str = ""
    calls: Sequence[CallPiece] = ()
    boxes: Sequence[str] = ()

    def __add__(self, other: "_Parts") -> "_Parts":
        return _Parts(
            self.reasoning + other.reasoning,
            self.answer + other.answer,
            [*self.calls, *other.calls],
            [*self.boxes, *other.boxes],
        )

    def extras(self) -> dict[str, Any]:
        """The entries of `additional_kwargs`; none for what the output does not have."""
        extras: dict[str, Any] = {}
        if self.reasoning:
            extras["reasoning_content"] = self.reasoning
        if self.boxes:
            extras["boxes"] = list(self.boxes)
        return extras


class _Output:
    """Takes the output of one choice apart, as a whole or in pieces, and measures it.

    Attributes:
        size: UTF-8 bytes of the output so far.
        reasoning_size: UTF-8 bytes of the reasoning in it.
    """

    def __init__(self, reading: Reading) -> None:
        self.size = 0
        self.reasoning_size = 0
        self._begun = False
        self._over = "</think>" in reading.given
        self._strict = reading.strict
        self._splitter = Splitter(eager=reading.eager, strict=reading.strict)
        self._splitter.feed(reading.given)
        self._calls = CallSplitter(bare=reading.bare_calls) if reading.calls else None

    def feed(self, fields: Mapping[str, Any]) -> _Parts:
        """Read a message, or the delta of one."""
        text, given = text_of(fields.get("content")), reasoning_of(fields)
        if self._over:
            # A parser takes what continues a finished thinking for thinking.
            text, given = given + text, ""
        self.size += _size(given) + _size(text)
        if given and not self._begun:
            self._splitter = Splitter(eager=not self._strict, strict=self._strict)
            if self._strict:
                self._splitter.feed(_THOUGHT)
        self._begun = self._begun or bool(given or text)
        parts = self._parts(self._splitter.feed(text)) if text else _Parts()
        if given:
            parts.reasoning = given + parts.reasoning
            self.reasoning_size += _size(given)
        return parts

    def flush(self, finish_reason: str | None, stop_reason: int | str | None) -> _Parts:
        """End the output; returns what was held back."""
        pieces = self._splitter.flush(finish_reason=finish_reason, stop_reason=stop_reason)
        parts = self._parts(pieces)
        if self._calls is not None:
            parts += _answer_parts(self._calls.flush())
        parts.boxes = self._splitter.boxes
        return parts

    def _parts(self, pieces: list[Piece]) -> _Parts:
        reasoning = answer = ""
        for kind, text in pieces:
            if kind == "reasoning":
                reasoning += text
            else:
                answer += text
        if reasoning:
            self.reasoning_size += _size(reasoning)
        if self._calls is None or not answer:
            return _Parts(reasoning, answer)
        parts = _answer_parts(self._calls.feed(answer))
        parts.reasoning = reasoning
        return parts


def _answer_parts(pieces: Sequence[str | CallPiece]) -> _Parts:
    return _Parts(
        answer="".join(piece for piece in pieces if isinstance(piece, str)),
        calls=[piece for piece in pieces if isinstance(piece, CallPiece)],
    )


@dataclass(frozen=True, slots=True)
class _Usage:
    """The server's count of tokens.

    Attributes:
        counted: The `usage` of a reply.
        service_tier: The reply's, if it has one.
    """

    counted: Mapping[str, Any]
    service_tier: str | None

    def metadata(self, outputs: Sequence[_Output]) -> tuple[UsageMetadata, dict[str, Any]]:
        """Give the count in LangChain's form, and a mark if its share of reasoning is estimated.

        Where the server does not count the tokens of the reasoning, they are taken to be as large
        as the others. A 0 beside a reasoning comes from a server that did not look for it.
        """
        usage = _create_usage_metadata(dict(self.counted), self.service_tier)
        reasoning = sum(output.reasoning_size for output in outputs)
        details = self.counted.get("completion_tokens_details") or {}
        if not reasoning or details.get("reasoning_tokens"):
            return usage, {}
        share = min(1, reasoning / sum(output.size for output in outputs))
        estimate = round(usage["output_tokens"] * share)
        usage["output_token_details"] = {
            **usage.get("output_token_details", {}),
            "reasoning": estimate,
        }
        return usage, {"reasoning_tokens": "estimated"}


@dataclass(slots=True)
class _OpenCall:
    """A tool call as far as it has come."""

    index: int
    name: str | None
    id: str | None
    arguments: list[str]


class _CallChunks:
    """Turns the pieces of tool calls into LangChain's chunks.

    Args:
        none: The JSON that a call without any arguments stands for.
    """

    def __init__(self, *, none: str) -> None:
        self._none = none
        self._open: list[_OpenCall] = []

    def read(self, pieces: Sequence[CallPiece], *, ended: bool) -> list[ToolCallChunk]:
        """Give the chunks of the pieces of one event, one for each call.

        Args:
            pieces: What the event brings.
            ended: Whether it is the last; calls that are invalid now are made to stay so.
        """
        event: list[_OpenCall] = []
        for piece in pieces:
            _add(self._open, piece)
            _add(event, piece)
        if ended:
            for call in self._open:
                arguments = "".join(call.arguments)
                if not (call.name and json_object(arguments or self._none) is not None):
                    _add(event, CallPiece(call.index, None, call.id, _spoiler(arguments)))
        return [
            tool_call_chunk(
                name=call.name, args="".join(call.arguments), id=call.id, index=call.index
            )
            for call in event
        ]


def _add(calls: list[_OpenCall], piece: CallPiece) -> None:
    """Add a piece to its call, which is the one LangChain adds it to if it is of a later event."""
    for call in calls:
        if call.index == piece.index and (not call.id or not piece.id or call.id == piece.id):
            call.name = piece.name if call.name is None else call.name
            call.id = call.id or piece.id
            call.arguments.append(piece.arguments)
            return
    calls.append(_OpenCall(piece.index, piece.name, piece.id, [piece.arguments]))


def _read_completion(
    response: Mapping[str, Any], reading: Reading, headers: Mapping[str, str] | None
) -> ChatResult:
    choices = response["choices"]
    if not choices:
        raise ValueError("it has no choices")
    outputs = [_Output(reading) for _ in choices]
    read = [_whole(choice, output) for choice, output in zip(choices, outputs, strict=True)]
    origin = _origin(response)
    counted = response.get("usage")
    usage: UsageMetadata | None = None
    how: dict[str, Any] = {}
    if counted:
        usage, how = _Usage(counted, response.get("service_tier")).metadata(outputs)
    told = _known(headers=headers and dict(headers))
    generations = [
        ChatGeneration(
            message=AIMessage(
                content=parts.answer,
                additional_kwargs=parts.extras(),
                response_metadata={"model_provider": PROVIDER, **origin, **how},
                usage_metadata=usage,
                **_calls(choice, parts),
            ),
            generation_info={**told, **_known(logprobs=choice.get("logprobs")), **_ending(choice)},
        )
        for choice, parts in zip(choices, read, strict=True)
    ]
    llm_output = {"token_usage": counted, "model_provider": PROVIDER, **origin}
    return ChatResult(generations=generations, llm_output=llm_output)


def _whole(choice: Mapping[str, Any], output: _Output) -> _Parts:
    parts = output.feed(choice["message"])
    return parts + output.flush(choice.get("finish_reason"), choice.get("stop_reason"))


def _calls(choice: Mapping[str, Any], parts: _Parts) -> dict[str, Any]:
    """The tool calls of a message, valid and invalid."""
    valid: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for name, identifier, arguments in (
        *_native_calls(choice["message"]),
        *_protocol_calls(parts.calls),
    ):
        values = json_object(arguments)
        if name and values is not None:
            valid.append(tool_call(name=name, args=values, id=identifier))
        else:
            error = _call_error(name, choice.get("finish_reason"))
            invalid.append(invalid_tool_call(name=name, args=arguments, id=identifier, error=error))
    return {"tool_calls": valid, "invalid_tool_calls": invalid}


def _native_calls(message: Mapping[str, Any]) -> list[_Call]:
    """The tool calls that the server found; a tool without parameters has no arguments there."""
    return [
        (call["function"]["name"], call.get("id"), call["function"].get("arguments") or "{}")
        for call in message.get("tool_calls") or ()
    ]


def _native_pieces(delta: Mapping[str, Any]) -> list[CallPiece]:
    return [
        CallPiece(
            index=call["index"],
            name=call["function"].get("name"),
            id=call.get("id"),
            arguments=call["function"].get("arguments") or "",
        )
        for call in delta.get("tool_calls") or ()
    ]


def _protocol_calls(pieces: Sequence[CallPiece]) -> list[_Call]:
    arguments: dict[int, list[str]] = {}
    for piece in pieces:
        arguments.setdefault(piece.index, []).append(piece.arguments)
    return [
        (piece.name, piece.id, "".join(arguments[piece.index]))
        for piece in pieces
        if piece.name is not None
    ]


def _call_error(name: str, finish_reason: str | None) -> str:
    what = "the arguments are no JSON object" if name else "the call names no tool"
    cut = ": the output was cut off, raise max_tokens" if finish_reason == "length" else ""
    return what + cut


def _spoiler(text: str) -> str:
    """What to put behind broken JSON so that no repair can make it valid."""
    ends = ['"', *(match[1] for match in _JSON_STRING.finditer(text))]
    # An open string is closed first, or the braces would belong to it.
    close = "" if ends[-1] == '"' else f'{ends[-1]}"'
    return close + "}" * (text.count("{") + 1)


def reasoning_of(fields: Mapping[str, Any]) -> str:
    """The reasoning that a server split off; vLLM and hosts name it differently."""
    return fields.get("reasoning") or fields.get("reasoning_content") or ""


def text_of(content: Any) -> str:
    """The text of a content, which some hosts send in parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _ending(choice: Mapping[str, Any]) -> dict[str, Any]:
    return _known(finish_reason=choice.get("finish_reason"), stop_reason=choice.get("stop_reason"))


def _origin(reply: Mapping[str, Any]) -> dict[str, Any]:
    return _known(
        id=reply.get("id"),
        model_name=reply.get("model"),
        system_fingerprint=reply.get("system_fingerprint"),
        service_tier=reply.get("service_tier"),
    )


def _known(**entries: Any) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value is not None}


@contextmanager
def well_formed(kind: str, reply: Any) -> Iterator[None]:
    """Around the reading of a reply.

    Raises:
        ReplyError: No message can be made of it.
    """
    try:
        yield
    except ReplyError:
        raise
    except _MISSHAPEN as error:
        reason = " ".join(str(error).split())[:200]
        raise ReplyError(
            f"the server sent no {kind} ({type(error).__name__}: {reason}) but "
            f"{reprlib.repr(reply)}: check that base_url leads to the /v1 of an OpenAI-compatible "
            "server"
        ) from error
