"""The size of a picture from its header."""

import io
from typing import Any

import pytest
from PIL import Image

from langchain_glm4v.media import header

FORMS: list[tuple[str, str, dict[str, Any]]] = [
    ("JPEG", "L", {}),
    ("JPEG", "RGB", {"progressive": True, "icc_profile": b"x" * 90_000}),
    ("PNG", "RGB", {}),
    ("PNG", "P", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGBA", {"exif": b"Exif\0\0"}),
]


def picture(kind: str, mode: str, options: dict[str, Any], size: tuple[int, int]) -> bytes:
    data = io.BytesIO()
    Image.new(mode, size, 3).save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize(("kind", "mode", "options"), FORMS)
@pytest.mark.parametrize("size", [(1, 1), (640, 481), (16, 1000), (12_000, 61)])
def test_size(kind: str, mode: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    data = picture(kind, mode, options, size)

    assert header.size_of(data) == size


@pytest.mark.parametrize(("kind", "mode", "options"), FORMS)
def test_a_begin_that_is_too_short(kind: str, mode: str, options: dict[str, Any]) -> None:
    data = picture(kind, mode, options, (640, 481))

    assert {header.size_of(data[:end]) for end in range(200)} <= {None, (640, 481)}
    assert header.size_of(data[:15]) is None


def test_markers_that_are_filled_up_and_lone_ones() -> None:
    data = picture("JPEG", "RGB", {}, (640, 481))

    assert header.size_of(data[:2] + b"\xff\x01\xff\xff" + data[2:]) == (640, 481)
    assert header.size_of(data[:2] + b"\x00" + data[2:]) is None


@pytest.mark.parametrize("data", [b"", b"text", b"RIFF1234WEBPabcd", b"GIF89a" + bytes(30)])
def test_another_format(data: bytes) -> None:
    assert header.size_of(data) is None
