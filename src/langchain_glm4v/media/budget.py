"""What media cost: tokens of a picture or video, by the model's own rule of resizing."""

import math

from langchain_glm4v.errors import MediaError

CELL = 28
"""Pixels along a side of the square that becomes one token: patches of 14, merged two by two."""

MAX_IMAGE_TOKENS = 6_144
"""Tokens of one picture, at most: `size.longest_edge` of the model's image processor is
9,633,792 = 2 * 28 * 28 * 6,144, because a picture counts as two frames."""

DEFAULT_IMAGE_TOKENS = 6_084
"""Tokens of one picture as it is sent, at most, unless told otherwise.

Less than the model takes, because vLLM makes room in its encoder cache for what it holds to be the
largest picture, a square one of 78x78 cells (`get_image_size_with_most_features` of `glm4_1v.py`),
and answers 400 to a larger one of other sides. With a long context it makes room for a video, and
with `--max-num-batched-tokens` for so many, but a client learns that only from a refusal.
"""

MIN_IMAGE_TOKENS = 16
"""The smallest `max_tokens` that every picture can be scaled to: the model enlarges those of less
than 8 cells, to up to 16."""

MAX_VIDEO_TOKENS = 30_000
"""Tokens of the frames of one video, at most: `size.longest_edge` of the model's video processor
is 47,040,000 = 2 * 28 * 28 * 30,000."""

MAX_ASPECT = 200
"""Longer side by shorter side, at most: the model's processors refuse more."""

_FRAMES_PER_STEP = 2  # two frames become one step in time
_NO_LIMIT = 1 << 60  # tokens
_MIN_PIXELS = 112 * 112  # over all frames: `size.shortest_edge` of both processors


def check_count(name: str, count: int, at_most: int | None, remedy: str, setting: str = "") -> None:
    """Refuse a medium that becomes more pictures than a request may have.

    Args:
        name: What error messages call it.
        count: Pages of it that are wanted.
        at_most: How many may be; None: any number.
        remedy: What to do.
        setting: As of `GLM4VError`.

    Raises:
        MediaError: If there are more, or the limit is none.
    """
    if at_most is not None and (not isinstance(at_most, int) or at_most < 1):
        raise MediaError(f"pages at most are {at_most!r}: give a whole number above 0")
    if at_most is not None and count > at_most:
        raise MediaError(
            f"{name} has {count} pages to be sent, and {at_most} can be sent at once: {remedy}",
            setting=setting,
        )


def image_tokens(width: int, height: int, *, max_tokens: int = MAX_IMAGE_TOKENS) -> int:
    """Tokens of a picture, without the two that mark its begin and end.

    640x480 pixels are 391 tokens, 1920x1080 are 2,691. The rule is that of transformers'
    `Glm4vImageProcessor`: sides rounded to whole cells of 28 pixels, the picture scaled down or up
    where the area is beyond a limit.

    Args:
        width: Pixels; which side is which does not matter.
        height: Pixels.
        max_tokens: The server's limit. Default: the one in the model's own files.

    Raises:
        MediaError: If one side is more than 200 times the other.
    """
    return math.prod(_grid(_FRAMES_PER_STEP, width, height, max_tokens))


def image_size(
    width: int,
    height: int,
    *,
    max_tokens: int = DEFAULT_IMAGE_TOKENS,
    longest_side: int | None = None,
) -> tuple[int, int]:
    """Size in which to send a picture, so that it keeps to both limits.

    Args:
        width: Pixels; which side is which does not matter.
        height: Pixels.
        max_tokens: Its tokens, at most: 16 to 6,144. Default: 6,084.
        longest_side: Pixels of its longer side, at most, 28 or more. Default: no limit.

    Returns:
        The given size if it fits; else a smaller one of whole cells, which the model need not scale
        again. 4000x3000 pixels become 2520x1876, or 1540x1148 by `longest_side=1540`.

    Raises:
        MediaError: If one side is more than 200 times the other, or a limit is out of range.
    """
    check_limits(max_tokens, longest_side)
    longer, longest = max(width, height), longest_side or _NO_LIMIT
    unscaled = image_tokens(width, height, max_tokens=_NO_LIMIT)
    if longer <= longest and unscaled <= max_tokens:
        return width, height
    columns, rows = (
        max(1, round(min(longer, longest) // CELL * side / longer)) for side in (width, height)
    )
    if longer <= longest or columns * rows > max_tokens:
        columns, rows = _grid(_FRAMES_PER_STEP, width, height, max_tokens)
    # Of a strip, rounding may have left a side too short for the other, and the least side of one
    # cell too many cells: it loses some of its length.
    shorter = min(columns, rows)
    most = min(MAX_ASPECT * shorter, max_tokens // shorter, longest // CELL)
    return min(columns, most) * CELL, min(rows, most) * CELL


def check_limits(max_tokens: int, longest_side: int | None) -> None:
    """Refuse limits of `image_size` that are out of range.

    Raises:
        MediaError: If one is.
    """
    # Limits come out of content blocks, so they may be anything.
    if not isinstance(max_tokens, int) or not MIN_IMAGE_TOKENS <= max_tokens <= MAX_IMAGE_TOKENS:
        raise MediaError(
            f"max_tokens is {max_tokens!r}: give {MIN_IMAGE_TOKENS} to {MAX_IMAGE_TOKENS}"
        )
    if longest_side is not None and (not isinstance(longest_side, int) or longest_side < CELL):
        raise MediaError(
            f"longest_side is {longest_side!r} pixels: the model needs at least {CELL}"
        )


def video_tokens(
    frames: int, width: int, height: int, *, max_tokens: int = MAX_VIDEO_TOKENS
) -> int:
    """Tokens of the frames of a video, by the rule of transformers' `Glm4vVideoProcessor`.

    Each two frames share their tokens. In the prompt come to that: two marks around each two
    frames and the digits of their second behind them, and two marks around the video.

    Args:
        frames: Frames that are sent, 2 or more; an odd last one is doubled.
        width: Pixels.
        height: Pixels.
        max_tokens: The server's limit. Default: the one in the model's own files.

    Raises:
        MediaError: If there is only one frame, or one side is more than 200 times the other.
    """
    if frames < _FRAMES_PER_STEP:
        raise MediaError(
            f"a video of {frames} frames cannot be sent: give at least {_FRAMES_PER_STEP}, or send "
            "a single frame as a picture"
        )
    steps = math.ceil(frames / _FRAMES_PER_STEP)
    return steps * math.prod(_grid(frames, width, height, max_tokens))


def video_size(
    frames: int, width: int, height: int, *, max_tokens: int = MAX_VIDEO_TOKENS
) -> tuple[int, int]:
    """Size to which the model's processor scales the frames of a video.

    Args:
        frames: Frames that are sent, 2 or more.
        width: Pixels.
        height: Pixels.
        max_tokens: Tokens of all frames, at most.

    Returns:
        Width and height in pixels, multiples of 28. Frames of this size, in even number, are not
        scaled again.

    Raises:
        MediaError: If one side is more than 200 times the other.
    """
    columns, rows = _grid(frames, width, height, max_tokens)
    return columns * CELL, rows * CELL


def _grid(frames: int, width: int, height: int, max_tokens: int) -> tuple[int, int]:
    """Columns and rows of cells in one frame, after resizing."""
    sides = [width, height]
    if min(sides) < CELL:
        scale = max(CELL / side for side in sides)
        sides = [int(side * scale) for side in sides]
    if max(sides) / min(sides) > MAX_ASPECT:
        raise MediaError(
            f"{width}x{height} pixels: one side is more than {MAX_ASPECT} times the other, which "
            "the model does not take; cut it into pieces"
        )
    columns, rows = (round(side / CELL) for side in sides)
    pixels = frames * math.prod(sides)
    max_pixels = max_tokens * CELL**2 * _FRAMES_PER_STEP
    # Judged by the rounded size, frames included, but scaled by the given one: so does the model.
    resized = round(frames / _FRAMES_PER_STEP) * _FRAMES_PER_STEP * columns * rows * CELL**2
    if resized > max_pixels:
        shrink = math.sqrt(pixels / max_pixels)
        columns, rows = (max(1, math.floor(side / shrink / CELL)) for side in sides)
    elif resized < _MIN_PIXELS:
        grow = math.sqrt(_MIN_PIXELS / pixels)
        columns, rows = (math.ceil(side * grow / CELL) for side in sides)
    return columns, rows
