"""Pages printed for tests, and where their lines and words are."""

import functools
import importlib
import io
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from langchain_glm4v.grounding import Box

pymupdf: Any = importlib.import_module("pymupdf")  # has no types

INK = (20, 20, 20)
GROUND = (250, 249, 246)


@functools.cache
def font(size: int, *, chinese: bool = False) -> Any:
    if chinese:
        return ImageFont.truetype(io.BytesIO(pymupdf.Font("cjk").buffer), size)
    return ImageFont.load_default(size)


@dataclass
class Printed:
    """A page, and the box and the text of each line on it, in the order they were printed."""

    width: int = 1092
    height: int = 1540
    picture: Image.Image = field(init=False)
    lines: list[tuple[str, Box]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.picture = Image.new("RGB", (self.width, self.height), GROUND)

    def line(self, text: str, left: int, top: int, size: int, *, chinese: bool = False) -> None:
        pen = ImageDraw.Draw(self.picture)
        face = font(size, chinese=chinese)
        pen.text((left, top), text, fill=INK, font=face)
        inked = pen.textbbox((left, top), text, font=face)
        self.lines.append((text, Box.from_pixels(inked, self.width, self.height)))

    def paragraph(
        self, text: str, left: int, top: int, width: int, size: int, *, chinese: bool = False
    ) -> int:
        """Print a text in as many lines as it needs; returns where the next one would be."""
        face = font(size, chinese=chinese)
        rest = list(text) if chinese else text.split()
        joint = "" if chinese else " "
        while rest:
            count = len(rest)
            while face.getlength(joint.join(rest[:count])) > width:
                count -= 1
            self.line(joint.join(rest[:count]), left, top, size, chinese=chinese)
            del rest[:count]
            top += int(1.4 * size)
        return top

    @property
    def jpeg(self) -> bytes:
        return jpeg(self.picture)


def jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


STORY = (
    "Any additional notes played will be added into the track while existing notes are not erased. "
    "The second part of the sequence may be selected at any time to access quickly any location in "
    "it. To overdub a new part, select a different track and start recording; while you record, "
    "the first track will play in perfect sync unless you mute it, or solo another track."
)
OTHER_STORY = (
    "It was the year of the great frost when the river stood still for eleven weeks and merchants "
    "put up their booths on it. Nobody in the parish could remember a winter of that kind, and the "
    "price of coal rose every morning until the mayor opened the cellars of the town hall."
)
CHINESE = (
    "北京市海淀区人民法院认为，双方当事人签订的合同合法有效，均应当按照约定履行各自的义务。"
    "被告未按期支付货款，构成违约，应当承担继续履行及赔偿损失的责任。"
)
