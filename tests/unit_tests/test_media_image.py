"""Pictures on their way into a request."""

import base64
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.media import image, source


def picture(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> bytes:
    data = io.BytesIO()
    Image.new(mode, size, 3).save(data, kind)
    return data.getvalue()


def decoded(url: str) -> tuple[str, bytes]:
    head, data = url.split(";base64,")
    return head, base64.b64decode(data)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("kind", "mime_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
    ],
)
def test_known_formats_go_as_they_are(tmp_path: Path, kind: str, mime_type: str) -> None:
    path = tmp_path / "named.wrongly"
    path.write_bytes(picture(kind))

    assert decoded(image.to_url(path)) == (f"data:{mime_type}", picture(kind))


def test_a_phone_picture_goes_as_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    Image.new("RGB", (8, 6)).save(
        path, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 6))]
    )

    assert decoded(image.to_url(path)) == ("data:image/jpeg", path.read_bytes())


@pytest.mark.parametrize(
    ("kind", "mode", "becomes"),
    [
        ("TIFF", "RGB", "RGB"),
        ("TIFF", "CMYK", "RGB"),
        ("TIFF", "F", "RGB"),
        ("PPM", "L", "L"),
        ("ICO", "RGBA", "RGBA"),
    ],
)
def test_other_formats_become_png(kind: str, mode: str, becomes: str) -> None:
    mime_type, data = decoded(image.from_bytes(picture(kind, mode, (16, 16)), "a picture"))

    assert mime_type == "data:image/png"
    with Image.open(io.BytesIO(data)) as sent:
        assert (sent.format, sent.size, sent.mode) == ("PNG", (16, 16), becomes)


@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://"])
def test_all_forms_of_a_path(tmp_path: Path, start: str) -> None:
    path = tmp_path / "a picture, 100% größer: #1.png"
    path.write_bytes(picture())

    for given in (path, str(path), path.as_uri().replace("file://", start)):
        assert decoded(image.to_url(given))[1] == picture()


def test_a_relative_path_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page:1.png").write_bytes(picture())

    assert decoded(image.to_url("page:1.png"))[1] == picture()


def test_a_url_on_this_machine_is_not_fetched(web: Any) -> None:
    with pytest.raises(MediaError, match=r"/cat.png\?…' leads to an address that is not public"):
        image.to_url(f"{web.url}/cat.png?key=secret")

    assert web.connections == 0


def test_base64_and_data_urls_get_the_type_that_the_bytes_have() -> None:
    data = base64.b64encode(picture("JPEG")).decode()
    expected = f"data:image/jpeg;base64,{data}"

    assert image.to_url(f"data:image/png;base64,{data}") == expected
    assert image.to_url(f"data:;base64,{data[:9]}\n{data[9:]}\n") == expected
    assert image.to_url(f"data:;base64,{data.replace('+', '%2B')}") == expected


def test_nothing_at_the_path(tmp_path: Path) -> None:
    path = tmp_path / "missing.png"
    with pytest.raises(MediaNotFoundError) as error:
        image.to_url(path)

    assert str(path) in one_line(error)
    assert isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize("data", [b"", b"just text", b"%PDF-1.7\n", picture()[:30], b"GIF89a"])
def test_not_a_picture(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    with pytest.raises(UnsupportedMediaError) as error:
        image.to_url(path)

    assert str(path) in one_line(error)
    assert "JPEG, PNG" in one_line(error)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_picture_cut_short(kind: str) -> None:
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(noise, kind)

    assert image.from_bytes(noise.getvalue(), "'whole'")
    with pytest.raises(UnsupportedMediaError, match="'half' is not a picture, or a damaged one"):
        image.from_bytes(noise.getvalue()[: len(noise.getvalue()) // 2], "'half'")


def test_a_strip_that_is_too_narrow() -> None:
    assert image.from_bytes(picture(size=(2000, 10)), "'strip'")
    with pytest.raises(MediaError, match=r"2001x10 pixels: one side is more than 200 times"):
        image.from_bytes(picture(size=(2001, 10)), "'strip'")


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cat.png").write_bytes(picture())

    assert decoded(image.to_url("~/cat.png"))[1] == picture()
    with pytest.raises(MediaError, match="cannot read the picture '~nobody-here"):
        image.to_url("~nobody-here/cat.png")


def test_postscript_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "cat.eps"
    path.write_bytes(picture("EPS"))

    with pytest.raises(UnsupportedMediaError):
        image.to_url(path)


def test_a_folder_and_a_pipe_are_no_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UnsupportedMediaError, match="is not a file"):
            image.to_url(path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_cannot_be_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match="cannot read the picture") as error:
        image.to_url(f"{tmp_path}/{name}")

    assert len(one_line(error)) < 600


def test_a_file_that_is_far_too_large(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with path.open("wb") as file:
        file.truncate(source.MAX_BYTES + 1)

    with pytest.raises(MediaError, match="bytes, more than the"):
        image.to_url(path)


@pytest.mark.parametrize("url", ["ftp://host/cat.png", "s3://bucket/cat.png"])
def test_other_schemes(url: str) -> None:
    with pytest.raises(UnsupportedMediaError, match="accepted are http://") as error:
        image.to_url(url)

    assert url in one_line(error)


def test_a_file_of_another_host() -> None:
    with pytest.raises(UnsupportedMediaError, match="three slashes"):
        image.to_url("file://server/share/cat.png")


def test_bad_base64() -> None:
    for url in ("data:image/png;base64,###", "data:image/png,raw"):
        with pytest.raises(UnsupportedMediaError, match="base64"):
            image.to_url(url)
    with pytest.raises(UnsupportedMediaError, match="not valid base64"):
        image.to_url("data:;base64,é")


def test_decompression_bombs(recwarn: pytest.WarningsRecorder) -> None:
    def png(width: int, height: int) -> bytes:
        def chunk(kind: bytes, data: bytes) -> bytes:
            checksum = struct.pack(">I", zlib.crc32(kind + data))
            return struct.pack(">I", len(data)) + kind + data + checksum

        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", b"")
            + chunk(b"IEND", b"")
        )

    for side in (10_000, 60_000):
        with pytest.raises(MediaError, match="pixels, more than the 89478485") as error:
            image.from_bytes(png(side, side), "'bomb.png'")
        assert one_line(error).startswith("'bomb.png' has")
    assert all(issubclass(warning.category, Image.DecompressionBombWarning) for warning in recwarn)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_the_size_is_in_the_header(kind: str) -> None:
    data = picture(kind, size=(640, 481))
    cut = data[: len(data) * 3 // 4]  # not enough to be decoded

    assert image.size_of(image.data_url(cut, "image/x")) == (640, 481)


def test_the_size_of_a_large_webp() -> None:
    data = io.BytesIO()
    Image.effect_noise((640, 481), 90).save(data, "WEBP", lossless=True)

    assert image.size_of(image.data_url(data.getvalue(), "image/webp")) == (640, 481)


def test_the_size_behind_a_large_header() -> None:
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "a long description " * 3000
    Image.new("RGB", (30, 40)).save(data, "JPEG", exif=exif, icc_profile=b"x" * 60_000)

    assert image.size_of(image.data_url(data.getvalue(), "image/jpeg")) == (30, 40)


@pytest.mark.parametrize("url", ["data:image/png;base64,AAAA", "data:image/png;base64,###"])
def test_the_size_of_no_picture(url: str) -> None:
    with pytest.raises(UnsupportedMediaError, match="is not a picture"):
        image.size_of(url)
