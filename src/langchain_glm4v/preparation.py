"""From the media of content blocks to parts of a request, each of them prepared once.

What a question shows, the next one of the conversation mostly shows again. So what was prepared is
kept, as long as the file it came from stays as it was.
"""

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import document, image, pool, sniffing
from langchain_glm4v.media.source import (
    Source,
    is_remote,
    local_file,
    name_of,
    read,
    read_begin,
    shown,
    version,
)
from langchain_glm4v.media.video import Form, clip
from langchain_glm4v.media_blocks import Medium
from langchain_glm4v.turns import Part, PicturePart, VideoPart, picture_part, size_of, video_part

KEPT_BYTES = 128 * 1024**2
"""Bytes of prepared media that are kept, at most; those not asked for the longest go first."""

FETCHED_SECONDS = 300
"""Seconds, at most, for which a medium of the network is not fetched again."""

AT_ONCE = 8
"""Media that are prepared at once, at most; more than are decoded, for some are being fetched."""

_ANY = "medium"  # in error messages, where the kind is not known
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Key: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How media are made ready for a server.

    Attributes:
        video: How the server is told the seconds of a video: see `media.video`.
        fetches: Whether media of the network are fetched here. If not, the URL of a picture or
            video goes to the server as it is. A document is fetched in any case, because its pages
            are what is sent, and so is a medium of which only a part, or a smaller form, is wanted.
        allow_hosts: Hosts that may be fetched from though they are not public: see `media.fetch`.
        max_pages: Pages of one document, at most; each is a picture of the request.
    """

    video: Form = "frames"
    fetches: bool = True
    allow_hosts: Collection[str] = ()
    max_pages: int = 32

    def parts(self, medium: Medium) -> list[Part]:
        """The parts that show a medium, in their order.

        Raises:
            MediaError: If it cannot be sent.
        """
        if medium.is_remote and not (self.fetches or medium.options or medium.kind == "document"):
            make = picture_part if medium.kind == "picture" else video_part
            return [make(str(medium.source))]
        if medium.is_object:
            return self._read(medium, medium.source)  # nothing tells cheaply whether it changed
        return _kept.get(self._key(medium), lambda: self._prepared(medium))

    def recognised(self, source: Source | bytes) -> Medium:
        """What a source that comes without a content block shows, judged by its first bytes.

        A GIF is a picture. One of the network is fetched, and prepared with that.

        Raises:
            UnsupportedMediaError: If it is of no kind that its first bytes tell.
            MediaError: If it cannot be read; if it is of the network, also if it cannot be sent.
        """
        if isinstance(source, bytes):
            source = image.data_url(source, "")
        data = read(source, _ANY, allow_hosts=self.allow_hosts) if is_remote(source) else None
        begin = read_begin(source, _ANY, sniffing.HEAD) if data is None else data[: sniffing.HEAD]
        kind = sniffing.medium_kind(begin)
        if kind is None:
            raise UnsupportedMediaError(
                f"{name_of(source, _ANY)} is no picture, document or video that its first bytes "
                'tell: say what it is in a content block, as in {"type": "image", "path": …}'
            )
        medium = Medium(kind, source)
        if data is not None:
            _kept.get(self._key(medium), lambda: self._read_fetched(medium, data))
        return medium

    def _key(self, medium: Medium) -> _Key:
        form = self.video if medium.kind == "video" else ""
        options = tuple(sorted((name, repr(value)) for name, value in medium.options.items()))
        return (medium.kind, form, options, *self._version(medium))

    def _version(self, medium: Medium) -> _Key:
        """What changes if the content of a medium does."""
        source = os.fspath(medium.source)
        if medium.is_inline:
            return (hashlib.blake2b(source.encode("utf-8", "surrogatepass")).digest(),)
        if medium.is_remote:
            slot = time.monotonic() // FETCHED_SECONDS
            return (source, tuple(self.allow_hosts), slot)
        try:
            with local_file(medium.source, medium.kind) as path:
                return (source, *version(path))
        except (MediaError, OSError):
            return (source,)  # reading it will tell what is wrong

    def _prepared(self, medium: Medium) -> list[Part]:
        if not medium.is_remote:
            return self._read(medium, medium.source)
        return self._read_fetched(medium, medium.read(allow_hosts=self.allow_hosts))

    def _read_fetched(self, medium: Medium, data: bytes) -> list[Part]:
        try:
            return self._read(medium, data)
        except MediaError as error:
            raise type(error)(f"{shown(medium.source)}: {error}") from error

    def _read(self, medium: Medium, source: Any) -> list[Part]:
        match medium.kind:
            case "picture":
                pictures = image.prepare(source, **medium.options)
                return [PicturePart(one.url, one.width, one.height) for one in pictures]
            case "document":
                pages = document.pages(
                    source, name=medium.name, at_most=self.max_pages, **medium.options
                )
                return [
                    PicturePart(image.data_url(page.data, "image/jpeg"), page.width, page.height)
                    for page in pages
                ]
            case "video":
                return [VideoPart(clip(source, form=self.video, **medium.options))]


def at_once(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Call a function for each item, `AT_ONCE` of them in threads; the first error is raised."""
    return [*pool.each(lambda at: function(items[at]), range(len(items)), at_once=AT_ONCE)]


class _Kept:
    """The prepared media that were asked for last. Safe for threads."""

    def __init__(self) -> None:
        self._parts: OrderedDict[_Key, list[Part]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        # A medium that is shown twice at once is prepared once: the second waits for the first.
        self._preparing: WeakValueDictionary[_Key, threading.Lock] = WeakValueDictionary()

    def get(self, key: _Key, prepare: Callable[[], list[Part]]) -> list[Part]:
        with self._lock:
            preparing = self._preparing.setdefault(key, threading.Lock())
        with preparing:
            parts = self._found(key)
            if parts is None:
                parts = prepare()
                self._put(key, parts)
        return parts

    def _found(self, key: _Key) -> list[Part] | None:
        with self._lock:
            parts = self._parts.get(key)
            if parts is not None:
                self._parts.move_to_end(key)
            return parts

    def _put(self, key: _Key, parts: list[Part]) -> None:
        with self._lock:
            self._parts[key] = parts
            self._bytes += _bytes(parts)
            while self._bytes > KEPT_BYTES:
                self._bytes -= _bytes(self._parts.popitem(last=False)[1])


def _bytes(parts: list[Part]) -> int:
    return sum(map(size_of, parts))


def _forget() -> None:
    """After a fork, the child does not wait for what a thread of its parent prepares."""
    global _kept  # noqa: PLW0603 - what is held cannot be freed
    _kept = _Kept()


_kept = _Kept()
os.register_at_fork(after_in_child=_forget)
