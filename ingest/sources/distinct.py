"""Exact deduplication of millions of names in bounded memory."""

from __future__ import annotations

import hashlib
import sqlite3


class Distinct:
    """A set of names that says which ones are new. Exact, and in bounded memory."""

    def __init__(self) -> None:
        # SQLite's own temporary file, which receives what its cache cannot hold.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;"
            "CREATE TABLE name (digest BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN;"
        )

    def add(self, *name: str | None) -> bool:
        """Add a name of one or several parts and return whether it is new."""
        digest = hashlib.sha256("\0".join(part or "" for part in name).encode()).digest()[:16]
        return self._db.execute("INSERT OR IGNORE INTO name VALUES (?)", (digest,)).rowcount == 1

    def close(self) -> None:
        """Remove the temporary file."""
        self._db.close()
