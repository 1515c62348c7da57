"""Remembers which media a server has, so that each of them is sent once.

vLLM keeps the pictures it has prepared under a name of the client's, `uuid`, and takes the name
alone for a picture that it still has. Where it has forgotten it, it says so, and the request goes
out again with all media.

A name is a hash with a secret of the user, which all their programs have: one finds in the server's
caches what another has put there, and whoever else shares the server cannot put another picture
under a name that is ours.
"""

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cache
from typing import Any

from langchain_glm4v.errors import ServerStartError
from langchain_glm4v.server import sharing
from langchain_glm4v.turns import Part, Turn, VideoPart, is_medium, parts_of

_MOST = 4096  # names that are kept of a server; vLLM itself keeps 4 GiB of prepared media
_MOST_FAILURES = 2
_MISSED = "cache miss"  # in what vLLM says if it has no medium of a name


def named(wire: Sequence[Turn], salt: str | None) -> list[Turn]:
    """Give each medium that is in the request itself a name, made of its content.

    Args:
        wire: Messages of a request.
        salt: Keeps names apart from those of other salts.
    """
    key = hashlib.blake2b(_secret() + (salt or "").encode(), digest_size=32).digest()
    return [
        turn
        if isinstance(turn["content"], str)
        else {**turn, "content": [_named(part, key) for part in turn["content"]]}
        for turn in wire
    ]


@cache
def _secret() -> bytes:
    """The user's secret; one of this process alone where none can be kept."""
    try:
        return sharing.secret()
    except (OSError, ServerStartError):
        return secrets.token_bytes(sharing.SECRET_BYTES)


def _named(part: Part, key: bytes) -> Part:
    url = part[part["type"]]["url"] if is_medium(part) else ""
    if not url.startswith("data:"):
        return part
    named_part = copy(part)  # of its own class, which may know more of the medium
    content = hashlib.blake2b(url.encode(), key=key, digest_size=16)
    if isinstance(part, VideoPart):
        # The same frames of a film that stands still may be of other seconds.
        content.update(repr(sorted(part.clip.media_io_kwargs.items())).encode())
    named_part["uuid"] = content.hexdigest()
    return named_part


class Uploads:
    """The media that one server has, as far as this process knows. Safe for threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()
        self._failures = 0
        self._lock = threading.Lock()

    def without_known(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request without the content of media that the server has; itself if it has none."""
        with self._lock:
            known = {name for name in _names(payload["messages"]) if name in self._known}
        if not known or self._failures >= _MOST_FAILURES:
            return payload
        return {**payload, "messages": [_lightened(turn, known) for turn in payload["messages"]]}

    def note_sent(self, payload: Mapping[str, Any]) -> None:
        """Take in that the server has accepted a request."""
        with self._lock:
            for name in _names(payload["messages"]):
                self._known[name] = None
                self._known.move_to_end(name)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)

    def note_missed(self, payload: Mapping[str, Any], refusal: str) -> None:
        """Take in that the server refused a request lightened, and accepted it whole.

        Args:
            payload: The request.
            refusal: What it said. If it is not that it has forgotten a medium, and that comes
                twice, it does not go by names, and is sent all media from now on.
        """
        with self._lock:
            for name in _names(payload["messages"]):
                self._known.pop(name, None)
            self._failures += _MISSED not in refusal.lower()

    def forget(self) -> None:
        """Forget what the server has, after an error in the midst of a reply."""
        with self._lock:
            self._known.clear()


def _names(wire: Iterable[Turn]) -> Iterator[str]:
    return (part["uuid"] for turn in wire for part in parts_of(turn) if "uuid" in part)


def _lightened(turn: Turn, known: set[str]) -> Turn:
    if isinstance(turn["content"], str):
        return turn
    parts = [
        {**part, part["type"]: None} if part.get("uuid") in known else part
        for part in turn["content"]
    ]
    return {**turn, "content": parts}
