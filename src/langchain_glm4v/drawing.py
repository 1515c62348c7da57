"""Boxes drawn on a picture, and what they hold cut out of it."""

import functools
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from langchain_glm4v.errors import RequestError
from langchain_glm4v.grounding import SIDE, Box
from langchain_glm4v.media import image, pool
from langchain_glm4v.media.source import Given

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Rectangle: TypeAlias = tuple[int, int, int, int]

# Dark enough for white print (a contrast of 4.5 to 1 or more), so they also stand out on white; on
# dark ground the white edge of each line does.
_COLOURS = (
    *("#c62828", "#1565c0", "#2e7d32", "#7b1fa2"),
    *("#a84300", "#00695c", "#ad1457", "#3949ab", "#5d4037"),
)
_EDGE = "#ffffff"
_LINE = 250  # pixels of the shorter side for each pixel of a line's width
_FINE = 100  # the same for lines of one pixel and two
_PRINT = 40  # the same for each pixel of a letter's height
_SMALLEST_PRINT = 12  # pixels; smaller is hard to read in Chinese
_LABELS = 100  # drawn at most; those of more boxes would hide the picture
_LONGEST = 100  # characters of a label


def draw(picture: "Given | Image.Image", boxes: Iterable[Box]) -> "Image.Image":
    """Draw boxes on a picture, with their labels.

    Lines and letters grow with the picture. Boxes of one label have one colour. A label is cut to
    the width of the picture, and left out of a picture too small for it; characters that the font
    lacks (it has Latin, Greek, Cyrillic, Chinese, Japanese, Korean) are left out.

    Args:
        picture: As for `media.image.prepare`; of a TIFF with several pages the first.
        boxes: What of them lies outside the picture is left out. Only the first 100 are labelled.

    Returns:
        A new picture in RGB, upright, in the full size of the given one. A box that has no label
        that can be written has its number instead, from 1; a single box without a label has none.

    Raises:
        MediaError: As for `media.image.prepare`, and for more than `media.image.MAX_PIXELS`.
    """
    from PIL import ImageDraw  # noqa: PLC0415 - imported only where pictures are drawn

    boxes = list(boxes)
    drawn = image.upright(picture)
    pen = ImageDraw.Draw(drawn)
    names = _names(boxes)
    shades = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(dict.fromkeys(names))}
    shown = [
        (pixels(inside, drawn.size), name)
        for box, name in zip(boxes, names, strict=True)
        if (inside := box.clipped()) is not None
    ]
    side = min(drawn.size)
    for at, name in shown:
        _outline(pen, at, max(1, min(2, side // _FINE), side // _LINE), shades[name])
    labels = _Labels(drawn, [at for at, _ in shown[:_LABELS]])
    for at, name in shown[:_LABELS]:
        labels.write(name, at, shades[name])
    return drawn


def crop(picture: "Given | Image.Image", box: Box, margin: float = 0.0) -> "Image.Image":
    """Cut out what a box holds.

    Args:
        picture: As for `draw`.
        box: What of it lies outside the picture is left out.
        margin: How much more on each side, as a share of the box's width and height: with 0.1 the
            result is a fifth wider and higher.

    Returns:
        A new picture in RGB, upright, of one pixel or more.

    Raises:
        RequestError: If the box lies outside the picture, or the margin is negative or no number.
        MediaError: As for `draw`.
    """
    if not 0 <= margin < math.inf:
        raise RequestError(f"the margin is {margin}: give 0 or more, as a share of the box's sides")
    inside = box.clipped()
    if inside is None:
        raise RequestError(
            f"{box} lies outside the picture, whose sides are 0 to {SIDE}: a box in pixels is made "
            "with Box.from_pixels"
        )
    left, top, right, bottom = inside
    across, down = (right - left) * margin, (bottom - top) * margin
    wide = Box(left - across, top - down, right + across, bottom + down).clipped() or inside
    whole = image.upright(picture)
    return whole.crop(pixels(wide, whole.size))


def pixels(inside: Box, size: tuple[int, int]) -> Rectangle:
    """The pixels of a box that is in the picture, one or more each way; right and bottom not in."""
    left, top, right, bottom = inside.to_pixels(*size)
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _names(boxes: Sequence[Box]) -> list[str]:
    """What is written beside each box: its label, or its number."""
    known = _font()[1] if any(box.label for box in boxes) else frozenset()
    names = []
    for number, box in enumerate(boxes, 1):
        label = " ".join("".join(c for c in box.label if c in known or c.isspace()).split())
        if len(label) > _LONGEST:
            label = label[:_LONGEST] + "…"
        if not any(map(str.isalnum, label)):
            label = str(number) if box.label or len(boxes) > 1 else ""
        names.append(label)
    return names


def _outline(pen: "ImageDraw.ImageDraw", at: Rectangle, width: int, colour: str) -> None:
    """Draw a rectangle, its line just inside, with a white edge on both sides of the line."""
    left, top, right, bottom = at
    edge = (width + 1) // 2
    outer = (left - edge, top - edge, right - 1 + edge, bottom - 1 + edge)
    pen.rectangle(outer, outline=_EDGE, width=width + 2 * edge)
    pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=width)


class _Labels:
    """Writes labels on a picture, where they hide as little as they can of each other and of boxes.

    Args:
        picture: Is drawn upon.
        boxes: What is better not hidden.
    """

    def __init__(self, picture: "Image.Image", boxes: Sequence[Rectangle]) -> None:
        self._picture = picture
        self._boxes = boxes
        self._size = max(_SMALLEST_PRINT, min(picture.size) // _PRINT)
        self._pad = max(1, self._size // 5)
        self._taken: list[Rectangle] = []

    def write(self, name: str, box: Rectangle, colour: str) -> None:
        """Write a name beside a box, or not if there is no room in the whole picture."""
        from PIL import ImageDraw  # noqa: PLC0415

        font = _sized(self._size)
        height = sum(font.getmetrics()) + self._pad
        # What would hide a third of the picture is left out.
        if not name or 3 * height > self._picture.height:
            return
        text = self._cut(name, font)
        width = round(font.getlength(text)) + 2 * self._pad
        if not text:
            return
        at = min(self._places(box, width, height), key=self._hidden)
        self._taken.append(at)
        pen = ImageDraw.Draw(self._picture)
        pen.rectangle((at[0], at[1], at[2] - 1, at[3] - 1), fill=colour, outline=_EDGE)
        pen.text((at[0] + self._pad, at[1] + self._pad // 2), text, fill=_EDGE, font=font)

    def _cut(self, name: str, font: "ImageFont.FreeTypeFont") -> str:
        """As much of a name as there is room for in the width of the picture."""
        room = self._picture.width - 2 * self._pad
        if font.getlength(name) <= room:
            return name
        fitting = (
            name[:end].rstrip() + "…"
            for end in range(len(name) - 1, 0, -1)
            if font.getlength(name[:end].rstrip() + "…") <= room
        )
        return next(fitting, "")

    def _places(self, box: Rectangle, width: int, height: int) -> list[Rectangle]:
        """Where a label may stand, the best first: above or below its box, beside it, inside."""
        left, top, right, bottom = box
        most = self._picture.width - width, self._picture.height - height
        lefts = [max(0, min(x, most[0])) for x in (left, right - width)]
        points = [
            *((x, y) for y in (top - height, bottom) for x in lefts),
            *((right, top), (left - width, top)),
            *((x, y) for y in (top, bottom - height) for x in lefts),
        ]
        fitting = [(x, y) for x, y in points if 0 <= x <= most[0] and 0 <= y <= most[1]]
        # A thin box at the lower edge may leave room neither outside nor inside.
        fitting = fitting or [(lefts[0], max(0, min(top, most[1])))]
        return [(x, y, x + width, y + height) for x, y in fitting]

    def _hidden(self, place: Rectangle) -> int:
        """Pixels of boxes that a label would hide; those of other labels count a hundredfold."""
        of_labels = sum(_shared(place, other) for other in self._taken)
        return 100 * of_labels + sum(_shared(place, other) for other in self._boxes)


def _shared(one: Rectangle, other: Rectangle) -> int:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, across) * max(0, down)


@functools.lru_cache(maxsize=8)
def _sized(size: int) -> "ImageFont.FreeTypeFont":
    from PIL import ImageFont  # noqa: PLC0415

    layout = ImageFont.Layout.BASIC  # the other one is not in every Pillow
    return ImageFont.truetype(io.BytesIO(_font()[0]), size, layout_engine=layout)


@functools.cache
def _font() -> tuple[bytes, frozenset[str]]:
    """A font file, and the characters in it."""
    return pool.call(_font_of_pymupdf, subject="the font of the labels")


def _font_of_pymupdf() -> tuple[bytes, frozenset[str]]:
    """Droid Sans Fallback, which comes with PyMuPDF; Pillow's own font is Latin alone."""
    import pymupdf  # noqa: PLC0415 - in a decoding process alone

    font = pymupdf.Font("cjk")
    return font.buffer, frozenset(map(chr, font.valid_codepoints()))
