"""The request log: what was asked and answered, by which release, and the labels that arrive later.

`seq` grows in commit order: a reader that remembers the last one it saw misses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ondol.records import codec
from ondol.records.rollout import Observation
from ondol.store import counters
from ondol.store.connection import Row, Store


def append(store: Store, batch: Sequence[Observation]) -> None:
    """Append observations in one transaction."""
    if not batch:
        return
    with store.write() as tx:
        first = counters.reserve(tx, "observations", len(batch))
        tx.execute_many(
            "INSERT INTO observations (seq, id, at, service, rollout, label, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (first + offset, one.id, one.at, one.service, one.rollout, one.label, codec.encode(one))
                for offset, one in enumerate(batch)
            ],
        )


def label(store: Store, labels: Mapping[str, str]) -> int:
    """Join ground truth (as JSON text) to requests by id, whether the request is logged already or not.

    Returns how many labels were new; a request's first label stays.
    """
    if not labels:
        return 0
    now, new = time.time(), 0
    with store.write() as tx:
        for request, value in labels.items():
            seq = counters.reserve(tx, "labels")
            new += tx.execute(
                "INSERT INTO labels (request, label, at, seq) VALUES (?, ?, ?, ?) ON CONFLICT (request) DO NOTHING",
                (request, value, now, seq),
            )
    return new


def _observation(row: Row) -> Observation:
    one = codec.decode(row["body"], Observation)
    found = row.get("joined")
    return replace(one, label=found) if found else one


_JOINED = (
    "SELECT o.seq AS seq, o.body AS body, l.label AS joined FROM observations o LEFT JOIN labels l ON l.request = o.id "
)


def of_rollout(store: Store, rollout: str, after: int = 0) -> list[tuple[int, Observation]]:
    """Return a rollout's observations after a position, in order, with their labels joined."""
    with store.read() as tx:
        rows = tx.rows(_JOINED + "WHERE o.rollout = ? AND o.seq > ? ORDER BY o.seq", (rollout, after))
    return [(row["seq"], _observation(row)) for row in rows]


def of_service(
    store: Store, service: str, since: float = 0.0, until: float = 1e18, limit: int = 1_000_000
) -> list[Observation]:
    """Return a service's observations in a time window, oldest first, with their labels joined."""
    with store.read() as tx:
        rows = tx.rows(
            _JOINED + "WHERE o.service = ? AND o.at >= ? AND o.at < ? ORDER BY o.seq LIMIT ?",
            (service, since, until, limit),
        )
    return [_observation(row) for row in rows]
