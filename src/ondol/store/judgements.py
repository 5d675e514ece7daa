"""Verdicts of judges, kept so that an evaluation that stopped goes on and the same question is not paid for twice."""

from __future__ import annotations

import time

from ondol.store.connection import Store


class Judgements:
    """A cache of verdicts by the digest of everything that could change them; safe in several processes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: str) -> str | None:
        with self._store.read() as tx:
            row = tx.row("SELECT reply FROM judgements WHERE digest = ?", (key,))
        return str(row["reply"]) if row else None

    def put(self, key: str, value: str) -> None:
        with self._store.write() as tx:
            tx.execute(
                "INSERT INTO judgements (digest, reply, at) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING",
                (key, value, time.time()),
            )
