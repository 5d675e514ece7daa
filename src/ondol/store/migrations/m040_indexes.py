"""Index pointers: which snapshot an index name means, and every snapshot it meant before."""

from __future__ import annotations

from ondol.store.connection import Tx


def apply(tx: Tx) -> None:
    tx.execute("CREATE TABLE indexes (name TEXT PRIMARY KEY, snapshot TEXT NOT NULL, seq BIGINT NOT NULL)")
    tx.execute(
        """CREATE TABLE index_moves (
            name TEXT NOT NULL, seq BIGINT NOT NULL, snapshot TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
            action TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name, seq))"""
    )
