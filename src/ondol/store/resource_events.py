"""What happened to resources, in order, for as long as a watch may want to go on from it.

Every version of a resource is one event with the whole object before and after it, so that a watch can resume, a
selector can say that an object left its view, and a list can be read as it was at an earlier version. The oldest
events go when there are more than `KEPT`. Must not decide who may see what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ondol.store.connection import Store, Tx

Json = dict[str, Any]
COUNTER = "resources"

KEPT = 1000
"""How many changes back a watch may begin; an older version is answered with 410 Gone."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one resource."""

    version: int
    type: str
    """`ADDED`, `MODIFIED` or `DELETED`."""

    before: Json | None
    """The object as it was, None when it is new."""

    after: Json
    """The object as it is since; of a deleted one, its last state with the version of the deletion."""


def append(tx: Tx, version: int, before: Json | None, after: Json | None, last: Json | None = None) -> None:
    """Add an event: `after` is None for a deletion, `last` then the deleted object."""
    kind = "ADDED" if before is None else "MODIFIED" if after is not None else "DELETED"
    shown: Json = after or last or {}
    metadata = shown["metadata"]
    tx.execute(
        "INSERT INTO resource_events (version, kind, namespace, name, type, before, after) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            version,
            shown["kind"],
            metadata.get("namespace", ""),
            metadata["name"],
            kind,
            msgspec.json.encode(before).decode() if before is not None else "",
            msgspec.json.encode(shown).decode(),
        ),
    )
    tx.execute("DELETE FROM resource_events WHERE version <= ?", (version - KEPT,))


def current(tx: Tx) -> int:
    """Return the version of the newest change."""
    row = tx.row("SELECT value FROM counters WHERE name = ?", (COUNTER,))
    return int(row["value"]) if row else 0


def oldest(tx: Tx) -> int:
    """Return the oldest version a watch may begin after."""
    row = tx.row("SELECT MIN(version) AS version FROM resource_events")
    return int(row["version"]) - 1 if row and row["version"] is not None else current(tx)


def after(tx: Tx, version: int, kind: str, namespace: str = "") -> list[Event]:
    """Return the changes of a kind since a version, oldest first."""
    rows = tx.rows(
        "SELECT version, type, before, after FROM resource_events "
        "WHERE kind = ? AND version > ? AND (? = '' OR namespace = ?) ORDER BY version",
        (kind, version, namespace, namespace),
    )
    return [
        Event(
            row["version"],
            row["type"],
            msgspec.json.decode(row["before"]) if row["before"] else None,
            msgspec.json.decode(row["after"]),
        )
        for row in rows
    ]


def newest(store: Store) -> int:
    """Return the version of the newest change; cheap."""
    with store.read() as tx:
        return current(tx)
