"""Boxes drawn on a picture, and what they hold cut out of it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from langchain_glm4v.errors import RequestError
from langchain_glm4v.grounding import SIDE, Box
from langchain_glm4v.media import image
from langchain_glm4v.media.source import Given

if TYPE_CHECKING:
    from PIL import Image


def draw(picture: "Given | Image.Image", boxes: Iterable[Box]) -> "Image.Image":
    """Draw boxes on a picture, with their labels.

    Args:
        picture: As for `media.image.prepare`; of a TIFF the first page.
        boxes: What lies outside the picture is left out.

    Returns:
        A new picture in RGB, upright, in the full size of the given one. Boxes without a label are
        numbered from 1 in their order, if there are several boxes.

    Raises:
        MediaError: As for `media.image.prepare`.
    """
    from PIL import ImageDraw  # noqa: PLC0415

    drawn = image.upright(picture)
    pen = ImageDraw.Draw(drawn)
    for box in filter(None, (box.clipped() for box in boxes)):
        pen.rectangle(box.to_pixels(drawn.width - 1, drawn.height - 1), outline="red", width=2)
    return drawn


def crop(picture: "Given | Image.Image", box: Box, margin: float = 0.0) -> "Image.Image":
    """Cut out what a box holds.

    Args:
        picture: As for `draw`.
        box: What lies outside the picture is left out.
        margin: How much more on each side, as a share of the box's width and height; 0.1 makes it
            a fifth wider and higher.

    Returns:
        A new picture in RGB, upright, of one pixel or more.

    Raises:
        RequestError: If the box lies outside the picture, or the margin is negative.
        MediaError: As for `media.image.prepare`.
    """
    if margin < 0:
        raise RequestError(f"the margin is {margin}: give 0 or more, as a share of the box's sides")
    # Sides in order first, so that the margin widens the box.
    inside = box.clipped()
    if inside is None:
        raise RequestError(f"{box} lies outside the picture: its sides are 0 to {SIDE}")
    across, down = (inside.right - inside.left) * margin, (inside.bottom - inside.top) * margin
    wide = Box(
        inside.left - across, inside.top - down, inside.right + across, inside.bottom + down
    ).clipped()
    assert wide is not None
    whole = image.upright(picture)
    left, top, right, bottom = wide.to_pixels(*whole.size)
    left, top = min(left, whole.width - 1), min(top, whole.height - 1)
    return whole.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
