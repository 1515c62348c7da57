"""Messages that ask about media."""

import base64
import os
from collections.abc import Collection, Mapping
from typing import Any

from langchain_core.messages import HumanMessage

from langchain_glm4v.media import sniffing
from langchain_glm4v.media.source import Given, scheme
from langchain_glm4v.media_blocks import Kind, Medium
from langchain_glm4v.messages import medium_of
from langchain_glm4v.preparation import Preparation

_TYPES: Mapping[Kind, str] = {"picture": "image", "document": "file", "video": "video"}


def question_about(text: str, *media: Given, allow_hosts: Collection[str] = ()) -> HumanMessage:
    """Write a message that asks about media.

    They stand before the text, in the order given: another question about the same media then finds
    them in the prefix cache of vLLM.

    Args:
        text: The question.
        *media: What it is about: paths, URLs, bytes, `Blob`s of LangChain's or PIL images, of which
            the first bytes tell whether they are pictures, documents or videos. Or content blocks,
            which may have options: `{"type": "file", "path": "scan.pdf", "pages": "1-3"}`.
        allow_hosts: Hosts that may be fetched from though they are not public.

    Returns:
        A message for `ChatGLM4V`. Files are named by their paths, and read when it is sent; bytes
        are in it as base64.

    Raises:
        MediaNotFoundError: If a path or URL leads nowhere.
        UnsupportedMediaError: If one is of a kind that cannot be sent, or cannot be told.
        MediaError: If one cannot be read.
    """
    preparation = Preparation(allow_hosts=allow_hosts)
    blocks = [_block(one, preparation) for one in media]
    return HumanMessage([*blocks, {"type": "text", "text": text}])


def _block(given: Any, preparation: Preparation) -> dict[str, Any]:
    if isinstance(given, Mapping):
        medium_of(given)  # tells what is wrong with it
        return dict(given)
    medium = preparation.recognised(given)
    if medium.fetched:
        preparation.parts(medium)  # and keeps them, so that it need not be fetched again
    return {"type": _TYPES[medium.kind], **_content(medium)}


def _content(medium: Medium) -> dict[str, Any]:
    """The keys of a block that hold a medium."""
    source = medium.source
    if medium.is_object:
        return {"image": source}
    if isinstance(source, bytes):
        text = base64.b64encode(source).decode("ascii")
        return {"base64": text, "mime_type": sniffing.mime_type(source)}
    name = os.fspath(source)
    return {"url" if scheme(source) else "path": name}
