"""Pages with a number on them that a stand-in for a model can read, and that stand-in."""

import base64
import importlib
import io
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from vision_server import Body

pymupdf: Any = importlib.import_module("pymupdf")

SIZE = (560, 784)
BITS = 10
_SIDE = 40  # pixels of a square
SURE, UNSURE = -0.01, -2.0  # logarithms of probabilities of tokens


def page(number: int | None) -> Image.Image:
    """A page with a number as squares, which the model can read; None: a blank one."""
    picture = Image.new("RGB", SIZE, "white")
    if number is not None:
        draw = ImageDraw.Draw(picture)
        for place, bit in enumerate([True, *(bool(number >> bit & 1) for bit in range(BITS))]):
            if bit:
                draw.rectangle((100, 60 + 60 * place, 100 + _SIDE, 60 + 60 * place + _SIDE), 0)
    return picture


def write_pdf(path: Path, numbers: Sequence[int | None], turn: int = 0) -> Path:
    """A scan of such pages, each turned by so many degrees, clockwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = pymupdf.open()
    for number in numbers:
        file = io.BytesIO()
        picture = page(number).rotate(-turn, expand=True)
        picture.save(file, "PNG")
        sheet = document.new_page(width=picture.width, height=picture.height)
        sheet.insert_image(sheet.rect, stream=file.getvalue())
    document.set_metadata({"title": "Squares", "producer": "Scanner 2"})
    document.save(path)
    return path


_sent: dict[str, str] = {}  # a picture that a server has is sent by its id alone


def number_in(body: Body) -> int | None:
    """The number on the picture of a request; None if there is none, or not upright."""
    content = body["messages"][-1]["content"]
    shown = [part for part in content if isinstance(part, dict) and "image_url" in part]
    if not shown:
        return None
    (part,) = shown
    if part["image_url"] is not None:
        _sent[part.get("uuid", "")] = part["image_url"]["url"]
    url = _sent[part.get("uuid", "")]
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as opened:
        grey = opened.convert("L").resize(SIZE)
    shades: list[Any] = [grey.getpixel((120, 80 + 60 * place)) for place in range(BITS + 1)]
    is_upright, *bits = [shade < 128 for shade in shades]
    return sum(bit << place for place, bit in enumerate(bits)) if is_upright else None


def choice(text: str, *, reason: str = "stop", logprob: float = SURE) -> Body:
    """A choice of a reply, with the probabilities of its tokens."""
    token = {"token": text, "logprob": logprob, "bytes": None, "top_logprobs": []}
    return {
        "message": {"role": "assistant", "content": text},
        "finish_reason": reason,
        "logprobs": {"content": [token]},
    }


class Reader:
    """Says "page 5" of the page with the number 5, and counts how often it is asked.

    Args:
        says: What it says otherwise, by the number; None of these: nothing, until one hangs up.
    """

    def __init__(self, says: Callable[[int], "str | Body | None"] | None = None) -> None:
        self.says = says or (lambda number: choice(f"page {number}"))
        self.asked: Counter[int] = Counter()
        self._lock = threading.Lock()

    def __call__(self, body: Body) -> Any:
        number = number_in(body)
        if number is None:
            return choice("", logprob=UNSURE)
        with self._lock:
            self.asked[number] += 1
        return self.says(number)
