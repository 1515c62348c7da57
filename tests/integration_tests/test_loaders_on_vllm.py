"""Scanned pages as documents, read by the miniature on the real vLLM."""

import importlib
import io
import random
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel

from langchain_glm4v import ChatGLM4V, GLM4VLoader
from slips import PROMPT, SIZE, slip

pymupdf: Any = importlib.import_module("pymupdf")  # it has no type hints

LONGEST = max(SIZE)


def write_scans(path: Path, pages: list[Image.Image]) -> Path:
    document = pymupdf.open()
    for picture in pages:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=92)
        page = document.new_page(width=picture.width, height=picture.height)
        page.insert_image(page.rect, stream=file.getvalue())
    document.save(path)
    return path


def test_scans_are_read_whichever_way_they_lie(model: ChatGLM4V, tmp_path: Path) -> None:
    rng = random.Random(4)
    (one, first), (two, second), (three, third) = (slip(rng) for _ in range(3))
    blank = Image.new("RGB", SIZE, (250, 249, 246))
    on_its_head, on_its_side = two.rotate(180), three.rotate(-90, expand=True)
    path = write_scans(tmp_path / "scans.pdf", [one, blank, on_its_head, on_its_side])
    options: dict[str, Any] = {
        "llm": model,
        "prompt": PROMPT,
        "longest_side": LONGEST,
        "cache": tmp_path / "pages.sqlite",
    }

    documents = GLM4VLoader(path, **options).load()

    assert [d.page_content for d in documents] == [first, "", second, third]
    told = [(d.metadata["page"], d.metadata["origin"], d.metadata["turn"]) for d in documents]
    assert told == [(0, "model", 0), (1, "blank", 0), (2, "model", 180), (3, "model", 270)]
    assert documents[0].metadata["confidence"] > 0.95
    assert documents[0].metadata["output_tokens"] > 40
    again = GLM4VLoader(path, **options).load()
    assert [d.page_content for d in again] == [d.page_content for d in documents]
    assert [d.metadata["from_cache"] for d in again] == [True, False, True, True]


class Slip(BaseModel):
    """What a slip is asked for."""

    total: float


def test_schema_binds_what_is_read(model: ChatGLM4V, tmp_path: Path) -> None:
    page, _ = slip(random.Random(5))
    path = write_scans(tmp_path / "scan.pdf", [page])
    loader = GLM4VLoader(path, llm=model, schema=Slip, longest_side=LONGEST, on_error="warn")
    (document,) = loader.load()
    # The miniature was not trained to read by a schema: what it reads need not be right.
    assert Slip.model_validate_json(document.page_content).total >= 0
