"""From the media of content blocks to parts of a request, each of them prepared once.

What a question shows, the next one of the conversation mostly shows again. So what was prepared is
kept, as long as the file it came from stays as it was.
"""

import hashlib
import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import document, image, pool, sniffing
from langchain_glm4v.media.allowed_dirs import local_path
from langchain_glm4v.media.budget import (
    DEFAULT_IMAGE_TOKENS,
    MAX_VIDEO_TOKENS,
    MIN_IMAGE_TOKENS,
    check_count,
    image_tokens,
)
from langchain_glm4v.media.source import (
    Given,
    is_remote,
    local_file,
    name_of,
    plain,
    read_begin,
    shown,
    version,
)
from langchain_glm4v.media.video import LEAST_STEP_TOKENS, Form, clip
from langchain_glm4v.media_blocks import Kind, Medium
from langchain_glm4v.turns import Part, PicturePart, VideoPart, picture_part, size_of, video_part

if TYPE_CHECKING:
    from langchain_glm4v.media.fetch import Fetched

KEPT_BYTES = 128 * 1024**2
"""Bytes of prepared media that are kept, at most; those not asked for the longest go first."""

FETCHED_SECONDS = 300
"""Seconds, at most, for which a medium of the network is not fetched again; fewer where its server
says so by `Cache-Control`."""

AT_ONCE = 8
"""Media that are prepared at once, at most; more than are decoded, for some are being fetched."""

_logger = logging.getLogger(__name__)
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
        allowed_dirs: Directories in or below which all local files must lie. None: files lie
            anywhere where the program's author names them, and nowhere where others do.
        max_pages: Pages of one document or TIFF, at most; each is a picture of the request.
        max_tokens: Tokens of one picture, page or video that the server takes; None: not known.
        context_tokens: Prompt and answer together that the server takes, of which a video gets half
            unless its block says otherwise; None: not known.
    """

    video: Form = "frames"
    fetches: bool = True
    allow_hosts: Collection[str] = ()
    allowed_dirs: Collection[str | os.PathLike[str]] | None = None
    max_pages: int = 32
    max_tokens: int | None = None
    context_tokens: int | None = None

    @property
    def for_others(self) -> "Preparation":
        """The same for media that a tool or a model names."""
        return self if self.allowed_dirs is not None else replace(self, allowed_dirs=())

    def parts(self, medium: Medium) -> list[Part]:
        """The parts that show a medium, in their order.

        Raises:
            MediaError: If it cannot be sent.
        """
        if medium.is_local and self.allowed_dirs is not None:
            if not self.allowed_dirs:
                raise MediaError(
                    f"{medium.shown} is a local file outside allowed_dirs, where all must lie that "
                    "tools and models name: name its directory there, as in "
                    "ChatGLM4V(allowed_dirs=['/srv/files'])"
                )
            medium = replace(medium, source=local_path(medium.source, self.allowed_dirs))
        if medium.is_remote and not (self.fetches or medium.options or medium.kind == "document"):
            make = picture_part if medium.kind == "picture" else video_part
            return [make(str(medium.source))]
        medium = replace(medium, options={**self._limits(medium.kind), **medium.options})
        if medium.is_object:  # nothing tells cheaply whether it changed
            parts = self._read(medium, medium.source)
        elif not medium.keeps:
            parts, _ = self._prepared(medium)
        else:
            parts = _kept.get(self._key(medium), lambda: self._prepared(medium))
        self._check(medium, parts)
        return parts

    def recognised(self, given: Given) -> Medium:
        """What it shows that comes without a content block, judged by its first bytes.

        A GIF is a picture. Where the bytes do not tell, the `mimetype` of a `Blob` does. What is in
        the network is fetched, and not again for `parts`.

        Raises:
            UnsupportedMediaError: If it is of no kind that can be told.
            MediaError: If it cannot be read.
        """
        if image.is_pil_image(given):
            return Medium("picture", given)
        source = plain(given, _ANY)
        fetched = None if isinstance(source, bytes) else self._fetched(source)
        begin = read_begin(fetched.data if fetched else source, _ANY, sniffing.HEAD)
        stated = sniffing.kind_of_mime_type(getattr(given, "mimetype", None))
        kind = sniffing.medium_kind(begin) or stated
        if kind is None:
            raise UnsupportedMediaError(
                f"{name_of(source, _ANY)} is no picture, document or video that its first bytes "
                "tell: give another",
                setting='say what it is in a content block, as in {"type": "image", "path": …}',
            )
        return Medium(kind, source, fetched=fetched)

    def _limits(self, kind: Kind) -> dict[str, int]:
        """Options of a medium, as far as they differ from what is ours by default."""
        most, least = DEFAULT_IMAGE_TOKENS, MIN_IMAGE_TOKENS
        limits = [self.max_tokens]
        if kind == "video":
            most, least = MAX_VIDEO_TOKENS, LEAST_STEP_TOKENS
            limits.append(self.context_tokens and self.context_tokens // 2)
        limit = min([tokens for tokens in limits if tokens is not None], default=most)
        return {"max_tokens": max(limit, least)} if limit < most else {}

    def _check(self, medium: Medium, parts: Sequence[Part]) -> None:
        """Refuse what the server will not take."""
        if medium.kind != "video":
            remedies = {
                "picture": (image.CHOOSE_PAGES, image.RAISE_LIMIT),
                "document": (document.CHOOSE_PAGES,),
            }
            check_count(medium.shown, len(parts), self.max_pages, *remedies[medium.kind])
        largest = max(map(_tokens, parts), default=0)
        if self.max_tokens is not None and largest > self.max_tokens:
            raise MediaError(
                f"{medium.shown} has {largest} tokens, and the server takes {self.max_tokens} of "
                "one picture or video: make it smaller, or shorter",
                setting=f"give max_tokens={self.max_tokens} or less, or start the server with "
                f"--max-num-batched-tokens {largest}",
            )

    def _key(self, medium: Medium) -> _Key:
        form = self.video if medium.kind == "video" else ""
        options = tuple(sorted((name, repr(value)) for name, value in medium.options.items()))
        return (medium.kind, form, options, *self._version(medium))

    def _version(self, medium: Medium) -> _Key:
        """What changes if the content of a medium does."""
        if isinstance(medium.source, bytes):
            return (hashlib.blake2b(medium.source).digest(),)
        source = os.fspath(medium.source)
        if medium.is_inline:
            return (hashlib.blake2b(source.encode("utf-8", "surrogatepass")).digest(),)
        if medium.is_remote:
            return (source, tuple(self.allow_hosts))
        try:
            with local_file(medium.source, medium.kind) as path:
                return (source, *version(path))
        except (MediaError, OSError):
            return (source,)  # reading it will tell what is wrong

    def _prepared(self, medium: Medium) -> tuple[list[Part], float]:
        """The parts, and for how many seconds they may be kept."""
        fetched = medium.fetched or self._fetched(medium.source)
        if fetched is None:
            return self._read(medium, medium.source), math.inf
        stated = FETCHED_SECONDS if fetched.max_age is None else fetched.max_age
        try:
            return self._read(medium, fetched.data), min(stated, FETCHED_SECONDS)
        except MediaError as error:
            told = f"{shown(medium.source)}: {error.args[0]}"
            raise type(error)(told, setting=error.setting) from error

    def _fetched(self, source: Any) -> "Fetched | None":
        """The content of what is in the network; None if it is not there."""
        if isinstance(source, bytes) or not is_remote(source):
            return None
        from langchain_glm4v.media.fetch import fetch  # noqa: PLC0415 - not needed by most

        return fetch(str(source), allow_hosts=self.allow_hosts)

    def _read(self, medium: Medium, source: Any) -> list[Part]:
        match medium.kind:
            case "picture":
                pictures = image.prepare(source, at_most=self.max_pages, **medium.options)
                return [PicturePart(one.url, one.width, one.height) for one in pictures]
            case "document":
                pages = document.pages(
                    source, name=medium.name, at_most=self.max_pages, **medium.options
                )
                return [_part(page, medium.shown) for page in pages]
            case "video":
                return [VideoPart(clip(source, form=self.video, **medium.options))]


def _part(page: document.Page, name: str) -> PicturePart:
    if page.damage:
        _logger.warning(
            "page %d of %s is shown without a part that is damaged (%s): scan it again",
            *(page.number + 1, name, page.damage),
        )
    return PicturePart(image.data_url(page.data, "image/jpeg"), page.width, page.height)


def _tokens(part: Part) -> int:
    """Tokens that a server makes of a medium at once, those between its marks."""
    match part:
        case PicturePart(width=width, height=height):
            return image_tokens(width, height)
        case VideoPart(clip=shown_clip):
            return shown_clip.tokens
        case _:
            return 0


def at_once(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Call a function for each item, `AT_ONCE` of them in threads; the first error is raised."""
    return [*pool.each(lambda at: function(items[at]), range(len(items)), at_once=AT_ONCE)]


class _Kept:
    """The prepared media that were asked for last. Safe for threads."""

    def __init__(self) -> None:
        # With the time, of `time.monotonic`, until which they may be used.
        self._parts: OrderedDict[_Key, tuple[list[Part], float]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        # A medium that is shown twice at once is prepared once: the second waits for the first.
        self._preparing: WeakValueDictionary[_Key, threading.Lock] = WeakValueDictionary()

    def get(self, key: _Key, prepare: Callable[[], tuple[list[Part], float]]) -> list[Part]:
        """The parts of this key.

        Args:
            key: What differs if the parts do.
            prepare: Makes them, and tells for how many seconds they may be kept.
        """
        with self._lock:
            preparing = self._preparing.setdefault(key, threading.Lock())
        with preparing:
            parts = self._found(key)
            if parts is None:
                parts, seconds = prepare()
                if seconds > 0:
                    self._put(key, parts, time.monotonic() + seconds)
        return parts

    def _found(self, key: _Key) -> list[Part] | None:
        with self._lock:
            parts, until = self._parts.get(key, (None, 0.0))
            if parts is None:
                return None
            if time.monotonic() >= until:
                self._drop(key)
                return None
            self._parts.move_to_end(key)
            return parts

    def _put(self, key: _Key, parts: list[Part], until: float) -> None:
        with self._lock:
            self._parts[key] = parts, until
            self._bytes += _bytes(parts)
            while self._bytes > KEPT_BYTES:
                self._drop(next(iter(self._parts)))

    def _drop(self, key: _Key) -> None:
        self._bytes -= _bytes(self._parts.pop(key)[0])


def _bytes(parts: list[Part]) -> int:
    return sum(map(size_of, parts))


def _forget() -> None:
    """After a fork, the child does not wait for what a thread of its parent prepares."""
    global _kept  # noqa: PLW0603 - what is held cannot be freed
    _kept = _Kept()


_kept = _Kept()
os.register_at_fork(after_in_child=_forget)
