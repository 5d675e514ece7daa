"""Resources get what Kubernetes clients rely on: uid, times, owners of fields, and a history to watch."""

from __future__ import annotations

import time
import uuid

from ondol.store import counters
from ondol.store.connection import Tx

_STATEMENTS = (
    "ALTER TABLE resources ADD COLUMN uid TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE resources ADD COLUMN created_at DOUBLE PRECISION NOT NULL DEFAULT 0",
    "ALTER TABLE resources ADD COLUMN deleting_at DOUBLE PRECISION NOT NULL DEFAULT 0",
    "ALTER TABLE resources ADD COLUMN managed TEXT NOT NULL DEFAULT '[]'",
    """CREATE TABLE resource_events (
        version BIGINT PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
        type TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL)""",
    "CREATE INDEX resource_events_by_kind ON resource_events (kind, version)",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
    now = time.time()
    for row in tx.rows("SELECT kind, namespace, name FROM resources"):
        tx.execute(
            "UPDATE resources SET uid = ?, created_at = ? WHERE kind = ? AND namespace = ? AND name = ?",
            (str(uuid.uuid4()), now, row["kind"], row["namespace"], row["name"]),
        )
    for name in ("default", "kubeflow"):
        manifest = f'{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}},"spec":{{}}}}'
        tx.execute(
            "INSERT INTO resources (kind, namespace, name, version, generation, manifest, status, uid, created_at) "
            "VALUES ('Namespace', '', ?, ?, 1, ?, '{\"phase\":\"Active\"}', ?, ?)",
            (name, counters.reserve(tx, "resources"), manifest, str(uuid.uuid4()), now),
        )
