"""The usage ledger, budgets and where they stand, alerts, spans."""

from __future__ import annotations

from ondol.store.connection import Tx

_STATEMENTS = (
    """CREATE TABLE usage_ledger (
        id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, outcome TEXT NOT NULL, status TEXT NOT NULL,
        application TEXT NOT NULL, release_digest TEXT NOT NULL, prompt TEXT NOT NULL, provider TEXT NOT NULL,
        model TEXT NOT NULL, unit TEXT NOT NULL, trace TEXT NOT NULL, input_tokens BIGINT NOT NULL,
        output_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL, cost DOUBLE PRECISION, price TEXT NOT NULL,
        owner TEXT NOT NULL, expires_at DOUBLE PRECISION NOT NULL, held DOUBLE PRECISION NOT NULL,
        windows TEXT NOT NULL)""",
    "CREATE INDEX usage_by_time ON usage_ledger (at)",
    # Calls that are under way: few, looked at when a process starts.
    "CREATE INDEX usage_pending ON usage_ledger (owner) WHERE outcome = 'pending'",
    """CREATE TABLE budgets (
        name TEXT PRIMARY KEY, scope TEXT NOT NULL, source TEXT NOT NULL, body TEXT NOT NULL)""",
    """CREATE TABLE budget_windows (
        budget TEXT NOT NULL, started TEXT NOT NULL, spent DOUBLE PRECISION NOT NULL, held DOUBLE PRECISION NOT NULL,
        alerted DOUBLE PRECISION NOT NULL, PRIMARY KEY (budget, started))""",
    """CREATE TABLE alerts (
        id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
        delivered BIGINT NOT NULL, body TEXT NOT NULL)""",
    "CREATE INDEX alerts_undelivered ON alerts (delivered, at)",
    """CREATE TABLE spans (
        trace TEXT NOT NULL, id TEXT NOT NULL, parent TEXT NOT NULL, name TEXT NOT NULL,
        started DOUBLE PRECISION NOT NULL, ended DOUBLE PRECISION NOT NULL, error TEXT NOT NULL,
        attributes TEXT NOT NULL, PRIMARY KEY (trace, id))""",
    """CREATE TABLE traces (
        trace TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, name TEXT NOT NULL, application TEXT NOT NULL,
        question TEXT NOT NULL, milliseconds DOUBLE PRECISION NOT NULL, input_tokens BIGINT NOT NULL,
        output_tokens BIGINT NOT NULL, cost DOUBLE PRECISION, error TEXT NOT NULL)""",
    "CREATE INDEX traces_by_time ON traces (at)",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
