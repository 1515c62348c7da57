"""Whatever leads to a medium, as a path, a URL or bytes."""

import base64
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents.base import Blob

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import source

DATA = b"\x89PNG and more"


class OddPath:
    """A path that is spelled in bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return bytes(self.path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize(
    "given",
    [
        DATA,
        bytearray(DATA),
        memoryview(DATA),
        memoryview(DATA + DATA)[: len(DATA)],
        Blob.from_data(DATA, mime_type="image/png"),
        "data:image/png;base64," + base64.b64encode(DATA).decode(),
    ],
)
def test_content(given: Any) -> None:
    assert source.read(given, "picture") == DATA
    assert source.read_begin(given, "picture", 4) == DATA[:4]
    with source.local_file(given, "picture") as path:
        assert path.read_bytes() == DATA


def test_paths(file: Path) -> None:
    for given in (file, str(file), file.as_uri(), OddPath(file), Blob.from_path(file)):
        assert source.read(given, "picture") == DATA
        assert source.read_begin(given, "picture", 4) == DATA[:4]
        with source.local_file(given, "picture") as path:
            assert path == file


def test_a_blob_of_text() -> None:
    assert source.read(Blob.from_data("äh"), "picture") == "äh".encode()


@pytest.mark.parametrize("given", [7, None, {}, [DATA], object(), ("a", "b"), 1.5])
def test_nothing_that_leads_to_a_medium(given: Any) -> None:
    for read in (source.plain, source.read, source.name_of):
        with pytest.raises(UnsupportedMediaError, match="cannot be sent as a picture: give a path"):
            read(given, "picture")


def test_content_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_BYTES", 8)
    given = (DATA, bytearray(DATA), "data:;base64," + base64.b64encode(DATA).decode())
    for one in given:
        with pytest.raises(MediaError, match=f"{len(DATA)} bytes, more than the 8 that a picture"):
            source.read(one, "picture")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file://[x/y", "is not well-formed"),
        ("data:;base64,\udcff", "is not valid base64"),
        ("data:;base64,a", "is not valid base64"),
        ("data:text/plain,a", "is not in base64"),
    ],
)
def test_urls_that_make_no_sense(url: str, reason: str) -> None:
    with pytest.raises(UnsupportedMediaError, match=reason):
        source.read(url, "picture")
