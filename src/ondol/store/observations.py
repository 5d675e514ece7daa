"""The request log: what was asked and answered, by which release, and the labels that arrive later.

`seq` grows in commit order: a reader that remembers the last one it saw misses nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ondol.base import errors
from ondol.records import codec
from ondol.records.rollout import Observation
from ondol.store import counters
from ondol.store.connection import Row, Store, Tx


def append(store: Store, batch: Sequence[Observation]) -> None:
    """Append observations in one transaction."""
    if batch:
        with store.write() as tx:
            _append(tx, batch)


def _append(tx: Tx, batch: Sequence[Observation]) -> None:
    if not batch:
        return
    first = counters.reserve(tx, "observations", len(batch))
    tx.execute_many(
        "INSERT INTO observations (seq, id, at, service, rollout, label, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (first + offset, one.id, one.at, one.service, one.rollout, one.label, codec.encode(one))
            for offset, one in enumerate(batch)
        ],
    )


def append_new(store: Store, rollout: str, batch: Sequence[Observation]) -> int:
    """Append those that the rollout does not have yet, by id; return how many. For clients that may send again."""
    first: dict[str, Observation] = {}
    for one in batch:
        first.setdefault(one.id, one)
    with store.write() as tx:
        new = [
            one
            for one in first.values()
            if tx.row("SELECT seq FROM observations WHERE id = ? AND rollout = ?", (one.id, rollout)) is None
        ]
        _append(tx, new)
    return len(new)


def label(store: Store, labels: Mapping[str, str]) -> int:
    """Join ground truth (as JSON text) to requests by id, whether the request is logged already or not.

    Returns how many labels were new; a request's first label stays.
    """
    if not labels:
        return 0
    now, new = time.time(), 0
    with store.write() as tx:
        for request, value in labels.items():
            seq = counters.reserve(tx, "labels")
            new += tx.execute(
                "INSERT INTO labels (request, label, at, seq) VALUES (?, ?, ?, ?) ON CONFLICT (request) DO NOTHING",
                (request, value, now, seq),
            )
    return new


_SETTLED_SECONDS = 5.0  # a label may be here before its request, which is logged within a fraction of a second


def labels_after(store: Store, seq: int, limit: int) -> list[tuple[int, str, str]]:
    """Return up to `limit` labels after a position, as (position, request, label), in the order in which they came."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT seq, request, label FROM labels WHERE seq > ? AND at < ? ORDER BY seq LIMIT ?",
            (seq, time.time() - _SETTLED_SECONDS, limit),
        )
    return [(row["seq"], row["request"], row["label"]) for row in rows]


def by_ids(store: Store, requests: Sequence[str]) -> list[Observation]:
    """Return the requests of these ids that are in the database, without labels that came later."""
    found: list[Observation] = []
    with store.read() as tx:
        for start in range(0, len(requests), 500):
            part = requests[start : start + 500]
            marks = ", ".join("?" * len(part))
            found += [
                decoded(row["body"]) for row in tx.rows(f"SELECT body FROM observations WHERE id IN ({marks})", part)
            ]
    return found


def signal(store: Store, values: Mapping[str, Mapping[str, float]]) -> int:
    """Join numbers to requests by id, whether the request is logged already or not: `{request: {"quality": 0.8}}`.

    Returns how many were new; the first value of a name stays, here or in the request's own signals.

    :raises InputError: for a value that is not a finite number.
    """
    insert = "INSERT INTO late_signals (request, name, value, at, seq) VALUES (?, ?, ?, ?, ?)"
    return _keep_first(store, f"{insert} ON CONFLICT (request, name) DO NOTHING", _finite(values))


def signal_units(store: Store, rollout: str, values: Mapping[str, Mapping[str, float]]) -> int:
    """Join numbers to units of a rollout, seen already or not: `{unit: {"revenue": 12.5}}`.

    Returns how many were new; the first value of a name stays.

    :raises InputError: for a value that is not a finite number.
    """
    insert = "INSERT INTO unit_signals (rollout, unit, name, value, at, seq) VALUES (?, ?, ?, ?, ?, ?)"
    rows = [(rollout, *row) for row in _finite(values)]
    return _keep_first(store, f"{insert} ON CONFLICT (rollout, unit, name) DO NOTHING", rows)


def _keep_first(store: Store, insert: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Insert rows, each with the time and its place among everything that is joined; return how many were new."""
    if not rows:
        return 0
    now = time.time()
    with store.write() as tx:
        first = counters.reserve(tx, "labels", len(rows))
        return sum(tx.execute(insert, (*row, now, first + offset)) for offset, row in enumerate(rows))


def _finite(values: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str, float]]:
    rows = [(key, name, value) for key, named in values.items() for name, value in named.items()]
    for key, name, value in rows:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise errors.InputError(
                f"signal {name!r} is {value!r}", where=f"{key}.{name}", way_out="Give a finite number.", code="INP-032"
            )
    return [(key, name, float(value)) for key, name, value in rows]


def _observation(row: Row) -> Observation:
    one = codec.decode(row["body"], Observation)
    found = row.get("joined")
    return replace(one, label=found) if found else one


def decoded(body: str) -> Observation:
    """Return a stored observation as it was logged, without a label that came later."""
    return codec.decode(body, Observation)


def with_labels(store: Store, rows: Sequence[Observation]) -> list[Observation]:
    """Return requests with the labels and numbers that arrived for them, wherever the requests themselves are kept."""
    found: list[Observation] = []
    with store.read() as tx:
        for start in range(0, len(rows), 500):
            part = rows[start : start + 500]
            marks, names = ", ".join("?" * len(part)), [one.id for one in part]
            labels = {
                row["request"]: row["label"]
                for row in tx.rows(f"SELECT request, label FROM labels WHERE request IN ({marks})", names)
            }
            late: dict[str, dict[str, float]] = {}
            query = f"SELECT request, name, value FROM late_signals WHERE request IN ({marks})"
            for row in tx.rows(query, names):
                late.setdefault(row["request"], {})[row["name"]] = row["value"]
            found += [
                replace(one, label=labels.get(one.id, one.label), signals={**late.get(one.id, {}), **one.signals})
                for one in part
            ]
    return found


_JOINED = (
    "SELECT o.seq AS seq, o.body AS body, l.label AS joined FROM observations o LEFT JOIN labels l ON l.request = o.id "
)


def of_rollout(store: Store, rollout: str, after: int = 0) -> list[tuple[int, Observation]]:
    """Return a rollout's observations after a position, in order, with their labels joined."""
    with store.read() as tx:
        rows = tx.rows(_JOINED + "WHERE o.rollout = ? AND o.seq > ? ORDER BY o.seq", (rollout, after))
    return [(row["seq"], _observation(row)) for row in rows]


def of_service(
    store: Store, service: str, since: float = 0.0, until: float = 1e18, limit: int = 1_000_000
) -> list[Observation]:
    """Return a service's observations in a time window, oldest first, with their labels joined."""
    with store.read() as tx:
        rows = tx.rows(
            _JOINED + "WHERE o.service = ? AND o.at >= ? AND o.at < ? ORDER BY o.seq LIMIT ?",
            (service, since, until, limit),
        )
    return [_observation(row) for row in rows]


def _signalled(row: Row) -> Observation:
    return replace(codec.decode(row["body"], Observation), label="", signals={row["name"]: row["value"]})


@dataclass(frozen=True, slots=True)
class News:
    """What happened in a rollout since somebody last looked."""

    served: list[Observation]
    """Requests, in the order in which they were logged; without labels that are in `labelled`."""

    labelled: list[Observation]
    """Requests whose label arrived, with it, in the order of the labels."""

    signalled: list[Observation]
    """Requests about which one number arrived, with only that in `signals`, in the order of the numbers."""

    about_units: list[tuple[str, str, float]]
    """Unit, name and value of numbers about whole units, in the order in which they arrived."""

    position: int
    """Pass these two on to the next call."""

    label_position: int

    @property
    def any(self) -> bool:
        return bool(self.served or self.labelled or self.signalled or self.about_units)


def news(store: Store, rollout: str, position: int = 0, label_position: int = 0) -> News:
    """Return a rollout's requests after a position, and the labels that arrived for any of its requests.

    Costs only what is new: a label (or number) that was posted before its request was logged is found through the
    request, one that was posted afterwards through the label.
    """
    with store.read() as tx:
        fresh = tx.rows(
            "SELECT o.seq AS seq, o.body AS body, l.label AS joined, l.seq AS label_seq FROM observations o "
            "LEFT JOIN labels l ON l.request = o.id WHERE o.rollout = ? AND o.seq > ? ORDER BY o.seq",
            (rollout, position),
        )
        late = tx.rows(
            "SELECT o.body AS body, l.label AS joined, l.seq AS label_seq FROM labels l "
            "JOIN observations o ON o.id = l.request WHERE l.seq > ? AND o.rollout = ? AND o.seq <= ?",
            (label_position, rollout, position),
        )
        signals = tx.rows(
            "SELECT o.body AS body, s.name AS name, s.value AS value, s.seq AS seq FROM observations o "
            "JOIN late_signals s ON s.request = o.id WHERE o.rollout = ? AND o.seq > ?",
            (rollout, position),
        ) + tx.rows(
            "SELECT o.body AS body, s.name AS name, s.value AS value, s.seq AS seq FROM late_signals s "
            "JOIN observations o ON o.id = s.request WHERE s.seq > ? AND o.rollout = ? AND o.seq <= ?",
            (label_position, rollout, position),
        )
        units = tx.rows(
            "SELECT unit, name, value FROM unit_signals WHERE seq > ? AND rollout = ? ORDER BY seq",
            (label_position, rollout),
        )
        newest = tx.row("SELECT value FROM counters WHERE name = 'labels'")
    labelled = sorted([row for row in fresh if row["joined"]] + late, key=lambda row: int(row["label_seq"]))
    return News(
        served=[codec.decode(row["body"], Observation) for row in fresh],
        labelled=[_observation(row) for row in labelled],
        signalled=[_signalled(row) for row in sorted(signals, key=lambda row: int(row["seq"]))],
        about_units=[(row["unit"], row["name"], row["value"]) for row in units],
        position=fresh[-1]["seq"] if fresh else position,
        label_position=newest["value"] if newest else label_position,
    )


def after(store: Store, service: str, seq: int, limit: int) -> list[tuple[int, Observation]]:
    """Return up to `limit` observations of a service after a position, in order, with their labels joined."""
    with store.read() as tx:
        rows = tx.rows(_JOINED + "WHERE o.service = ? AND o.seq > ? ORDER BY o.seq LIMIT ?", (service, seq, limit))
    return [(row["seq"], _observation(row)) for row in rows]


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was asked and answered: a part of an observation, read in a fraction of the time."""

    release: str
    status: int
    features: str = ""
    prediction: str = ""
    shadow: bool = False


_EXCHANGES = "SELECT seq, body FROM observations WHERE service = ? AND seq > ? "


def exchanges_after(store: Store, service: str, seq: int, limit: int) -> tuple[list[Exchange], int]:
    """Return up to `limit` exchanges of a service after a position, in order, and the position of the last one."""
    with store.read() as tx:
        rows = tx.rows(_EXCHANGES + "ORDER BY seq LIMIT ?", (service, seq, limit))
    return [codec.decode(row["body"], Exchange) for row in rows], rows[-1]["seq"] if rows else seq


def exchanges_between(
    store: Store, service: str, since: float, until: float, page: int = 5_000
) -> Iterator[list[Exchange]]:
    """Yield the exchanges of a service in a time window, page by page, in the order in which they were logged."""
    with store.read() as tx:  # by the index on times; what is in between was logged in nearly the same order
        ends = tx.row(
            "SELECT MIN(seq) AS first, MAX(seq) AS last FROM observations WHERE service = ? AND at >= ? AND at < ?",
            (service, since, until),
        )
    if ends is None or ends["first"] is None:
        return
    position = ends["first"] - 1
    while position < ends["last"]:
        with store.read() as tx:
            rows = tx.rows(
                _EXCHANGES + "AND seq <= ? AND at >= ? AND at < ? ORDER BY seq LIMIT ?",
                (service, position, ends["last"], since, until, page),
            )
        if not rows:  # moved meanwhile
            return
        yield [codec.decode(row["body"], Exchange) for row in rows]
        position = rows[-1]["seq"]


def volume(store: Store, service: str, since: float, seconds: float, buckets: int) -> list[int]:
    """Return how many requests of a service are in each of some equal spans of time since a moment.

    Requests that were moved to files already are not counted.
    """
    with store.read() as tx:
        down = "FLOOR" if tx.dialect == "postgres" else ""  # there a cast rounds, in SQLite it cuts
        rows = tx.rows(
            f"SELECT CAST({down}((at - ?) / ?) AS BIGINT) AS bucket, COUNT(*) AS requests FROM observations "
            "WHERE service = ? AND at >= ? GROUP BY 1",
            (since, seconds, service, since),
        )
    found = {int(row["bucket"]): int(row["requests"]) for row in rows}
    return [found.get(number, 0) for number in range(buckets)]


def count_after(store: Store, service: str, seq: int, most: int) -> int:
    """Return how many observations of a service there are after a position, counting no further than `most`."""
    with store.read() as tx:
        row = tx.row(
            "SELECT COUNT(*) AS found FROM "
            "(SELECT seq FROM observations WHERE service = ? AND seq > ? LIMIT ?) AS first_ones",
            (service, seq, most),
        )
    return int(row["found"]) if row else 0


def has_after(store: Store, service: str, seq: int, count: int) -> bool:
    """Say whether there are at least `count` observations of a service after a position, without reading them."""
    with store.read() as tx:
        row = tx.row(
            "SELECT seq FROM observations WHERE service = ? AND seq > ? ORDER BY seq LIMIT 1 OFFSET ?",
            (service, seq, count - 1),
        )
    return row is not None
