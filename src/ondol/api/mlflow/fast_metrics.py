"""`log-metric` and metrics-only `log-batch`, written straight into MLflow's own tables, many requests to a commit.

The meaning is MLflow's, to the row: the same tables, the same handling of NaN, infinities, duplicates and of the latest
value. Only the ordinary request is taken; anything else (an unknown field, a bad name, a deleted run, a model metric, a
browser's request …) goes to MLflow unchanged, which then answers in its own words. A conformance test compares both.

Acknowledged means committed (WAL, synchronous=NORMAL): it survives kill -9.
"""

from __future__ import annotations

import asyncio
import logging
import math
import posixpath
import queue
import re
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ondol.api.mlflow import body

_log = logging.getLogger(__name__)
_PATHS = frozenset(
    f"/{root}/2.0/mlflow/runs/{verb}" for root in ("api", "ajax-api") for verb in ("log-metric", "log-batch")
)
_NAME = re.compile(r"[/\w.\- :]{1,250}")
_RUN = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_LOCAL_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # how protobuf writes them in JSON
_LARGEST = 1.7976931348623157e308  # SQL cannot say infinity: MLflow stores the largest double
_INT64 = 1 << 63
_MAX_METRICS = 1000  # MLflow's own limit; above it MLflow says so
_MAX_BYTES = 1_000_000
_BATCH = 512  # requests to one commit
_SINGLE = {"run_id", "run_uuid", "key", "value", "timestamp", "step"}
_METRIC = {"key", "value", "timestamp", "step"}

Row = tuple[str, str, float, int, int, bool]  # run, key, value, timestamp in ms, step, is NaN


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return _SPECIAL.get(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _integer(value: Any, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value < _INT64


def _name_is_plain(name: Any) -> bool:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return False
    return posixpath.normpath(name) == name and name != "." and not name.startswith(("..", "/"))


def _row(run: str, metric: Any, allowed: set[str]) -> Row | None:
    if not isinstance(metric, dict) or not metric.keys() <= allowed:
        return None
    number = _number(metric.get("value"))
    timestamp: Any = metric.get("timestamp")
    step: Any = metric.get("step", 0)
    if number is None or not _name_is_plain(metric.get("key")):
        return None
    if not _integer(timestamp, 0) or not _integer(step, -_INT64):
        return None
    is_nan = math.isnan(number)
    if is_nan:
        number = 0.0
    elif math.isinf(number):
        number = math.copysign(_LARGEST, number)
    return run, metric["key"], number, timestamp, step, is_nan


def rows_of(path: str, request: body.Json) -> list[Row] | None:
    """Return the rows an ordinary request asks for, or None when it is MLflow's to answer."""
    run = request.get("run_id") or request.get("run_uuid")
    if not isinstance(run, str) or not _RUN.fullmatch(run) or request.get("run_uuid", run) != run:
        return None
    if path.endswith("log-metric"):
        row = _row(run, request, _SINGLE)
        return [row] if row else None
    metrics = request.get("metrics")
    if not isinstance(metrics, list) or not 0 < len(metrics) <= _MAX_METRICS:
        return None
    if not request.keys() <= {"run_id", "metrics", "params", "tags"} or request.get("params") or request.get("tags"):
        return None
    rows = [_row(run, metric, _METRIC) for metric in metrics]
    known = [row for row in rows if row is not None]
    return known if len(known) == len(rows) else None


@dataclass(slots=True)
class _Job:
    rows: Sequence[Row]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[bool]


class FastMetrics:
    """The writer: one thread, one connection, one transaction for all requests that wait.

    :param file: MLflow's SQLite database, its schema made already.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="metrics-writer", daemon=True)
        self._thread.start()

    def wants(self, path: str) -> bool:
        """Say whether a path may be taken."""
        return path in _PATHS

    def close(self) -> None:
        """Write what was accepted, then end the thread."""
        self._jobs.put(None)
        self._thread.join(5)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, mlflow: ASGIApp) -> None:
        read = await body.read(receive)
        rows = None
        if self._is_plain(scope, read):
            request = read.json()
            rows = rows_of(scope["path"], request) if request is not None else None
        if rows is None or not await self._write(rows):
            await mlflow(scope, read, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    @staticmethod
    def _is_plain(scope: Scope, read: body.Buffered) -> bool:
        """Whether MLflow's own checks of type, origin, host and workspace could not object."""
        headers = dict(scope["headers"])
        if b"origin" in headers or b"x-mlflow-workspace" in headers or len(read.data) > _MAX_BYTES:
            return False
        kind = headers.get(b"content-type", b"").decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1")
        return kind.partition(";")[0].strip() == "application/json" and _LOCAL_HOST.fullmatch(host) is not None

    async def _write(self, rows: Sequence[Row]) -> bool:
        loop = asyncio.get_running_loop()
        job = _Job(rows, loop, loop.create_future())
        self._jobs.put(job)
        return await job.done

    def _run(self) -> None:
        connection = sqlite3.connect(self._file, timeout=20, isolation_level=None)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        open_for_more = True
        while open_for_more:
            jobs = [self._jobs.get()]
            # Whoever came while the last commit was under way shares the next one.
            while jobs[-1] is not None and len(jobs) < _BATCH and not self._jobs.empty():
                jobs.append(self._jobs.get())
            open_for_more = jobs[-1] is not None
            self._commit(connection, [job for job in jobs if job is not None])
        connection.close()

    @staticmethod
    def _commit(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                written = [_insert(connection, job.rows) for job in jobs]
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            # Disk full, or the lock could not be had: MLflow tries the same and words the error.
            _log.warning("metrics writer: %s", error)
            written = [False] * len(jobs)
        for job, result in zip(jobs, written, strict=True):
            job.loop.call_soon_threadsafe(_resolve, job.done, result)


def _resolve(done: asyncio.Future[bool], result: bool) -> None:
    if not done.done():  # the client may have gone
        done.set_result(result)


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> bool:
    found = connection.execute("SELECT lifecycle_stage FROM runs WHERE run_uuid = ?", (rows[0][0],)).fetchone()
    if found is None or found[0] != "active":
        return False
    connection.executemany(
        "INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (key, timestamp, step, run_uuid, value, is_nan) DO NOTHING",
        rows,
    )
    connection.executemany(
        "INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value, timestamp = excluded.timestamp, "
        "step = excluded.step, is_nan = excluded.is_nan WHERE (excluded.step, excluded.timestamp, excluded.value) "
        "> (latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)",
        rows,
    )
    return True
