"""Which requests were moved out of the database, into which file; and the removal of what is old.

A segment's file is written and synced before its row; row and removal of the requests it holds are one transaction. So
every request is in exactly one place, whoever is killed when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ondol.records.rollout import Observation
from ondol.store import counters
from ondol.store.connection import Store
from ondol.store.observations import decoded


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of requests of one service."""

    id: str
    service: str
    first_at: float
    last_at: float
    requests: int
    bytes: int
    blob: str


def movable(store: Store, service: str, before: float, limit: int, watched: bool) -> list[tuple[int, Observation]]:
    """Return the oldest requests that may be moved, in order: older than a time, and of no trial that goes on.

    :param watched: only up to what the drift watch has looked at.
    """
    until = int(counters.fact(store, f"watch/{service}") or 0) if watched else 1 << 62
    with store.read() as tx:
        rows = tx.rows(
            "SELECT seq, body FROM observations WHERE service = ? AND at < ? AND seq <= ? AND rollout NOT IN "
            "(SELECT id FROM rollouts WHERE state = 'progressing') ORDER BY at LIMIT ?",
            (service, before, until, limit),
        )
    return [(row["seq"], decoded(row["body"])) for row in rows]


def adopt(store: Store, segment: Segment, moved: Sequence[int]) -> bool:
    """Let a segment stand for the requests that it holds; False when somebody else moved one of them first."""
    with store.write() as tx:
        gone = sum(tx.execute("DELETE FROM observations WHERE seq = ?", (seq,)) for seq in moved)
        if gone != len(moved):
            raise _MovedMeanwhileError
        tx.execute(
            "INSERT INTO request_segments (id, service, first_at, last_at, requests, bytes, blob, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 'kept')",
            (segment.id, segment.service, segment.first_at, segment.last_at, segment.requests, segment.bytes,
             segment.blob),
        )  # fmt: skip
    return True


class _MovedMeanwhileError(Exception):
    """Rolls the transaction back."""


def try_adopt(store: Store, segment: Segment, moved: Sequence[int]) -> bool:
    """`adopt`, or False and nothing changed when another process was first."""
    try:
        return adopt(store, segment, moved)
    except _MovedMeanwhileError:
        return False


def every(store: Store, service: str = "", since: float = 0.0, until: float = 1e18) -> list[Segment]:
    """Return the segments with requests in a time window, oldest first."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT id, service, first_at, last_at, requests, bytes, blob FROM request_segments WHERE state = 'kept' "
            "AND (? = '' OR service = ?) AND last_at >= ? AND first_at < ? ORDER BY first_at, id",
            (service, service, since, until),
        )
    return [Segment(**row) for row in rows]


def volume(store: Store, service: str, since: float, seconds: float, buckets: int) -> list[float]:
    """Return how many moved requests of a service are in each of some equal spans of time since a moment.

    Files are not opened: the requests of one are spread evenly between its first and its last.
    """
    found = [0.0] * buckets
    for one in every(store, service, since, since + buckets * seconds):
        took = one.last_at - one.first_at
        for number in range(buckets):
            begin, end = since + number * seconds, since + (number + 1) * seconds
            if not took:
                found[number] += one.requests if begin <= one.first_at < end else 0
            elif (within := min(end, one.last_at) - max(begin, one.first_at)) > 0:
                found[number] += one.requests * within / took
    return found


def retire(store: Store, before: float) -> list[Segment]:
    """Mark segments whose newest request is older than a time; return all that are marked, for their files to go."""
    columns = "id, service, first_at, last_at, requests, bytes, blob"
    with store.read() as tx:
        old = tx.rows("SELECT id FROM request_segments WHERE last_at < ? OR state = 'retired'", (before,))
    if not old:
        return []
    with store.write() as tx:
        tx.execute("UPDATE request_segments SET state = 'retired' WHERE last_at < ?", (before,))
        rows = tx.rows(f"SELECT {columns} FROM request_segments WHERE state = 'retired'")
    return [Segment(**row) for row in rows]


def is_kept(store: Store, blob: str) -> bool:
    """Whether a segment that is kept has this file, too: equal requests are one file."""
    with store.read() as tx:
        return tx.row("SELECT id FROM request_segments WHERE blob = ? AND state = 'kept'", (blob,)) is not None


def forget(store: Store, segment: str) -> None:
    """Forget a retired segment whose file is gone."""
    with store.write() as tx:
        tx.execute("DELETE FROM request_segments WHERE id = ? AND state = 'retired'", (segment,))


_BATCH = 5_000  # rows per transaction: other writers get their turn
_OLD = {
    "observations": "DELETE FROM observations WHERE seq IN (SELECT seq FROM observations WHERE at < ? AND rollout "
    "NOT IN (SELECT id FROM rollouts WHERE state = 'progressing') LIMIT ?)",
    "labels": "DELETE FROM labels WHERE request IN (SELECT request FROM labels WHERE at < ? LIMIT ?)",
    "late_signals": "DELETE FROM late_signals WHERE request IN (SELECT request FROM late_signals WHERE at < ? LIMIT ?)",
}


def prune(store: Store, table: str, before: float, rounds: int = 10) -> int:
    """Remove rows older than a time from a table that only grows; return how many. The rest waits for the next call."""
    removed = 0
    for _ in range(rounds):
        with store.write() as tx:
            gone = tx.execute(_OLD[table], (before, _BATCH))
        removed += gone
        if gone < _BATCH:
            break
    return removed
