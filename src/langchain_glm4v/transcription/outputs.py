"""What was read as files: what they are called, what is in them, and that they are whole.

A file takes its name only when all of it is written, so whoever sees one sees all of it. Until then
it has another name, which begins with a dot, or is in a folder of such a name; what a process left
there that was killed is removed by the next that writes there.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TextIO
from urllib.parse import unquote

from langchain_glm4v.errors import MediaError
from langchain_glm4v.media.source import path_of, scheme
from langchain_glm4v.transcription.records import PageResult
from langchain_glm4v.transcription.sources import Source

MAX_NAME = 255
"""Bytes of a name in UTF-8, at most, on the file systems of Linux."""

NAMELESS = "document"
"""What a file is called whose source has no name that a file could have."""

_PART, _PART_END = ".glm4v-", ".part"
_DIGEST = 6  # bytes
_HASHED = re.compile(rf"-[0-9a-f]{{{2 * _DIGEST}}}")
# What some file system does not take, or a shell would make something else of.
_STRANGE = re.compile(r'[/\\:*?"<>|]')
# What JSON leaves in a text, though some readers of lines hold it for the end of one.
_ENDS_OF_LINES = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
_BEHIND_PATH = re.compile(r"[?#].*", re.DOTALL)  # of a URL


def names(sources: Sequence[Source], suffix: str) -> list[str]:
    """Names of files, one for each source, that are all different, on any file system.

    A source is called as it is, without its ending. Where several would be called the same, each
    also has a hash of where it comes from, so that its name does not depend on which others there
    are.

    Args:
        sources: What is read.
        suffix: How the names end: ".md".
    """
    stems = [_stem(source) for source in sources]
    room = MAX_NAME - len(suffix)
    plain = [_cut(stem, room) for stem in stems]
    times = Counter(map(_folded, plain))
    return [
        (
            short
            if times[_folded(short)] == 1 and not _HASHED.fullmatch(short[-2 * _DIGEST - 1 :])
            else _cut(stem, room - 2 * _DIGEST - 1) + f"-{_digest(source)}"
        )
        + suffix
        for source, stem, short in zip(sources, stems, plain, strict=True)
    ]


def _stem(source: Source) -> str:
    """The name of a source without its ending, and without what a name should not have."""
    given = source.given
    if isinstance(given, str | os.PathLike) and scheme(os.fspath(given)) != "data":
        path = str(given)
        if scheme(path):
            path = unquote(_BEHIND_PATH.sub("", path))
        name = PurePosixPath(path).stem
    else:
        name = source.name
    name = "".join(map(_tame, _STRANGE.sub("_", name)))
    return name.strip(" .-") or NAMELESS


def _tame(character: str) -> str:
    """The character, unless it is of no use in a name."""
    match unicodedata.category(character)[0]:
        case "Z":  # spaces of all kinds
            return " "
        case "C":  # control characters, what turns the direction of writing, half characters
            return "_"
    return character


def _cut(name: str, room: int) -> str:
    """The name in so many bytes, without half a character at its end."""
    return name.encode()[:room].decode(errors="ignore").rstrip(" .")


def _folded(name: str) -> str:
    """What is the same for two names that some file system holds for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _digest(source: Source) -> str:
    given = source.given
    told = f"{source.index} {source.name}"
    if isinstance(given, str | os.PathLike):
        told = str(given) if scheme(os.fspath(given)) else str(Path(given).absolute())
    return hashlib.blake2b(told.encode(errors="surrogatepass"), digest_size=_DIGEST).hexdigest()


def first_read(paths: Iterable[Path], sources: Sequence[Source]) -> Path | None:
    """The first of the paths at which a file would be replaced that is to be read, if there is one.

    Links to such a file from elsewhere are no harm, for a link itself is replaced.
    """
    taken: set[tuple[int, int]] = set()
    for source in sources:
        if isinstance(source.given, str | os.PathLike):
            with suppress(OSError, MediaError):
                given = os.fspath(source.given)
                file = Path(path_of(given) if scheme(given) == "file" else given)
                taken |= {_identity(file.stat()), _identity(file.lstat())}
    for path in paths:
        with suppress(OSError):
            if _identity(path.lstat()) in taken:
                return path
    return None


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of another when all is written; after an error, it is gone.

    Args:
        path: Where it will be; the folder is there.

    Yields:
        The file, open for text in UTF-8. Halves of characters, which UTF-8 has not, are written as
        JSON writes them.
    """
    with _new_part(path.parent) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _new_part(folder: Path) -> TextIO:
    while True:
        path = _part_path(folder)
        file = path.open("x", encoding="utf-8", errors="backslashreplace")
        if _holds(file.fileno()):
            return file
        file.close()


@contextmanager
def part_folder(folder: Path) -> Iterator[Path]:
    """A folder in another, for what takes its place there when it is whole; it is gone then.

    Args:
        folder: Where it is made.

    Yields:
        Its path.
    """
    path, held = _new_part_folder(folder)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


def _new_part_folder(folder: Path) -> tuple[Path, int]:
    while True:
        path = _part_path(folder)
        path.mkdir(mode=0o700)
        with suppress(FileNotFoundError):
            held = os.open(path, os.O_RDONLY)
            if _holds(held):
                return path, held
            os.close(held)


def _part_path(folder: Path) -> Path:
    return folder / f"{_PART}{secrets.token_hex(8)}{_PART_END}"


def _holds(opened: int) -> bool:
    """Let others see that a part is in use, as long as this process lives.

    Returns:
        Whether it is; if not, another process was faster, and removed it.
    """
    fcntl.flock(opened, fcntl.LOCK_EX)
    return bool(os.fstat(opened).st_nlink)


def remove_parts(folder: Path) -> None:
    """Remove what processes left in a folder that were killed."""
    for path in folder.glob(f"{_PART}*{_PART_END}"):
        with suppress(OSError):
            opened = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is in use
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(opened)


def as_markdown(results: Iterable[PageResult]) -> Iterator[str]:
    """Pages for a Markdown file.

    Before the text of each, a comment tells which it is, and another what is wrong with it.
    """
    for place, result in enumerate(results):
        document = result.document
        number = (
            "" if result.number is None else f"page {result.number + 1} of {document.total_pages}: "
        )
        told = [f"{number}{document.source}"]
        if result.error:
            told.append(f"failed: {result.error}")
        text = result.reading.text.strip("\n")
        lines = [*map(_comment, told), *(["", text] if text.strip() else [])]
        yield ("\n" if place else "") + "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    shown = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text)
    return f"<!-- {shown.replace('-->', '-- >')} -->"


def as_record(result: PageResult) -> dict[str, Any]:
    """A page as one object of JSON's types: all that is known of it, and its text."""
    document = dataclasses.asdict(result.document)
    del document["metadata"]  # of any type, and given by who asks
    return {
        **document,
        "page": result.number,
        **dataclasses.asdict(result.reading),
        "error": result.error,
        "from_cache": result.from_cache,
    }


def as_jsonl(results: Iterable[PageResult], *, in_ascii: bool = False) -> Iterator[str]:
    """Pages for a JSONL file, a line each: see `as_record`.

    Args:
        results: The pages.
        in_ascii: Whether nothing but ASCII is written, for an output of an unknown encoding.
    """
    for result in results:
        line = json.dumps(as_record(result), ensure_ascii=in_ascii)
        yield line.translate(_ENDS_OF_LINES) + "\n"
