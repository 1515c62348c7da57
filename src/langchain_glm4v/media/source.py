"""Where media come from: paths, URLs and base64, read into bytes."""

import base64
import binascii
import os
import re
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError

Source: TypeAlias = str | os.PathLike[str]
"""A path, or a URL: `file://`, `data:` in base64, or `http(s)://`, which is fetched."""

Given: TypeAlias = Any
"""What leads to a medium: a `Source`, `bytes`, a `bytearray`, a `memoryview`, or an object that is
made like LangChain's `Blob`, with `data` or a `path`. See `plain`."""

MAX_BYTES = 256 * 1024 * 1024
"""Bytes of one file that is read into memory, at most: what vLLM itself downloads at most."""

HIDDEN = "?…"
"""What the query of a URL is shown as."""

_SHOWN = 200  # characters of a path or URL in an error message
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
# Of a URL: user and password, query, fragment.
_SECRETS = re.compile(r"(?<=//)[^/?#]*@|[?#].*", re.DOTALL)


def plain(given: Given, kind: str) -> Source | bytes:
    """Bring whatever leads to a medium into one of two forms.

    Args:
        given: A path or URL, bytes of any class, or a `Blob`.
        kind: What it should be, for error messages.

    Returns:
        A path or URL, or the content.

    Raises:
        UnsupportedMediaError: If it is none of these.
        MediaError: If the content has more than `MAX_BYTES` bytes.
    """
    match given:
        case str():
            return given
        case os.PathLike():
            path = os.fspath(given)
            return given if isinstance(path, str) else Path(os.fsdecode(path))
        case bytes() | bytearray() | memoryview():
            _check_length(memoryview(given).nbytes, f"the {kind}", kind)
            return bytes(given)
        # A Blob of LangChain's, which is not known here.
        case object(data=None, path=(str() | os.PathLike()) as path, as_bytes=_):
            return plain(path, kind)
        case object(data=(str() | bytes()), as_bytes=as_bytes):
            return plain(as_bytes(), kind)
    raise UnsupportedMediaError(
        f"a {type(given).__name__} cannot be sent as a {kind}: give a path, a URL, bytes or a Blob"
    )


def scheme(source: Source) -> str:
    """Scheme of a URL in lower case; "" for a path, also for one with a colon in its name."""
    found = _SCHEME.match(source) if isinstance(source, str) else None
    if found is None:
        return ""
    name = found[1].lower()
    known = name in ("data", "file", "http", "https")
    return name if known or found.string.startswith("//", found.end()) else ""


def is_remote(source: Source) -> bool:
    """Whether a source is in the network: an `http(s)://` URL."""
    return scheme(source) in ("http", "https")


def read(source: Given, kind: str, *, allow_hosts: Collection[str] = ()) -> bytes:
    """Read a medium, wherever it is.

    Args:
        source: A path, a `file://` URL, a `data:` URL in base64, an `http(s)://` URL, or what has
            the content itself.
        kind: What it should be, for error messages: "picture".
        allow_hosts: Hosts that may be fetched from though they are not public: see `media.fetch`.

    Raises:
        MediaNotFoundError: If the path or URL leads nowhere.
        UnsupportedMediaError: If the path is no regular file, the data are not base64, the URL
            leads to a web page, or is of another scheme.
        MediaError: If the file has more than `MAX_BYTES` bytes, or cannot be read or fetched.
    """
    source = plain(source, kind)
    if isinstance(source, bytes):
        return source
    match scheme(source):
        case "http" | "https":
            # Built on this module, and of no use in the processes that decode.
            from langchain_glm4v.media.fetch import fetch  # noqa: PLC0415

            return fetch(str(source), allow_hosts=allow_hosts).data
        case "data":
            data = decode_data_url(str(source), kind)
            _check_length(len(data), f"the {kind}", kind)
            return data
        case "file" | "":
            return _read_file(_local_path(source), kind)
        case _:
            raise _unreadable(source, kind)


def read_begin(source: Given, kind: str, count: int) -> bytes:
    """Read the first bytes of a medium that is not in the network.

    Args:
        source: A path, a `file://` URL, a `data:` URL in base64, or what has the content itself. A
            file may have more than `MAX_BYTES` bytes.
        kind: What it should be, for error messages.
        count: How many bytes, at most.

    Raises:
        MediaError: As for `read`.
    """
    source = plain(source, kind)
    if isinstance(source, bytes) or scheme(source) == "data":
        return read(source, kind)[:count]
    with local_file(source, kind) as path, _told(str(path), kind), path.open("rb") as file:
        return file.read(count)


@contextmanager
def local_file(source: Given, kind: str) -> Iterator[Path]:
    """A medium as a file, for decoders that read only what they need of it.

    Args:
        source: As for `read`. What is no file yet is in a temporary one meanwhile. A file that is
            there already stays where it is, and may have more than `MAX_BYTES` bytes.
        kind: What it should be, for error messages.

    Yields:
        Its absolute path.

    Raises:
        MediaError: As for `read`.
    """
    source = plain(source, kind)
    if not isinstance(source, bytes) and scheme(source) in ("", "file"):
        yield _found(_local_path(source), kind)[0].absolute()
        return
    data = read(source, kind)
    del source
    with tempfile.TemporaryDirectory(prefix="glm4v-") as folder:
        path = Path(folder, "medium")
        path.write_bytes(data)
        del data
        try:
            yield path
        finally:
            # A decoding process may keep it open: its room on the disk is given back now.
            os.truncate(path, 0)


def decode_data_url(url: str, kind: str) -> bytes:
    """Decode a `data:` URL; line breaks in its base64 are allowed.

    Raises:
        UnsupportedMediaError: If it is not in base64.
    """
    head, _, data = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise UnsupportedMediaError(
            f"the URL {shown(url)} is not in base64: write it as data:image/png;base64,…"
        )
    try:
        return base64.b64decode(b"".join(unquote_to_bytes(data).split()), validate=True)
    except (binascii.Error, UnicodeError) as error:
        raise UnsupportedMediaError(
            f"the {kind} of {len(data)} characters of base64 is not valid base64 ({error}): "
            "encode its bytes with base64.b64encode"
        ) from error


def without_secrets(source: Source) -> str:
    """A path or URL without what a URL may hold of secrets."""
    text = os.fspath(source)
    if scheme(source) not in ("", "data", "file"):
        text = _SECRETS.sub(lambda found: HIDDEN if found[0].startswith("?") else "", text)
    return text


def shown(source: Source) -> str:
    """A path or URL as an error message shows it: without secrets, and cut if it is a long one."""
    text = without_secrets(source)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def path_of(url: str) -> str:
    """The path in a `file://` URL.

    Raises:
        UnsupportedMediaError: If it names another host, or is not well-formed.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UnsupportedMediaError(
            f"{shown(url)} is not well-formed ({error}): a local file is file:///path"
        ) from error
    if parts.netloc not in ("", "localhost"):
        raise UnsupportedMediaError(
            f"{shown(url)} names the host {parts.netloc!r}: "
            "a local file is file:///path, with three slashes"
        )
    return url2pathname(parts.path)


def name_of(source: Given, kind: str) -> str:
    """What error messages call a medium."""
    source = plain(source, kind)
    if isinstance(source, bytes):
        return f"the {kind} of {len(source)} bytes"
    if scheme(source) == "data":
        return f"the {kind} of {len(os.fspath(source))} characters of base64"
    return shown(source)


def version(path: Path | str) -> tuple[int, ...]:
    """What differs if another file is at a path, or the file was changed.

    Raises:
        OSError: If there is none.
    """
    found = Path(path).stat()
    # Not by the time of the content alone: tools such as `cp -p` set that to an older one.
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def _check_length(size: int, name: str, kind: str) -> None:
    if size > MAX_BYTES:
        raise MediaError(
            f"{name} has {size} bytes, more than the {MAX_BYTES} that a {kind} may have: save it "
            "smaller first"
        )


def _local_path(source: Source) -> str:
    return path_of(str(source)) if scheme(source) == "file" else os.fspath(source)


def _unreadable(source: Source, kind: str) -> UnsupportedMediaError:
    return UnsupportedMediaError(
        f"cannot read a {kind} from {shown(source)}: accepted are http://, https://, data:, "
        "file:// and local paths"
    )


def _found(path: str, kind: str) -> tuple[Path, os.stat_result]:
    """A regular file, and what the system says of it."""
    with _told(path, kind):
        file = Path(path).expanduser()
        found = file.stat()
    # Devices and pipes may never end, so only regular files are read.
    if not stat.S_ISREG(found.st_mode):
        raise UnsupportedMediaError(f"{shown(path)} is not a file: give the path of a {kind}")
    return file, found


def _read_file(path: str, kind: str) -> bytes:
    file, found = _found(path, kind)
    _check_length(found.st_size, shown(path), kind)
    with _told(path, kind):
        return file.read_bytes()


@contextmanager
def _told(path: str, kind: str) -> Iterator[None]:
    """Errors of the system as errors of this package."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaNotFoundError(
            f"no {kind} at {shown(path)}: give the path of a file, or a URL"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: no such user as in ~user
        reason = error.strerror if isinstance(error, OSError) else error
        raise MediaError(f"cannot read the {kind} {shown(path)}: {reason}") from error
