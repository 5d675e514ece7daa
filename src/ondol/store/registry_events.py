"""The registry's audit history: appended before a move is made, completed after it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ondol.store import counters
from ondol.store.connection import Store


@dataclass(frozen=True, slots=True)
class RegistryEvent:
    """One attempted move of a stage or an alias, or one deletion."""

    seq: int
    at: float
    """Seconds since the epoch."""

    model: str
    kind: str
    """`stage`, `alias`, `delete_version` or `delete_model`."""

    name: str
    """The alias, or the version whose stage moved or that was deleted."""

    before_value: str
    """The stage, or the alias' version, before; empty when there was none."""

    after_value: str
    actor: str
    """User (from credentials), else the client's own name, and the address it came from."""

    outcome: str
    """`pending` while it is being made, `done`, or `refused: 400` with MLflow's status."""


def begin(store: Store, model: str, kind: str, name: str, before: str, after: str, actor: str) -> int:
    """Record that a move is about to be made and return its number."""
    with store.write() as tx:
        seq = counters.reserve(tx, "registry_events")
        tx.execute(
            "INSERT INTO registry_events (seq, at, model, kind, name, before_value, after_value, actor, outcome) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending')",
            (seq, time.time(), model, kind, name, before, after, actor),
        )
    return seq


def finish(store: Store, seq: int, outcome: str) -> None:
    """Record how the move ended."""
    with store.write() as tx:
        tx.execute("UPDATE registry_events SET outcome = ? WHERE seq = ?", (outcome, seq))


def every(store: Store, model: str = "", limit: int = 200) -> list[RegistryEvent]:
    """Return the history, newest first, of one model if given."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT * FROM registry_events WHERE ? = '' OR model = ? ORDER BY seq DESC LIMIT ?", (model, model, limit)
        )
    return [RegistryEvent(**row) for row in rows]
