"""Scanned pages as pictures: whether anything stands on one, and how it is turned.

The pictures are those that `document.pages` and `image.prepare` make. They are decoded in decoding
processes (`pool`).
"""

import io
import itertools
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from langchain_glm4v.media import image, pool

Turn: TypeAlias = Literal[0, 90, 180, 270]
"""Degrees, clockwise."""

_CONTRAST = 31
"""Of 255 shades of the lightest print that is looked for, thin strokes of which are paler still.

Measured on A4 at 1540 pixels: print of 10 points in a grey of 224 on white stands out by as much,
and so do few strokes of a clear print that shows through by 39 shades.
"""
_MOST_CONTRAST = 64  # also where there is much grain
_TIMES_NOISE = 6
_AROUND = 12  # pixels to each side of a place
_FEWEST = 18
"""Pixels that stand out around a place, below which it is dust there, of 4x4 pixels at most.

Measured likewise: a "1" of 8 points has 24. Of a page that is shown smaller, print keeps fewer, and
so does dust: the limit goes with the longer side. At 784 pixels it is 9; a "7" of 8 points has 10,
and dust 7.
"""
_MEASURED_AT = 1540  # pixels of the longer side
_EDGE = 0.02  # share of each side that is left out: scanners put shadows there


def is_blank(data: bytes, name: str) -> bool:
    """Whether nothing stands on a page: nothing stands out but dust, without its edges.

    A page that is taken for a blank one is read by nobody, so in doubt it is none.

    Args:
        data: The picture of the page.
        name: What error messages call it.

    Raises:
        MediaError: If it cannot be decoded.
    """
    return pool.call(_is_blank, data, name, subject=name)


def turned(data: bytes, turn: Turn, name: str) -> bytes:
    """Turn the picture of a page.

    Args:
        data: The picture.
        turn: Degrees, clockwise.
        name: What error messages call it.

    Returns:
        A JPEG.

    Raises:
        MediaError: If it cannot be decoded.
    """
    return pool.call(_turned, data, turn, name, subject=name)


# What follows runs in a decoding process.


def _is_blank(data: bytes, name: str) -> bool:
    from PIL import Image, ImageChops, ImageFilter  # noqa: PLC0415 - only in a decoding process

    with image.decoded(data, name) as picture:
        page: Any = picture.convert("RGB")
    longest = max(page.size)
    margins = (int(page.width * _EDGE), int(page.height * _EDGE))
    page = page.crop((*margins, page.width - margins[0], page.height - margins[1]))
    # The ground of each place, for a shadow or a stain is no print: most of the shades around, as a
    # thumbnail without the strokes has them.
    small = page.resize((max(1, page.width // 16), max(1, page.height // 16)), Image.Resampling.BOX)
    ground = small.filter(ImageFilter.MedianFilter(5)).resize(page.size, Image.Resampling.BILINEAR)
    # Of each pixel, the colour that differs most: yellow on white is hardly any grey.
    red, green, blue = ImageChops.difference(page, ground).split()
    differing: Any = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    contrast = min(_MOST_CONTRAST, max(_CONTRAST, _TIMES_NOISE * _median(differing.histogram())))
    standing_out = differing.point([255 * (shade >= contrast) for shade in range(256)])
    around = standing_out.filter(ImageFilter.BoxBlur(_AROUND)).getextrema()[1]
    fewest = _FEWEST * min(1.0, longest / _MEASURED_AT)
    return bool(around * (2 * _AROUND + 1) ** 2 < 255 * fewest)


def _median(histogram: Sequence[int]) -> int:
    """The shade that half of the pixels do not exceed."""
    half = sum(histogram) / 2
    counts = itertools.accumulate(histogram)
    return next(shade for shade, count in enumerate(counts) if count >= half)


def _turned(data: bytes, turn: Turn, name: str) -> bytes:
    from PIL import Image  # noqa: PLC0415 - only in a decoding process

    # Pillow turns the other way round.
    turns = {
        90: Image.Transpose.ROTATE_270,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_90,
    }
    file = io.BytesIO()
    with image.decoded(data, name) as picture:
        upright = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
        (upright.transpose(turns[turn]) if turn else upright).save(file, **image.JPEG)
    return file.getvalue()
