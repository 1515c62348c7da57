"""Content blocks that show a picture or a document, in all the forms they are written in.

{"type": "image" | "file", "path" | "url" | "base64": …}      LangChain
{"type": "image", "image": …}                                 Hugging Face: also a PIL image
{"type": "image_url", "image_url": {"url": …, "detail": …}}   OpenAI, or the URL alone
{"type": "file", "file": {"file_data": "data:…"}}             OpenAI
{"type": "image" | "document",
 "source": {"type": "base64", "data": …} | {"url": …}}        Anthropic

A block may have options of its medium (`OPTIONS`) beside these, or in LangChain's `extras`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_glm4v.media import image
from langchain_glm4v.media.source import read, scheme

KEYS = frozenset({"base64", "url", "path", "image", "image_url", "source", "file"})
"""Keys of a block that hold a medium, or lead to it."""

KINDS: Mapping[str, Literal["picture", "PDF"]] = {
    "image": "picture",
    "image_url": "picture",
    "file": "PDF",
    "document": "PDF",
}
"""Type of a block -> what it shows."""

OPTIONS: Mapping[str, tuple[str, ...]] = {"picture": ("max_tokens", "longest_side"), "PDF": ()}
"""What is shown -> the keyword arguments of its `prepare` that a block may give."""

DETAILS: Mapping[str, Mapping[str, Any]] = {"low": {"longest_side": 512}}
"""OpenAI's `detail` of a picture -> options. OpenAI fits "low" into a square of 512 pixels; "high"
and "auto" are what is sent anyway: all that the model can see."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What a content block shows.

    Attributes:
        kind: "picture" or "PDF".
        source: Its path or URL; a `data:` URL, or a PIL image (of a picture only), if the block has
            the content itself.
        options: How to send it: see `OPTIONS`.
    """

    kind: Literal["picture", "PDF"]
    source: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_object(self) -> bool:
        """Whether the block has the content as a Python object, which no text shows."""
        return image.is_pil_image(self.source)

    @property
    def is_inline(self) -> bool:
        """Whether the block has the content itself."""
        return self.is_object or scheme(self.source) == "data"

    @property
    def is_local(self) -> bool:
        """Whether the content is in a file of this machine."""
        return not self.is_object and scheme(self.source) in ("", "file")

    @property
    def is_remote(self) -> bool:
        """Whether the content is in the network."""
        return scheme(self.source) in ("http", "https")

    def read(self) -> bytes:
        """Read the content of an inline or a local medium; of a PIL image it is a PNG.

        Raises:
            MediaError: If it cannot be read.
        """
        if self.is_object:
            return image.to_png(self.source)
        return read(self.source, self.kind)


def medium(block: Any) -> Medium | None:
    """Find what a content block shows; None if it is of another type, or shows nothing."""
    if not isinstance(block, Mapping) or (kind := KINDS.get(str(block.get("type")))) is None:
        return None
    fields = _fields(block)
    if (data := fields.get("base64")) is not None:
        text = data.decode("ascii", "replace") if isinstance(data, bytes) else data
        source = f"data:;base64,{text}" if isinstance(text, str) else None
    else:
        names = ("url", "path", "image") if kind == "picture" else ("url", "path")
        given = map(fields.get, names)
        source = next((value for value in given if value is not None), None)
    if not isinstance(source, str | os.PathLike) and not image.is_pil_image(source):
        return None
    return Medium(kind, source, _options(block, kind))


def _options(block: Mapping[str, Any], kind: str) -> dict[str, Any]:
    extras, openai = (_mapping(block.get(key)) for key in ("extras", "image_url"))
    detail = {**extras, **block, **openai}.get("detail")
    given = {**DETAILS.get(str(detail), {}), **extras, **block}
    return {name: given[name] for name in OPTIONS[kind] if given.get(name) is not None}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


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
