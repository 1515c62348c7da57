"""Keeps big media out of traces, checkpoints and cache keys."""

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from pydantic import BaseModel

from langchain_glm4v import media_blocks
from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import source

LONG = 1_000
"""Characters of base64 that are left as they are, at most."""

_BASE64_KEYS = frozenset({"base64", "data", "file_data"})
_BASE64 = re.compile(r"[A-Za-z0-9+/_\r\n-]++=*+\s*")
# Possessive throughout, so that no text takes long. Lines are those of MIME and PEM: after a longer
# line a text follows.
_DATA_URL = re.compile(
    r"data:([\w.+/-]{0,100}+)(?:;(?!base64,)[^;,\s\"']{0,100}+){0,5}+;base64,"
    r"(?:[A-Za-z0-9+/_%-]{76}\r?\n|[A-Za-z0-9+/_%-]{64}\r?\n)*+[A-Za-z0-9+/_%-]*+=*+"
)

# First bytes -> the end of a file's name.
_EXTENSIONS = {
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "jpg",
    b"RIFF": "webp",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"%PDF": "pdf",
}


def redact(value: Any) -> Any:
    """Replace big base64 media by short references.

    For LangSmith: `Client(hide_inputs=redact, hide_outputs=redact)` keeps pictures out of traces.

    Args:
        value: Anything of dicts, lists, strings, messages and other pydantic models.

    Returns:
        A copy in which every `data:` URL, `base64` or `data` field (Anthropic's sources too),
        `file_data` field and every value in bytes of more than 1,000 characters is a text such as
        "[image/png, 12,345 bytes, sha256 3f2a…]". A `password` is left out.
    """
    match value:
        case str():
            return _DATA_URL.sub(_url_reference, value) if len(value) > LONG else value
        case bytes():
            return _reference("data", value) if len(value) > LONG else value
        case Mapping():
            return {key: _redact_field(value, key) for key in value}
        case list() | tuple():
            items = [redact(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        case BaseModel():
            return value.model_copy(update=redact(dict(value)))
        case _:
            return value


def to_files(messages: Sequence[BaseMessage], folder: str | os.PathLike[str]) -> list[BaseMessage]:
    """Move the media inside messages into files, so that checkpoints and histories stay small.

    Args:
        messages: The messages; they are not changed.
        folder: Where the files go, made if it is not there. A file is named after the SHA-256 of
            its content, is written once, and only its owner may read it.

    Returns:
        Copies of the messages, in which each picture, PDF or video given as base64, `data:` URL or
        PIL image is a block with the absolute `path` of its file. `ChatGLM4V` reads it from there.

    Raises:
        UnsupportedMediaError: If a medium is not valid base64.
        MediaError: If a file cannot be written.
    """
    home = Path(folder).expanduser().resolve()
    return [_with_files(message, home) for message in messages]


def media_digest(messages: Sequence[BaseMessage]) -> str:
    """Hash the content of all media that the text of messages does not show.

    These are files named by a path, PIL images, and what stands there in bytes. Two conversations
    that look the same can differ in what they hold, so a cache needs this beside the messages. What
    cannot be read counts as such: the call itself will tell, and better.

    Returns:
        Hexadecimal digits; "" if there are no such media.
    """
    contents = [
        _digest(medium)
        for message in messages
        if not isinstance(message.content, str)
        for block in message.content
        if (medium := media_blocks.medium(block))
        and (medium.is_local or not isinstance(medium.source, str))
    ]
    return hashlib.sha256(b"".join(contents)).hexdigest() if contents else ""


def _digest(medium: media_blocks.Medium) -> bytes:
    try:
        if medium.is_inline:
            return hashlib.sha256(medium.read()).digest()
        with source.local_file(medium.source, medium.kind) as path, path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (MediaError, OSError):
        return b""


def _redact_field(holder: Mapping[str, Any], key: str) -> Any:
    value = holder[key]
    if key == "password" and isinstance(value, str):
        return "[password]"
    if (
        key in _BASE64_KEYS
        and isinstance(value, str)
        and len(value) > LONG
        and _BASE64.fullmatch(value)
    ):
        names = (holder.get(name) for name in ("mime_type", "media_type", "type"))
        return _reference(next(filter(None, names), "data"), _decoded(value))
    return redact(value)


def _url_reference(found: re.Match[str]) -> str:
    url = found[0]
    if len(url) <= LONG:
        return url
    return _reference(found[1] or "data", _decoded(url.partition(",")[2]))


def _decoded(base64: str) -> bytes:
    try:
        return source.decode_data_url(f"data:;base64,{base64}", "medium")
    except UnsupportedMediaError:  # a reference to what is there, be it broken
        return base64.encode()


def _reference(kind: str, data: bytes) -> str:
    return f"[{kind}, {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}…]"


def _with_files(message: BaseMessage, folder: Path) -> BaseMessage:
    if isinstance(message.content, str):
        return message.model_copy()
    content = [_with_file(block, folder) for block in message.content]
    return message.model_copy(update={"content": content})


def _with_file(block: Any, folder: Path) -> Any:
    medium = media_blocks.medium(block)
    if medium is None or not medium.is_inline:
        return block
    kept = {key: value for key, value in block.items() if key not in media_blocks.KEYS}
    kind = {"document": "file", "picture": "image", "video": "video"}[medium.kind]
    return {**kept, "type": kind, "path": str(_store(medium.read(), folder))}


def _store(data: bytes, folder: Path) -> Path:
    extension = next((end for start, end in _EXTENSIONS.items() if data.startswith(start)), "bin")
    path = folder / f"{hashlib.sha256(data).hexdigest()}.{extension}"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Under another name first, so that nobody ever reads half a file; mkstemp gives mode 0600.
        descriptor, part = tempfile.mkstemp(dir=folder, prefix=".part-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MediaError(
            f"cannot write a medium of {len(data)} bytes to {folder}: {error.strerror}"
        ) from error
    return path
