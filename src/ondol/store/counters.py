"""Numbers that only grow, for ordering rows across processes, and small named facts."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from ondol.store.connection import Store, Tx


def reserve(tx: Tx, name: str, count: int = 1) -> int:
    """Reserve `count` consecutive numbers and return the first."""
    row = tx.row(
        "INSERT INTO counters (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = counters.value + excluded.value RETURNING value",
        (name, count),
    )
    assert row is not None  # RETURNING always answers
    return int(row["value"]) - count + 1


def put_fact(store: Store, name: str, value: Any) -> None:
    """Remember a small plain value under a name (demo progress, monitor positions …)."""
    with store.write() as tx:
        put_fact_in(tx, name, value)


def put_fact_in(tx: Tx, name: str, value: Any) -> None:
    """`put_fact` as a part of a transaction."""
    tx.execute(
        "INSERT INTO facts (name, body, at) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET body = excluded.body, at = excluded.at",
        (name, msgspec.json.encode(value).decode(), time.time()),
    )


def fact(store: Store, name: str) -> Any:
    """Return what `put_fact` remembered, or None."""
    with store.read() as tx:
        return fact_in(tx, name)


def fact_in(tx: Tx, name: str) -> Any:
    """`fact` as a part of a transaction."""
    row = tx.row("SELECT body FROM facts WHERE name = ?", (name,))
    return msgspec.json.decode(row["body"]) if row else None


def move_in(tx: Tx, name: str, before: Any, after: Any) -> bool:
    """Set a fact from what it was to what it shall be; False, and nothing changed, when it is something else by now."""
    if fact_in(tx, name) != before:
        return False
    put_fact_in(tx, name, after)
    return True
