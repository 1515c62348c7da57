"""LangChain messages into the messages of a chat-completions request.

    HumanMessage, SystemMessage, ToolMessage   text and pictures, order kept
    AIMessage                                  its answer alone: the model wants no past thinking
    ChatMessage                                by its role

The caller's messages are never changed.

**Control tokens.** The tokenizer of the model turns `<|user|>` or `<think>` into control tokens
wherever they stand, so a text from a user, a file or a tool could open a turn of its own. Every
text gets a zero-width space behind the first character of such a string: it reads the same and
stays text.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_glm4v import reasoning
from langchain_glm4v.errors import UnsupportedMediaError
from langchain_glm4v.media import image
from langchain_glm4v.profiles import CONTROL_TOKENS

_CONTROL_TOKEN = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))
_ZERO_WIDTH_SPACE = "\u200b"

# `developer` is OpenAI's name for system; the chat template knows these four alone.
_CHAT_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def to_wire(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Convert a conversation.

    An assistant turn that has neither an answer nor tool calls, as a cut-off thinking leaves it,
    is left out: an empty turn would teach the model to say nothing.

    Args:
        messages: The conversation; local pictures are read now.

    Returns:
        The value of `messages` in the request.

    Raises:
        MediaError: If a picture cannot be sent, or a content block is of another kind.
        TypeError: If a message is of a class that has no place in a conversation.
        ValueError: If a `ChatMessage` has a role that the chat template does not know.
    """
    turns = [_turn(message) for message in messages]
    return [
        turn
        for turn in turns
        if turn["content"] or turn["role"] != "assistant" or "tool_calls" in turn
    ]


def neutralise(text: str) -> str:
    """Break the control tokens in a text by a zero-width space, so that they stay text."""
    return _CONTROL_TOKEN.sub(
        lambda found: _ZERO_WIDTH_SPACE.join((found[0][0], found[0][1:])), text
    )


def _turn(message: BaseMessage) -> dict[str, Any]:
    match message:
        case HumanMessage():
            return {"role": "user", "content": _content(message.content)}
        case SystemMessage():
            return {"role": "system", "content": _content(message.content)}
        case ToolMessage():
            return {
                "role": "tool",
                "content": _content(message.content),
                "tool_call_id": message.tool_call_id,
            }
        case AIMessage():
            return _assistant_turn(message)
        case ChatMessage(role=role) if role in _CHAT_ROLES:
            return {"role": _CHAT_ROLES[role], "content": _content(message.content)}
        case ChatMessage(role=role):
            raise ValueError(
                f"a message has the role {role!r}: the model knows {', '.join(_CHAT_ROLES)}"
            )
        case _:
            raise TypeError(
                f"a {type(message).__name__} has no place in a conversation: accepted are human, "
                "system, AI, tool and chat messages"
            )


def _assistant_turn(message: AIMessage) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": "assistant", "content": neutralise(_answer(message))}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {
                    "name": call["name"],
                    "arguments": json.dumps(call["args"], ensure_ascii=False),
                },
            }
            for call in message.tool_calls
        ]
    return turn


def _answer(message: AIMessage) -> str:
    """The text of an earlier turn, without the thinking that other clients leave in it."""
    text = str(message.text)
    if text.lstrip().startswith(("<think>", "<answer>")):
        return reasoning.parse(text).answer
    return text


def _content(content: str | Sequence[str | Mapping[str, Any]]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return neutralise(content)
    parts: list[dict[str, Any]] = []
    for block in content:
        if not isinstance(block, str | Mapping):
            raise UnsupportedMediaError(
                f"a message has a {type(block).__name__} in its content: a content block is a "
                "string or a dict with a type"
            )
        part = {"type": "text", "text": block} if isinstance(block, str) else _part(block)
        # Neighbours are joined, because a control token could be spelled across the gap.
        if parts and parts[-1]["type"] == part["type"] == "text":
            part = {"type": "text", "text": parts.pop()["text"] + part["text"]}
        parts.append(part)
    return [
        {"type": "text", "text": neutralise(part["text"])} if part["type"] == "text" else part
        for part in parts
    ]


def _part(block: Mapping[str, Any]) -> dict[str, Any]:
    kind = block.get("type")
    convert = _PARTS.get(str(kind))
    if convert is None:
        raise UnsupportedMediaError(
            f"a content block of type {kind!r} cannot be sent: accepted are {', '.join(_PARTS)} "
            "(a page of a PDF goes in as an image: langchain_glm4v.media.document.pdf_page_image)"
        )
    return convert(block)


def _text_part(block: Mapping[str, Any]) -> dict[str, Any]:
    text = block.get("text")
    if not isinstance(text, str):
        raise UnsupportedMediaError(
            f"a text block has the text {text!r}: write {{'type': 'text', 'text': '…'}}"
        )
    return {"type": "text", "text": text}


def _image_part(block: Mapping[str, Any]) -> dict[str, Any]:
    """LangChain's own form: `url`, `base64` or `path` beside the type."""
    if (data := block.get("base64")) is not None:
        if not isinstance(data, str | bytes):
            raise UnsupportedMediaError(
                f"an image block has a {type(data).__name__} as base64: give a string, as "
                "base64.b64encode(…).decode() makes it"
            )
        return _picture(image.from_base64(data))
    given = [block.get("url"), block.get("path")]
    source = next((value for value in given if value is not None), None)
    if not isinstance(source, str | os.PathLike):
        raise UnsupportedMediaError(
            f"an image block with the keys {', '.join(map(str, block))} has no picture: add url, "
            "path or base64, a string each"
        )
    return _picture(image.to_url(source))


def _image_url_part(block: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's form: `{"image_url": {"url": …}}`, or the URL alone."""
    source = block.get("image_url")
    source = source.get("url") if isinstance(source, Mapping) else source
    if not isinstance(source, str):
        raise UnsupportedMediaError(
            'an image_url block has no URL: write {"type": "image_url", "image_url": {"url": …}}'
        )
    return _picture(image.to_url(source))


def _picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


_PARTS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "text": _text_part,
    "image": _image_part,
    "image_url": _image_url_part,
}
