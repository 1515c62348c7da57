"""What is to be read: which files, in which order, called what."""

import io
import os
from pathlib import Path

import pytest
from langchain_core.documents.base import Blob
from PIL import Image

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.transcription.sources import Rendering, Source, find, pages


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.pdf", "a.PNG", "deep/c.tif", "notes.md", "x[1].pdf"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*given: object) -> list[str]:
    found = [*find(given)]
    assert [source.index for source in found] == [*range(len(found))]
    return [source.name for source in found]


@pytest.mark.usefixtures("folder")
def test_folders_and_patterns_give_what_is_in_them() -> None:
    in_folder = ["scans/a.PNG", "scans/b.pdf", "scans/deep/c.tif", "scans/x[1].pdf"]
    assert names("scans") == in_folder
    assert names("scans/*.md", "scans/x[1].pdf") == ["scans/notes.md", "scans/x[1].pdf"]
    with pytest.raises(MediaNotFoundError, match="no file at 'scans/none"):
        names("scans/none*")


def test_each_file_is_found_once_however_it_is_named(folder: Path) -> None:
    given = ("scans/b.pdf", "./scans/*.pdf", os.fsencode(folder).decode() + "/scans/b.pdf")
    assert names(*given) == ["scans/b.pdf", "scans/x[1].pdf"]
    url = "https://host/scan.pdf"
    assert names(url, f"{url}?n=1", f"{url}?n=2", url) == [url, f"{url}?…", f"{url}?…"]


def test_names_tell_no_secrets_and_have_no_quotes() -> None:
    secret = "https://me:pass@host/a/scan.pdf?token=1#x"
    (url, inline, raw) = find([secret, "data:application/pdf;base64,AAAA", Blob(data=b"%PDF")])
    assert url.name == "https://host/a/scan.pdf?…"
    assert (inline.name, raw.name) == ("data", "bytes")
    long = [f"/{'scans/' * 60}{number}.pdf" for number in range(2)]
    assert [source.name for source in find(map(Blob.from_path, long))] == long


@pytest.mark.usefixtures("folder")
def test_links_that_lead_in_a_circle_give_each_file_once() -> None:
    Path("scans/again").symlink_to(".")
    assert names("scans/**/*.pdf") == ["scans/b.pdf", "scans/x[1].pdf"]


@pytest.mark.usefixtures("folder")
def test_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(MediaNotFoundError, match="the path is empty"):
        names("")


@pytest.mark.usefixtures("folder")
def test_pipe_is_told_from_nothing() -> None:
    os.mkfifo("pipe")
    with pytest.raises(UnsupportedMediaError, match="'pipe' is a pipe or a device: save it"):
        names("pipe")


@pytest.mark.usefixtures("folder")
def test_name_of_a_file_that_looks_like_a_url_is_its_whole_path() -> None:
    Path("data:foo.png").touch()
    assert names("./data:foo.png", *Path().glob("data:*")) == [str(Path.cwd() / "data:foo.png")]


@pytest.mark.parametrize("given", [5, None, [3.5]])
def test_what_is_nothing_to_be_read_is_refused(given: object) -> None:
    with pytest.raises(UnsupportedMediaError, match="is nothing to be read: give paths, URLs"):
        [*find(given)]


@pytest.mark.parametrize(
    ("wanted", "numbers"), [("1-3", [0, 1]), ("2-9", [1]), ("2-", [1]), ("-3", [0, 1])]
)
def test_spans_may_go_beyond_the_end_of_a_document(wanted: str, numbers: list[int]) -> None:
    rendering = Rendering(pages=wanted)
    assert rendering.numbers(2, "x") == numbers
    for missing in ("3", "3-4", "3-3"):
        with pytest.raises(MediaError, match="has 2 pages, so there is no page 3"):
            Rendering(pages=missing).numbers(2, "x")


@pytest.mark.usefixtures("folder")
def test_what_was_found_may_be_given_again() -> None:
    found = [*find("scans")]
    Path("scans/b.pdf").unlink()  # it is for whoever reads it to tell
    assert [*find(found)] == found
    assert [*find([Source(Path("gone"), "gone")])] == [Source(Path("gone"), "gone")]


def test_a_damaged_page_of_a_tiff_does_not_keep_back_the_others(tmp_path: Path) -> None:
    path = tmp_path / "fax.tiff"
    first, *others = [Image.effect_noise((60, 60), 90) for _ in range(3)]
    first.save(path, save_all=True, append_images=others, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    begin, end = len(data) * 3 // 7, len(data) * 4 // 7
    data[begin:end] = b"\xff" * (end - begin)
    path.write_bytes(data)
    (source,) = find(path)

    found = [*pages(source, Rendering(pages="3,2"), Preparation())]
    assert [(page.number, page.document.total_pages) for page in found] == [(2, 3), (1, 3)]
    assert [page.mime_type for page in found] == ["image/jpeg", ""]
    assert "page 2 of" in found[1].error
    with pytest.raises(MediaError, match=r"has 3 pages, so there is no page 4"):
        [*pages(source, Rendering(pages="4"), Preparation())]


@pytest.mark.usefixtures("folder")
def test_hidden_files_of_a_folder_are_left_out() -> None:
    expected = names("scans")
    for hidden in ("scans/._b.pdf", "scans/.trash/d.pdf"):
        Path(hidden).parent.mkdir(exist_ok=True)
        Path(hidden).touch()
    assert names("scans") == expected
    assert names("scans/._b.pdf") == ["scans/._b.pdf"]


def test_home_may_be_a_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert names("~/scans/b.pdf") == [str(folder / "scans/b.pdf")]
    with pytest.raises(MediaNotFoundError, match="no file at '~nobody-of-this-name/b"):
        names("~nobody-of-this-name/b.pdf")


@pytest.mark.parametrize("given", [io.BytesIO(b"%PDF\n%"), [io.BytesIO(b"%PDF")], [3], [None]])
def test_what_is_nothing_to_be_read(given: object) -> None:
    with pytest.raises(UnsupportedMediaError, match="is nothing to be read: give paths"):
        [*find(given)]


def test_bytes_of_any_class() -> None:
    assert [s.name for s in find(memoryview(b"%PDF"))] == ["bytes"]
    assert len([*find([b"%PDF", bytearray(b"%PDF")])]) == 2


def test_pages_that_can_be_taken_once() -> None:
    assert Rendering(pages=iter([0, 2])).pages == [0, 2]  # type: ignore[arg-type]
