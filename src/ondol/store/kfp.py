"""Experiments, uploaded pipelines, run requests and recurring runs of KFP's API, as JSON bodies under their kind.

Must not know states of runs: those are in `runs`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from ondol.base import errors
from ondol.records import codec
from ondol.records.kfp import Experiment, PipelineVersion, RecurringRun, RunRequest, UploadedPipeline
from ondol.store.connection import Row, Store, Tx

T = TypeVar("T", Experiment, UploadedPipeline, PipelineVersion, RunRequest, RecurringRun)
_KINDS: dict[type, str] = {
    Experiment: "experiment",
    UploadedPipeline: "pipeline",
    PipelineVersion: "version",
    RunRequest: "run",
    RecurringRun: "recurring",
}
_UNIQUE = (Experiment, UploadedPipeline, PipelineVersion)  # runs may share a display name


def _keys(record: Any) -> tuple[str, str]:
    """Return what an object's name is unique within, and the name."""
    if isinstance(record, PipelineVersion):
        return record.pipeline, record.name
    if isinstance(record, (Experiment, UploadedPipeline)):
        return record.namespace, record.name
    return record.experiment, record.display_name


def add(store: Store, record: T) -> T:
    """Keep a new object.

    :raises ConflictError: CON-530 when its name is taken.
    """
    with store.write() as tx:
        add_in(tx, record)
    return record


def add_in(tx: Tx, record: T) -> None:
    """Keep a new object within a transaction; see :func:`add`."""
    kind, (parent, name) = _KINDS[type(record)], _keys(record)
    if isinstance(record, _UNIQUE) and tx.row(
        "SELECT id FROM kfp_objects WHERE kind = ? AND parent = ? AND name = ?", (kind, parent, name)
    ):
        raise errors.ConflictError(
            f"{_spoken(kind)} {name!r} exists already", way_out="Choose another name.", code="CON-530"
        )
    tx.execute(
        "INSERT INTO kfp_objects (kind, id, parent, name, created_at, unsettled, body) VALUES (?, ?, ?, ?, ?, 1, ?)",
        (kind, record.id, parent, name, record.created_at, _body(record)),
    )


def ensure_in(tx: Tx, record: RunRequest) -> None:
    """Keep a request within a transaction, unless there is one with its id."""
    if not tx.row("SELECT id FROM kfp_objects WHERE kind = 'run' AND id = ?", (record.id,)):
        add_in(tx, record)


def change(store: Store, kind: type[T], identifier: str, how: Callable[[T], T]) -> T:
    """Replace an object by what a function makes of it, in one transaction.

    :raises NotFoundError: NOF-530 when there is none.
    """
    with store.write() as tx:
        return change_in(tx, kind, identifier, how)


def change_in(tx: Tx, kind: type[T], identifier: str, how: Callable[[T], T]) -> T:
    """Replace an object within a transaction; see :func:`change`."""
    row = tx.row("SELECT body FROM kfp_objects WHERE kind = ? AND id = ?", (_KINDS[kind], identifier))
    if row is None:
        raise _missing(kind, identifier)
    changed = how(_read(row, kind))
    parent, name = _keys(changed)
    tx.execute(
        "UPDATE kfp_objects SET parent = ?, name = ?, unsettled = 1, body = ? WHERE kind = ? AND id = ?",
        (parent, name, _body(changed), _KINDS[kind], identifier),
    )
    return changed


def get(store: Store, kind: type[T], identifier: str) -> T:
    """Return one object.

    :raises NotFoundError: NOF-530 when there is none.
    """
    found = find(store, kind, identifier)
    if found is None:
        raise _missing(kind, identifier)
    return found


def find(store: Store, kind: type[T], identifier: str) -> T | None:
    """Return one object, or None."""
    with store.read() as tx:
        row = tx.row("SELECT body FROM kfp_objects WHERE kind = ? AND id = ?", (_KINDS[kind], identifier))
    return _read(row, kind) if row else None


def named(store: Store, kind: type[T], name: str, parent: str = "") -> T | None:
    """Return the object with a name within its parent (a version's pipeline, else the namespace), or None."""
    with store.read() as tx:
        row = tx.row(
            "SELECT body FROM kfp_objects WHERE kind = ? AND parent = ? AND name = ? ORDER BY created_at DESC LIMIT 1",
            (_KINDS[kind], parent, name),
        )
    return _read(row, kind) if row else None


def every(store: Store, kind: type[T], parent: str | None = None) -> list[T]:
    """Return all objects of a kind, newest first; only those of a parent when it is given."""
    where = "" if parent is None else "AND parent = ?"
    more: tuple[str, ...] = () if parent is None else (parent,)
    with store.read() as tx:
        rows = tx.rows(
            f"SELECT body FROM kfp_objects WHERE kind = ? {where} ORDER BY created_at DESC, id DESC",
            (_KINDS[kind], *more),
        )
    return [_read(row, kind) for row in rows]


def unsettled(store: Store) -> list[RunRequest]:
    """Return the requests that somebody still has to look after, newest first."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT body FROM kfp_objects WHERE kind = 'run' AND unsettled = 1 ORDER BY created_at DESC, id DESC"
        )
    return [_read(row, RunRequest) for row in rows]


def settle(store: Store, request: RunRequest) -> None:
    """Remember that there is nothing more to do for a request; one that was changed meanwhile is looked at again."""
    with store.write() as tx:
        tx.execute(
            "UPDATE kfp_objects SET unsettled = 0 WHERE kind = 'run' AND id = ? AND body = ?",
            (request.id, _body(request)),
        )


def remove(store: Store, kind: type[T], identifier: str) -> None:
    """Forget an object.

    :raises NotFoundError: NOF-530 when there is none.
    """
    with store.write() as tx:
        if not tx.execute("DELETE FROM kfp_objects WHERE kind = ? AND id = ?", (_KINDS[kind], identifier)):
            raise _missing(kind, identifier)


def _body(record: Any) -> str:
    return json.dumps(asdict(record), ensure_ascii=False)


def _read(row: Row, kind: type[T]) -> T:
    return codec.typed(json.loads(row["body"]), kind)


def _spoken(kind: str) -> str:
    return {"version": "pipeline version", "recurring": "recurring run"}.get(kind, kind)


def _missing(kind: type, identifier: str) -> errors.NotFoundError:
    return errors.NotFoundError(f"no {_spoken(_KINDS[kind])} {identifier!r}", code="NOF-530")
