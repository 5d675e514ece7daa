"""Keeps what only grows from growing without end: moves older requests to files, removes what is past its time.

Every step may be repeated and killed anywhere. Must not touch decisions, rollouts, releases or bookings: they are kept.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ondol.base import duration
from ondol.monitoring.request_archive import Archive
from ondol.records.project import MonitoringSpec
from ondol.store import routes, segments, spans
from ondol.store.blobs import Blobs
from ondol.store.connection import Store


@dataclass(frozen=True, slots=True)
class Kept:
    """What one round did."""

    moved: int
    """Requests that went to files."""

    files: int
    """Files that were removed."""

    rows: int
    """Rows that were removed, of all tables."""


def tidy(store: Store, blobs: Blobs, spec: MonitoringSpec, watched: Collection[str], now: float) -> Kept:
    """Do one round: cheap when there is nothing to do, and never longer than some seconds.

    :param watched: services whose requests stay until the drift watch has looked at them.
    """
    archive = Archive(store, blobs)
    recent = now - duration.seconds(spec.recent)
    names = [route.service for route in routes.every(store)]
    moved = sum(archive.compact(name, recent, watched=name in watched) for name in names)
    past = now - duration.seconds(spec.retention)
    files = archive.retire(past)
    rows = sum(segments.prune(store, table, past) for table in ("observations", "labels", "late_signals"))
    rows += spans.remove_before(store, now - duration.seconds(spec.traces))
    return Kept(moved, files, rows)
