"""Numbers about a whole unit in a rollout: a conversion, what a customer spent."""

from __future__ import annotations

from ondol.store.connection import Tx

_STATEMENTS = (
    """CREATE TABLE unit_signals (
        rollout TEXT NOT NULL, unit TEXT NOT NULL, name TEXT NOT NULL, value DOUBLE PRECISION NOT NULL,
        at DOUBLE PRECISION NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (rollout, unit, name))""",
    "CREATE INDEX unit_signals_by_seq ON unit_signals (seq)",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
