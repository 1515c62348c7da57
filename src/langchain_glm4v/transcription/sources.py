"""What is to be read: files, folders, patterns and blobs, and the pages in them."""

import glob
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from langchain_glm4v.errors import (
    MediaError,
    MediaNotFoundError,
    RequestError,
    UnsupportedMediaError,
)
from langchain_glm4v.media import document, image, pool
from langchain_glm4v.media.budget import check_limits
from langchain_glm4v.media.source import Given, scheme, without_secrets
from langchain_glm4v.media_blocks import Medium
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.transcription.records import DocumentFacts, name_of

SUFFIXES = frozenset(
    (
        *(".pdf", ".pptx", ".ppt", ".odp", ".docx", ".doc", ".odt"),
        *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"),
        *(".heic", ".heif"),
    )
)
"""Endings of the names of files that are taken from a folder, if they are not hidden; one that is
named is always taken."""

NAMELESS = BYTES, DATA = "bytes", "data"
"""What metadata call a source that came as bytes, or as a `data:` URL."""

_SINGLE = (str, os.PathLike, bytes, bytearray, memoryview)

Sources: TypeAlias = Any
"""A path, a URL, a pattern such as "scans/**/*.pdf", a folder, bytes or a `Blob`, or several;
what `find` gives stands for itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be read.

    Attributes:
        given: What leads to it.
        name: What metadata call it.
        index: Which of those to be read it is, counted from 0.
        metadata: What a `Blob` says of itself.
    """

    given: Given = field(repr=False)
    name: str
    index: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def facts(self, total_pages: int, **told: str) -> DocumentFacts:
        """What is known of the document, with what it tells of itself."""
        return DocumentFacts(
            source=self.name,
            index=self.index,
            total_pages=total_pages,
            metadata=self.metadata,
            **told,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePage:
    """A page to be read.

    Attributes:
        document: What it is of.
        number: Its number in the document, counted from 0; None if no page of it can be shown.
        picture: The page as a JPEG, PNG or WEBP; empty if it cannot be shown.
        mime_type: Which of them.
        text: The document's own text of the page.
        pictured: Share of the page that pictures cover, 0 to 1.
        damage: What is missing of it, as for `media.document.Page`.
        error: Why it cannot be shown; "" if it can.
    """

    document: DocumentFacts
    number: int | None
    picture: bytes = field(default=b"", repr=False)
    mime_type: str = ""
    text: str = field(default="", repr=False)
    pictured: float = 0.0
    damage: str = ""
    error: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of(self.document, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """How pages are shown.

    Attributes:
        pages: Which pages of each document, as for `media.document.pages`, but "1-3" are all of one
            that has two; None for all.
        password: Of encrypted documents.
        longest_side: Pixels of the longer side of a page of a document; of pictures, `max_tokens`
            alone says how large they are shown.
        max_tokens: Tokens of a page, at most.

    Raises:
        RequestError: A value is not accepted.
    """

    pages: str | Sequence[int] | None = None
    password: str | None = field(default=None, repr=False)
    longest_side: int = document.LONGEST_SIDE
    max_tokens: int = 6084

    def numbers(self, count: int, name: str) -> list[int]:
        """The numbers of the pages that are wanted of a document; spans may go beyond its end.

        Args:
            count: Its pages.
            name: What error messages call it.

        Raises:
            MediaError: A page does not exist, or there is none.
        """
        return document.page_numbers(self.pages, count, name, cuts_spans=True)

    def __post_init__(self) -> None:
        if isinstance(self.pages, Iterator):  # which can be taken but once
            object.__setattr__(self, "pages", [*self.pages])
        try:
            document.check_pages(self.pages)
            check_limits(self.max_tokens, self.longest_side)
        except MediaError as error:
            raise RequestError(f"no page can be shown so: {error}") from error


def find(sources: Sources) -> Iterator[Source]:
    """The files that are meant, each where it is first named, in the order of names in a folder.

    Raises:
        MediaNotFoundError: A path, a folder or a pattern leads to nothing.
        UnsupportedMediaError: Something is none of these.
    """
    is_several = isinstance(sources, Iterable) and not isinstance(sources, _SINGLE)
    if not is_several or hasattr(sources, "as_bytes") or hasattr(sources, "read"):
        sources = [sources]
    seen: set[str] = set()
    index = 0
    for source in _all(sources):
        if (place := _place(source.given)) is not None:
            if place in seen:
                continue
            seen.add(place)
        yield replace(source, index=index)
        index += 1


def _all(several: Iterable[Any]) -> Iterator[Source]:
    for given in several:
        if isinstance(given, Source):
            yield given
        elif not (isinstance(given, _SINGLE) or hasattr(given, "as_bytes")):
            raise UnsupportedMediaError(
                f"a {type(given).__name__} is nothing to be read: give paths, URLs, bytes or Blobs"
            )
        elif given == "":  # of which `Path` makes the current folder
            raise MediaNotFoundError("the path is empty: give one, or '.' for the current folder")
        elif isinstance(given, str | os.PathLike) and not scheme(os.fspath(given)):
            path = Path(os.path.expanduser(given))  # noqa: PTH111 - leaves what is nobody's home
            yield from (Source(path, _name_of(path)) for path in _files(path))
        else:
            yield Source(given, _name(given), metadata=getattr(given, "metadata", {}))


def _place(given: Given) -> str | None:
    """What is the same for two ways to name a file; None for what has no name."""
    if isinstance(given, Path):
        return os.path.realpath(given)
    return given if isinstance(given, str) else None


def _name(given: Given) -> str:
    named = getattr(given, "source", None) if hasattr(given, "as_bytes") else given
    if not isinstance(named, str | os.PathLike):
        return BYTES
    return DATA if scheme(named) == "data" else without_secrets(named)


def _name_of(path: Path) -> str:
    """The path, in a form that is no URL."""
    return str(path.absolute() if scheme(str(path)) else path)


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [
            p for p in sorted(path.rglob("*")) if _is_read(p.relative_to(path)) and p.is_file()
        ]
        what = f"no document or picture in the folder {str(path)!r}"
    else:
        # Patterns of absolute paths too, which those of `Path` may not be.
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207
        found = sorted(_shortest(Path(name) for name in names if Path(name).is_file()))
        what = f"no file at {str(path)!r}"
        if path.exists():
            raise UnsupportedMediaError(f"{str(path)!r} is a pipe or a device: save it as a file")
    if not found:
        raise MediaNotFoundError(f"there is {what}: check the path, or the pattern")
    return found


def _is_read(path: Path) -> bool:
    """Whether a file in a folder is taken, by its name: not if it, or what it is in, is hidden."""
    return path.suffix.lower() in SUFFIXES and not any(part[0] == "." for part in path.parts)


def _shortest(paths: Iterable[Path]) -> Iterable[Path]:
    """The shortest path to each file: through a link that leads back, there are many."""
    by_length = sorted(paths, key=lambda path: (len(str(path)), path), reverse=True)
    return {path.resolve(): path for path in by_length}.values()


def pages(source: Source, rendering: Rendering, media: Preparation) -> Generator[SourcePage]:
    """The pages of a file, as they are taken.

    Args:
        source: The file.
        rendering: How pages are shown.
        media: Fetches what is in the network.

    Raises:
        MediaError: The file cannot be read, or is no document and no picture.
    """
    medium = _recognised(source, media)
    match medium.kind:
        case "document":
            yield from _of_document(source, _content(medium), rendering)
        case "picture":
            yield from _of_picture(source, _content(medium), rendering)
        case "video":
            raise UnsupportedMediaError(
                f"{source.name!r} is a video: give a document or a picture to be read"
            )


def content(source: Source, media: Preparation) -> Given:
    """What a source leads to: what is in the network, as its bytes.

    Args:
        source: The file.
        media: Fetches what is in the network.

    Raises:
        MediaError: It cannot be fetched or read.
    """
    return _content(_recognised(source, media))


def _recognised(source: Source, media: Preparation) -> Medium:
    try:
        return media.recognised(source.given)
    except UnsupportedMediaError as error:  # without what to do about a content block
        raise UnsupportedMediaError(error.args[0]) from error


def _content(medium: Medium) -> Given:
    return medium.fetched.data if medium.fetched else medium.source


def _of_document(source: Source, given: Given, rendering: Rendering) -> Iterator[SourcePage]:
    options: dict[str, Any] = {"password": rendering.password, "name": source.name}
    info = document.info(given, **options)
    facts = source.facts(
        info.page_count,
        format=info.format,
        title=info.title,
        author=info.author,
        subject=info.subject,
        creator=info.creator,
        producer=info.producer,
        created=info.created.isoformat() if info.created else "",
        modified=info.modified.isoformat() if info.modified else "",
    )
    for page in document.tried_pages(
        given,
        pages=rendering.numbers(info.page_count, repr(source.name)),
        longest_side=rendering.longest_side,
        max_tokens=rendering.max_tokens,
        **options,
    ):
        if isinstance(page, document.FailedPage):
            yield SourcePage(document=facts, number=page.number, error=str(page.error))
        else:
            yield SourcePage(
                document=facts,
                number=page.number,
                picture=page.data,
                mime_type="image/jpeg",
                text=page.text,
                pictured=page.pictured,
                damage=page.damage,
            )


def _of_picture(source: Source, given: Given, rendering: Rendering) -> Iterator[SourcePage]:
    try:
        with image.pages(given, max_tokens=rendering.max_tokens) as found:
            yield from _shown(source, found, rendering)
    except MediaError as error:
        if source.name in str(error):
            raise
        raise type(error)(f"{source.name}: {error}") from error


def _shown(source: Source, found: image.Pages, rendering: Rendering) -> Iterator[SourcePage]:
    facts = source.facts(found.count)

    def shown(number: int) -> SourcePage:
        try:
            picture = found.prepare(number)
        except MediaError as error:
            return SourcePage(document=facts, number=number, error=str(error))
        return SourcePage(
            document=facts, number=number, picture=picture.data, mime_type=picture.mime_type
        )

    yield from pool.each(shown, rendering.numbers(found.count, repr(source.name)))
