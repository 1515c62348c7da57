"""Grammars that leave the thinking free and bind the answer, in one request.

They are vLLM's structural tags: `<think>` any tokens `</think><answer>` and then an answer of one
form. Tags are given as token ids, because as strings the grammar would let the model spell them in
letters. `</answer>` is never part of a grammar: it is an end token, and closes the answer itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from langchain_glm4v.profiles import BOX, BOX_END, CONTROL_TOKENS
from langchain_glm4v.tool_protocol import CALL, CALL_END, Choice, Schema, dumps

Format: TypeAlias = dict[str, Any]
"""A format as xgrammar's structural tags know it."""

TAGS = (*CONTROL_TOKENS, BOX, BOX_END)
"""All strings whose token ids a grammar needs."""

# Without a bound, a model may fill the rest of its context with blanks.
_BLANKS = 1


def response_format(
    answer: Format,
    ids: Mapping[str, int],
    *,
    thinking: bool,
    budget: int | None = None,
    parsed: bool = False,
) -> dict[str, Any]:
    """The value of `response_format` for an answer.

    Args:
        answer: Form of the answer.
        ids: Token id of each of `TAGS`.
        thinking: Whether the model thinks first; False if the prompt ends in `<answer>` already.
        budget: Tokens of thinking, at most; None: no limit.
        parsed: Whether the server lets the grammar begin only behind the thinking; it binds no
            budget then.
    """
    if not thinking:
        return {"type": "structural_tag", "format": answer}
    line_break = {"type": "optional", "content": {"type": "const_string", "value": "\n"}}
    elements = [line_break, _token(ids["<answer>"]), answer]
    if not parsed:
        elements.insert(0, _thought(ids, budget))
    return {"type": "structural_tag", "format": {"type": "sequence", "elements": elements}}


def _thought(ids: Mapping[str, int], budget: int | None) -> Format:
    limit = {} if budget is None else {"max_tokens": budget}
    return {
        "type": "tag",
        "begin": _token(ids["<think>"]),
        "content": {
            "type": "any_tokens",
            "exclude_tokens": [ids[token] for token in CONTROL_TOKENS],
            **limit,
        },
        "end": _token(ids["</think>"]),
    }


def json_answer(schema: Schema) -> Format:
    """JSON by a schema."""
    return {
        "type": "json_schema",
        "json_schema": dict(schema),
        "max_whitespace_cnt": _BLANKS,
    }


def calls_answer(tools: Sequence[Schema], choice: Choice, *, parallel: bool) -> Format:
    """Calls of `tools`; of kind "auto" also text, before them or alone.

    Args:
        tools: Name, description and parameters of each.
        choice: Which may be called.
        parallel: Whether there may be several calls.
    """
    allowed = [t for t in tools if choice.kind != "named" or t["name"] == choice.name]
    tags = [
        {
            "type": "tag",
            "begin": f'{CALL}{{"name":{dumps(tool["name"])},"arguments":',
            "content": json_answer({**(tool.get("parameters") or {}), "type": "object"}),
            "end": f"}}{CALL_END}",
        }
        for tool in allowed
    ]
    if choice.kind == "auto":
        return {
            "type": "triggered_tags",
            "triggers": [CALL],
            "tags": tags,
            "stop_after_first": not parallel,
            "excludes": list(CONTROL_TOKENS),
        }
    return {
        "type": "tags_with_separator",
        "tags": tags,
        "separator": "",
        "at_least_one": True,
        "stop_after_first": not parallel,
    }


def choice_answer(choices: Sequence[str]) -> Format:
    """One of `choices`, word for word."""
    return {
        "type": "or",
        "elements": [{"type": "const_string", "value": choice} for choice in choices],
    }


def boxes_answer(ids: Mapping[str, int]) -> Format:
    """One box token, a list of boxes of four numbers from 0 to 1000, and the closing box token."""
    number = {"type": "integer", "minimum": 0, "maximum": 1000}
    box = {"type": "array", "items": number, "minItems": 4, "maxItems": 4}
    boxes = json_answer({"type": "array", "items": box})
    return {"type": "sequence", "elements": [_token(ids[BOX]), boxes, _token(ids[BOX_END])]}


def either(first: Format, second: Format) -> Format:
    """One of two forms."""
    return {"type": "or", "elements": [first, second]}


def _token(token_id: int) -> Format:
    return {"type": "token", "token": token_id}
