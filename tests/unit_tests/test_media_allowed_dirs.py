import os
import socket
from pathlib import Path
from typing import Any

import pytest

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.media.allowed_dirs import local_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """home/files is allowed and has a.png and sub/b.png; home/secret.png is beside it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "files" / "sub").mkdir(parents=True)
    for name in ("files/a.png", "files/sub/b.png", "secret.png"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path / "files")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.png", "files/a.png"),
        ("./sub/../a.png", "files/a.png"),
        ("../files/sub/b.png", "files/sub/b.png"),
        ("~/files/a.png", "files/a.png"),
        ("{home}/files/a.png", "files/a.png"),
        ("file://{home}/files/a.png", "files/a.png"),
        ("FILE://localhost{home}/files/sub/%62.png", "files/sub/b.png"),
        ("{home}//files/./a.png", "files/a.png"),
    ],
)
def test_paths_inside(text: str, found: str, home: Path) -> None:
    assert local_path(text.format(home=home), [home / "files"]) == home / found


@pytest.mark.parametrize(
    "text",
    [
        "../secret.png",
        "sub/../../secret.png",
        "~/secret.png",
        "{home}/secret.png",
        "{home}/files/../secret.png",
        "{home}/files-and-more/a.png",
        "file://{home}/secret.png",
        "file://{home}/files/%2e%2e/secret.png",
        "file://{home}/files/..%2fsecret.png",
        "link.png",
        "linked/secret.png",
        "chain.png",
        "/etc/passwd",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd/a.png/../../../secret.png",
        "/dev/zero",
        "..",
        "/",
        "../missing.png",
        "/missing/a.png",
    ],
)
def test_paths_outside(text: str, home: Path) -> None:
    files = home / "files"
    (files / "link.png").symlink_to("../secret.png")
    (files / "linked").symlink_to(home)
    (files / "chain.png").symlink_to("link.png")
    text = text.format(home=home)
    with pytest.raises(MediaError, match="outside the allowed directories") as error:
        local_path(text, [files])

    # The same words whether there is a file or not.
    assert str(error.value) == (
        f"{text!r} is outside the allowed directories, which are {files}: give a path in one of "
        "them, or name its directory in allowed_dirs"
    )


def test_links_that_stay_inside(home: Path) -> None:
    (home / "files" / "link.png").symlink_to("sub/b.png")
    (home / "entry").symlink_to("files")

    assert local_path("link.png", [home / "entry"]) == home / "files/sub/b.png"


def test_several_directories(home: Path) -> None:
    allowed: list[str | Path] = [home / "none", "~/files"]

    assert local_path("a.png", allowed) == home / "files/a.png"
    with pytest.raises(MediaError, match=f"which are {home}/none, {home}/files:"):
        local_path("../secret.png", allowed)


def test_relative_paths_are_looked_for_in_each_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = [home / "none", home / "files"]
    monkeypatch.chdir("/")
    assert local_path("a.png", allowed) == home / "files/a.png"
    assert local_path("sub/b.png", allowed) == home / "files/sub/b.png"
    with pytest.raises(MediaNotFoundError):
        local_path("missing.png", allowed)
    with pytest.raises(MediaError, match="outside the allowed directories"):
        local_path("../secret.png", allowed)
    monkeypatch.chdir(home / "files" / "sub")
    (home / "files" / "b.png").write_bytes(b"x")
    assert local_path("b.png", allowed) == home / "files/sub/b.png"


def test_no_directory_is_allowed(home: Path) -> None:
    with pytest.raises(MediaError, match="which are none"):
        local_path(str(home / "files/a.png"), [])


@pytest.mark.parametrize("given", [str, Path])
def test_a_single_directory(given: type[str | Path], home: Path) -> None:
    """Not each of its letters, of which the first is the root of all files."""
    allowed = given(home / "files")

    assert local_path("a.png", allowed) == home / "files" / "a.png"  # type: ignore[arg-type]
    with pytest.raises(MediaError, match="outside the allowed directories"):
        local_path("../secret.png", allowed)  # type: ignore[arg-type]


@pytest.mark.parametrize("allowed", [[""], [b"/tmp"], [None], None, 7, ["~nobody-of-this-name"]])
def test_directories_that_are_none(allowed: Any, home: Path) -> None:
    with pytest.raises(MediaError, match=r"allowed_dirs is .*|cannot reach"):
        local_path(str(home / "files/a.png"), allowed)


def test_what_is_no_file(home: Path) -> None:
    files = home / "files"
    os.mkfifo(files / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")  # a path may not be long
        for name in ("sub", ".", "pipe", "socket"):
            with pytest.raises(UnsupportedMediaError, match="is not a file"):
                local_path(name, [files])
    with pytest.raises(UnsupportedMediaError, match="is not a file"):
        local_path("/dev/zero", ["/dev"])


def test_nothing_there(home: Path) -> None:
    for name in ("missing.png", "a.png/b.png"):
        with pytest.raises(MediaNotFoundError, match=f"give the path of one in {home}/files"):
            local_path(name, [home / "files"])


@pytest.mark.parametrize("text", ["a\0.png", "~nobody-of-this-name/a.png", "loop.png", "a" * 5000])
def test_what_cannot_be_reached(text: str, home: Path) -> None:
    (home / "files" / "loop.png").symlink_to("loop.png")
    with pytest.raises(MediaError, match="cannot reach") as error:
        local_path(text, [home / "files"])

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        *("https://host/a.png", "data:image/png;base64,AAAA", "ftp://host/a", "file://host/a"),
        "file://[x/y",
    ],
)
def test_urls_of_other_kinds(text: str, home: Path) -> None:
    with pytest.raises(UnsupportedMediaError):
        local_path(text, [home])
