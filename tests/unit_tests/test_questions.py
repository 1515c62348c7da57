"""Messages that ask about media."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymupdf
import pytest
from langchain_core.documents.base import Blob
from langchain_core.messages import HumanMessage
from PIL import Image

from langchain_glm4v import MediaNotFoundError, UnsupportedMediaError, question_about
from langchain_glm4v.messages import to_wire
from langchain_glm4v.preparation import Preparation

TEXT = {"type": "text", "text": "What is it?"}


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "picture"
    Image.new("RGB", (56, 56), "red").save(path, "PNG")
    return path


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    path = tmp_path / "document"
    with pymupdf.open() as made:
        made.new_page(width=100, height=100)
        made.save(path)
    return path


def types(message: HumanMessage) -> list[str]:
    return [block["type"] for block in message.content if isinstance(block, dict)]


def test_kinds_are_told_by_content(png: Path, pdf: Path, film: Path) -> None:
    assert question_about("What is it?", png, pdf).content == [
        {"type": "image", "path": str(png)},
        {"type": "file", "path": str(pdf)},
        TEXT,
    ]
    assert question_about("What is it?", str(film)).content == [
        {"type": "video", "path": str(film)},
        TEXT,
    ]
    assert question_about("What is it?").content == [TEXT]


@pytest.mark.parametrize("given", [bytes, bytearray, memoryview, Blob.from_data])
def test_content_becomes_base64(given: Callable[[bytes], Any], png: Path) -> None:
    asked = question_about("What is it?", given(png.read_bytes()))
    encoded = base64.b64encode(png.read_bytes()).decode()

    block = {"type": "image", "base64": encoded, "mime_type": "image/png"}
    assert asked.content == [block, TEXT]
    assert json.dumps(asked.content)  # as checkpoints need it
    assert to_wire([asked]) == to_wire([question_about("What is it?", png)])


def test_urls(png: Path, web: Any) -> None:
    url = web.give("/a?b", png.read_bytes())
    data = "data:;base64," + base64.b64encode(png.read_bytes()).decode()
    asked = question_about("What is it?", url, data, png.as_uri(), allow_hosts=["127.0.0.1"])

    assert asked.content == [
        *({"type": "image", "url": one} for one in (url, data, png.as_uri())),
        TEXT,
    ]
    to_wire([asked], Preparation(allow_hosts=["127.0.0.1"]))
    assert web.paths == ["/a?b"]


def test_images_of_pils_and_blocks_with_options(pdf: Path) -> None:
    drawn = Image.new("RGB", (56, 56))
    block = {"type": "file", "path": str(pdf), "longest_side": 280}
    asked = question_about("What is it?", drawn, block)

    assert asked.content == [{"type": "image", "image": drawn}, block, TEXT]
    assert asked.content[1] is not block


def test_a_blob_whose_type_alone_tells_its_kind() -> None:
    data = io.BytesIO()
    Image.new("RGB", (28, 28)).save(data, "PCX")

    assert types(question_about("?", Blob.from_data(data.getvalue(), mime_type="image/x-pcx"))) == [
        "image",
        "text",
    ]


def test_what_cannot_be_asked_about(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UnsupportedMediaError, match=r"a\.txt' is no picture, document or video"):
        question_about("What is it?", tmp_path / "a.txt")
    with pytest.raises(MediaNotFoundError, match="no medium at"):
        question_about("What is it?", tmp_path / "none.png")
    for given in (7, None, ["a.png"]):
        with pytest.raises(UnsupportedMediaError, match="cannot be sent as a medium"):
            question_about("What is it?", given)
    with pytest.raises(UnsupportedMediaError, match="has no picture"):
        question_about("What is it?", {"type": "image"})
