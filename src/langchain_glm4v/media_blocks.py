"""Content blocks that show a picture or a document, in all the forms they are written in.

{"type": "image" | "file", "path" | "url" | "base64": …}      LangChain
{"type": "image_url", "image_url": {"url": …}}                OpenAI, or the URL alone
{"type": "file", "file": {"file_data": "data:…"}}             OpenAI
{"type": "image" | "document",
 "source": {"type": "base64", "data": …} | {"url": …}}        Anthropic
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_glm4v.media.source import Source, is_remote, read, scheme

KEYS = frozenset({"base64", "url", "path", "image_url", "source", "file"})
"""Keys of a block that hold a medium, or lead to it."""

KINDS: Mapping[str, Literal["picture", "PDF"]] = {
    "image": "picture",
    "image_url": "picture",
    "file": "PDF",
    "document": "PDF",
}
"""Type of a block -> what it shows."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What a content block shows.

    Attributes:
        kind: "picture" or "PDF".
        source: Its path or URL; a `data:` URL if the block has the content itself.
    """

    kind: Literal["picture", "PDF"]
    source: Source

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
    if not isinstance(block, Mapping) or (kind := KINDS.get(str(block.get("type")))) is None:
        return None
    fields = _fields(block)
    if (data := fields.get("base64")) is not None:
        text = data.decode("ascii", "replace") if isinstance(data, bytes) else data
        return Medium(kind, f"data:;base64,{text}") if isinstance(text, str) else None
    given = (fields.get("url"), fields.get("path"))
    source = next((value for value in given if value is not None), None)
    return Medium(kind, source) if isinstance(source, str | os.PathLike) else None


def _fields(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """The block in LangChain's form."""
    match block:
        case {"image_url": {"url": url}} | {"image_url": str(url)}:
            return {"url": url}
        case {"source": {"type": "base64", "data": data}}:
            return {"base64": data}
        case {"source": {"url": url}} | {"file": {"file_data": url}}:
            return {"url": url}
        case _:
            return block
