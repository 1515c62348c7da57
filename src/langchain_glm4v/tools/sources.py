"""Which media an agent may name: files below allowed directories, and what is in the network."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import image, sniffing
from langchain_glm4v.media.allowed_dirs import local_path
from langchain_glm4v.media.source import is_remote, local_file, read, read_begin, scheme, shown
from langchain_glm4v.media_blocks import Kind
from langchain_glm4v.tools.texts import Words


@dataclass(frozen=True, slots=True)
class Source:
    """A medium that an agent named, and may name.

    Attributes:
        given: What it wrote.
        path: The file, without links and `..`; None: it is in the network.
        folders: Directories in or below which the file must still be when it is read.
    """

    given: str
    path: Path | None = None
    folders: Sequence[str | os.PathLike[str]] = ()

    @property
    def fields(self) -> dict[str, Any]:
        """The key of a content block that leads to it."""
        return {"url": self.given} if self.path is None else {"path": str(self.path)}


@dataclass(frozen=True, slots=True)
class Here(Source):
    """A medium that is in a file.

    Attributes:
        path: The file.
    """

    path: Path


@contextmanager
def at_hand(found: Source, kind: str, *, allow_hosts: Collection[str]) -> Iterator[Here]:
    """A medium as a file meanwhile, so that it is fetched once however often it is read.

    Args:
        found: The medium.
        kind: What it should be, for error messages.
        allow_hosts: Hosts that may be fetched from though they are not public.

    Raises:
        MediaError: If it cannot be fetched; and errors within, with the URL for the file.
    """
    if found.path is not None:
        yield Here(found.given, found.path, found.folders)
        return
    with local_file(read(found.given, kind, allow_hosts=allow_hosts), kind) as made:
        path = made.resolve()
        try:
            yield Here(found.given, path, [path.parent])
        except MediaError as error:
            told = str(error.args[0]).replace(repr(str(path)), shown(found.given))
            raise type(error)(told, setting=error.setting) from error


def tiff_pages(here: Here) -> int:
    """Pages of a TIFF; of any other file 1.

    Raises:
        UnsupportedMediaError: If it is a damaged TIFF.
    """
    if sniffing.mime_type(read_begin(here.path, "picture", sniffing.HEAD)) != "image/tiff":
        return 1
    with image.pages(here.path) as found:
        return found.count


def check_kind(found: Source, wanted: Kind, words: Words) -> None:
    """Refuse a file that another tool is for, judged by its first bytes.

    Nothing is fetched: what is in the network, and no file yet, is let through.

    Args:
        found: The medium.
        wanted: What it should be.
        words: For the error.

    Raises:
        UnsupportedMediaError: It is of another kind.
    """
    if found.path is None:
        return
    kind = sniffing.medium_kind(read_begin(found.path, wanted, sniffing.HEAD))
    told = {"picture": words.is_picture, "document": words.is_document, "video": words.is_video}
    if kind is not None and kind != wanted:
        raise UnsupportedMediaError(told[kind].format(named=shown(found.given)))


def source(named: str, allowed_dirs: Sequence[str | os.PathLike[str]], words: Words) -> Source:
    """Find what a path or URL means, if it is one that an agent may name.

    Args:
        named: The path or URL.
        allowed_dirs: Directories in or below which local files may be read.
        words: For the errors.

    Raises:
        MediaNotFoundError: No file is there.
        UnsupportedMediaError: It is neither the path of a file nor an `http(s)://` URL.
        MediaError: It lies outside the directories.
    """
    if is_remote(named):
        return Source(named)
    if scheme(named) not in ("", "file"):
        raise UnsupportedMediaError(words.no_such_scheme.format(named=shown(named)))
    if not allowed_dirs:
        raise MediaError(words.no_local_files.format(named=shown(named)))
    return Source(named, local_path(named, allowed_dirs), allowed_dirs)
