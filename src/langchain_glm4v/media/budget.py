"""What media cost: tokens of a picture or video, by the model's own rule of resizing."""

import math

from langchain_glm4v.errors import MediaError

CELL = 28
"""Pixels along a side of the square that becomes one token: patches of 14, merged two by two."""

MAX_IMAGE_TOKENS = 6_144
"""Tokens of one picture, at most: `size.longest_edge` of the model's image processor is
9,633,792 = 2 * 28 * 28 * 6,144, because a picture counts as two frames."""

MAX_VIDEO_TOKENS = 30_000
"""Tokens of the frames of one video, at most: `size.longest_edge` of the model's video processor
is 47,040,000 = 2 * 28 * 28 * 30,000."""

MAX_ASPECT = 200
"""Longer side by shorter side, at most: the model's processors refuse more."""

_FRAMES_PER_STEP = 2  # two frames become one step in time
_MIN_PIXELS = 112 * 112  # over all frames: `size.shortest_edge` of both processors


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
