"""What media will cost in a request, told before anything is sent."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_glm4v.counting import tokens_at_most
from langchain_glm4v.media.video import Form
from langchain_glm4v.media_blocks import Kind
from langchain_glm4v.messages import medium_of
from langchain_glm4v.preparation import Preparation, at_once
from langchain_glm4v.turns import Part, PicturePart, VideoPart, size_of

_HEADER = ("kind", "items", "pixels", "tokens", "bytes", "seconds", "source")
_LEFT = {"kind", "source"}  # columns that are not numbers


@dataclass(frozen=True, slots=True)
class MediumPlan:
    """What will be sent of one medium.

    Attributes:
        kind: "picture", "document" or "video".
        source: What error messages call it, such as its path or URL in quotes.
        sizes: Width and height in pixels of each picture, page or frame that is sent. A TIFF and a
            document have one for each page.
        tokens: Its tokens in the prompt, the marks around pictures and frames included, and of a
            video the digits of its seconds. A tokenizer that has tokens for numbers of several
            digits makes these fewer.
        bytes: What it adds to the first request that shows it, in base64; to later ones a name.
        seconds: Of a video: when each frame is shown; else empty.
        fps: Of a video: frames taken in a second; else None.
    """

    kind: Kind
    source: str
    sizes: tuple[tuple[int, int], ...]
    tokens: int
    bytes: int
    seconds: tuple[float, ...] = ()
    fps: float | None = None

    @property
    def items(self) -> int:
        """Pictures, pages or frames that are sent."""
        return len(self.sizes)

    @property
    def pixels(self) -> int:
        """Pixels of all items."""
        return sum(map(math.prod, self.sizes))


@dataclass(frozen=True, slots=True)
class MediaPlan:
    """What will be sent of some media; as a `str`, a table.

    Attributes:
        media: One for each, in the order given.
    """

    media: tuple[MediumPlan, ...]

    @property
    def items(self) -> int:
        """Pictures, pages and frames that are sent."""
        return sum(medium.items for medium in self.media)

    @property
    def pixels(self) -> int:
        """Pixels of all items."""
        return sum(medium.pixels for medium in self.media)

    @property
    def tokens(self) -> int:
        """Tokens in the prompt."""
        return sum(medium.tokens for medium in self.media)

    @property
    def bytes(self) -> int:
        """Bytes in the request."""
        return sum(medium.bytes for medium in self.media)

    def __str__(self) -> str:
        total = ("total", f"{self.items}", "", f"{self.tokens:,}", f"{self.bytes:,}", "", "")
        rows = [_HEADER, *map(_row, self.media), total]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(_line(row, widths) for row in rows)


def plan(
    media: Any,
    *,
    video: Form = "frames",
    allow_hosts: Collection[str] = (),
    max_pages: int = 32,
    context_tokens: int | None = None,
) -> MediaPlan:
    """Tell what will be sent of media, before anything is sent.

    They are prepared as for a request, which then need not do so again: what was prepared is kept.

    Args:
        media: A content block, with its options, or what it would lead to: a path, a URL, the bytes
            of a file, a `Blob` of LangChain's, or a PIL image. Or a list of such; blocks of text in
            it are passed over. Without a block, the first bytes tell whether it is a picture, a
            document or a video; of rare formats, the `mimetype` of a `Blob`.
        video: How the seconds of videos are told: "frames" to a server that takes frames, as those
            that `GLM4VServer` starts do; else "mp4".
        allow_hosts: Hosts that may be fetched from though they are not public.
        max_pages: Pages of one document, at most.
        context_tokens: Prompt and answer together that the server takes (its `max_model_len`), of
            which a video gets half unless its block says otherwise. Default: not known.

    Raises:
        MediaNotFoundError: If a path or URL leads nowhere.
        UnsupportedMediaError: If one is of a kind that cannot be sent, or cannot be told.
        MediaError: If one cannot be sent for another reason.
    """
    given: Iterable[Any] = media if isinstance(media, list | tuple) else [media]
    shown = [one for one in given if not (isinstance(one, Mapping) and one.get("type") == "text")]
    preparation = Preparation(
        video=video,
        allow_hosts=allow_hosts,
        max_pages=max_pages,
        context_tokens=context_tokens,
    )
    return MediaPlan(tuple(at_once(lambda one: planned(one, preparation), shown)))


def planned(given: Any, preparation: Preparation) -> MediumPlan:
    """Tell what will be sent of one medium.

    Args:
        given: As for `plan`.
        preparation: How it is made ready.

    Raises:
        MediaError: As by `plan`.
    """
    medium = medium_of(given) if isinstance(given, Mapping) else preparation.recognised(given)
    parts = preparation.parts(medium)
    clip = next((part.clip for part in parts if isinstance(part, VideoPart)), None)
    return MediumPlan(
        kind=medium.kind,
        source=medium.shown,
        sizes=tuple(size for part in parts for size in _sizes(part)),
        tokens=sum(map(tokens_at_most, parts)),
        bytes=sum(map(size_of, parts)),
        seconds=clip.seconds if clip else (),
        fps=clip.fps if clip else None,
    )


def _sizes(part: Part) -> list[tuple[int, int]]:
    match part:
        case VideoPart(clip=clip):
            return [(clip.width, clip.height)] * clip.frames
        case PicturePart(width=width, height=height):
            return [(width, height)]
        case _:
            return []


def _row(medium: MediumPlan) -> tuple[str, ...]:
    smallest, largest = (f"{w}x{h}" for w, h in _extremes(medium.sizes))
    seconds = f"{medium.seconds[0]:.1f} to {medium.seconds[-1]:.1f}" if medium.seconds else ""
    return (
        medium.kind,
        f"{medium.items}",
        largest if smallest == largest else f"{smallest} to {largest}",
        f"{medium.tokens:,}",
        f"{medium.bytes:,}",
        f"{seconds} at {medium.fps:.3g} fps" if medium.fps else "",
        medium.source,
    )


def _extremes(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], tuple[int, int]]:
    return min(sizes, key=math.prod), max(sizes, key=math.prod)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.ljust(width) if name in _LEFT else cell.rjust(width)
        for name, cell, width in zip(_HEADER, row, widths, strict=True)
    )
    return "  ".join(cells).rstrip()
