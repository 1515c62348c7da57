"""Scanned slips as the miniature reads them: pages of 560x784 pixels in a PDF, and their texts."""

import functools
import importlib
import io
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

pymupdf: Any = importlib.import_module("pymupdf")  # it has no type hints

SIZE = (560, 784)  # pixels
PROMPT = "Transcribe the text."
_SHOPS = ("Green Garden Shop", "Blue Harbor Hotel", "Corner Bakery", "City Book Store")
_GOODS = ("Bread", "Milk", "Apples", "Tea", "Rice", "Soap")


def slip(rng: random.Random) -> tuple[Image.Image, str]:
    """A slip and what stands on it."""
    lines = [
        rng.choice(_SHOPS),
        f"Invoice: {rng.randrange(10_000, 100_000)}",
        f"Date: 2026-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}",
        *(f"{good}: {rng.randrange(100, 10_000) / 100:.2f}" for good in rng.sample(_GOODS, 3)),
        f"Total: {rng.randrange(1_000, 100_000) / 100:.2f}",
    ]
    return drawn(lines), "\n".join(lines)


def drawn(lines: Sequence[str]) -> Image.Image:
    """A page with these lines."""
    page = Image.new("RGB", SIZE, (250, 249, 246))
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        pen.text(_place(number), line, fill=(20, 20, 20), font=_font())
    return page


def edges(number: int, line: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the ink of a line, in pixels."""
    left, top, right, bottom = _font().getbbox(line)
    x, y = _place(number)
    return x + left, y + top, x + right, y + bottom


def _place(number: int) -> tuple[int, int]:
    return 50, 60 + 60 * number


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(28)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def write_pdf(path: Path, count: int, seed: int = 0) -> list[str]:
    """Write a PDF with so many slips, each another; returns their texts."""
    rng = random.Random(seed)
    pages = [slip(rng) for _ in range(count)]
    save(path, [picture for picture, _ in pages])
    return [text for _, text in pages]


def save(path: Path, pictures: Iterable[Image.Image]) -> None:
    """Write pictures as the pages of a PDF, as a scanner does."""
    document = pymupdf.open()
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=92)
        page = document.new_page(width=SIZE[0], height=SIZE[1])
        page.insert_image(page.rect, stream=file.getvalue())
    document.save(path)
