"""LangChain messages into the messages of a chat-completions request.

    HumanMessage, SystemMessage   text and pictures or a video, order kept; a document or TIFF as
                                  pictures of its pages
    AIMessage                     its answer and tool calls: the model wants no past thinking
    ToolMessage                   a user turn with `<tool_response>`, or a tool turn
    ChatMessage                   by its role

The caller's messages are never changed. Blocks of other makers are read too: Anthropic's pictures,
OpenAI's files. What an AIMessage has in its content beside text (thinking, tool calls as any maker
writes them) is left out, because LangChain keeps its tool calls in `tool_calls`.

**Pictures or a video.** The model takes pictures, or one video, in a request. The last medium of a
conversation tells which: the others become a text that says that they are left out.

**Local files** are read anywhere for messages of the program's author (human, system), and for what
tools and models write only where `Preparation.allowed_dirs` allows it.

**Control tokens.** The tokenizer of the model turns `<|user|>` or `<think>` into control tokens
wherever they stand, so a text from a user, a file or a tool could open a turn of its own, and the
tags of our tool protocol could forge a call or a result. Every text gets a zero-width space behind
the first character of such a string: it reads the same and stays text.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)

from langchain_glm4v import media_blocks, reasoning, tool_protocol
from langchain_glm4v.conversation import LEFT_OUT
from langchain_glm4v.errors import MediaError, RequestError, UnsupportedMediaError
from langchain_glm4v.media_blocks import Medium
from langchain_glm4v.preparation import Preparation, at_once
from langchain_glm4v.profiles import CONTROL_TOKENS
from langchain_glm4v.turns import (
    Part,
    Turn,
    joined,
    text_part,
)

_ANYWHERE = Preparation()

_CONTROL_TOKEN = re.compile("|".join(map(re.escape, (*CONTROL_TOKENS, *tool_protocol.TAGS))))
_ZERO_WIDTH_SPACE = "\u200b"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")

# `developer` is OpenAI's name for system; the chat template knows these four alone.
_CHAT_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
# Of a `ChatMessage`: whose words these roles are is up to the program's author.
_AUTHORS_ROLES = ("system", "developer", "user")
# Type of a block -> how one with a medium is written.
_MEDIA_FORMS = {
    "image": "add url, path, or base64 with its mime_type, a string each, or a PIL image as image",
    "image_url": 'write {"type": "image_url", "image_url": {"url": …}}',
    "file": "add url, path or base64 of a document, a string each",
    "document": 'write {"type": "document", "source": {"type": "base64", "data": …}}',
    "video": "add url, path or base64, a string each",
    "video_url": 'write {"type": "video_url", "video_url": {"url": …}}',
}


def to_wire(
    messages: Sequence[BaseMessage],
    media: Preparation = _ANYWHERE,
    *,
    native_tools: bool = False,
) -> list[Turn]:
    """Convert a conversation.

    An assistant turn that has neither an answer nor tool calls, as a cut-off thinking leaves it,
    is left out: an empty turn would teach the model to say nothing.

    Args:
        messages: The conversation; its media are read now.
        media: How they are made ready for the server.
        native_tools: Whether the model's chat template knows tool calls and results. Otherwise they
            are written as text, as `tool_protocol` says.

    Returns:
        The value of `messages` in the request.

    Raises:
        MediaError: If a picture, document or video cannot be sent, a content block is of another
            kind, or several videos, or a video and pictures, follow the last reply.
        RequestError: If a message is of a class that has no place in a conversation, or a
            `ChatMessage` has a role that the chat template does not know.
    """
    turns = [_turn(message, native_tools, media) for message in _of_one_kind(_in_order(messages))]
    return [
        turn
        for turn in turns
        if turn["content"] or turn["role"] != "assistant" or "tool_calls" in turn
    ]


def neutralise(text: str) -> str:
    """Break control tokens and protocol tags by a zero-width space, so that they stay text.

    Halves of surrogate pairs, which no request can carry, become replacement characters.
    """
    return _CONTROL_TOKEN.sub(
        lambda found: _ZERO_WIDTH_SPACE.join((found[0][0], found[0][1:])),
        _HALF_CHARACTER.sub("\ufffd", text),
    )


def _in_order(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages with the results of several calls in the order of the calls.

    As text, a result has neither an id nor a name: its place tells which call it answers.
    """
    ordered: list[BaseMessage] = []
    places: dict[str | None, int] = {}
    for answering, group in groupby(messages, key=lambda m: isinstance(m, ToolMessage)):
        run = list(group)
        if answering:
            run.sort(key=lambda m: places.get(getattr(m, "tool_call_id", None), len(places)))
        elif isinstance(run[-1], AIMessage):
            places = {call["id"]: place for place, call in enumerate(run[-1].tool_calls)}
        ordered += run
    return ordered


def _of_one_kind(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages with pictures or one video; here, so that the others are not even read."""
    shown = [
        (number, place, kind)
        for number, message in enumerate(messages)
        # Of an AIMessage the text alone is sent.
        if not isinstance(message.content, str) and not isinstance(message, AIMessage)
        for place, block in enumerate(message.content)
        if (kind := media_blocks.kind_of(block)) is not None
    ]
    # A last AIMessage is the begin of a reply that is to be continued.
    replies = [n for n, m in enumerate(messages[:-1]) if isinstance(m, AIMessage)]
    asked = [kind for number, _, kind in shown if number > max(replies, default=-1)]
    if "video" in asked and len(asked) > 1:
        raise MediaError(
            f"the last turn has {_counted(asked)}, and the model takes one video, or pictures, in "
            "a request: ask about one after the other, or send frames of a video as pictures"
        )
    result = list(messages)
    is_video = bool(shown) and shown[-1][2] == "video"
    for number, place, kind in shown[:-1]:
        if is_video or kind == "video":
            content = list(result[number].content)
            content[place] = LEFT_OUT[kind]
            result[number] = result[number].model_copy(update={"content": content})
    return result


def _counted(kinds: Sequence[media_blocks.Kind]) -> str:
    """How many of each kind, in words."""
    counts = Counter(kinds)
    return " and ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counts.items())


def _may_name_files(message: BaseMessage) -> bool:
    """Whether a message is the program's author's, and no tool's or model's."""
    if isinstance(message, ChatMessage):
        return message.role in _AUTHORS_ROLES
    return isinstance(message, HumanMessage | SystemMessage)


def _turn(message: BaseMessage, native_tools: bool, media: Preparation) -> Turn:
    if not _may_name_files(message):
        media = media.for_others
    match message:
        case HumanMessage():
            return {"role": "user", "content": _content(message.content, media)}
        case SystemMessage():
            return {"role": "system", "content": _content(message.content, media)}
        case ToolMessage() if native_tools:
            return {
                "role": "tool",
                "content": _content(message.content, media),
                "tool_call_id": message.tool_call_id,
            }
        case AIMessage():
            return _native_turn(message) if native_tools else _assistant_turn(message)
        case ToolMessage() | ChatMessage(role="tool") if not native_tools:
            return {"role": "user", "content": _result(_content(message.content, media))}
        case ChatMessage(role=role) if role in _CHAT_ROLES:
            return {"role": _CHAT_ROLES[role], "content": _content(message.content, media)}
        case ChatMessage(role=role):
            raise RequestError(
                f"a message has the role {role!r}: the model knows {', '.join(_CHAT_ROLES)}"
            )
        case _:
            raise RequestError(
                f"a {type(message).__name__} has no place in a conversation: accepted are human, "
                "system, AI, tool and chat messages"
            )


def _assistant_turn(message: AIMessage) -> Turn:
    calls = [*map(_call, message.tool_calls), *map(_invalid_call, message.invalid_tool_calls)]
    return {"role": "assistant", "content": neutralise(_answer(message)) + "".join(calls)}


def _call(call: ToolCall) -> str:
    # No control token can be made of JSON's own signs, so neutral JSON is still JSON.
    arguments = json.loads(neutralise(tool_protocol.dumps(call["args"])))
    return tool_protocol.call(neutralise(call["name"]), arguments)


def _invalid_call(call: InvalidToolCall) -> str:
    """The call as the model wrote it; without a name, all of it is in the arguments."""
    name, arguments = call["name"], call["args"] or ""
    text = f'{{"name":{tool_protocol.dumps(name)},"arguments":{arguments}}}' if name else arguments
    return f"{tool_protocol.CALL}{neutralise(text)}{tool_protocol.CALL_END}"


def _native_turn(message: AIMessage) -> Turn:
    turn: Turn = {"role": "assistant", "content": neutralise(_answer(message))}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {
                    "name": call["name"],
                    "arguments": neutralise(json.dumps(call["args"], ensure_ascii=False)),
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


def _result(content: str | list[Part]) -> str | list[Part]:
    """A tool's result between the tags, its pictures too."""
    if isinstance(content, str):
        return tool_protocol.result(content)
    return joined([text_part(tool_protocol.RESULT), *content, text_part(tool_protocol.RESULT_END)])


def _content(
    content: str | Sequence[str | Mapping[str, Any]], media: Preparation
) -> str | list[Part]:
    if isinstance(content, str):
        return neutralise(content)
    several = sum(media_blocks.kind_of(block) is not None for block in content) > 1
    blocks = (at_once if several else map)(lambda block: _parts(block, media), content)
    # Joined first, because a control token could be spelled across the gap of two texts.
    parts = joined(chain.from_iterable(blocks))
    return [
        text_part(neutralise(part["text"])) if part["type"] == "text" else part for part in parts
    ]


def _parts(block: Any, media: Preparation) -> list[Part]:
    if isinstance(block, str):
        return [text_part(block)]
    if not isinstance(block, Mapping):
        raise UnsupportedMediaError(
            f"a message has a {type(block).__name__} in its content: a content block is a "
            "string or a dict with a type"
        )
    if block.get("type") == "text":
        return [_given_text(block)]
    return media.parts(medium_of(block))


def medium_of(block: Mapping[str, Any]) -> Medium:
    """What a content block other than a text shows.

    Raises:
        UnsupportedMediaError: If it shows nothing that can be sent.
    """
    if (medium := media_blocks.medium(block)) is not None:
        return medium
    kind = str(block.get("type"))
    if kind in _MEDIA_FORMS:
        raise UnsupportedMediaError(
            f"a block of type {kind!r} with the keys {', '.join(map(str, block))} has no "
            f"{media_blocks.KINDS[kind]}: {_MEDIA_FORMS[kind]}"
        )
    raise UnsupportedMediaError(
        f"a content block of type {kind!r} cannot be sent: accepted are text, "
        f"{', '.join(_MEDIA_FORMS)}"
    )


def _given_text(block: Mapping[str, Any]) -> Part:
    text = block.get("text")
    if not isinstance(text, str):
        raise UnsupportedMediaError(
            f"a text block has the text {text!r}: write {{'type': 'text', 'text': '…'}}"
        )
    return text_part(text)
