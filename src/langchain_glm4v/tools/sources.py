"""Which media an agent may name: files below allowed directories, and what is in the network."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media.allowed_dirs import local_path
from langchain_glm4v.media.source import is_remote, local_file, read, scheme, shown

Named = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4096)]
"""A path or URL, as a model writes it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A medium that an agent named, and may name.

    Attributes:
        given: What it wrote.
        path: The file, without links and `..`; None: it is in the network.
    """

    given: str
    path: Path | None

    @property
    def fields(self) -> dict[str, Any]:
        """The key of a content block that leads to it."""
        return {"url": self.given} if self.path is None else {"path": str(self.path)}

    @property
    def files(self) -> tuple[Path, ...]:
        """The local files that may be read for it."""
        return () if self.path is None else (self.path,)

    @contextmanager
    def at_hand(self, kind: str, *, allow_hosts: Collection[str]) -> Iterator[Path]:
        """The medium as a file meanwhile, so that it is fetched once however often it is read.

        Args:
            kind: What it should be, for error messages.
            allow_hosts: Hosts that may be fetched from though they are not public.

        Raises:
            MediaError: If it cannot be fetched; and errors within, with the URL for the file.
        """
        if self.path is not None:
            yield self.path
            return
        with local_file(read(self.given, kind, allow_hosts=allow_hosts), kind) as path:
            try:
                yield path.resolve()
            except MediaError as error:
                told = str(error).replace(repr(str(path.resolve())), shown(self.given))
                raise type(error)(told) from error


def source(named: str, allowed_dirs: Collection[Path]) -> Source:
    """Find what a path or URL means, if it is one that an agent may name.

    Raises:
        MediaNotFoundError: No file is there.
        UnsupportedMediaError: It is neither the path of a file nor an `http(s)://` URL.
        MediaError: It lies outside the directories.
    """
    if is_remote(named):
        return Source(named, None)
    if scheme(named) not in ("", "file"):
        raise UnsupportedMediaError(
            f"{shown(named)} is neither a path nor an http(s) URL: give one of these"
        )
    if not allowed_dirs:
        raise MediaError(
            f"{shown(named)} is a local file, and none may be read: give an http(s) URL"
        )
    return Source(named, local_path(named, allowed_dirs))
