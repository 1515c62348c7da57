"""Scanned slips as the miniature reads them: pages of 560x784 pixels in a PDF, and their texts."""

import importlib
import io
import random
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
    page = Image.new("RGB", SIZE, (250, 249, 246))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(28)
    for number, line in enumerate(lines):
        pen.text((50, 60 + 60 * number), line, fill=(20, 20, 20), font=font)
    return page, "\n".join(lines)


def write_pdf(path: Path, count: int, seed: int = 0) -> list[str]:
    """Write a PDF with so many slips, each another; returns their texts."""
    rng = random.Random(seed)
    document, texts = pymupdf.open(), []
    for _ in range(count):
        picture, text = slip(rng)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=92)
        page = document.new_page(width=SIZE[0], height=SIZE[1])
        page.insert_image(page.rect, stream=file.getvalue())
        texts.append(text)
    document.save(path)
    return texts
