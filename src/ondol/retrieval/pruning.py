"""Removes snapshots of indexes that nobody can want any more.

Kept are: what an index name means now, what `ondol index rollback` would return to, what any release names, and
everything that was built or pointed at lately. Killed anywhere, a snapshot is whole or gone; the rest goes with the
next build. The same documents and options build the same snapshot again.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from ondol.base import errors
from ondol.retrieval import snapshot
from ondol.store import indexes, releases
from ondol.store.connection import Store


def prune(store: Store, home: Path, before: float) -> list[str]:
    """Remove snapshots that nothing names and that were last used before a time; return their digests."""
    kept = _named(store, before)
    removed = []
    for digest, folder in snapshot.folders(home):
        if digest in kept or _age(folder) >= before:
            continue
        gone = snapshot.leaving(folder)
        folder.rename(gone)
        if digest in _named(store, before) or _age(gone) >= before:  # somebody began to use it meanwhile
            gone.rename(folder)
            continue
        shutil.rmtree(gone, ignore_errors=True)
        removed.append(digest)
    return removed


def _named(store: Store, before: float) -> set[str]:
    """Return the digests that are named, or were by a move since a time."""
    kept = {str(one.manifest.get("index") or "").partition("@")[2] for one in releases.of_name(store)}
    for name in indexes.names(store):
        kept.add(indexes.current(store, name))
        kept.update(move.snapshot for move in indexes.history(store, name) if move.at >= before)
        with contextlib.suppress(errors.StateError):  # there is no earlier one
            kept.add(indexes.target_of_rollback(store, name))
    return kept


def _age(folder: Path) -> float:
    """Return when a snapshot was written, or found to be there by a build."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return float("inf")  # somebody else removed it
