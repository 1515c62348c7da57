"""Draws the pictures: printed slips and coloured shapes, with the truth about what is where."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from . import fonts

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

KINDS = ("circle", "square", "triangle", "star", "cross")
COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 210),
    "yellow": (240, 200, 30),
    "orange": (240, 130, 30),
    "purple": (140, 60, 170),
    "black": (30, 30, 30),
}
MIN_TEXT = 13  # pixels; the smallest print the miniature is asked to read


@dataclass(frozen=True)
class Shape:
    """One shape; `box` is x1, y1, x2, y2 in pixels."""

    kind: str
    colour: str
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    def __str__(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass
class Picture:
    """A picture and its truth: `chars` are (x, y, character) centres in pixels."""

    pixels: np.ndarray  # (height, width, 3) uint8; of a clip's step (2, height, width, 3)
    lines: list[str] = field(default_factory=list)
    chars: list[tuple[float, float, str]] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-3]

    @property
    def truth(self) -> object:
        """What tells this picture from others."""
        return self.lines, [(str(s), s.box) for s in self.shapes]


def tint(rng: random.Random, low: int, high: int) -> Colour:
    """A colour whose three values are drawn one by one."""
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _paper(rng: random.Random) -> tuple[Colour, Colour]:
    """Colours of paper and ink; now and then light ink on dark paper."""
    light = tint(rng, 225, 255) if rng.random() < 0.6 else (255, 255, 255)
    dark = tint(rng, 0, 90) if rng.random() < 0.6 else (0, 0, 0)
    return (dark, light) if rng.random() < 0.05 else (light, dark)


def _turn(
    rng: random.Random, image: Image.Image, paper: Colour, chars: list[tuple[float, float, str]]
) -> tuple[Image.Image, list[tuple[float, float, str]]]:
    """Lay the page a little askew, as a scanner or a camera would."""
    w, h = image.size
    angle, scale = math.radians(rng.uniform(-1.5, 1.5)), rng.uniform(0.93, 1.0)
    dx, dy = rng.uniform(-3, 3), rng.uniform(-3, 3)
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    # page -> picture: rotate and shrink about the centre, then shift; PIL wants the inverse
    a, b = math.cos(angle) / scale, math.sin(angle) / scale
    cx, cy = w / 2, h / 2
    inverse = (a, b, cx - a * (cx + dx) - b * (cy + dy), -b, a, cy + b * (cx + dx) - a * (cy + dy))
    turned = image.transform(
        (w, h), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR, fillcolor=paper
    )
    moved = [
        (cx + dx + cos * (x - cx) - sin * (y - cy), cy + dy + sin * (x - cx) + cos * (y - cy), c)
        for x, y, c in chars
    ]
    return turned, moved


def slip(
    rng: random.Random,
    size: tuple[int, int],
    lines: list[str],
    font_paths: list[Path],
    *,
    askew: float = 0.1,
    columns: bool = False,
) -> Picture:
    """Print `lines` on a page of `size` (width, height).

    Lines that do not fit at `MIN_TEXT` pixels are left out from the end, so `Picture.lines` is the
    truth. With `columns`, the last word of each line stands at the right margin.
    """
    width, height = size
    path = rng.choice(font_paths)
    roomy = rng.uniform(1.2, 1.9)
    largest = min(34, int(height / (len(lines) * 1.2 + 0.6)), max(16, width // 11))
    pixels = max(MIN_TEXT, rng.randint(min(MIN_TEXT + 1, largest), max(largest, MIN_TEXT + 1)))
    margin = rng.randint(6, 16)
    gap = 1.5 if columns else 0  # ems between the columns
    room = width - 2 * margin
    longest = max(lines, key=len, default="")
    while pixels > MIN_TEXT and fonts.advances(path, pixels).width(longest) + gap * pixels > room:
        pixels -= 1
    font, advances = fonts.load(path, pixels), fonts.advances(path, pixels)
    lines = [line for line in lines if advances.width(line) + gap * pixels <= room]
    ascent, descent = font.getmetrics()
    step = min(
        int((ascent + descent) * roomy * 0.85),
        max(ascent + descent, (height - 2 * margin) // max(1, len(lines))),
    )
    step = max(step, int((ascent + descent) * 0.95))
    lines = lines[: (height - margin) // step]
    paper, ink = _paper(rng)
    image = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(image)
    chars: list[tuple[float, float, str]] = []
    block = max((advances.width(line) for line in lines), default=0)
    left = (
        rng.uniform(margin, max(margin, width - margin - block)) if rng.random() < 0.6 else margin
    )
    top = rng.uniform(margin / 2, max(margin / 2, height - step * len(lines) - margin / 2))
    centred = not columns and rng.random() < 0.12
    for k, line in enumerate(lines):
        y = top + k * step
        pieces = [(line, left)]
        if columns and " " in line:
            head, tail = line.rsplit(" ", 1)
            pieces = [(head, margin), (tail, width - margin - advances.width(tail))]
        elif centred:
            pieces = [(line, (width - advances.width(line)) / 2)]
        for text, x in pieces:
            draw.text((x, y), text, fill=ink, font=font)
            chars += centres(text, x, y + ascent * 0.62, advances)
    if rng.random() < 0.15:
        _rules(rng, draw, size, ink, [top + k * step for k in range(len(lines) + 1)])
    if rng.random() < askew:
        image, chars = _turn(rng, image, paper, chars)
    return Picture(np.asarray(image), lines=lines, chars=chars)


def centres(
    text: str, x: float, middle: float, advances: fonts.Advances
) -> Iterator[tuple[float, float, str]]:
    """Where the characters of a printed text are; blanks are left out."""
    ends = accumulate(advances[char] for char in text)
    for char, end in zip(text, ends, strict=True):
        if char != " ":
            yield x + end - advances[char] / 2, middle, char


def _rules(
    rng: random.Random,
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    ink: Colour,
    tops: list[float],
) -> None:
    """A frame or ruled lines between the lines of text, as forms have them."""
    width, height = size
    if rng.random() < 0.5:
        draw.rectangle((2, 2, width - 3, height - 3), outline=ink)
    else:
        for y in rng.sample(tops, k=min(len(tops), rng.randint(1, 3))):
            draw.line((4, y, width - 5, y), fill=ink)


def _outline(kind: str, x1: float, y1: float, x2: float, y2: float) -> list[tuple[float, float]]:
    """Corners of a shape that is a polygon, in a box."""
    cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    if kind == "triangle":
        return [(cx, y1), (x2, y2), (x1, y2)]
    if kind == "cross":
        a, b = w / 3, h / 3
        return [
            (x1 + a, y1),
            (x2 - a, y1),
            (x2 - a, y1 + b),
            (x2, y1 + b),
            (x2, y2 - b),
            (x2 - a, y2 - b),
            (x2 - a, y2),
            (x1 + a, y2),
            (x1 + a, y2 - b),
            (x1, y2 - b),
            (x1, y1 + b),
            (x1 + a, y1 + b),
        ]
    radii = ((0.5, 0.2) * 5)[:10]  # a star's points and notches
    return [
        (cx + r * w * math.sin(k * math.pi / 5), cy - r * h * math.cos(k * math.pi / 5))
        for k, r in enumerate(radii)
    ]


def paint(
    rng: random.Random, draw: ImageDraw.ImageDraw, wanted: tuple[str, str], box: Box, fine: int
) -> Shape:
    """Draw a shape (kind, colour) into a box in pixels, on a canvas `fine` times as large."""
    kind, colour = wanted
    fill = tuple(min(255, max(0, c + rng.randint(-18, 18))) for c in COLOURS[colour])
    x1, y1, x2, y2 = (c * fine for c in box)
    if kind == "circle":
        draw.ellipse((x1, y1, x2, y2), fill=fill)
    elif kind == "square":
        draw.rectangle((x1, y1, x2, y2), fill=fill)
    else:
        corners = _outline(kind, x1, y1, x2, y2)
        draw.polygon(corners, fill=fill)
        xs, ys = [c[0] / fine for c in corners], [c[1] / fine for c in corners]
        box = (min(xs), min(ys), max(xs), max(ys))
    return Shape(kind, colour, box)


def _place(
    rng: random.Random, size: tuple[int, int], taken: list[Box], low: int, high: int
) -> Box | None:
    """A free square place, or None after some tries."""
    width, height = size
    for _ in range(30):
        side = rng.randint(low, high)
        x, y = rng.randint(3, width - side - 3), rng.randint(3, height - side - 3)
        box = (x, y, x + side, y + side)
        if all(
            box[0] > b[2] + 4 or box[2] < b[0] - 4 or box[1] > b[3] + 4 or box[3] < b[1] - 4
            for b in taken
        ):
            return box
    return None


def shapes(rng: random.Random, size: tuple[int, int], wanted: list[tuple[str, str]]) -> Picture:
    """Draw the wanted (kind, colour) shapes at free places, none over another.

    A shape that finds no place is left out, so `Picture.shapes` is the truth; it is in reading
    order of the 28-pixel cells that the centres fall in.
    """
    width, height = size
    paper = tint(rng, 215, 255) if rng.random() < 0.7 else (255, 255, 255)
    fine = 2  # drawn twice as large and reduced: smooth edges
    image = Image.new("RGB", (width * fine, height * fine), paper)
    draw = ImageDraw.Draw(image)
    high = min(100, min(size) // 2, int(1.6 * math.sqrt(width * height / (len(wanted) + 2)) / 2))
    placed: list[Shape] = []
    for one in wanted:
        box = _place(rng, size, [s.box for s in placed], 26, max(30, high))
        if box is None:
            continue
        placed.append(paint(rng, draw, one, box, fine))
    placed.sort(key=lambda s: (s.centre[1] // 28, s.centre[0] // 28, s.centre[0]))
    return Picture(np.asarray(image.reduce(fine)), shapes=placed)


def blank(rng: random.Random, size: tuple[int, int]) -> Picture:
    """An empty page, perhaps with a frame."""
    paper, ink = _paper(rng)
    image = Image.new("RGB", size, paper)
    if rng.random() < 0.2:
        _rules(rng, ImageDraw.Draw(image), size, ink, [rng.uniform(0, size[1])])
    return Picture(np.asarray(image))
