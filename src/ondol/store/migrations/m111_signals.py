"""Signals that ask for a retraining, and the retrainings that answer them."""

from __future__ import annotations

from ondol.store.connection import Tx

_STATEMENTS = (
    """CREATE TABLE signals (
        id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, subject TEXT NOT NULL, key TEXT NOT NULL,
        retraining TEXT NOT NULL, body TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX signals_by_key ON signals (subject, key)",
    """CREATE TABLE retrainings (
        id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL,
        attempts BIGINT NOT NULL, body TEXT NOT NULL)""",
    "CREATE INDEX retrainings_by_subject ON retrainings (subject, id)",
    # One at a time and model, however many conductors look.
    "CREATE UNIQUE INDEX retrainings_going_on ON retrainings (subject) WHERE state = 'started'",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
