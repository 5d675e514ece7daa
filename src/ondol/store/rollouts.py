"""Rollouts and the decisions made about anything: append and look up."""

from __future__ import annotations

from ondol.base import errors
from ondol.records import codec
from ondol.records.rollout import Decision, Rollout
from ondol.store.connection import Store, Tx


def put_in(tx: Tx, rollout: Rollout) -> None:
    """Insert or replace a rollout."""
    tx.execute(
        "INSERT INTO rollouts (id, service, state, body) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body",
        (rollout.id, rollout.service, rollout.state, codec.encode(rollout)),
    )


def get_in(tx: Tx, rollout: str) -> Rollout:
    """Return a rollout by id as this transaction sees it.

    :raises NotFoundError: when there is none.
    """
    row = tx.row("SELECT body FROM rollouts WHERE id = ?", (rollout,))
    if row is None:
        raise errors.NotFoundError(f"no rollout {rollout!r}", code="NOF-004")
    return codec.decode(row["body"], Rollout)


def get(store: Store, rollout: str) -> Rollout:
    """`get_in` in a view of its own."""
    with store.read() as tx:
        return get_in(tx, rollout)


def progressing_in(tx: Tx, service: str) -> Rollout | None:
    """Return the rollout a service is in, as this transaction sees it, or None."""
    row = tx.row("SELECT body FROM rollouts WHERE service = ? AND state = 'progressing' ORDER BY id DESC", (service,))
    return codec.decode(row["body"], Rollout) if row else None


def of_service_in(tx: Tx, service: str = "", state: str = "") -> list[Rollout]:
    """Return rollouts as this transaction sees them, newest first, of one service and in one state if given."""
    rows = tx.rows(
        "SELECT body FROM rollouts WHERE (? = '' OR service = ?) AND (? = '' OR state = ?) ORDER BY id DESC",
        (service, service, state, state),
    )
    return [codec.decode(row["body"], Rollout) for row in rows]


def of_service(store: Store, service: str = "", state: str = "") -> list[Rollout]:
    """`of_service_in` in a view of its own."""
    with store.read() as tx:
        return of_service_in(tx, service, state)


def decide_in(tx: Tx, decision: Decision) -> None:
    """Append a decision with its evidence."""
    tx.execute(
        "INSERT INTO decisions (id, at, subject, action, body) VALUES (?, ?, ?, ?, ?)",
        (decision.id, decision.at, decision.subject, decision.action, codec.encode(decision)),
    )


def decide(store: Store, decision: Decision) -> None:
    """`decide_in` in a transaction of its own."""
    with store.write() as tx:
        decide_in(tx, decision)


def decisions(store: Store, subject: str = "", action: str = "", limit: int = 100) -> list[Decision]:
    """Return decisions, newest first, about one subject and of one action if given."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT body FROM decisions WHERE (? = '' OR subject = ?) AND (? = '' OR action = ?) "
            "ORDER BY at DESC, id DESC LIMIT ?",
            (subject, subject, action, action, limit),
        )
    return [codec.decode(row["body"], Decision) for row in rows]


def since(store: Store, at: float, limit: int = 1000) -> list[Decision]:
    """Return the decisions about anything from a time on, oldest first."""
    with store.read() as tx:
        rows = tx.rows("SELECT body FROM decisions WHERE at >= ? ORDER BY at, id LIMIT ?", (at, limit))
    return [codec.decode(row["body"], Decision) for row in rows]


def decision(store: Store, identifier: str) -> Decision:
    """Return one decision by id.

    :raises NotFoundError: when there is none.
    """
    with store.read() as tx:
        row = tx.row("SELECT body FROM decisions WHERE id = ?", (identifier,))
    if row is None:
        raise errors.NotFoundError(f"no decision {identifier!r}", code="NOF-005")
    return codec.decode(row["body"], Decision)
