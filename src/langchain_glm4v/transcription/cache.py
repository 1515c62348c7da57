"""Pages that were read already, in an SQLite file: what a killed run has done is not done again.

A page is known by its pixels and by all that its text depends on, never by the name of its file.
Each is written in a transaction of its own, so a file never holds half of one.
"""

import errno
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from langchain_glm4v.errors import CacheError
from langchain_glm4v.transcription.records import Reading

VERSION = 1
"""Of the file; another is refused."""

_BUSY_SECONDS = 10.0  # for another process that writes
_BUSY_LOOK = 0.01  # seconds
# In one statement, so that both are of one moment.
_FOUND = "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
_CREATE = """
CREATE TABLE IF NOT EXISTS pages (
    key BLOB PRIMARY KEY,
    reading TEXT NOT NULL,
    written REAL NOT NULL
) WITHOUT ROWID
"""


def key_of(picture: bytes, depends_on: Mapping[str, Any]) -> bytes:
    """What a page is known by.

    Args:
        picture: The picture of the page.
        depends_on: All else that its text depends on, of JSON's types.
    """
    told = json.dumps(depends_on, sort_keys=True).encode()
    pixels = hashlib.blake2b(picture, digest_size=32).digest()
    return hashlib.blake2b(pixels + told, digest_size=32).digest()


class PageCache:
    """Readings of pages in a file. Safe for threads, and for several processes at once.

    Args:
        path: The file; it is made, with its folder, if there is none.

    Raises:
        CacheError: The file cannot be opened, or is none of this kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One connection, guarded by the lock, for all threads. Transactions are our own, for
            # sqlite3 would begin none before a table is made.
            self._database = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise self._failed("opened", error) from error
        try:
            self._begin()
        except sqlite3.Error as error:
            self._database.close()
            raise self._failed("opened", error) from error
        except CacheError:
            self._database.close()
            raise

    def _begin(self) -> None:
        self._check()  # before anything is written to what may be another program's
        self._keep_a_log()
        with self._database:
            # At once or not at all: another process may be at it, and this one may be killed.
            self._database.execute("BEGIN IMMEDIATE")
            self._check()
            self._database.execute(_CREATE)
            self._database.execute(f"PRAGMA user_version={VERSION}")

    def _keep_a_log(self) -> None:
        """Let readers not wait for writers, and a commit be one write at the end of a file."""
        end = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                # For this, SQLite itself does not wait until others have begun the file.
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(_BUSY_LOOK)
            else:
                return

    def _check(self) -> None:
        found, tables = self._database.execute(_FOUND).fetchone()
        if found != VERSION and (found or tables):
            raise CacheError(
                f"{str(self.path)!r} is no cache of pages of this version: name another file, or "
                "remove it"
            )

    def get(self, key: bytes) -> Reading | None:
        """The reading of a page; None if there is none, or none that can be read.

        Raises:
            CacheError: The file cannot be read.
        """
        try:
            with self._lock:
                row = self._database.execute(
                    "SELECT reading FROM pages WHERE key = ?", (key,)
                ).fetchone()
        except sqlite3.Error as error:
            raise self._failed("read", error) from error
        try:
            return row and Reading.from_json(row[0])
        except ValueError:
            return None

    def put(self, key: bytes, reading: Reading) -> None:
        """Keep a reading; it is in the file when this returns.

        Raises:
            CacheError: The file cannot be written.
        """
        row = (key, reading.to_json(), time.time())
        try:
            with self._lock, self._database:
                self._database.execute("INSERT OR REPLACE INTO pages VALUES (?, ?, ?)", row)
        except sqlite3.Error as error:
            raise self._failed("written", error) from error

    def __len__(self) -> int:
        """How many pages there are."""
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM pages").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _failed(self, what: str, error: Exception) -> CacheError:
        return CacheError(
            f"the cache of pages {str(self.path)!r} cannot be {what}: {error}; {_remedy(error)}"
            "name another file, or go on without a cache"
        )


def _remedy(error: Exception) -> str:
    """What to do about an error, beside what can always be done."""
    # The lowest byte tells the kind, as it does of those that SQLite tells apart further.
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"another process has it locked for more than {_BUSY_SECONDS:g} s: wait for it, "
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return "free the disk, "
    return "free the disk, " if getattr(error, "errno", None) == errno.ENOSPC else ""
