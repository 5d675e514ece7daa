"""The audit history of the model registry: who moved which stage or alias, when, from where, to where."""

from __future__ import annotations

from ondol.store.connection import Tx


def apply(tx: Tx) -> None:
    tx.execute(
        """CREATE TABLE registry_events (
        seq BIGINT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, model TEXT NOT NULL, kind TEXT NOT NULL,
        name TEXT NOT NULL, before_value TEXT NOT NULL, after_value TEXT NOT NULL, actor TEXT NOT NULL,
        outcome TEXT NOT NULL)"""
    )
    tx.execute("CREATE INDEX registry_events_by_model ON registry_events (model, seq)")
