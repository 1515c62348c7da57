"""Each medium is prepared once, as long as it stays as it was."""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from langchain_glm4v import preparation
from langchain_glm4v.media import image
from langchain_glm4v.media_blocks import Medium
from langchain_glm4v.preparation import Preparation

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
    shutil.copy2(blue, path)

    assert MEDIA.parts(medium) != first


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
        signal.alarm(20)  # ends it, if it hangs
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_does_not_wait_for_its_parents_threads(tmp_path: Path) -> None:
    medium = Medium("picture", str(picture(tmp_path / "a.bmp", "red")))
    begun, forked = threading.Event(), threading.Event()

    def hold() -> None:
        def prepare() -> list[Any]:
            with image._loading:
                begun.set()
                forked.wait()
            return []

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
