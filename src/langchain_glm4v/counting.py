"""Tokens of a prompt: exact with the help of the server, or an upper bound without.

Figures hold for our chat template, `server/chat_template.jinja`.
"""

import json
from collections.abc import Sequence

from langchain_glm4v.media import image, source
from langchain_glm4v.media.budget import MAX_IMAGE_TOKENS, image_tokens
from langchain_glm4v.turns import Part, Turn, is_picture, joined, parts_of, text_part

PICTURE = "<|begin_of_image|><|image|><|end_of_image|>"
"""What the template writes for a picture: three tokens, the middle one repeated for its cells."""

_PICTURE_TOKENS = 3
_PROMPT_TOKENS = 4  # [gMASK] <sop> at the begin, <|assistant|> and a line break at the end
_TURN_TOKENS = 2  # the token of the role, and a line break


def masked(wire: Sequence[Turn]) -> tuple[list[Turn], int]:
    """Write pictures as the text that the template makes of them.

    vLLM's `/tokenize` then counts the conversation without a picture being sent or decoded.

    Args:
        wire: Messages of a request, as `to_wire` returns them.

    Returns:
        The messages without pictures, and the tokens to add to their count. A picture that the
        server would fetch counts as the largest one, 6,144 tokens.

    Raises:
        UnsupportedMediaError: If a `data:` URL holds no picture.
    """
    pictures = [cost for turn in wire for part in parts_of(turn) if (cost := _cost(part))]
    turns = [
        turn
        if isinstance(turn["content"], str)
        # Joined, because vLLM puts a line break between texts of a tool turn.
        else {**turn, "content": joined(map(_masked, turn["content"]))}
        for turn in wire
    ]
    return turns, sum(pictures) - len(pictures)


def upper_bound(wire: Sequence[Turn]) -> int:
    """Count at least as many tokens as the prompt has, offline.

    The tokenizer works on bytes, so a text has at most as many tokens as bytes in UTF-8.

    Args:
        wire: Messages of a request, as `to_wire` returns them.

    Raises:
        UnsupportedMediaError: If a `data:` URL holds no picture.
    """
    total = _PROMPT_TOKENS
    for turn in wire:
        total += _TURN_TOKENS
        total += sum(map(_upper_bound, parts_of(turn)))
        if "tool_calls" in turn:
            total += len(json.dumps(turn["tool_calls"]))
    return total


def _upper_bound(part: Part) -> int:
    if cost := _cost(part):
        return _PICTURE_TOKENS - 1 + cost
    return len(part["text"].encode("utf-8", "surrogatepass"))


def _cost(part: Part) -> int:
    """Tokens of a picture between its marks; 0 for a text."""
    if not is_picture(part):
        return 0
    url = part["image_url"]["url"]
    remote = source.scheme(url) != "data"
    return MAX_IMAGE_TOKENS if remote else image_tokens(*image.size_of(url))


def _masked(part: Part) -> Part:
    return text_part(PICTURE) if is_picture(part) else part
