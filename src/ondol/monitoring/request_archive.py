"""The request log beyond the last day: columnar files in the blob store, written by a compactor.

A segment is a Parquet file (zstd) with one row per request; features, prediction, label and signals stay the JSON they
were. Labels that arrive after a request was moved are joined when it is read. Must not decide what is logged.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ondol.base import ids
from ondol.records import codec
from ondol.records.rollout import Observation
from ondol.store import observations, segments
from ondol.store.blobs import Blobs
from ondol.store.connection import Store
from ondol.store.observations import Exchange
from ondol.store.segments import Segment

SEGMENT_REQUESTS = 50_000
"""At most in one file: some megabytes, read as a whole when it is read."""

_PAGE = 5_000  # requests that are read at a time

_LEAST = 1_000
"""Fewer are left where they are: a file for each handful of requests would cost more than it saves."""


class Archive:
    """The whole request log of a home: what is in the database, and what was moved to files."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store, self._blobs = store, blobs

    def compact(
        self, service: str, before: float, *, watched: bool = False, least: int = _LEAST, most: int = SEGMENT_REQUESTS
    ) -> int:
        """Move requests older than a time into files; return how many were moved.

        :param watched: leave what the drift watch has not looked at yet.
        :param least: fewer than this stay where they are.
        :param most: requests in one file.
        """
        moved = 0
        while True:
            found = segments.movable(self._store, service, before, most, watched)
            if len(found) < max(least, 1):
                return moved
            labelled = observations.with_labels(self._store, [one for _, one in found])
            data = to_parquet(labelled)
            times = [one.at for one in labelled]
            segment = Segment(
                ids.new_id("seg"), service, min(times), max(times), len(found), len(data), self._blobs.put_bytes(data)
            )
            if not segments.try_adopt(self._store, segment, [seq for seq, _ in found]):
                return moved  # another process compacts: it goes on
            moved += len(found)

    def read(self, service: str, since: float = 0.0, until: float = 1e18) -> Iterator[Observation]:
        """Yield the requests of a time window with their labels joined: the files' first, then the database's."""
        for segment in segments.every(self._store, service, since, until):
            rows = [one for one in self._segment(segment) if since <= one.at < until]
            yield from observations.with_labels(self._store, rows)
        yield from observations.of_service(self._store, service, since, until)

    def exchanges(self, service: str, since: float, until: float) -> Iterator[Exchange]:
        """Yield what was asked and answered in a time window: the files' first, then the database's.

        Only the columns that this needs are read, some thousand requests at a time: memory does not grow with them.
        """
        for segment in segments.every(self._store, service, since, until):
            yield from _exchanges(self._blobs.get_bytes(segment.blob), since, until)
        for page in observations.exchanges_between(self._store, service, since, until):
            yield from page

    def find(self, requests: Iterable[str]) -> list[Observation]:
        """Return the moved requests of these ids, without labels that arrived later."""
        wanted = set(requests)
        if not wanted:
            return []
        found = []
        for segment in segments.every(self._store):
            found += [one for one in self._segment(segment, sorted(wanted)) if one.id in wanted]
        return found

    def _segment(self, segment: Segment, only: Sequence[str] = ()) -> list[Observation]:
        return from_parquet(self._blobs.get_bytes(segment.blob), only)

    def retire(self, before: float) -> int:
        """Remove files whose newest request is older than a time; killed in between, the next call goes on."""
        old = segments.retire(self._store, before)
        for segment in old:
            if not segments.is_kept(self._store, segment.blob):
                self._blobs.remove(segment.blob)
            segments.forget(self._store, segment.id)
        return len(old)


_PLAIN = ("id", "at", "service", "release", "arm", "unit", "status", "latency_ms", "rollout", "weight")
_TEXTS = ("features", "prediction", "label")


def to_parquet(rows: Sequence[Observation]) -> bytes:
    """Return requests as one Parquet file; fields that are not columns of their own go into `more` as JSON."""
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {name: [getattr(one, name) for one in rows] for name in (*_PLAIN, *_TEXTS)}
    columns["more"] = [_more(one) for one in rows]
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def _exchanges(data: bytes, since: float, until: float) -> Iterator[Exchange]:
    from pyarrow import parquet

    columns = ["at", "release", "status", "features", "prediction", "more"]
    for batch in parquet.ParquetFile(io.BytesIO(data)).iter_batches(_PAGE, columns=columns):
        for at, release, status, features, prediction, more in zip(*batch.to_pydict().values(), strict=True):
            if since <= at < until:
                yield Exchange(release, status, features, prediction, _copied.decode(more).shadow)


class _Copied(msgspec.Struct):
    shadow: bool = False


_copied = msgspec.json.Decoder(_Copied)


def _more(one: Observation) -> str:
    rest = {key: value for key, value in codec.plain(one).items() if key not in (*_PLAIN, *_TEXTS)}
    return msgspec.json.encode(rest).decode()


def from_parquet(data: bytes, only: Sequence[str] = ()) -> list[Observation]:
    """Return the requests of a file, of these ids if given."""
    from pyarrow import parquet

    filters = [("id", "in", list(only))] if only else None
    table = parquet.read_table(io.BytesIO(data), filters=filters)
    found = []
    for row in table.to_pylist():
        more = msgspec.json.decode(row.pop("more"))
        found.append(codec.typed({**row, **more}, Observation))
    return found
