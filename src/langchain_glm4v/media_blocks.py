"""Content blocks that show a picture, a document or a video, in all forms they are written in.

{"type": "image" | "file" | "video",
 "path" | "url" | "base64": …}                                LangChain
{"type": "image" | "video", "image" | "video": …}             Hugging Face: also a PIL image
{"type": "image_url", "image_url": {"url": …, "detail": …}}   OpenAI, or the URL alone
{"type": "video_url", "video_url": {"url": …}}                vLLM, or the URL alone
{"type": "file", "file": {"file_data": …, "filename": …}}     OpenAI; base64, bare or as data:…
{"type": "image" | "document",
 "source": {"type": "base64", "data": …} | {"url": …}}        Anthropic

Where a path or URL may stand, so may the content: `bytes` and the like, or a `Blob` of LangChain's.

A block may have options of its medium (`OPTIONS`), a `filename`, and `"keep": False` for a medium
that is not shown again, beside these or in `extras`, where LangChain's `create_video_block` and its
kin put them.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from langchain_glm4v.errors import UnsupportedMediaError
from langchain_glm4v.media import image
from langchain_glm4v.media.source import is_remote, name_of, plain, read, scheme

if TYPE_CHECKING:
    from langchain_glm4v.media.fetch import Fetched

Kind: TypeAlias = Literal["picture", "document", "video"]

KEYS = frozenset(
    {
        *("base64", "url", "path", "image", "image_url", "video", "video_url", "source", "file"),
        "document",
    }
)
"""Keys of a block that hold a medium, or lead to it."""

KINDS: Mapping[str, Kind] = {
    "image": "picture",
    "image_url": "picture",
    "file": "document",
    "document": "document",
    "video": "video",
    "video_url": "video",
}
"""Type of a block -> what it shows."""

# Option of a document -> the types of its value, and how it is written.
_DOCUMENT_OPTIONS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "pages": ((str, list), '"1,3,5-7" from 1, or a list of numbers from 0'),
    "longest_side": ((int,), "a number of pixels"),
    "max_tokens": ((int,), "a number of tokens"),
    "password": ((str,), "a string"),
}

OPTIONS: Mapping[Kind, tuple[str, ...]] = {
    "picture": ("max_tokens", "longest_side"),
    "document": tuple(_DOCUMENT_OPTIONS),
    "video": ("fps", "num_frames", "start", "end", "max_tokens"),
}
"""What is shown -> keys of a block, or of its `extras`, that tell what of it is sent, and how: the
keyword arguments of `image.prepare`, `document.pages` and `video.clip`."""

DETAILS: Mapping[str, Mapping[str, Any]] = {"low": {"longest_side": 512}}
"""OpenAI's `detail` of a picture -> options. OpenAI fits "low" into a square of 512 pixels; "high"
and "auto" are what is sent anyway: all that the model can see."""


_BASE64 = re.compile(rb"[A-Za-z0-9+/=\s]+")
_HEAD = 1024  # bytes that tell base64 from a file


@dataclass(frozen=True, slots=True)
class Medium:
    """What a content block shows.

    Attributes:
        kind: "picture", "document" or "video".
        source: Its path or URL; `bytes`, a `data:` URL, or a PIL image (of a picture only), if the
            block has the content itself.
        options: How to send it: see `OPTIONS`.
        name: The name of its file, if the block gives one beside the content.
        keeps: Whether what is prepared of it is kept, for questions that show it again.
        fetched: Its content, if it is in the network and was fetched already.
    """

    kind: Kind
    source: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    keeps: bool = True
    fetched: "Fetched | None" = field(default=None, compare=False, repr=False)

    @property
    def shown(self) -> str:
        """What error messages call it."""
        if self.name:
            return repr(self.name)
        return image.name_of(self.source) if self.is_object else name_of(self.source, self.kind)

    @property
    def is_object(self) -> bool:
        """Whether the content is an image of PIL's, which may change."""
        return image.is_pil_image(self.source)

    @property
    def is_inline(self) -> bool:
        """Whether the block has the content itself."""
        return self.is_object or isinstance(self.source, bytes) or scheme(self.source) == "data"

    @property
    def is_local(self) -> bool:
        """Whether the content is in a file of this machine."""
        return not self.is_inline and scheme(self.source) in ("", "file")

    @property
    def is_remote(self) -> bool:
        """Whether the content is in the network."""
        return not self.is_inline and is_remote(self.source)

    def read(self, *, allow_hosts: Collection[str] = ()) -> bytes:
        """Read the content: of a remote medium it is fetched, of a PIL image it is a PNG.

        Args:
            allow_hosts: Hosts that may be fetched from though they are not public.

        Raises:
            MediaError: If it cannot be read.
        """
        if self.is_object:
            return image.to_png(self.source)
        return read(self.source, self.kind, allow_hosts=allow_hosts)


def medium(block: Any) -> Medium | None:
    """Find what a content block shows; None if it is of another type, or shows nothing.

    Raises:
        UnsupportedMediaError: If an option of a document is of a wrong type.
        MediaError: If it has too many bytes.
    """
    if (kind := kind_of(block)) is None:
        return None
    fields = _fields(block)
    source = _source(fields, str(block["type"]))
    if source is None:
        return None
    given = {**_mapping(block.get("extras")), **block}
    name = fields.get("filename") or given.get("filename")
    return Medium(
        kind,
        source,
        _options(given, kind),
        name=name if isinstance(name, str) else None,
        keeps=given.get("keep") is not False,
    )


def kind_of(block: Any) -> Kind | None:
    """What a content block should show, by its type; None if it is of another."""
    return KINDS.get(str(block.get("type"))) if isinstance(block, Mapping) else None


def _source(fields: Mapping[str, Any], type_: str) -> Any:
    if isinstance(text := fields.get("base64"), str):
        return f"data:;base64,{text}"
    names = ("base64", "url", "path", type_)
    name = next((name for name in names if fields.get(name) is not None), None)
    if name is None:
        return None
    if image.is_pil_image(fields[name]):
        return fields[name] if KINDS[type_] == "picture" else None
    try:
        source = plain(fields[name], KINDS[type_])
    except UnsupportedMediaError:
        return None
    if name == "base64" and isinstance(source, bytes) and _BASE64.fullmatch(source, 0, _HEAD):
        return f"data:;base64,{source.decode('ascii', 'replace')}"
    return source


def _options(given: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    detail = {**given, **_mapping(given.get("image_url"))}.get("detail")
    given = {**DETAILS.get(str(detail), {}), **given}
    options = {name: given[name] for name in OPTIONS[kind] if given.get(name) is not None}
    if kind == "document":
        _check_document_options(options)
    return options


def _check_document_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        types, form = _DOCUMENT_OPTIONS[name]
        items = value if isinstance(value, list) else ()
        if type(value) not in types or any(type(item) is not int for item in items):
            raise UnsupportedMediaError(
                f"a document has {name} of type {type(value).__name__}: write {form}"
            )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _fields(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """The block in LangChain's form."""
    match block:
        case {"image_url": {"url": url}} | {"image_url": str(url)}:
            return {"url": url}
        case {"video_url": {"url": url}} | {"video_url": str(url)}:
            return {"url": url}
        case {"source": {"type": "base64", "data": data}}:
            return {"base64": data}
        case {"source": {"url": url}}:
            return {"url": url}
        case {"file": {"file_data": str(data)} as file}:
            return {"filename": file.get("filename"), "url" if scheme(data) else "base64": data}
        case _:
            return block
