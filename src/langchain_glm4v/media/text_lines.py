"""Where print stands in the picture of a page: the boxes of its lines.

Lines are found by their ink alone, without reading: what stands close together side by side is a
line. A line with wide gaps, such as a row of a table, comes in pieces. The pictures are decoded in
decoding processes (`pool`).
"""

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_glm4v.media import image, pool
from langchain_glm4v.media.scan import Turn

if TYPE_CHECKING:
    from PIL import Image

Rectangle: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""

LONGEST_SIDE = 1600
"""Pixels of the longer side of the picture in which lines are looked for, at most."""

_CONTRAST = 56  # of 255 shades by which ink differs from its ground
_GROUND = 16  # pixels of a place whose ground is taken for one
_SPAN = 8  # pixels across that are looked at together: letters with less between them touch
_INK = bytes([0, *(1 for _ in range(255))])  # shade of a span -> whether there is any
_RUNS = re.compile(rb"\x01+")
_GAPS = re.compile(rb"\0{4,}")  # columns without ink, between print and what is beside it
_INKED = re.compile(rb"[^\0]+")
_MEAN = 4  # how pictures are made smaller: Pillow's BOX, which is imported in a process alone

# Slopes of lines that are tried: 0.08 is 4.6 degrees.
_SLOPES = tuple(step / 100 for step in range(-8, 9))
_FINER = (-0.005, -0.0025, 0.0025, 0.005)
_STRAIGHT = 1.05  # how much better a slope must be than none

# In heights of the print of the page:
_LEAST, _MOST = 0.45, 4.0  # heights of what may be a word
_TWO_LINES = 1.6  # height from which on lines may touch each other
_GAP = 1.1  # between two pieces of a line
_THINNEST = 0.75  # height of a line that touches another
_UNLIKE = 2.2  # height of two words of one line together, in that of the lower one
_SPACES = 0.12, 0.5  # between two words, at least and at most
_RULE = 0.3  # thickness of a stroke that may be a rule

_VALLEY = 0.25  # ink between two lines that touch, as a share of what the rows have on average
_FILLED = 0.7  # share of a wide box that is covered by ink, from which on it is a bar
_NOTCH = 0.7  # the same, as a share of what the rows around have
_SHARED = 0.5  # of the lower one's height, by which two words of a line are side by side


@dataclass(frozen=True, slots=True)
class Line:
    """A line of print, or a piece of one, in pixels of a picture in which lines are level.

    Attributes:
        left: Left edge.
        top: Upper edge.
        right: Right edge.
        bottom: Lower edge.
        words: Left and right edge of what has space around it, as words have.
    """

    left: int
    top: int
    right: int
    bottom: int
    words: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PageLines:
    """The lines of a page.

    Attributes:
        width: Pixels of the picture that the lines are in.
        height: Pixels.
        lines: The pieces of lines, from the top to the bottom, as they would be if they were
            level: a point at x of the picture is `slope * (x - width / 2)` lower than told.
        slope: By how much a line falls for each pixel to the right.
    """

    width: int
    height: int
    lines: tuple[Line, ...]
    slope: float


def find(data: bytes, name: str, turn: Turn = 0) -> PageLines:
    """Find the lines of print in the picture of a page.

    Args:
        data: The picture.
        name: What error messages call it.
        turn: Degrees by which it is turned first, clockwise.

    Raises:
        MediaError: If it cannot be decoded.
    """
    return pool.call(_find, data, name, turn, subject=name)


# What follows runs in a decoding process.


def _find(data: bytes, name: str, turn: Turn) -> PageLines:
    mask = _mask(data, name, turn)
    slope = _slope(mask)
    level = _levelled(mask, slope) if slope else mask
    lines = _with_words(level, _lines(_words(level)))
    return PageLines(*mask.size, tuple(lines), slope)


def _mask(data: bytes, name: str, turn: Turn) -> "Image.Image":
    """White where ink is, black elsewhere."""
    from PIL import Image, ImageChops  # noqa: PLC0415 - only in a decoding process

    with image.decoded(data, name) as picture:
        picture.draft("L", picture.size)
        grey: Any = picture.convert("L")
    if turn:
        grey = grey.rotate(-turn, expand=True)
    grey.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
    shades = ImageChops.difference(grey, _ground(grey))
    found: Image.Image = shades.point([255 * (shade >= _CONTRAST) for shade in range(256)])
    return found


def _ground(grey: "Image.Image") -> "Image.Image":
    """The shade of what is printed on: light or dark, whichever there is more of around."""
    from PIL import Image, ImageChops, ImageFilter  # noqa: PLC0415

    quarter = grey.reduce(4)
    light, dark = (
        quarter.filter(extreme).reduce(_GROUND // 4).filter(ImageFilter.MedianFilter(5))
        for extreme in (ImageFilter.MaxFilter(3), ImageFilter.MinFilter(3))
    )
    usual = quarter.reduce(_GROUND // 4).filter(ImageFilter.MedianFilter(5))
    is_light = ImageChops.subtract(
        ImageChops.subtract(usual, dark), ImageChops.subtract(light, usual)
    )
    ground = Image.composite(light, dark, is_light.point([0, *[255] * 255]))
    return ground.resize(grey.size, Image.Resampling.BILINEAR)


def _levelled(mask: "Image.Image", slope: float) -> "Image.Image":
    from PIL import Image  # noqa: PLC0415

    shear = (1, 0, 0, slope, 1, -slope * mask.width / 2)
    return mask.transform(mask.size, Image.Transform.AFFINE, shear)


def _slope(mask: "Image.Image") -> float:
    """The slope at which the rows differ most: there, lines and what is between them are apart."""
    small = mask.reduce((2 * _SPAN, 2))
    ratio = (mask.width / small.width) / (mask.height / small.height)

    def contrast(slope: float) -> int:
        level = _levelled(small, slope * ratio)
        rows = level.resize((1, level.height), resample=_MEAN).tobytes()
        return sum((one - other) ** 2 for one, other in pairwise(rows))

    contrasts = {slope: contrast(slope) for slope in _SLOPES}
    best = max(contrasts, key=contrasts.__getitem__)
    contrasts |= {best + step: contrast(best + step) for step in _FINER}
    best = max(contrasts, key=contrasts.__getitem__)
    return best if contrasts[best] > _STRAIGHT * contrasts[0.0] else 0.0


def _words(mask: "Image.Image") -> list[Rectangle]:
    """Boxes of what touches: words, letters of large print, and no rules and pictures."""
    found = list(_touching(mask))
    if not found:
        return []
    size = _usual_height(found)
    words: list[Rectangle] = []
    for box in found:
        for part in _split(mask, box, size):
            left, top, right, bottom = part
            width, height = right - left, bottom - top
            if height > _MOST * size or (height < _RULE * size and width > 2 * size):
                continue
            words.append(part)
    return words


def _touching(mask: "Image.Image") -> Iterator[Rectangle]:
    """Boxes of spans with ink that touch each other."""
    spans = mask.reduce((_SPAN, 1))
    stride = spans.width + 1  # a column without ink, so that no run goes on in the next row
    padded = spans.crop((0, 0, stride, spans.height)).tobytes().translate(_INK)
    boxes: list[list[int]] = []  # of each group, at its number
    merged: list[int] = []  # number of a group -> that of the one it has become a part of
    above: list[tuple[int, int, int]] = []  # runs of the row before: begin, end, group
    row_above = -1
    row: list[tuple[int, int, int]] = []
    at = -1
    first = 0  # of the runs above that may still touch

    def root(group: int) -> int:
        while merged[group] != group:
            merged[group] = merged[merged[group]]
            group = merged[group]
        return group

    for run in _RUNS.finditer(padded):
        y, begin = divmod(run.start(), stride)
        end = begin + run.end() - run.start()
        if y != at:
            above, row_above, row, at, first = row, at, [], y, 0
            if row_above != y - 1:
                above = []
        while first < len(above) and above[first][1] <= begin:
            first += 1
        group = -1
        for run_above in above[first:]:
            if run_above[0] >= end:
                break
            number = root(run_above[2])
            if group < 0:
                group = number
            elif group != number:
                merged[number] = group
                box, gone = boxes[group], boxes[number]
                box[0], box[1] = min(box[0], gone[0]), min(box[1], gone[1])
                box[2], box[3] = max(box[2], gone[2]), max(box[3], gone[3])
        if group < 0:
            group = len(boxes)
            merged.append(group)
            boxes.append([begin, y, end, y + 1])
        else:
            box = boxes[group]
            box[0], box[2], box[3] = min(box[0], begin), max(box[2], end), y + 1
        row.append((begin, end, group))
    for group, (left, top, right, bottom) in enumerate(boxes):
        if merged[group] == group:
            yield left * _SPAN, top, min(right * _SPAN, mask.width), bottom


def _usual_height(boxes: Iterable[Rectangle]) -> int:
    """The height that most of the print has, by its width."""
    wide = sorted((bottom - top, right - left) for left, top, right, bottom in boxes)
    wide = [(height, width) for height, width in wide if height > 4] or wide
    half = sum(min(width, 20 * height) for height, width in wide) / 2
    for height, width in wide:
        half -= min(width, 20 * height)
        if half <= 0:
            break
    return height


def _split(mask: "Image.Image", box: Rectangle, size: int) -> Iterator[Rectangle]:
    """A box as tight as its ink; the lines of it, and what is beside them, if some touch."""
    ink = mask.crop(box)
    left, top = box[:2]
    inside = ink.getbbox()
    if inside is None:
        return
    ink = ink.crop(inside)
    width, height = ink.size
    left, top = left + inside[0], top + inside[1]
    box = (left, top, left + width, top + height)
    if height <= _TWO_LINES * size:
        yield box
    elif gap := _GAPS.search(ink.resize((width, 1), resample=_MEAN).tobytes()):
        yield from _split(mask, (left, top, left + gap.start(), box[3]), size)
        yield from _split(mask, (left + gap.end(), top, box[2], box[3]), size)
    else:
        rows = ink.resize((1, height), resample=_MEAN).tobytes()
        edge = max(height // 4, int(_THINNEST * size))
        row = min(range(edge, height - edge), key=lambda y: (rows[y], abs(2 * y - height)))
        if rows[row] > _VALLEY * statistics.fmean(rows) and not (
            width > 2 * height and _is_notch(rows, row)
        ):
            yield box
            return
        yield from _split(mask, (*box[:3], top + row), size)
        yield from _split(mask, (left, top + row, *box[2:]), size)


def _is_notch(rows: bytes, row: int) -> bool:
    """Whether a row has far less ink than those just above and below: lines set very close."""
    around = min(max(rows[max(0, row - 3) : row]), max(rows[row + 1 : row + 4]))
    return rows[row] < _NOTCH * around


def _with_words(mask: "Image.Image", boxes: Sequence[Rectangle]) -> Iterator[Line]:
    """Lines with their words: what has wider gaps between it than most."""
    inked: list[tuple[Rectangle, list[tuple[int, int]]]] = []  # lines, and what has no gap in them
    gaps: list[float] = []
    for left, top, right, bottom in boxes:
        ink = mask.crop((left, top, right, bottom)).resize((right - left, 1), resample=_MEAN)
        columns = ink.tobytes()
        if right - left > 2 * (bottom - top) and statistics.fmean(columns) > 255 * _FILLED:
            continue
        runs = [(left + run.start(), left + run.end()) for run in _INKED.finditer(columns)]
        inked.append(((left, top, right, bottom), runs))
        height = bottom - top
        gaps += [(other[0] - one[1]) / height for one, other in pairwise(runs)]
    least = _between(sorted(gap for gap in gaps if gap <= _GAP))
    for box, runs in inked:
        words: list[tuple[int, int]] = []
        for begin, end in runs:
            if words and begin - words[-1][1] < least * (box[3] - box[1]):
                words[-1] = words[-1][0], end
            else:
                words.append((begin, end))
        yield Line(*box, tuple(words))


def _between(gaps: Sequence[float]) -> float:
    """What parts gaps between letters from those between words: as in Otsu's method.

    Both kinds are then as far apart as can be, each by its mean.
    """
    least, most = _SPACES
    best, found = 0.0, least
    total, below = sum(gaps), 0.0
    for count, (one, other) in enumerate(pairwise(gaps), 1):
        below += one
        if not least <= (middle := (one + other) / 2) <= most:
            continue
        above = len(gaps) - count
        apart = count * above * (below / count - (total - below) / above) ** 2
        if apart > best:
            best, found = apart, middle
    return found


def _lines(words: Sequence[Rectangle]) -> list[Rectangle]:
    """The pieces of lines that words stand in."""
    if not words:
        return []
    size = _usual_height(words)
    print_ = [box for box in words if box[3] - box[1] >= _LEAST * size]
    small = [box for box in words if box[3] - box[1] < _LEAST * size]
    lines: list[Rectangle] = []
    for word in sorted(print_):
        _join(lines, word, _GAP)
    for mark in sorted(small):
        _join(lines, mark, _GAP / 2, alone=False)
    joined: list[Rectangle] = []
    for line in sorted(lines):  # some reach further now
        _join(joined, line, _GAP)
    return sorted(joined, key=lambda box: (box[1], box[0]))


def _join(lines: list[Rectangle], word: Rectangle, gap: float, *, alone: bool = True) -> None:
    """Add a word to the line that it stands in, or as a line of its own."""
    best, at = 0.0, -1
    left, top, right, bottom = word
    for i, line in enumerate(lines):
        overlap = min(bottom, line[3]) - max(top, line[1])
        if overlap <= 0:
            continue
        lower, higher = sorted((bottom - top, line[3] - line[1]))
        between = max(left - line[2], line[0] - right)
        if (
            overlap >= _SHARED * lower
            and between <= gap * higher
            # Beside a part of a picture, print stays what it is.
            and (not alone or lower + higher - overlap <= _UNLIKE * lower)
            and overlap / lower - between / 1000 > best
        ):
            best, at = overlap / lower - between / 1000, i
    if at >= 0:
        lines[at] = _around(word, lines[at])
    elif alone:
        lines.append(word)


def _around(one: Rectangle, other: Rectangle) -> Rectangle:
    return (
        min(one[0], other[0]),
        min(one[1], other[1]),
        max(one[2], other[2]),
        max(one[3], other[3]),
    )
