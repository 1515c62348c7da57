"""Hugging Face's hub, and its cache, which transformers and vLLM use too.

`huggingface_hub` does what is about the hub: addresses, tokens, the cache's layout, and so all its
variables hold (`HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_TOKEN`). Two things
it does not do, as of version 2.4: a transfer that its process did not live to finish starts again
at the first byte (github.com/huggingface/huggingface_hub/issues/4196), and of what arrives only the
length is checked. Weights come in files of 5 GB, so they are transferred here, by its `http_get`:
under the lock that it takes too, into a file beside the blob that its older versions go on with.
"""

import contextlib
import io
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from langchain_glm4v._version import __version__
from langchain_glm4v.errors import ModelNotFoundError, WeightsError
from langchain_glm4v.server.hub import HubAwayError, RemoteFile, Stopped
from langchain_glm4v.server.preflight import folder_hint

LISTING_TIMEOUT = 5.0  # seconds; a start with everything in the cache waits no longer for the hub
ATTEMPTS = 5  # in a row that bring nothing, before a transfer is given up
_PASSING = 500  # HTTP status from which on the same request may do better later
_LOCK_PATIENCE = 0.5  # seconds between two looks at whether to stop waiting for a lock
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_USER_AGENT = f"langchain-glm4v/{__version__}"


class HuggingFace:
    """A repository on Hugging Face; see `Hub`."""

    title = "Hugging Face"

    def __init__(self, repository: str, revision: str | None) -> None:
        self.repository = repository
        self.cache = Path(constants.HF_HUB_CACHE)
        self._revision = revision or constants.DEFAULT_REVISION
        self.is_pinned = bool(_COMMIT.fullmatch(self._revision))
        self._commit = self._revision if self.is_pinned else None
        try:
            self._name = repo_folder_name(repo_id=repository, repo_type="model")
        except HFValidationError as error:
            message = f"{repository!r} is no id of a repository on {self.title}: {error}"
            raise ModelNotFoundError(message) from error

    def files(self) -> list[RemoteFile]:
        """All files at the top of the repository."""
        try:
            found = HfApi(user_agent=_USER_AGENT).model_info(
                self.repository,
                revision=self._revision,
                files_metadata=True,
                timeout=LISTING_TIMEOUT,
            )
        except Exception as error:
            raise self._explained(error) from error
        if not _COMMIT.fullmatch(found.sha or ""):  # it becomes the name of a folder
            message = (
                f"{constants.ENDPOINT} tells no commit of {self.repository!r}: "
                "give another HF_ENDPOINT"
            )
            raise WeightsError(message)
        self._commit = found.sha
        files = []
        for sibling in found.siblings or ():
            digest = (sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or ""
            # The digest becomes a file's name, and a mirror is anybody's.
            if sibling.size is None or not _DIGEST.fullmatch(digest):
                message = (
                    f"{constants.ENDPOINT} tells no length or checksum of "
                    f"{sibling.rfilename!r} in {self.repository!r}: give another HF_ENDPOINT"
                )
                raise WeightsError(message)
            if "/" not in sibling.rfilename:
                files.append(RemoteFile(sibling.rfilename, sibling.size, digest))
        return files

    def folder(self) -> Path | None:
        """Where files of this revision lie, complete or not."""
        if self._commit:
            return folder if (folder := self._snapshot()).is_dir() else None
        found = try_to_load_from_cache(self.repository, "config.json", revision=self._revision)
        return Path(found).parent if isinstance(found, str) else None

    def known(self) -> list[RemoteFile]:
        """What the names of the blobs tell."""
        folder = self.folder()
        return [
            RemoteFile(path.name, path.stat().st_size, blob.name)
            for path in (folder.iterdir() if folder else ())
            if path.exists() and (blob := _linked(path)) and _DIGEST.fullmatch(blob.name)
        ]

    def has(self, file: RemoteFile) -> bool:
        """Whether the cache holds the file, by its size."""
        return _size(self._snapshot() / file.name) == file.size

    def arrived(self, file: RemoteFile) -> int:
        """Bytes of the file in the cache."""
        if self.has(file):
            return file.size
        blob = self._blob(file)
        return min(file.size, _size(blob) or _size(_partial(blob)) or 0)

    def get(self, file: RemoteFile, stop: threading.Event) -> None:
        """Get a file, and check its digest."""
        try:
            if file.has_sha256:
                self._get_blob(file, stop)
            path = hf_hub_download(
                self.repository,
                file.name,
                revision=self._commit,
                tqdm_class=_NoBar,
                user_agent=_USER_AGENT,
            )
        except Exception as error:
            raise self._explained(error) from error
        if not file.has_sha256 and not file.is_in(Path(path)):
            self.discard(file.name)
            raise self._damaged(file)

    def discard(self, name: str) -> None:
        """Remove a damaged file, and the blob that its name leads to."""
        link = self._snapshot() / name
        if blob := _linked(link):
            blob.unlink(missing_ok=True)
        link.unlink(missing_ok=True)

    def settle(self) -> None:
        """Let the revision mean this commit from now on.

        Not before, so that after an update that broke off, the old files can still be used.
        """
        reference = self.cache / self._name / "refs" / self._revision
        if self.is_pinned or (reference.exists() and reference.read_text() == self._commit):
            return
        with contextlib.suppress(OSError):  # a cache that may only be read
            reference.parent.mkdir(parents=True, exist_ok=True)
            new = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
            new.write_text(str(self._commit))
            new.replace(reference)

    def _snapshot(self) -> Path:
        return self.cache / self._name / "snapshots" / str(self._commit)

    def _blob(self, file: RemoteFile) -> Path:
        return self.cache / self._name / "blobs" / file.digest

    def _get_blob(self, file: RemoteFile, stop: threading.Event) -> None:
        blob = self._blob(file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(file, stop):
            if _size(blob) == file.size:
                return
            resumed = bool(_size(_partial(blob)))
            self._transfer(file, stop)
            if resumed and not file.is_in(_partial(blob)):  # the old part may be what is wrong
                _partial(blob).unlink()
                self._transfer(file, stop)
            if not file.is_in(_partial(blob)):
                _partial(blob).unlink()
                raise self._damaged(file)
            _partial(blob).replace(blob)

    @contextlib.contextmanager
    def _locked(self, file: RemoteFile, stop: threading.Event) -> Iterator[None]:
        path = self.cache / ".locks" / self._name / f"{file.digest}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, mode=0o664)  # as huggingface_hub: others of the group may wait too
        while not lock.is_locked:
            if stop.is_set():
                raise Stopped
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=_LOCK_PATIENCE)
        try:
            yield
        finally:
            lock.release()

    def _transfer(self, file: RemoteFile, stop: threading.Event) -> None:
        url = hf_hub_url(self.repository, file.name, revision=self._commit)
        fruitless = 0
        with _Part(_partial(self._blob(file)), stop) as part:
            if part.tell() > file.size:
                part.truncate(0)
            while (before := part.seek(0, os.SEEK_END)) < file.size:
                try:
                    http_get(
                        url,
                        part,
                        resume_size=before,
                        headers=build_hf_headers(user_agent=_USER_AGENT),
                        expected_size=file.size,
                        tqdm_class=_NoBar,
                    )
                except WeightsError:
                    raise
                except Exception as error:  # not all that break off are tried again there
                    fruitless = 0 if part.seek(0, os.SEEK_END) > before else fruitless + 1
                    if fruitless == ATTEMPTS or 0 < _status(error) < _PASSING:
                        raise
                    stop.wait(fruitless)  # seconds

    def _damaged(self, file: RemoteFile) -> WeightsError:
        return WeightsError(
            f"what {constants.ENDPOINT} gave as {file.name!r} of {self.repository!r} has another "
            "checksum than announced: try again; if it stays so, a proxy or mirror alters files, "
            "so give another HF_ENDPOINT"
        )

    def _explained(self, error: Exception) -> Exception:
        page = f"{constants.ENDPOINT}/{self.repository}"
        status = _status(error)
        kind: type[Exception] = WeightsError
        match error:
            case WeightsError():
                message = str(error)
            case GatedRepoError():
                message = (
                    f"{self.repository!r} is given only to those whom its owners let in: ask for "
                    f"it at {page}, then set HF_TOKEN to a token of yours"
                )
            case RevisionNotFoundError():
                kind = ModelNotFoundError
                message = (
                    f"{self.repository!r} has no revision {self._revision!r}: give a branch, tag "
                    f"or commit of {page}/commits/main"
                )
            case RepositoryNotFoundError():
                kind = ModelNotFoundError
                message = (
                    f"{self.title} has no model {self.repository!r}, or it is private and HF_TOKEN "
                    f"is not set to a token that may read it{folder_hint(self.repository)}"
                )
            case OfflineModeIsEnabled():
                kind, message = HubAwayError, "HF_HUB_OFFLINE is set"
            case HfHubHTTPError() if status in {401, 403}:
                message = (
                    f"{constants.ENDPOINT} refuses {self.repository!r} (status {status}): check "
                    "that HF_TOKEN is valid and may read it"
                )
            case OSError() if error.errno is not None:
                message = (
                    f"the cache {str(self.cache)!r} cannot be written ({error.strerror}): free "
                    "space there or set HF_HOME to a folder that you may write to"
                )
            case _:
                kind = HubAwayError
                said = (str(error).strip().splitlines() or [""])[0]
                message = f"{constants.ENDPOINT}: {type(error).__name__}: {said}"
        return kind(message)


class _Part(io.FileIO):
    """A file that grows; unbuffered, so that what has arrived is on the disk."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        super().__init__(path, "ab")
        self._stop = stop

    def write(self, data: Any) -> int:
        """Append all of `data`."""
        if self._stop.is_set():
            raise Stopped
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            message = (
                f"{str(self.name)!r} cannot be written ({error.strerror}): free space there or set "
                "HF_HOME to a folder on a larger disk; what has arrived stays"
            )
            raise WeightsError(message) from error
        return len(data)


class _NoBar:
    """Stands in for the progress bars that huggingface_hub would print."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> "_NoBar":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: float | None = 1) -> None:
        """Print nothing."""

    def close(self) -> None:
        """Close nothing."""


def _status(error: Exception) -> int:
    """HTTP status that an error tells of; 0 if it is about something else."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _partial(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.incomplete")


def _linked(path: Path) -> Path | None:
    """The blob that a name leads to; it may lead on, to a store that several caches share."""
    return path.parent / path.readlink() if path.is_symlink() else None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
