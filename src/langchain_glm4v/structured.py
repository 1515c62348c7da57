"""Answers of a wanted form: JSON by a schema, one of several choices, boxes.

The request asks for the form and, where the server can, a grammar binds the answer to it, with the
thinking left free. The parsers of `output_parsers` turn the answer into what the caller asked for.
"""

import enum
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, get_args, get_origin

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableGenerator
from langchain_core.runnables.utils import AddableDict

from langchain_glm4v.errors import RequestError
from langchain_glm4v.output_parsers import AnswerParser, json_schema, whole

Model: TypeAlias = Runnable[LanguageModelInput, BaseMessage]


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
    wanted = {"name": "answer", "schema": json_schema(schema)}
    return {"type": "json_schema", "json_schema": wanted}


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
        return AddableDict(parsed=parser.parse_result([whole(chunks)]), parsing_error=None)
    except OutputParserException as error:
        return AddableDict(parsed=None, parsing_error=error)
