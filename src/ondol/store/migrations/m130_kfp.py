"""What KFP's API keeps: experiments, pipelines, versions, run requests, recurring runs; one JSON body each."""

from __future__ import annotations

from ondol.store.connection import Tx

_STATEMENTS = (
    """CREATE TABLE kfp_objects (
        kind TEXT NOT NULL, id TEXT NOT NULL, parent TEXT NOT NULL, name TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL, unsettled BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id))""",
    "CREATE INDEX kfp_objects_by_name ON kfp_objects (kind, parent, name)",
    "CREATE INDEX kfp_objects_unsettled ON kfp_objects (kind, unsettled)",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
