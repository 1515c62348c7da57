import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import av
import pymupdf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from langchain_glm4v.media.sniffing import HTML, UNKNOWN, medium_kind, mime_type


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("GIF", "image/gif"),
        ("WEBP", "image/webp"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
        ("AVIF", "image/avif"),
        ("PDF", "application/pdf"),
        ("JPEG2000", UNKNOWN),
        ("PPM", UNKNOWN),
    ],
)
def test_what_pillow_writes(form: str, kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, form)

    assert mime_type(file.getvalue()) == kind


@pytest.mark.parametrize(
    ("end", "codec", "kind"),
    [
        ("mp4", "mpeg4", "video/mp4"),
        ("mov", "mpeg4", "video/quicktime"),
        ("m4v", "mpeg4", "video/mp4"),
        ("mkv", "mpeg4", "video/x-matroska"),
        ("webm", "libvpx", "video/webm"),
        ("avi", "mpeg4", "video/x-msvideo"),
        ("wmv", "msmpeg4", "video/x-ms-asf"),
        ("flv", "flv", "video/x-flv"),
        ("mpg", "mpeg1video", "video/mpeg"),
        ("ts", "mpeg2video", "video/mp2t"),
    ],
)
def test_what_ffmpeg_writes(end: str, codec: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"film.{end}"
    with av.open(path, "w") as film:
        stream: Any = film.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame(64, 64, "yuv420p")
        for packet in [*stream.encode(frame), *stream.encode()]:
            film.mux(packet)

    assert mime_type(path.read_bytes()) == kind


def test_a_pdf_behind_something_else() -> None:
    with pymupdf.open() as document:
        document.new_page()
        data = document.tobytes()

    assert mime_type(b"\n" * 1000 + data) == "application/pdf"
    assert mime_type(b"\n" * 1020 + data) == UNKNOWN


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("[Content_Types].xml", "ppt/presentation.xml"), "presentationml.presentation"),
        (("[Content_Types].xml", "word/document.xml"), "wordprocessingml.document"),
        (("[Content_Types].xml", "xl/workbook.xml"), "spreadsheetml.sheet"),
        (("a.txt",), None),
    ],
)
def test_archives(names: tuple[str, ...], kind: str | None) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, bytes(1000))
        for number in range(1000):
            archive.writestr(f"ppt/media/image{number}.png", b"")
    office = f"application/vnd.openxmlformats-officedocument.{kind}"

    assert mime_type(file.getvalue()) == (office if kind else UNKNOWN)


@pytest.mark.parametrize("kind", ["presentation", "text", "text-template"])
def test_open_documents(kind: str) -> None:
    full = f"application/vnd.oasis.opendocument.{kind}"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", full)
        archive.writestr("content.xml", "<a/>")

    assert mime_type(file.getvalue()) == full


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        ("PowerPoint Document", "application/vnd.ms-powerpoint"),
        ("WordDocument", "application/msword"),
        ("Workbook", "application/vnd.ms-excel"),
        ("Other", UNKNOWN),
    ],
)
def test_compound_files(stream: str, kind: str) -> None:
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)
    entry = stream.encode("utf-16-le").ljust(64, b"\0") + struct.pack("<H", 2 * len(stream) + 2)

    assert mime_type(head + bytes(10_000) + entry) == kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<!doctype html>", HTML),
        ("  <html><body>", HTML),
        ("\ufeff<!-- %PDF- -->\n<head>", HTML),
        ("<script>document.write('%PDF-')</script>", HTML),
        ("<svg xmlns='http://www.w3.org/2000/svg'/>", UNKNOWN),
        ("<headline>", UNKNOWN),
        ("BMW is a car", UNKNOWN),
        ("GIF is a format", UNKNOWN),
        ('{"error": "html"}', UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_texts(text: str, kind: str) -> None:
    assert mime_type(text.encode()) == kind


@given(st.binary(max_size=300))
def test_any_bytes_have_a_kind(data: bytes) -> None:
    assert "/" in mime_type(data)


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        (b"GIF89a", "picture"),
        (b"%PDF-1.7", "document"),
        (b"PK\x03\x04", "document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "document"),
        (b"FLV\x01", "video"),
        (b"<html>", None),
        (b"text", None),
        (b"", None),
    ],
)
def test_what_the_begin_tells(begin: bytes, kind: str | None) -> None:
    assert medium_kind(begin) == kind
