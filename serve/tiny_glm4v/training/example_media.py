"""Makes the pictures, the scanned page and the film of `examples/media`.

    TINY_GLM4V_FONTS=… python -m training.example_media ../../examples/media

None of them was trained on: the shapes are of the share that `held_out` keeps back, and the
texts are not of the generator's making.
"""

import argparse
import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pymupdf
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from . import fonts, pictures
from .pictures import Picture
from .sample import held_out

FILM_RATE = 10  # frames a second
RECEIPT = (
    "Corner Bakery",
    "Date: 2026-11-22",
    "Bread 3.20",
    "Coffee 2.50",
    "Cake 4.75",
    "Total: 10.45",
)
LETTER = (
    "Blue Harbor Hotel",
    "Guest: Maria Lopez",
    "Room: 214",
    "Date: 2026-03-08",
    "City: Lisbon",
    "Nights: 3",
    "Rate: 85.00",
    "Tax: 25.50",
    "Total: 280.50",
)
FIRST = (
    ("circle", "red"),
    ("square", "blue"),
    ("circle", "red"),
    ("star", "yellow"),
    ("circle", "green"),
)
SECOND = (("triangle", "purple"), ("star", "yellow"), ("cross", "orange"))


def first(draw: Callable[[random.Random], Picture], fits: Callable[[Picture], bool]) -> Picture:
    """The first picture drawn that fits."""
    return next(
        picture for seed in range(10_000) if fits(picture := draw(random.Random(f"example/{seed}")))
    )


def page(size: tuple[int, int], lines: Sequence[str], font: str, askew: float) -> Picture:
    paths = [path for path in fonts.paths() if path.name == font]
    return first(
        lambda rng: pictures.slip(rng, size, list(lines), paths, askew=askew),
        lambda picture: len(picture.lines) == len(lines),
    )


def figure(wanted: Sequence[tuple[str, str]]) -> Picture:
    return first(
        lambda rng: pictures.shapes(rng, (336, 224), list(wanted)),
        lambda picture: len(picture.shapes) == len(wanted) and held_out(picture),
    )


def scanned(picture: Picture) -> Image.Image:
    """The page as a scanner sees it: grey, a little blurred, with noise and uneven light."""
    grey = Image.fromarray(picture.pixels).convert("L").filter(ImageFilter.GaussianBlur(0.5))
    light = np.linspace(0.97, 0.9, grey.height)[:, None]
    noise = np.random.default_rng(0).normal(0, 4, (grey.height, grey.width))
    return Image.fromarray((np.asarray(grey) * light + noise).clip(0, 255).astype(np.uint8))


def pdf(image: Image.Image) -> bytes:
    """A PDF of one page that holds nothing but the picture, as scanners write it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    with pymupdf.open() as document:
        sheet = document.new_page(width=image.width * 0.75, height=image.height * 0.75)
        sheet.insert_image(sheet.rect, stream=buffer.getvalue())
        made: bytes = document.tobytes(deflate=True)
    return made


def film() -> bytes:
    """A film of six seconds: a blue square, a word, a yellow screen."""
    size, font = (224, 168), next(path for path in fonts.paths() if path.name == "DejaVuSans.ttf")
    square, word = (Image.new("RGB", size, "whitesmoke") for _ in range(2))
    ImageDraw.Draw(square).rectangle((80, 52, 144, 116), fill=pictures.COLOURS["blue"])
    letters = ImageFont.truetype(font, 24)
    ImageDraw.Draw(word).text((70, 68), "Bread", fill="black", font=letters)
    screen = Image.new("RGB", size, pictures.COLOURS["yellow"])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", FILM_RATE, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for scene, seconds in ((square, 2), (word, 3), (screen, 1)):
            for _ in range(seconds * FILM_RATE):
                container.mux(stream.encode(av.VideoFrame.from_image(scene)))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    receipt = page((448, 336), RECEIPT, "DejaVuSans.ttf", askew=0)
    Image.fromarray(receipt.pixels).save(folder / "receipt.png")
    for name, wanted in (("shapes.png", FIRST), ("more_shapes.png", SECOND)):
        Image.fromarray(figure(wanted).pixels).save(folder / name)
    letter = page((560, 784), LETTER, "LiberationSerif-Regular.ttf", askew=1)
    (folder / "scan.pdf").write_bytes(pdf(scanned(letter)))
    (folder / "film.mp4").write_bytes(film())


if __name__ == "__main__":
    main()
