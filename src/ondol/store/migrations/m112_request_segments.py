"""Older requests in columnar files, one row here for each."""

from __future__ import annotations

from ondol.store.connection import Tx

_STATEMENTS = (
    """CREATE TABLE request_segments (
        id TEXT PRIMARY KEY, service TEXT NOT NULL, first_at DOUBLE PRECISION NOT NULL,
        last_at DOUBLE PRECISION NOT NULL, requests BIGINT NOT NULL, bytes BIGINT NOT NULL, blob TEXT NOT NULL,
        state TEXT NOT NULL)""",
    "CREATE INDEX request_segments_by_service ON request_segments (service, first_at)",
    "CREATE INDEX labels_by_time ON labels (at)",
    "CREATE INDEX late_signals_by_time ON late_signals (at)",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
