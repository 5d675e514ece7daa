"""Verdicts of judges."""

from __future__ import annotations

from ondol.store.connection import Tx


def apply(tx: Tx) -> None:
    tx.execute("CREATE TABLE judgements (digest TEXT PRIMARY KEY, reply TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)")
