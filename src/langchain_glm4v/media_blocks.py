"""Content blocks that show a picture, a document or a video, in all forms they are written in.

{"type": "image" | "file" | "video",
 "path" | "url" | "base64": …}                                LangChain
{"type": "image_url", "image_url": {"url": …}}                OpenAI, or the URL alone
{"type": "video_url", "video_url": {"url": …}}                vLLM, or the URL alone
{"type": "file", "file": {"file_data": "data:…"}}             OpenAI
{"type": "image" | "document",
 "source": {"type": "base64", "data": …} | {"url": …}}        Anthropic

A video may have the options of `media.video.clip` beside it, or in `extras`, where LangChain's
`create_video_block` puts them.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from langchain_glm4v.media.source import Source, is_remote, read, scheme

Kind: TypeAlias = Literal["picture", "PDF", "video"]

KEYS = frozenset({"base64", "url", "path", "image_url", "video_url", "source", "file"})
"""Keys of a block that hold a medium, or lead to it."""

VIDEO_OPTIONS = ("fps", "num_frames", "start", "end", "max_tokens")
"""Keys of a block, or of its `extras`, that tell which part of a video is sent, and how."""

KINDS: Mapping[str, Kind] = {
    "image": "picture",
    "image_url": "picture",
    "file": "PDF",
    "document": "PDF",
    "video": "video",
    "video_url": "video",
}
"""Type of a block -> what it shows."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What a content block shows.

    Attributes:
        kind: "picture", "PDF" or "video".
        source: Its path or URL; a `data:` URL if the block has the content itself.
        options: What the block says of a video beside it: of `VIDEO_OPTIONS`.
    """

    kind: Kind
    source: Source
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_inline(self) -> bool:
        """Whether the block has the content itself."""
        return scheme(self.source) == "data"

    @property
    def is_local(self) -> bool:
        """Whether the content is in a file of this machine."""
        return scheme(self.source) in ("", "file")

    @property
    def is_remote(self) -> bool:
        """Whether the content is in the network."""
        return is_remote(self.source)

    def read(self, *, allow_hosts: Collection[str] = ()) -> bytes:
        """Read the content; that of a remote medium is fetched.

        Args:
            allow_hosts: Hosts that may be fetched from though they are not public.

        Raises:
            MediaError: If it cannot be read.
        """
        return read(self.source, self.kind, allow_hosts=allow_hosts)


def medium(block: Any) -> Medium | None:
    """Find what a content block shows; None if it is of another type, or shows nothing."""
    if (kind := kind_of(block)) is None:
        return None
    fields = _fields(block)
    options = _options(block) if kind == "video" else {}
    if (data := fields.get("base64")) is not None:
        text = data.decode("ascii", "replace") if isinstance(data, bytes) else data
        return Medium(kind, f"data:;base64,{text}", options) if isinstance(text, str) else None
    given = (fields.get("url"), fields.get("path"))
    source = next((value for value in given if value is not None), None)
    return Medium(kind, source, options) if isinstance(source, str | os.PathLike) else None


def kind_of(block: Any) -> Kind | None:
    """What a content block should show, by its type; None if it is of another."""
    return KINDS.get(str(block.get("type"))) if isinstance(block, Mapping) else None


def _options(block: Mapping[str, Any]) -> dict[str, Any]:
    given = {**(block.get("extras") or {}), **block}
    return {name: given[name] for name in VIDEO_OPTIONS if given.get(name) is not None}


def _fields(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """The block in LangChain's form."""
    match block:
        case {"image_url": {"url": url}} | {"image_url": str(url)}:
            return {"url": url}
        case {"video_url": {"url": url}} | {"video_url": str(url)}:
            return {"url": url}
        case {"source": {"type": "base64", "data": data}}:
            return {"base64": data}
        case {"source": {"url": url}} | {"file": {"file_data": url}}:
            return {"url": url}
        case _:
            return block
