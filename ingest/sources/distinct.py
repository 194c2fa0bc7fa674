"""Exact deduplication of names in bounded memory."""

from __future__ import annotations

import hashlib
import sqlite3


class Distinct:
    """Tells which names come for the first time; exact, and in bounded memory."""

    def __init__(self) -> None:
        # A temporary file of SQLite's own: what does not fit in its cache is written there.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;"
            "CREATE TABLE name (digest BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN;"
        )

    def add(self, *name: str | None) -> bool:
        """Return whether a name was not there before."""
        digest = hashlib.sha256("\0".join(part or "" for part in name).encode()).digest()[:16]
        return self._db.execute("INSERT OR IGNORE INTO name VALUES (?)", (digest,)).rowcount == 1

    def close(self) -> None:
        """Remove the temporary file."""
        self._db.close()
