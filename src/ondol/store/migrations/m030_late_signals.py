"""Numbers about a request that arrive after it: quality scores, business metrics."""

from __future__ import annotations

from ondol.store.connection import Tx

_STATEMENTS = (
    """CREATE TABLE late_signals (
        request TEXT NOT NULL, name TEXT NOT NULL, value DOUBLE PRECISION NOT NULL, at DOUBLE PRECISION NOT NULL,
        seq BIGINT NOT NULL, PRIMARY KEY (request, name))""",
    "CREATE INDEX late_signals_by_seq ON late_signals (seq)",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
