"""Pipeline runs, their tasks, and what finished steps made (the step cache)."""

from __future__ import annotations

from ondol.store.connection import Tx

_STATEMENTS = (
    """CREATE TABLE runs (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL, started_at DOUBLE PRECISION NOT NULL,
        mlflow_run TEXT NOT NULL, body TEXT NOT NULL)""",
    "CREATE INDEX runs_by_name ON runs (name, id)",
    """CREATE TABLE run_tasks (
        run TEXT NOT NULL, name TEXT NOT NULL, seq BIGINT NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (run, name))""",
    """CREATE TABLE step_cache (
        cache_key TEXT PRIMARY KEY, step TEXT NOT NULL, run TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
        ingredients TEXT NOT NULL, body TEXT NOT NULL)""",
    "CREATE INDEX step_cache_by_step ON step_cache (step, at)",
    """CREATE TABLE compiled_pipelines (
        cache_key TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, body TEXT NOT NULL)""",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
