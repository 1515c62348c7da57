"""What the start wants of a model hub; `huggingface.py` and `modelscope.py` give it."""

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_SHA256_DIGITS = 64


class HubAwayError(Exception):
    """The hub could not be asked; the text says why."""


class Stopped(BaseException):
    """Ends a transfer that nobody waits for any more; no library may take it for a fault."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        name: Its name.
        size: In bytes.
        digest: Its SHA-256 in 64 hexadecimal digits, or git's SHA-1 in 40 for a file that git keeps
            itself; "" where the hub tells none.
    """

    name: str
    size: int
    digest: str

    @property
    def has_sha256(self) -> bool:
        """Whether `digest` is a SHA-256."""
        return len(self.digest) == _SHA256_DIGITS

    def is_in(self, path: Path) -> bool:
        """Whether the file at `path` is this one, byte for byte; reads all of it."""
        try:
            if path.stat().st_size != self.size:
                return False
            with path.open("rb") as stream:
                if self.has_sha256:
                    return hashlib.file_digest(stream, "sha256").hexdigest() == self.digest
                content = stream.read() if self.digest else b""
        except OSError:
            return False
        header = b"blob %d\0" % self.size
        return not self.digest or hashlib.sha1(header + content).hexdigest() == self.digest


class Hub(Protocol):
    """One repository on a model hub, at one revision.

    Attributes:
        title: What people call the hub.
        repository: Id of the repository on this hub.
        cache: Folder that the hub's library keeps files in.
        is_pinned: Whether the revision can never mean other files.
    """

    title: str
    repository: str
    cache: Path
    is_pinned: bool

    def files(self) -> list[RemoteFile]:
        """All files at the top of the repository.

        Raises:
            HubAwayError: The hub cannot be asked.
            ModelNotFoundError: It has no such repository or revision.
            WeightsError: It does not give the repository to this user.
        """

    def folder(self) -> Path | None:
        """Where files of this revision lie, complete or not; None if there are none."""

    def known(self) -> list[RemoteFile]:
        """What can be told of the files in `folder()` without the hub."""

    def has(self, file: RemoteFile) -> bool:
        """Whether the cache holds the file, by its size and without reading it."""

    def arrived(self, file: RemoteFile) -> int:
        """Bytes of the file in the cache, those of a broken-off transfer included."""

    def get(self, file: RemoteFile, stop: threading.Event) -> None:
        """Get a file, from where a broken-off transfer ended, and check its digest.

        Waits where another process is getting it. Called in several threads at once.

        Raises:
            Stopped: `stop` was set; what has arrived stays for the next time.
            HubAwayError: The transfer broke off.
            WeightsError: What arrived is not what the hub announced, or cannot be written.
        """

    def discard(self, name: str) -> None:
        """Remove a damaged file from the cache."""

    def settle(self) -> None:
        """Note that all files of this revision are there and whole."""
