"""Draws the clips: scenes that follow each other, each with its truth, stamped with seconds."""

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from . import fonts, words
from . import pictures as draw
from .pictures import COLOURS, KINDS, MIN_TEXT, Colour, Picture, Shape

FRAMES = 2  # of a step in time: the model sees two frames as one
MOST_STEPS = 12
SCREENS: dict[str, Colour] = {**COLOURS, "white": (250, 250, 250)}
LARGEST_TEXT = 30  # pixels
CONTRAST = 170  # least sum of the differences of red, green and blue


@dataclass(frozen=True)
class Scene:
    """What is to be seen for `steps` steps: a shape, a text, both, or a screen of one colour."""

    steps: int
    screen: str = ""  # name of the colour behind it; "": any light paper
    shape: tuple[str, str] | None = None  # kind and colour
    text: str = ""

    @property
    def things(self) -> list[str]:
        """What it shows, such as ["red circle", "42"] or ["blue screen"]."""
        shape = [f"{self.shape[1]} {self.shape[0]}"] if self.shape else []
        return [*shape, *([self.text] if self.text else [])] or [f"{self.screen} screen"]

    @property
    def caption(self) -> str:
        return " and ".join(self.things)


@dataclass
class Clip:
    """A clip and its truth; one step is two frames, `Picture.pixels` (2, height, width, 3)."""

    scenes: list[Scene]
    seconds: list[int]  # stamped on each step
    steps: list[Picture]

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """First and last second of each scene."""
        ends = list(accumulate(scene.steps for scene in self.scenes))
        return [
            (self.seconds[end - scene.steps], self.seconds[end - 1])
            for end, scene in zip(ends, self.scenes, strict=True)
        ]

    @property
    def stride(self) -> int:
        """Seconds from one step to the next."""
        return self.seconds[1] - self.seconds[0] if len(self.seconds) > 1 else 1

    @property
    def truth(self) -> object:
        """What tells this clip from others."""
        return [(scene.caption, scene.steps) for scene in self.scenes], self.seconds


def clip(rng: random.Random, size: tuple[int, int], font_paths: Sequence[Path]) -> Clip:
    """A clip of `size` (width, height) with 1 to 6 scenes; without fonts, one without text."""
    scenes = _story(rng, size, font_paths)
    steps = sum(scene.steps for scene in scenes)
    stride = rng.choice((2, 2, 3, 4, 5, 8, 10)) if rng.random() < 0.12 else 1
    begin = rng.randint(1, 290) if rng.random() < 0.08 else 0
    seconds = list(range(begin, begin + steps * stride, stride))
    paper = draw.tint(rng, 215, 255)
    quality = rng.randint(60, 95) if rng.random() < 0.8 else None
    shown: list[Picture] = []
    for scene in scenes:
        still = _still(rng, size, scene, paper, font_paths)
        shown += _moving(rng, still, scene.steps, quality)
    return Clip(scenes, seconds, shown)


def _story(rng: random.Random, size: tuple[int, int], font_paths: Sequence[Path]) -> list[Scene]:
    """Scenes of which no two that follow each other show the same."""
    count = rng.choices((1, 2, 3, 4, 5, 6), weights=(2, 5, 6, 5, 4, 3))[0]
    coloured = rng.random() < 0.3  # whether papers may have strong colours
    steady = rng.random() < 0.4  # whether only what is printed changes
    screen = rng.choice(list(SCREENS)) if coloured else ""
    scenes: list[Scene] = []
    left = MOST_STEPS
    while len(scenes) < count and left:
        steps = min(left, rng.choice((1, 1, 2, 2, 3, 4)))
        if coloured and not steady:
            screen = rng.choice(("", *SCREENS))
        scene = _scene(rng, size, steps, screen, bool(font_paths))
        if scenes and set(scenes[-1].things) & set(scene.things):
            continue
        if len(scenes) > 1 and rng.random() < 0.08:  # what was seen comes back
            scene = replace(rng.choice(scenes[:-1]), steps=steps)
        scenes.append(scene)
        left -= steps
    return scenes


def _scene(
    rng: random.Random, size: tuple[int, int], steps: int, screen: str, has_fonts: bool
) -> Scene:
    """One scene; the kinds follow in how often they come."""
    kind = rng.choices(("shape", "text", "both", "screen"), weights=(6, 8, 3, 1.5))[0]
    if not has_fonts and kind != "screen":
        kind = "shape"
    if kind == "screen":
        return Scene(steps, rng.choice(list(SCREENS)))
    shape = None
    if kind != "text":
        behind = SCREENS[screen or "white"]
        colours = [name for name, value in COLOURS.items() if _differ(value, behind)]
        shape = rng.choice(KINDS), rng.choice(colours)
    return Scene(steps, screen, shape, _text(rng, size) if kind != "shape" else "")


def _differ(a: Sequence[int], b: Sequence[int]) -> bool:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) >= CONTRAST


def _text(rng: random.Random, size: tuple[int, int]) -> str:
    """A word or two, a number or the like, short enough for the frame."""
    makers: tuple[words.Value, ...] = (
        *[words.word] * 5,
        *[words.number] * 3,
        words.amount,
        words.code,
        words.time,
        words.city,
        words.date,
        lambda r: words.words(r, 2, 2),
    )
    while True:
        text = rng.choice(makers)(rng)
        # `and` and `;` part things and scenes in the answers
        if len(text) * MIN_TEXT * 0.62 <= size[0] - 12 and "and" not in text.lower().split():
            return text


def _still(
    rng: random.Random,
    size: tuple[int, int],
    scene: Scene,
    paper: Colour,
    font_paths: Sequence[Path],
) -> Picture:
    """The scene as one picture, on one even ground."""
    width, height = size
    behind = SCREENS[scene.screen] if scene.screen else paper
    ground = tuple(min(255, max(0, c + rng.randint(-10, 10))) for c in behind)
    fine = 2  # drawn twice as large and reduced: smooth edges
    image = Image.new("RGB", (width * fine, height * fine), ground)
    top, bottom = 3, height - 3  # of the room for the shape
    font, pixels, text_y = None, 0, 0
    if scene.text:
        path = rng.choice(font_paths)
        largest = min(LARGEST_TEXT, height // 3)
        pixels = rng.randint(MIN_TEXT + 1, largest)
        while pixels > MIN_TEXT and fonts.advances(path, pixels).width(scene.text) > width - 10:
            pixels -= 1
        font = fonts.load(path, pixels)
        line = sum(font.getmetrics())
        if scene.shape and rng.random() < 0.5:
            text_y, top = 4, 4 + line
        elif scene.shape:
            text_y, bottom = height - 4 - line, height - 4 - line
        else:
            text_y = rng.randint(4, max(4, height - 4 - line))
    shapes: list[Shape] = []
    if scene.shape:
        room = min(width - 6, bottom - top)
        side = rng.randint(min(26, room), min(100, room))
        x, y = rng.randint(3, width - side - 3), rng.randint(top, bottom - side)
        box = (x, y, x + side, y + side)
        shapes = [draw.paint(rng, ImageDraw.Draw(image), scene.shape, box, fine)]
    image = image.reduce(fine)
    chars: list[tuple[float, float, str]] = []
    if font:
        advances = fonts.advances(path, pixels)
        x = rng.randint(4, max(4, int(width - 5 - advances.width(scene.text))))
        ink = _ink(rng, ground)
        ImageDraw.Draw(image).text((x, text_y), scene.text, fill=ink, font=font)
        middle = text_y + font.getmetrics()[0] * 0.62
        chars = list(draw.centres(scene.text, x, middle, advances))
    lines = [scene.text] if scene.text else []
    return Picture(np.asarray(image), lines=lines, chars=chars, shapes=shapes)


def _ink(rng: random.Random, ground: Sequence[int]) -> Colour:
    """A colour that stands out from the ground; now and then a strong one."""
    if rng.random() < 0.25:
        colour = rng.choice(list(COLOURS.values()))
        if _differ(colour, ground) and sum(map(abs, np.subtract(colour, ground))) > 2 * CONTRAST:
            return colour
    return draw.tint(rng, 0, 60) if sum(ground) > 330 else draw.tint(rng, 215, 255)


def _moving(
    rng: random.Random, still: Picture, steps: int, quality: int | None
) -> Iterator[Picture]:
    """The steps of a scene: mostly it stands, at times it drifts as far as there is room."""
    frames = steps * FRAMES
    drift = (0.0, 0.0)
    if rng.random() < 0.2 and (still.shapes or still.chars):
        drift = _drift(rng, still, frames)
    places = [(round(k * drift[0]), round(k * drift[1])) for k in range(frames)]
    seen = {
        place: _worn(np.roll(still.pixels, place[::-1], (0, 1)), quality) for place in set(places)
    }
    for first, second in zip(places[::FRAMES], places[1::FRAMES], strict=True):
        dx, dy = first
        yield Picture(
            np.stack((seen[first], seen[second])),
            lines=still.lines,
            chars=[(x + dx, y + dy, c) for x, y, c in still.chars],
            shapes=[
                replace(s, box=(s.box[0] + dx, s.box[1] + dy, s.box[2] + dx, s.box[3] + dy))
                for s in still.shapes
            ],
        )


def _drift(rng: random.Random, still: Picture, frames: int) -> tuple[float, float]:
    """Pixels that a scene moves by from frame to frame, so that it stays in the frame."""
    width, height = still.size
    xs = [x for x, _, _ in still.chars] + [c for s in still.shapes for c in s.box[::2]]
    ys = [y for _, y, _ in still.chars] + [c for s in still.shapes for c in s.box[1::2]]
    edge = 16 if still.chars else 2  # characters are known by their centres
    x = rng.uniform(min(0, edge - min(xs)), max(0, width - edge - max(xs)))
    y = rng.uniform(min(0, edge - min(ys)), max(0, height - edge - max(ys)))
    return max(-4, min(4, x / frames)), max(-4, min(4, y / frames))


def _worn(pixels: np.ndarray, quality: int | None) -> np.ndarray:
    """The frame after a lossy codec: coarse colours, ringing around edges."""
    if quality is None:
        return pixels
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
