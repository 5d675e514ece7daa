"""Signals and the retrainings that answer them. Every change is one transaction that does nothing the second time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ondol.base import ids
from ondol.records import codec
from ondol.records.rollout import Decision
from ondol.records.signal import Retraining, RetrainingState, Signal
from ondol.store import rollouts
from ondol.store.connection import Row, Store, Tx


def hear(store: Store, signal: Signal) -> bool:
    """Write a signal down; False when one of the same key was heard before. Costs a read when it is known."""
    with store.read() as tx:
        if tx.row("SELECT id FROM signals WHERE subject = ? AND key = ?", (signal.subject, signal.key)):
            return False
    with store.write() as tx:
        return bool(
            tx.execute(
                "INSERT INTO signals (id, at, subject, key, retraining, body) VALUES (?, ?, ?, ?, '', ?) "
                "ON CONFLICT (subject, key) DO NOTHING",
                (signal.id, signal.at, signal.subject, signal.key, codec.encode(signal)),
            )
        )


def withdraw(store: Store, subject: str, key: str) -> bool:
    """Forget a signal whose reason is gone before anybody answered it; True when there was one."""
    with store.read() as tx:
        sql = "SELECT id FROM signals WHERE subject = ? AND key = ? AND retraining = ''"
        if tx.row(sql, (subject, key)) is None:
            return False
    with store.write() as tx:
        sql = "DELETE FROM signals WHERE subject = ? AND key = ? AND retraining = ''"
        return bool(tx.execute(sql, (subject, key)))


def _signal(row: Row) -> Signal:
    return replace(codec.decode(row["body"], Signal), retraining=row["retraining"])


def every(store: Store, subject: str = "", limit: int = 100) -> list[Signal]:
    """Return signals, newest first, answered or not."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT body, retraining FROM signals WHERE ? = '' OR subject = ? ORDER BY at DESC, id DESC LIMIT ?",
            (subject, subject, limit),
        )
    return [_signal(row) for row in rows]


def unanswered(store: Store, subject: str) -> tuple[Signal, ...]:
    """Return the signals about a model or application that nobody answers yet, oldest first."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT body, retraining FROM signals WHERE subject = ? AND retraining = '' ORDER BY at, id", (subject,)
        )
    return tuple(_signal(row) for row in rows)


def going_on(store: Store, subject: str) -> Retraining | None:
    """Return the retraining that has not ended, or None."""
    with store.read() as tx:
        row = tx.row("SELECT body FROM retrainings WHERE subject = ? AND state = 'started'", (subject,))
    return codec.decode(row["body"], Retraining) if row else None


def retrainings(store: Store, subject: str = "", limit: int = 100) -> list[Retraining]:
    """Return retrainings, newest first."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT body FROM retrainings WHERE ? = '' OR subject = ? ORDER BY id DESC LIMIT ?",
            (subject, subject, limit),
        )
    return [codec.decode(row["body"], Retraining) for row in rows]


def answer(store: Store, made: Retraining) -> bool:
    """Begin the answer to signals, with its decision; False when somebody else answers, or has answered any of them."""
    with store.write() as tx:
        if tx.row("SELECT id FROM retrainings WHERE subject = ? AND state = 'started'", (made.subject,)):
            return False
        for signal in made.signals:
            sql = "UPDATE signals SET retraining = ? WHERE id = ? AND retraining = ''"
            if not tx.execute(sql, (made.id, signal)):
                _unanswer(tx, made)
                return False
        tx.execute(
            "INSERT INTO retrainings (id, at, subject, state, attempts, body) VALUES (?, ?, ?, ?, ?, ?)",
            (made.id, made.at, made.subject, made.state, made.attempts, codec.encode(made)),
        )
        _decide(tx, made, "started", made.reason, made.at)
    return True


def _unanswer(tx: Tx, made: Retraining) -> None:
    tx.execute("UPDATE signals SET retraining = '' WHERE retraining = ?", (made.id,))


def begin_again(store: Store, seen: Retraining, next_at: float) -> bool:
    """Count one more walk of a retraining; False when somebody else has, or it has ended."""
    again = replace(seen, attempts=seen.attempts + 1, next_at=next_at)
    with store.write() as tx:
        return bool(
            tx.execute(
                "UPDATE retrainings SET attempts = ?, body = ? WHERE id = ? AND attempts = ? AND state = 'started'",
                (again.attempts, codec.encode(again), seen.id, seen.attempts),
            )
        )


def end(store: Store, seen: Retraining, state: RetrainingState, verdict: str, reason: str, at: float) -> bool:
    """Write what came of a retraining; False when somebody has."""
    ended = replace(seen, state=state, verdict=verdict, ended_at=at)
    with store.write() as tx:
        changed = tx.execute(
            "UPDATE retrainings SET state = ?, body = ? WHERE id = ? AND state = 'started'",
            (state, codec.encode(ended), seen.id),
        )
        if changed and state == "given up":
            _decide(tx, ended, "given up", reason, at)
    return bool(changed)


def _decide(tx: Tx, retraining: Retraining, verdict: str, reason: str, at: float) -> None:
    evidence = {"retraining": retraining.id, "signals": _plain(retraining.signals), "attempts": retraining.attempts}
    made = Decision(ids.new_id("decision"), at, retraining.subject, "retrain", verdict, reason, evidence)
    rollouts.decide_in(tx, made)


def _plain(names: Sequence[str]) -> list[str]:
    return list(names)
