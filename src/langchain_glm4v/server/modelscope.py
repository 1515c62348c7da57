"""ModelScope, and its cache, by its own library `modelscope_hub`.

The library goes on with broken-off transfers, compares SHA-256s and locks. Its variables hold
(`MODELSCOPE_ENDPOINT`, `MODELSCOPE_CACHE`, `MODELSCOPE_API_TOKEN`). It knows what it has by reading
it, though, 20 GB at each start: so what it compared is noted in a file beside the weights.
"""

import contextlib
import json
import os
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
from modelscope_hub import (
    AuthenticationError,
    CacheNotFound,
    FileDownloadError,
    FileIntegrityError,
    HubApi,
    InvalidParameter,
    NotExistError,
    PermissionDeniedError,
    get_default_config,
)

from langchain_glm4v.errors import ModelNotFoundError, WeightsError
from langchain_glm4v.server.hub import HubAwayError, RemoteFile, Stopped
from langchain_glm4v.server.preflight import folder_hint

ASKING_TIMEOUT = 5.0  # seconds
NOTES = ".glm4v-compared.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class ModelScope:
    """A repository on ModelScope; see `Hub`."""

    title = "ModelScope"

    def __init__(self, repository: str, revision: str | None) -> None:
        self.repository = repository
        config = get_default_config()
        self.cache = Path(config.cache_dir)
        self.is_pinned = bool(revision and _COMMIT.fullmatch(revision))
        self._endpoint = config.endpoint
        self._revision = revision
        self._api = HubApi()
        self._arriving: Counter[str] = Counter()
        self._noting = threading.Lock()

    def files(self) -> list[RemoteFile]:
        """All files at the top of the repository."""
        try:
            # The library would try for 9 s, during which a start without a network stands still.
            httpx2.head(str(self._endpoint), timeout=ASKING_TIMEOUT)
            found = self._api.list_repo_files(
                self.repository, "model", revision=self._revision, recursive=False
            )
        except Exception as error:
            raise self._explained(error) from error
        return [
            RemoteFile(file.path, file.size, (file.sha256 or "").lower())
            for file in found
            if not file.is_dir and "/" not in file.path
        ]

    def folder(self) -> Path | None:
        """Where files of this revision lie, complete or not."""
        try:
            folder = self._api.download_repo(
                self.repository, "model", revision=self._revision, local_files_only=True
            )
        except CacheNotFound:
            return None
        return Path(folder)

    def known(self) -> list[RemoteFile]:
        """What was noted."""
        folder = self.folder()
        return [
            RemoteFile(name, (folder / name).stat().st_size, digest)
            for name, digest in (_notes(folder) if folder else {}).items()
            if folder and (folder / name).exists()
        ]

    def has(self, file: RemoteFile) -> bool:
        """Whether the cache holds the file, by its size and what was noted."""
        folder = self.folder()
        if folder is None:
            return False
        path = folder / file.name
        noted = _notes(folder).get(file.name, file.digest)
        return path.is_file() and path.stat().st_size == file.size and noted == file.digest

    def arrived(self, file: RemoteFile) -> int:
        """Bytes of the file in the cache, or that arrived while this program runs."""
        return file.size if self.has(file) else min(file.size, self._arriving[file.name])

    def get(self, file: RemoteFile, stop: threading.Event) -> None:
        """Get a file, and check its digest."""
        arriving = self._arriving

        class Count:
            def __init__(self, *_: object) -> None:
                pass

            def update(self, size: int) -> None:
                if stop.is_set():
                    raise Stopped
                arriving[file.name] += size

            def end(self) -> None:
                pass

        callbacks: Any = [Count]  # what it asks for is a base class, of which it uses no more
        try:
            folder = self._api.download_repo(
                self.repository,
                "model",
                revision=self._revision,
                allow_patterns=[file.name],
                max_workers=1,
                progress_callbacks=callbacks,
            )
        except FileDownloadError as error:
            reason = next(iter(error.failed_files.values()), error)
            raise self._explained(reason) from error
        except Exception as error:
            raise self._explained(error) from error
        self._note(Path(folder), file.name, file.digest)

    def discard(self, name: str) -> None:
        """Remove a damaged file."""
        if folder := self.folder():
            (folder / name).unlink(missing_ok=True)
            self._note(folder, name, None)

    def settle(self) -> None:
        """Nothing to note: a revision is a folder here."""

    def _note(self, folder: Path, name: str, digest: str | None) -> None:
        with self._noting, contextlib.suppress(OSError):
            notes = {**_notes(folder), name: digest}
            new = folder / f"{NOTES}.{os.getpid()}"
            new.write_text(json.dumps({name: known for name, known in notes.items() if known}))
            new.replace(folder / NOTES)

    def _explained(self, error: BaseException) -> BaseException:
        match error:
            case Stopped():
                return error
            case NotExistError() | InvalidParameter():
                revision = f" with revision {self._revision!r}" if self._revision else ""
                return ModelNotFoundError(
                    f"{self.title} has no model {self.repository!r}{revision}, or it is private "
                    "and MODELSCOPE_API_TOKEN is not set to a token that may read it"
                    f"{folder_hint(self.repository)}"
                )
            case AuthenticationError() | PermissionDeniedError():
                return WeightsError(
                    f"{self._endpoint} refuses {self.repository!r}: set MODELSCOPE_API_TOKEN to a "
                    "token that may read it"
                )
            case FileIntegrityError():
                return WeightsError(
                    f"what {self._endpoint} gives of {self.repository!r} has another length or "
                    f"checksum than announced ({_first_line(error)}): try again later, or give "
                    "source='huggingface'"
                )
            case OSError() if error.errno is not None and error.strerror:
                return WeightsError(
                    f"the cache {str(self.cache)!r} cannot be written ({error.strerror}): free "
                    "space there or set MODELSCOPE_CACHE to a folder that you may write to"
                )
        return HubAwayError(f"{self._endpoint}: {type(error).__name__}: {_first_line(error)}")


def _notes(folder: Path) -> dict[str, Any]:
    try:
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
