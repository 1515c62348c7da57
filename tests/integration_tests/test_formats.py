"""Every format of the README's table, from the file to the right answer of the real server."""

import base64
import importlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pymupdf
import pytest
from langchain_core.messages import HumanMessage
from PIL import Image, ImageDraw, ImageFont
from pydantic import SecretStr

from langchain_glm4v import ChatGLM4V, GLM4VServer
from langchain_glm4v.media import document

# Parts of its type hints want NumPy's of another version.
av: Any = importlib.import_module("av")

RECEIPT = Path(__file__).parents[2] / "examples" / "media" / "receipt.png"
# Pillow's name of each format of pictures, and how it is told to write it.
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "jpg": ("JPEG", {"quality": 95}),
    "jpeg": ("JPEG", {"quality": 95}),
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "webp": ("WEBP", {"lossless": True}),
    "avif": ("AVIF", {"quality": 95}),
}
# FFmpeg's name of each format of videos, its codec, and that codec's format of pixels.
VIDEOS = {
    "mp4": ("mp4", "libx264", "yuv420p"),
    "m4v": ("mp4", "mpeg4", "yuv420p"),
    "mov": ("mov", "libx264", "yuv420p"),
    "mkv": ("matroska", "libx265", "yuv420p"),
    "webm": ("webm", "libvpx-vp9", "yuv420p"),
    "avi": ("avi", "mpeg4", "yuv420p"),
    "wmv": ("asf", "wmv2", "yuv420p"),
    "flv": ("flv", "flv", "yuv420p"),
    "mpeg": ("mpeg", "mpeg2video", "yuv420p"),
    "gif": ("gif", "gif", "rgb8"),
}
SOFFICE = shutil.which("soffice") or shutil.which("libreoffice")
# A document with one page, which a picture fills: a deck, or a text.
PAGE = """<?xml version="1.0"?>
<office:document office:mimetype="application/vnd.oasis.opendocument.{kind}"
 office:version="1.3" xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0"
 xmlns:fo="urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0"
 xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0"
 xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0">
<office:automatic-styles><style:page-layout style:name="L">
<style:page-layout-properties fo:margin="0cm" fo:page-width="{width}"
 fo:page-height="{height}"/></style:page-layout>
</office:automatic-styles>
<office:master-styles><style:master-page style:name="{master}" style:page-layout-name="L"/>
</office:master-styles>
<office:body><office:{kind}>{begin}
<draw:frame svg:x="0cm" svg:y="0cm" svg:width="{width}"
 svg:height="{height}" text:anchor-type="page" text:anchor-page-number="1"><draw:image>
<office:binary-data>{picture}</office:binary-data></draw:image></draw:frame>
{end}</office:{kind}></office:body></office:document>
"""
# Format -> its kind, its sort of pages, and what stands around what the page shows.
OFFICE = {
    **dict.fromkeys(
        ("ppt", "pptx", "odp"),
        ("presentation", "M", '<draw:page draw:master-page-name="M">', "</draw:page>"),
    ),
    **dict.fromkeys(("doc", "docx", "odt"), ("text", "Standard", "", "<text:p/>")),
}
SCENES = ["red circle", "42", "blue screen"]  # two seconds each
RATE = 25  # frames a second; MPEG knows no low ones


@pytest.fixture(scope="module")
def model(server: GLM4VServer) -> ChatGLM4V:
    return ChatGLM4V(
        base_url=server.base_url,
        api_key=SecretStr(server.api_key),
        model=server.served_model_name,
        sampling="deterministic",
    )


def answer(model: ChatGLM4V, block: dict[str, Any], text: str) -> str:
    return model.invoke([HumanMessage([block, {"type": "text", "text": text}])]).text


@pytest.mark.parametrize("extension", PICTURES)
def test_pictures(model: ChatGLM4V, tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"receipt.{extension}"
    form, options = PICTURES[extension]
    with Image.open(RECEIPT) as receipt:
        receipt.convert("RGB").save(path, form, **options)

    assert answer(model, {"type": "image", "path": str(path)}, "What is the Total?") == "10.45"


def frame(scene: str) -> Image.Image:
    size = (224, 168)
    if scene == "blue screen":
        return Image.new("RGB", size, (40, 80, 220))
    drawn = Image.new("RGB", size, (245, 245, 245))
    pen = ImageDraw.Draw(drawn)
    if scene == "red circle":
        pen.ellipse((72, 44, 152, 124), fill=(220, 40, 40))
    else:
        pen.text((90, 66), scene, fill=(10, 10, 10), font=ImageFont.load_default(28))
    return drawn


def write_video(path: Path, form: str, codec: str, pixels: str) -> None:
    with av.open(path, "w", format=form) as container:
        stream: Any = container.add_stream(codec, RATE)
        stream.width, stream.height, stream.pix_fmt = 224, 168, pixels
        stream.bit_rate = 2_000_000
        for scene in SCENES:
            drawn = frame(scene)
            for _ in range(2 * RATE):
                container.mux(stream.encode(av.VideoFrame.from_image(drawn)))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("extension", VIDEOS)
def test_videos(model: ChatGLM4V, tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"film.{extension}"
    write_video(path, *VIDEOS[extension])
    told = answer(model, {"type": "video", "path": str(path)}, "Describe the video.")

    assert told == "0-1: red circle; 2-3: 42; 4-5: blue screen"


def test_a_part_of_a_video_has_the_seconds_of_the_whole(model: ChatGLM4V, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_video(path, *VIDEOS["mp4"])
    part = {"type": "video", "path": str(path), "start": 2}

    assert answer(model, part, "Describe the video.") == "2-3: 42; 4-5: blue screen"


def test_pdf(model: ChatGLM4V, tmp_path: Path) -> None:
    path = tmp_path / "receipt.pdf"
    with Image.open(RECEIPT) as receipt, pymupdf.open() as pdf:
        page = pdf.new_page(width=receipt.width, height=receipt.height)
        page.insert_image(page.rect, filename=str(RECEIPT))
        pdf.save(path)
        block = {"type": "file", "path": str(path), "longest_side": receipt.height}

    assert answer(model, block, "What is the Total?") == "10.45"


@pytest.mark.skipif(SOFFICE is None, reason="LibreOffice is not installed")
@pytest.mark.parametrize("extension", OFFICE)
def test_office_documents(model: ChatGLM4V, tmp_path: Path, extension: str) -> None:
    kind, master, begin, end = OFFICE[extension]
    given = tmp_path / f"receipt.fod{kind[0]}"
    with Image.open(RECEIPT) as receipt:
        width, height = (f"{side / 40}cm" for side in receipt.size)
        longest_side = max(receipt.size)
    picture = base64.b64encode(RECEIPT.read_bytes()).decode()
    page = PAGE.format(
        kind=kind,
        master=master,
        begin=begin,
        end=end,
        width=width,
        height=height,
        picture=picture,
    )
    given.write_text(page)
    profile = f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}"
    command = [str(SOFFICE), profile, "--headless", "--convert-to", extension]
    subprocess.run([*command, "--outdir", tmp_path, given], check=True, timeout=120)
    path = tmp_path / f"receipt.{extension}"
    asked = {"type": "file", "path": str(path), "longest_side": longest_side, "pages": "1"}

    assert document.info(path).format == extension.upper()
    assert answer(model, asked, "What is the Total?") == "10.45"


def test_pil_image(model: ChatGLM4V) -> None:
    with Image.open(RECEIPT) as receipt:
        assert answer(model, {"type": "image", "image": receipt}, "What is the Total?") == "10.45"
