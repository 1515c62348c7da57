"""Where things are in a picture: boxes in the model's own units, thousandths of each side.

The model writes a box as four numbers, in brackets of any kind, as it likes: `[[1,2,3,4]]`,
`red circle (1, 2, 3, 4)`, `[{"label": "red circle", "bbox_2d": [1, 2, 3, 4]}]`, a Python dict, the
argument of a call. So what makes a box here is four numbers with commas between them, and its label
is looked for in the text around it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SIDE = 1000
"""Units along each side of a picture, whatever its size in pixels."""

LOCATE_PROMPT = "Help me to locate {target} in the image and give me its bounding boxes."
"""Asks where something is, in the makers' own words (README of zai-org/GLM-V).

The model was trained on it: others may bring an answer without a box. Labels come only when they
are asked for, as by `LABEL_PROMPT`.
"""

PINPOINT_PROMPT = (
    "Please pinpoint the bounding box [[x1,y1,x2,y2], …] in the image as per the given "
    "description. {target}"
)
"""The same for a longer description, from the same source."""

LABEL_PROMPT = (
    "Help me to locate {target} in the image and give me their bounding boxes, each with its "
    'label, as JSON: [{{"label": "…", "bbox_2d": [x1,y1,x2,y2]}}, …]'
)
"""Asks where several things are, and which is which: "the red circle, the blue square"."""

_NUMBER = r"-?\d{1,9}+(?:\.\d++)?"
# Begins at the begin of a number only, so that no text takes long.
_FOUR = re.compile(rf"(?<![\d.]){_NUMBER}(?:\s*+,\s*+{_NUMBER}){{3}}(?!\d)")


# No tuple: the label would be a fifth item of what is taken for four numbers.
@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in a picture, in thousandths of the picture's sides.

    It iterates over its four sides, so that `left, top, right, bottom = box`.

    Attributes:
        left: Left edge, 0 to 1000.
        top: Upper edge, 0 to 1000.
        right: Right edge, 0 to 1000.
        bottom: Lower edge, 0 to 1000.
        label: What is in it; "" if nobody said.
    """

    left: float
    top: float
    right: float
    bottom: float
    label: str = ""

    @classmethod
    def from_pixels(
        cls, pixels: Sequence[float], width: int, height: int, label: str = ""
    ) -> "Box":
        """The box of a rectangle in a picture of `width` times `height` pixels.

        Args:
            pixels: Left, top, right and bottom.
            width: Pixels of the picture.
            height: Pixels of the picture.
            label: What is in it.
        """
        left, top, right, bottom = pixels
        across, down = SIDE / width, SIDE / height
        return cls(left * across, top * down, right * across, bottom * down, label)

    def __iter__(self) -> Iterator[float]:
        return iter((self.left, self.top, self.right, self.bottom))

    @property
    def center(self) -> tuple[float, float]:
        """The point in the middle: its distance from the left and from the top, in thousandths."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

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

    def clipped(self) -> "Box | None":
        """The part that is in the picture, its sides put in order; None if there is none."""
        left, right = sorted((self.left, self.right))
        top, bottom = sorted((self.top, self.bottom))
        if right < 0 or bottom < 0 or left > SIDE or top > SIDE:
            return None
        return Box(max(left, 0), max(top, 0), min(right, SIDE), min(bottom, SIDE), self.label)

    def iou(self, other: "Box") -> float:
        """Intersection over union with another box: 0.0 (apart) to 1.0 (the same rectangle)."""
        shared = _area(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )
        union = _area(*self) + _area(*other) - shared
        return shared / union if union > 0 else float([*self] == [*other])


def _area(left: float, top: float, right: float, bottom: float) -> float:
    return max(0.0, right - left) * max(0.0, bottom - top)


def find_boxes(text: str) -> list[Box]:
    """Find the boxes in a text such as `"[[10,20,30,40],[50,60,70,80]]"`, brackets of any kind.

    Args:
        text: The inside of a box tag, or any answer.

    Returns:
        Each four numbers that stand together, in order.
    """
    return [_box(found[0], "") for found in _FOUR.finditer(text)]


def _box(numbers: str, label: str) -> Box:
    left, top, right, bottom = map(float, numbers.split(","))
    return Box(left, top, right, bottom, label)


def match(
    found: Sequence[Box], wanted: Sequence[Box], iou: float = 0.5
) -> list[tuple[Box, Box, float]]:
    """Pair found boxes with wanted ones, the best overlap first; labels do not matter.

    Args:
        found: Boxes of an answer.
        wanted: Where the things are. Each box is in one pair at most.
        iou: How much a pair must overlap, at least: 0.0 to 1.0. Default: 0.5, as is usual in the
            evaluation of detectors.

    Returns:
        A found box, the wanted one, and their overlap, the best first. Precision is the number of
        pairs over that of `found`, recall over that of `wanted`.
    """
    overlaps = [
        (one.iou(other), i, k) for i, one in enumerate(found) for k, other in enumerate(wanted)
    ]
    pairs: dict[int, tuple[int, float]] = {}
    taken: set[int] = set()
    for overlap, i, k in sorted(overlaps, key=lambda pair: -pair[0]):
        if overlap >= iou and i not in pairs and k not in taken:
            pairs[i] = k, overlap
            taken.add(k)
    return [(found[i], wanted[k], overlap) for i, (k, overlap) in pairs.items()]
