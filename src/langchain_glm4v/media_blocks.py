"""Content blocks that show a picture or a document, in all the forms they are written in.

{"type": "image" | "file", "path" | "url" | "base64": …}      LangChain
{"type": "image_url", "image_url": {"url": …}}                OpenAI, or the URL alone
{"type": "file", "file": {"file_data": …, "filename": …}}     OpenAI; base64, bare or as data:…
{"type": "image" | "document",
 "source": {"type": "base64", "data": …} | {"url": …}}        Anthropic

A document's block can have `pages`, `longest_side` and `password`, as `media.document.pages` takes
them, and `filename`; beside its other keys or in its `extras`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from langchain_glm4v.errors import UnsupportedMediaError
from langchain_glm4v.media.source import Source, read, scheme

KEYS = frozenset({"base64", "url", "path", "image_url", "source", "file"})
"""Keys of a block that hold a medium, or lead to it."""

Kind: TypeAlias = Literal["picture", "document"]

KINDS: Mapping[str, Kind] = {
    "image": "picture",
    "image_url": "picture",
    "file": "document",
    "document": "document",
}
"""Type of a block -> what it shows."""

# Key of a document's block -> the types of its value, and how it is written.
_OPTIONS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "pages": ((str, list), '"1,3,5-7" from 1, or a list of numbers from 0'),
    "longest_side": ((int,), "a number of pixels"),
    "password": ((str,), "a string"),
}


@dataclass(frozen=True, slots=True)
class Medium:
    """What a content block shows.

    Attributes:
        kind: "picture" or "document".
        source: Its path or URL; a `data:` URL if the block has the content itself.
        name: The name of its file, if the block gives one beside the content.
        options: How a document is to be shown: arguments of `media.document.pages`.
    """

    kind: Kind
    source: Source
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_inline(self) -> bool:
        """Whether the block has the content itself."""
        return scheme(self.source) == "data"

    @property
    def is_local(self) -> bool:
        """Whether the content is in a file of this machine."""
        return scheme(self.source) in ("", "file")

    def read(self) -> bytes:
        """Read the content of an inline or a local medium.

        Raises:
            MediaError: If it cannot be read.
        """
        return read(self.source, self.kind)


def medium(block: Any) -> Medium | None:
    """Find what a content block shows; None if it is of another type, or shows nothing.

    Raises:
        UnsupportedMediaError: If a document's option is of a wrong type.
    """
    if not isinstance(block, Mapping) or (kind := KINDS.get(str(block.get("type")))) is None:
        return None
    fields = _fields(block)
    if (data := fields.get("base64")) is not None:
        text = data.decode("ascii", "replace") if isinstance(data, bytes) else data
        source: Any = f"data:;base64,{text}" if isinstance(text, str) else None
    else:
        given = (fields.get("url"), fields.get("path"))
        source = next((value for value in given if value is not None), None)
    if not isinstance(source, str | os.PathLike):
        return None
    if kind != "document":
        return Medium(kind, source)
    extras = block.get("extras")
    beside: dict[str, Any] = {}
    for mapping in (extras, block):
        beside |= mapping if isinstance(mapping, Mapping) else {}
    name = fields.get("filename") or beside.get("filename")
    return Medium(kind, source, name if isinstance(name, str) else None, _options(beside))


def _options(block: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: block[key] for key in _OPTIONS if block.get(key) is not None}
    for key, value in options.items():
        types, form = _OPTIONS[key]
        items = value if isinstance(value, list) else ()
        if type(value) not in types or any(type(item) is not int for item in items):
            raise UnsupportedMediaError(
                f"a document has {key} of type {type(value).__name__}: write {form}"
            )
    return options


def _fields(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """The block in LangChain's form."""
    match block:
        case {"image_url": {"url": url}} | {"image_url": str(url)}:
            return {"url": url}
        case {"source": {"type": "base64", "data": data}}:
            return {"base64": data}
        case {"source": {"url": url}}:
            return {"url": url}
        case {"file": {"file_data": str(data)} as file}:
            return {"filename": file.get("filename"), "url" if scheme(data) else "base64": data}
        case _:
            return block
