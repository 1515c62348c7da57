"""Each medium is prepared once, as long as it stays as it was."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymupdf
import pytest
from PIL import Image
from waiting import wait_until

from langchain_glm4v import media_blocks, preparation
from langchain_glm4v.errors import MediaError
from langchain_glm4v.media import image
from langchain_glm4v.media.budget import image_tokens
from langchain_glm4v.media_blocks import Medium
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.turns import VideoPart

MEDIA = Preparation()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sources that were decoded."""
    sources: list[Any] = []
    prepare = image.prepare

    def noting(source: Any, **options: Any) -> list[image.Picture]:
        sources.append(source)
        return prepare(source, **options)

    monkeypatch.setattr(image, "prepare", noting)
    return sources


def picture(path: Path, colour: str) -> Path:
    Image.new("RGB", (56, 56), colour).save(path)
    return path


def test_a_file_is_decoded_once(tmp_path: Path, decoded: list[Any]) -> None:
    medium = Medium("picture", str(picture(tmp_path / "a.bmp", "red")))

    assert MEDIA.parts(medium) == MEDIA.parts(medium)
    assert len(decoded) == 1
    MEDIA.parts(Medium("picture", medium.source, {"longest_side": 28}))
    assert len(decoded) == 2


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    """Also one of the same size, with the same time of change, as `cp -p` makes."""
    red, blue = (picture(tmp_path / f"{colour}.bmp", colour) for colour in ("red", "blue"))
    for path in (red, blue):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    path = tmp_path / "asked.bmp"
    medium = Medium("picture", str(path))
    shutil.copy2(red, path)
    first = MEDIA.parts(medium)
    before = path.stat().st_ctime_ns

    def replaced() -> bool:
        shutil.copy2(blue, path)
        return path.stat().st_ctime_ns != before  # the clock of files ticks every few ms

    wait_until(replaced)
    assert MEDIA.parts(medium) != first


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 300),
        ("no-store", 0),
        ("no-cache", 0),
        ("max-age=60", 60),
        ("max-age=86400", 300),
    ],
)
def test_how_long_what_was_fetched_is_kept(
    header: str | None, seconds: int, tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    said = {"cache_control": header} if header else {}
    url = web.give("/a.png", picture(tmp_path / "a.png", "red").read_bytes(), **said)
    media = Preparation(allow_hosts=["127.0.0.1"])
    media.parts(Medium("picture", url))
    for later, fetched in ((seconds - 1, 1), (1, 2)):
        now += max(later, 0)
        media.parts(Medium("picture", url))
        assert len(web.paths) == fetched or not seconds

    assert len(web.paths) == (2 if seconds else 3)


def test_what_was_recognised_is_not_fetched_again(tmp_path: Path, web: Any) -> None:
    data = picture(tmp_path / "a.png", "red").read_bytes()
    url = web.give("/a.png", data, cache_control="no-store")
    media = Preparation(allow_hosts=["127.0.0.1"])
    media.parts(media.recognised(url))

    assert web.paths == ["/a.png"]


def test_bytes_are_decoded_once(tmp_path: Path, decoded: list[Any]) -> None:
    data = picture(tmp_path / "a.bmp", "red").read_bytes()

    assert MEDIA.parts(Medium("picture", data)) == MEDIA.parts(Medium("picture", bytes(data)))
    assert len(decoded) == 1


def test_what_is_not_shown_again_is_not_kept(tmp_path: Path, decoded: list[Any]) -> None:
    medium = media_blocks.medium(
        {"type": "image", "path": picture(tmp_path / "a.bmp", "red"), "keep": False}
    )
    assert medium is not None
    assert MEDIA.parts(medium) == MEDIA.parts(medium)
    assert len(decoded) == 2
    MEDIA.parts(replace(medium, keeps=True))
    assert len(decoded) == 3


def test_what_was_kept_has_no_more_pages_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "three.tiff"
    page = Image.new("1", (56, 56))
    page.save(path, save_all=True, append_images=[page, page])
    medium = Medium("picture", str(path))
    assert len(Preparation(max_pages=3).parts(medium)) == 3

    for name in (None, "scan.tiff"):
        with pytest.raises(MediaError, match=r"\.tiff' has 3 pages to be sent, and 2 can be"):
            Preparation(max_pages=2).parts(replace(medium, name=name))
    many = tmp_path / "many.tiff"
    page.save(many, save_all=True, append_images=[page] * 40)
    assert len(Preparation(max_pages=300).parts(Medium("picture", str(many)))) == 41


def tokens(parts: list[Any]) -> int:
    [part] = parts
    return (
        part.clip.tokens if isinstance(part, VideoPart) else image_tokens(part.width, part.height)
    )


def test_media_are_made_as_large_as_the_server_takes(large_film: Path, tmp_path: Path) -> None:
    large = str(tmp_path / "large.png")
    Image.new("RGB", (700, 700)).save(large)
    video = Medium("video", str(large_film))
    small = Preparation(max_tokens=400)

    assert tokens(MEDIA.parts(Medium("picture", large))) == 625
    assert tokens(small.parts(Medium("picture", large))) == 400
    assert 300 < tokens(small.parts(Medium("document", str(one_page(tmp_path))))) <= 400
    for whole in (MEDIA, Preparation(context_tokens=2 * 1728)):
        assert tokens(whole.parts(video)) == 1728
    for limited in (
        small,
        Preparation(context_tokens=800),
        Preparation(max_tokens=400, context_tokens=9000),
    ):
        assert 300 < tokens(limited.parts(video)) <= 400
    assert 0 < tokens(Preparation(context_tokens=7).parts(video)) <= 100


def test_own_limits_hold_as_far_as_the_server_is_known(large_film: Path, tmp_path: Path) -> None:
    large = str(tmp_path / "large.png")
    Image.new("RGB", (700, 700)).save(large)
    media = Preparation(max_tokens=400, context_tokens=800)
    options = {"max_tokens": 6000}
    own = [Medium("picture", large, options), Medium("video", str(large_film), options)]
    for medium in own:
        assert tokens(Preparation(context_tokens=800).parts(medium)) > 400
        with pytest.raises(MediaError, match=r"' has \d+ tokens, and the server takes 400 of one"):
            media.parts(medium)
    # What needs less than it may have is sent.
    Image.new("RGB", (56, 56)).save(large)
    assert tokens(media.parts(own[0])) == 9


def one_page(folder: Path) -> Path:
    path = folder / "page.pdf"
    with pymupdf.open() as made:
        made.new_page(width=595, height=842)
        made.save(path)
    return path


def test_damaged_page_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jpeg = image.prepare(picture(tmp_path / "page.jpg", "red"))[0].data
    with pymupdf.open() as scan:
        page = scan.new_page(width=56, height=56)
        page.insert_image(page.rect, stream=jpeg)
        shown = page.get_images()[0][0]
        scan.update_stream(shown, scan.xref_stream_raw(shown)[:100], compress=False)
        scan.save(tmp_path / "scan.pdf")
    MEDIA.parts(Medium("document", str(tmp_path / "scan.pdf")))
    assert "page 1 of '" in caplog.text
    assert "scan.pdf' is shown without a part that is damaged (" in caplog.text


def test_an_image_of_pils_may_change(decoded: list[Any]) -> None:
    drawn = Image.new("RGB", (56, 56), "red")
    first = MEDIA.parts(Medium("picture", drawn))
    drawn.paste("blue", (0, 0, 56, 56))

    assert MEDIA.parts(Medium("picture", drawn)) != first
    assert len(decoded) == 2


def test_what_was_not_asked_for_the_longest_goes(
    tmp_path: Path, decoded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    media = [
        Medium("picture", str(picture(tmp_path / f"{colour}.png", colour)))
        for colour in ("red", "green", "blue")
    ]
    size = max(len(str(MEDIA.parts(medium))) for medium in media)
    monkeypatch.setattr(preparation, "KEPT_BYTES", 2 * size)
    monkeypatch.setattr(preparation, "_kept", preparation._Kept())
    decoded.clear()
    for medium in (media[0], media[1], media[0], media[2], media[0], media[1]):
        MEDIA.parts(medium)

    assert decoded == [media[at].source for at in (0, 1, 2, 1)]


def ends_in_a_fork(function: Callable[[], object]) -> bool:
    if (child := os.fork()) == 0:
        signal.alarm(60)  # ends it, if it hangs
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_does_not_wait_for_its_parents_threads(tmp_path: Path) -> None:
    medium = Medium("picture", str(picture(tmp_path / "a.bmp", "red")))
    begun, forked = threading.Event(), threading.Event()

    def hold() -> None:
        def prepare() -> tuple[list[Any], float]:
            with image._loading:
                begun.set()
                forked.wait()
            return [], 0.0

        preparation._kept.get(MEDIA._key(medium), prepare)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    try:
        assert ends_in_a_fork(lambda: MEDIA.parts(medium))
        assert ends_in_a_fork(lambda: image.prepare(Image.new("RGB", (56, 56))))
    finally:
        forked.set()
        thread.join()
