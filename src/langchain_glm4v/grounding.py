"""Where things are in a picture: boxes in the model's own units, thousandths of each side."""

import re
from typing import NamedTuple

SIDE = 1000
"""Units along each side of a picture, whatever its size in pixels."""

_NUMBER = r"-?\d++(?:\.\d++)?"
# Begins at the begin of a number only, so that no text takes long.
_FOUR = re.compile(rf"(?<![\d.]){_NUMBER}(?:\s*+,\s*+{_NUMBER}){{3}}")


class Box(NamedTuple):
    """A rectangle in a picture, in thousandths of the picture's sides.

    Attributes:
        left: Left edge, 0 to 1000.
        top: Upper edge, 0 to 1000.
        right: Right edge, 0 to 1000.
        bottom: Lower edge, 0 to 1000.
    """

    left: float
    top: float
    right: float
    bottom: float

    def to_pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The rectangle in pixels of a picture of `width` times `height` pixels.

        Returns:
            Left, top, right and bottom, rounded.
        """
        return (
            round(self.left * width / SIDE),
            round(self.top * height / SIDE),
            round(self.right * width / SIDE),
            round(self.bottom * height / SIDE),
        )


def find_boxes(text: str) -> list[Box]:
    """Find the boxes in a text such as `"[[10,20,30,40],[50,60,70,80]]"`, brackets of any kind.

    Args:
        text: The inside of a box tag, or any answer.

    Returns:
        Each four numbers that stand together, in order.
    """
    return [Box(*map(float, found[0].split(","))) for found in _FOUR.finditer(text)]
