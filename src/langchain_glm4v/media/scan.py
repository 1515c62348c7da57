"""Scanned pages as pictures: whether anything stands on one, and how it is turned.

The pictures are those that `document.pages` and `image.prepare` make. They are decoded in decoding
processes (`pool`).
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from langchain_glm4v.errors import UnsupportedMediaError
from langchain_glm4v.media import pool

Turn: TypeAlias = Literal[0, 90, 180, 270]
"""Degrees, clockwise."""

BLANK_INK = 2e-5
"""Share of a page that is covered by ink, below which it is blank.

A page number of two digits of 10 points covers about 2e-4 of an A4 page; what despeckling leaves of
the dust of the blank scans that were looked at, less than 1e-5.
"""

_CONTRAST = 64  # of 255 shades: show-through and the grain of paper differ less from their ground
_EDGE = 0.02  # share of each side that is left out: scanners put shadows there
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 90, "subsampling": "4:4:4"}


def ink(data: bytes, name: str) -> float:
    """Share of a page, without its edges, that is covered by ink: all that stands out, 0 to 1.

    Args:
        data: The picture of the page.
        name: What error messages call it.

    Raises:
        MediaError: If it cannot be decoded.
    """
    return pool.call(_ink, data, name, subject=name)


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


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Any]:
    """A picture; errors of Pillow with its name."""
    from PIL import Image  # noqa: PLC0415 - only in a decoding process

    try:
        with Image.open(io.BytesIO(data)) as picture:
            yield picture
    except (OSError, SyntaxError, ValueError) as error:
        message = f"{name} is not a picture, or a damaged one: render or save it anew"
        raise UnsupportedMediaError(message) from error


def _ink(data: bytes, name: str) -> float:
    from PIL import Image, ImageChops, ImageFilter  # noqa: PLC0415 - only in a decoding process

    with _opened(data, name) as picture:
        width, height = picture.size
        # Half the size: a speck of one pixel is gone, a stroke of print is not.
        picture.draft("L", (width // 2, height // 2))
        grey: Any = picture.convert("L")
    margins = (int(grey.width * _EDGE), int(grey.height * _EDGE))
    grey = grey.crop((*margins, grey.width - margins[0], grey.height - margins[1]))
    grey = grey.filter(ImageFilter.MedianFilter(3))
    # The ground of each place, for a shadow or a stain is none of the ink: most of the shades
    # around, as a thumbnail without the strokes has them.
    small = grey.resize((max(1, grey.width // 16), max(1, grey.height // 16)), Image.Resampling.BOX)
    ground = small.filter(ImageFilter.MedianFilter(5)).resize(grey.size, Image.Resampling.BILINEAR)
    shades = ImageChops.difference(grey, ground).histogram()
    return float(sum(shades[_CONTRAST:]) / max(1, grey.width * grey.height))


def _turned(data: bytes, turn: Turn, name: str) -> bytes:
    from PIL import Image  # noqa: PLC0415 - only in a decoding process

    # Pillow turns the other way round.
    turns = {
        90: Image.Transpose.ROTATE_270,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_90,
    }
    file = io.BytesIO()
    with _opened(data, name) as picture:
        upright = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
        (upright.transpose(turns[turn]) if turn else upright).save(file, **_JPEG)
    return file.getvalue()
