"""Vectors already computed, in a SQLite file of their own: large, and no loss when it is deleted.

Keyed by embedder identity (model, version, transform) and a digest of the text. Several processes may share it. A cache
that cannot be read or written is no error: the vector is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

_AT_ONCE = 500  # parameters per statement; SQLite's old limit is 999


def key(embedder: str, kind: str, text: str) -> bytes:
    """Return the key of a text's vector.

    :param kind: `passage` or `query`: the same text has two vectors.
    """
    return hashlib.sha256(f"{embedder}\x00{kind}\x00{text}".encode()).digest()[:20]


class VectorCache:
    """Vectors as bytes by key, kept in one file.

    :param path: made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()  # one connection for all threads: a transaction must not get another's rows

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
            self._connection = connection
        return self._connection

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the vectors that are known."""
        found: dict[bytes, bytes] = {}
        with contextlib.suppress(sqlite3.Error, OSError), self._lock:
            for start in range(0, len(keys), _AT_ONCE):
                part = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                found.update(self._open().execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part))
        return found

    def put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Remember vectors; acknowledged ones survive kill -9."""
        with contextlib.suppress(sqlite3.Error, OSError), self._lock:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany("INSERT OR REPLACE INTO vectors (key, vector) VALUES (?, ?)", rows)
                connection.execute("COMMIT")
            except sqlite3.Error:
                connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
