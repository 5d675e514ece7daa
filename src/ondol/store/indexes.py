"""Index pointers: one current snapshot per index name, moved by builds and rollbacks, every move remembered."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ondol.base import errors
from ondol.store.connection import Row, Store, Tx


@dataclass(frozen=True, slots=True)
class Move:
    """One time an index name was pointed at a snapshot."""

    name: str
    seq: int
    snapshot: str
    at: float
    action: str
    """`build` or `rollback`."""

    body: dict[str, Any] = field(default_factory=dict)
    """What the build did: documents, chunks, source folder."""


def _move(row: Row) -> Move:
    return Move(row["name"], row["seq"], row["snapshot"], row["at"], row["action"], msgspec.json.decode(row["body"]))


def names(store: Store) -> list[str]:
    """Return the names of all indexes."""
    with store.read() as tx:
        return [row["name"] for row in tx.rows("SELECT name FROM indexes ORDER BY name")]


def current(store: Store, name: str) -> str:
    """Return the digest of the snapshot an index name means now.

    :raises NotFoundError: when there is no such index.
    """
    with store.read() as tx:
        row = tx.row("SELECT snapshot FROM indexes WHERE name = ?", (name,))
    if row is None:
        raise _no_index(name)
    return str(row["snapshot"])


def _no_index(name: str) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"no index {name!r}",
        way_out=f"`ondol index build {name} FOLDER` makes it; `ondol index list` shows what there is.",
        code="NOF-041",
    )


def history(store: Store, name: str) -> list[Move]:
    """Return an index's moves, newest first; empty when there is no such index."""
    with store.read() as tx:
        rows = tx.rows("SELECT * FROM index_moves WHERE name = ? ORDER BY seq DESC", (name,))
    return [_move(row) for row in rows]


def point(store: Store, name: str, snapshot: str, action: str, body: dict[str, Any]) -> bool:
    """Point an index at a snapshot; returns False, and writes nothing, when it means that snapshot already."""
    with store.write() as tx:
        row = tx.row("SELECT snapshot, seq FROM indexes WHERE name = ?", (name,))
        if row is not None and row["snapshot"] == snapshot:
            return False
        _put(tx, name, snapshot, (int(row["seq"]) if row else 0) + 1, action, body)
    return True


def _put(tx: Tx, name: str, snapshot: str, seq: int, action: str, body: dict[str, Any]) -> None:
    tx.execute(
        "INSERT INTO indexes (name, snapshot, seq) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET snapshot = excluded.snapshot, seq = excluded.seq",
        (name, snapshot, seq),
    )
    tx.execute(
        "INSERT INTO index_moves (name, seq, snapshot, at, action, body) VALUES (?, ?, ?, ?, ?, ?)",
        (name, seq, snapshot, time.time(), action, msgspec.json.encode(body).decode()),
    )


def roll_back(store: Store, name: str, to: str = "") -> Move:
    """Point an index at the snapshot it meant before, or at `to` (a digest or its first 8 digits or more).

    Rolling back twice goes two snapshots back: a snapshot that was rolled back from is not returned to by itself.

    :raises NotFoundError: when there is no such index, or it never meant `to`.
    :raises StateError: when there is no earlier snapshot.
    """
    with store.write() as tx:
        rows = tx.rows("SELECT * FROM index_moves WHERE name = ? ORDER BY seq DESC", (name,))
        if not rows:
            raise _no_index(name)
        moves = [_move(row) for row in rows]
        target = _named(moves, to) if to else _earlier(moves)
        seq = moves[0].seq + 1
        body = {**target.body, "from": moves[0].snapshot, "restores": target.seq}
        _put(tx, name, target.snapshot, seq, "rollback", body)
        row = tx.row("SELECT * FROM index_moves WHERE name = ? AND seq = ?", (name, seq))
    assert row is not None  # just written
    return _move(row)


def target_of_rollback(store: Store, name: str, to: str = "") -> str:
    """Return the digest `roll_back` would point at.

    :raises NotFoundError, StateError: as `roll_back`.
    """
    moves = history(store, name)
    if not moves:
        raise _no_index(name)
    return (_named(moves, to) if to else _earlier(moves)).snapshot


def _named(moves: list[Move], digest: str) -> Move:
    wanted = digest.removeprefix("sha256:")
    found = [move for move in moves if len(wanted) >= 8 and move.snapshot.removeprefix("sha256:").startswith(wanted)]
    if not found:
        raise errors.NotFoundError(
            f"index {moves[0].name!r} never meant snapshot {digest!r}",
            way_out=f"`ondol index list {moves[0].name}` shows its snapshots.",
            code="NOF-042",
        )
    return found[0]


def _earlier(moves: list[Move]) -> Move:
    """Return the move before the one that is in force, following rollbacks to what they restored."""
    at = moves[0]
    while at.action == "rollback":
        at = next(move for move in moves if move.seq == at.body["restores"])
    for move in moves:
        if move.seq < at.seq and move.snapshot != at.snapshot:
            return move
    raise errors.StateError(
        f"index {at.name!r} has no earlier snapshot", way_out="Build it from the documents you want.", code="STA-042"
    )
