"""Tokens of a prompt: exact with the help of the server, or an upper bound without.

Figures hold for our chat template, `server/chat_template.jinja`.
"""

import json
from collections.abc import Sequence

from langchain_glm4v.media.budget import MAX_IMAGE_TOKENS, MAX_VIDEO_TOKENS, image_tokens
from langchain_glm4v.media.video import MAX_FRAMES
from langchain_glm4v.turns import (
    Part,
    PicturePart,
    Turn,
    VideoPart,
    is_picture,
    is_video,
    joined,
    parts_of,
    text_part,
)

PICTURE = "<|begin_of_image|><|image|><|end_of_image|>"
"""What the template writes for a picture: three tokens, the middle one repeated for its cells."""

VIDEO, VIDEO_END = "<|begin_of_video|>", "<|end_of_video|>"
"""What stands around a video; between them vLLM writes a picture and a second for each two frames,
where the template has but one token."""

_PICTURE_TOKENS = 3
_VIDEO_MARKS = 2
_SECOND_TOKENS = 5  # digits of a second, at most
_LONGEST_VIDEO = (
    MAX_VIDEO_TOKENS + _VIDEO_MARKS + MAX_FRAMES // 2 * (_PICTURE_TOKENS - 1 + _SECOND_TOKENS)
)
_PROMPT_TOKENS = 4  # [gMASK] <sop> at the begin, <|assistant|> and a line break at the end
_TURN_TOKENS = 2  # the token of the role, and a line break


def masked(wire: Sequence[Turn]) -> tuple[list[Turn], int]:
    """Write pictures and videos as the text that becomes of them in the prompt.

    vLLM's `/tokenize` then counts the conversation without a picture being sent or decoded.

    Args:
        wire: Messages of a request, as `to_wire` returns them.

    Returns:
        The messages without media, and the tokens to add to their count. A picture that the server
        would fetch counts as the largest one, 6,144 tokens; a video so as the longest.
    """
    turns: list[Turn] = []
    extra = 0
    for turn in wire:
        if isinstance(turn["content"], str):
            turns.append(turn)
            continue
        texts = [_masked(part) for part in turn["content"]]
        extra += sum(tokens for _, tokens in texts)
        # Joined, because vLLM puts a line break between texts of a tool turn.
        turns.append({**turn, "content": joined(text for text, _ in texts)})
    return turns, extra


def upper_bound(wire: Sequence[Turn]) -> int:
    """Count at least as many tokens as the prompt has, offline.

    The tokenizer works on bytes, so a text has at most as many tokens as bytes in UTF-8.

    Args:
        wire: Messages of a request, as `to_wire` returns them.
    """
    total = _PROMPT_TOKENS
    for turn in wire:
        total += _TURN_TOKENS
        total += sum(map(tokens_at_most, parts_of(turn)))
        if "tool_calls" in turn:
            total += len(json.dumps(turn["tool_calls"]))
    return total


def tokens_at_most(part: Part) -> int:
    """Tokens of a part, marks included: of a picture just as many, of all else no more.

    A video has fewer where the tokenizer has tokens for numbers of several digits, as the seconds
    between the frames are.
    """
    if is_picture(part):
        return _PICTURE_TOKENS - 1 + _picture_cost(part)
    if is_video(part):
        return part.clip.prompt_tokens if isinstance(part, VideoPart) else _LONGEST_VIDEO
    return len(part["text"].encode("utf-8", "surrogatepass"))


def _masked(part: Part) -> tuple[Part, int]:
    """The text of a part, and the tokens to add to those of the text."""
    if is_picture(part):
        return text_part(PICTURE), _picture_cost(part) - 1
    if isinstance(part, VideoPart):
        clip = part.clip
        # The seconds with it, for tokenizers differ in how they split numbers.
        steps = "".join(f"{PICTURE}{second}" for second in clip.stamps)
        return text_part(f"{VIDEO}{steps}{VIDEO_END}"), clip.tokens - len(clip.stamps)
    if is_video(part):
        return text_part(f"{VIDEO}{VIDEO_END}"), _LONGEST_VIDEO - _VIDEO_MARKS
    return part, 0


def _picture_cost(part: Part) -> int:
    """Tokens of a picture between its marks."""
    if isinstance(part, PicturePart):
        return image_tokens(part.width, part.height)
    return MAX_IMAGE_TOKENS
