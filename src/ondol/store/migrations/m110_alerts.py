"""Alerts that are raised once, an outbox per target, silences, acknowledgements."""

from __future__ import annotations

from ondol.store.connection import Tx

_STATEMENTS = (
    "ALTER TABLE alerts ADD COLUMN dedupe TEXT",
    "UPDATE alerts SET dedupe = id",
    "CREATE UNIQUE INDEX alerts_by_dedupe ON alerts (dedupe)",
    "ALTER TABLE alerts ADD COLUMN acknowledged_by TEXT NOT NULL DEFAULT ''",
    """CREATE TABLE alert_deliveries (
        alert TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL, attempts BIGINT NOT NULL,
        next_at DOUBLE PRECISION NOT NULL, leased_until DOUBLE PRECISION NOT NULL, error TEXT NOT NULL,
        PRIMARY KEY (alert, target))""",
    """CREATE TABLE alert_silences (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, until_at DOUBLE PRECISION NOT NULL,
        reason TEXT NOT NULL, made_at DOUBLE PRECISION NOT NULL)""",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
