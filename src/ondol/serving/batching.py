"""Micro-batching that never waits: a batch is what queued up while something else was being done.

Cheap work runs on the event loop, once per turn of the loop, for all requests that arrived in that turn. Work that
would hold the loop goes to the model's own thread; what arrives meanwhile is the next batch. No timer delays anybody.
The queue is bounded by time: a request that could not be answered before its deadline, given what is before it and how
long the model takes, is refused at the door. One that finds nobody before it is always tried.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ondol.base import errors
from ondol.serving import describing
from ondol.serving import rows as rows_module
from ondol.serving.engines.base import Engine
from ondol.serving.engines.compiled import Choice
from ondol.serving.inputs import InputSpec
from ondol.serving.rows import Rows
from ondol.serving.service_time import ServiceTime

Done = Callable[[list[Any] | None, Exception | None], None]

INLINE_ONE_ROW_US = 100.0
"""A model slower than this for one row never runs on the event loop."""

INLINE_BATCH_US = 1_000.0
"""Longest a batch may hold the event loop."""

MAX_BATCH_ROWS = 4_096


class Job:
    """Rows of one request on their way through a model."""

    __slots__ = ("deadline", "done", "probabilities", "rows")

    def __init__(self, rows: Rows, probabilities: bool | None, deadline: float, done: Done) -> None:
        self.rows = rows
        self.probabilities = probabilities
        """Whether they are wanted instead of labels; None: every output, one list of them per row."""
        self.deadline = deadline
        self.done = done


class Batcher:
    """The one queue in front of a model's engine. All methods but `_compute` run on the event loop.

    :param most_waiting_rows: bound of the queue, whatever the deadlines say.
    """

    def __init__(self, choice: Choice, spec: InputSpec, most_waiting_rows: int = 100_000) -> None:
        self._choice = choice
        self._spec = spec
        self._inline_rows = _rows_within(choice, INLINE_BATCH_US) if 0 < choice.one_row_us < INLINE_ONE_ROW_US else 0
        self._most = most_waiting_rows
        self._turn: list[Job] = []
        self._turn_rows = 0
        self._queue: deque[Job] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._busy = False
        self._closing = False
        self._time = ServiceTime(choice)
        self._queued_rows = 0
        self._busy_until = 0.0
        """When the batch in the thread should be done, on the monotonic clock."""

        self.most_jobs = 0
        """Requests at once in the model (KServe's containerConcurrency); 0: no limit."""

        self.waiting_rows = 0
        """Rows that are queued or being computed."""

    def expected_seconds(self, rows: int) -> float:
        """Return how long a request of so many rows would wait for its answer if it came now."""
        if rows <= self._inline_rows:
            return self._time.of(self._turn_rows + rows)
        total = self._queued_rows + rows
        batches = -(-(len(self._queue) + 1) // self.most_jobs) if self.most_jobs else -(-total // MAX_BATCH_ROWS)
        running = max(self._busy_until - time.monotonic(), 0.0) if self._busy else 0.0
        return running + self._time.of(total, batches)

    def submit(self, job: Job) -> bool:
        """Take a job; `job.done(predictions, error)` is called on the event loop, never before this returns.

        Returns whether it will be computed in this turn of the loop, so that no timeout is needed.

        :raises RefusedError: REF-020 when the queue is full or the deadline cannot be met.
        """
        count = len(job.rows)
        at_once = self._turn_rows + count <= self._inline_rows  # in this turn of the loop, within a millisecond
        if self.waiting_rows and not at_once:
            seconds = self.expected_seconds(count)
            if self.waiting_rows + count > self._most or time.monotonic() + seconds > job.deadline:
                raise self._too_busy(seconds)
        self.waiting_rows += count
        if count <= self._inline_rows:
            self._turn.append(job)
            self._turn_rows += count
            if len(self._turn) == 1:
                asyncio.get_running_loop().call_soon(self._run_turn)
            return True
        self._queue.append(job)
        self._queued_rows += count
        if not self._busy:
            self._next()
        return False

    def _too_busy(self, seconds: float) -> errors.RefusedError:
        refused = errors.RefusedError(
            f"too busy: {self.waiting_rows} rows are waiting, an answer would take {seconds:.3g} s",
            way_out=f"Try again in {max(1, round(seconds))} s.",
            code="REF-020",
        )
        refused.retry_after = seconds
        return refused

    def close(self) -> None:
        """Let the thread go once its work is done; a late job would start another."""
        self._closing = True
        if self._pool is not None and not self._busy:
            self._pool.shutdown(wait=False)
            self._pool = None

    def _run_turn(self) -> None:
        jobs, self._turn, self._turn_rows = self._turn, [], 0
        if self.waiting_rows > self._inline_rows or self.most_jobs:
            for part in self._cut(jobs):
                self._deliver(part, self._compute(part))
        else:
            self._deliver(jobs, self._compute(jobs))

    def _cut(self, jobs: list[Job]) -> list[list[Job]]:
        """Return the jobs in batches that hold the loop no longer than they may."""
        parts: list[list[Job]] = [[]]
        rows, most = 0, self.most_jobs or MAX_BATCH_ROWS
        for job in jobs:
            if parts[-1] and (rows + len(job.rows) > self._inline_rows or len(parts[-1]) >= most):
                parts.append([])
                rows = 0
            parts[-1].append(job)
            rows += len(job.rows)
        return parts

    def _next(self) -> None:
        """Start the next batch in the thread: everything that queued up, up to a size."""
        jobs: list[Job] = []
        rows, now, most = 0, time.monotonic(), self.most_jobs or MAX_BATCH_ROWS
        while self._queue and len(jobs) < most and (not jobs or rows + len(self._queue[0].rows) <= MAX_BATCH_ROWS):
            job = self._queue.popleft()
            self._queued_rows -= len(job.rows)
            if job.deadline < now:  # nobody waits for it any more
                self.waiting_rows -= len(job.rows)
                job.done(None, TimeoutError())
                continue
            rows += len(job.rows)
            jobs.append(job)
        if not jobs:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "ondol-model")
        self._busy = True
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        self._busy_until = now + self._time.of(rows)
        future = loop.run_in_executor(self._pool, self._compute, jobs)
        future.add_done_callback(lambda done: self._finished(jobs, rows, started, done))

    def _finished(self, jobs: list[Job], rows: int, started: float, future: asyncio.Future[Any]) -> None:
        self._busy = False
        self._time.learn(rows, time.perf_counter() - started)
        self._deliver(jobs, future.result())
        if self._queue:
            self._next()
        elif self._closing:
            self.close()

    def _deliver(self, jobs: list[Job], results: list[tuple[list[Any] | None, Exception | None]]) -> None:
        for job, (predictions, error) in zip(jobs, results, strict=True):
            self.waiting_rows -= len(job.rows)
            job.done(predictions, error)

    def _compute(self, jobs: list[Job]) -> list[tuple[list[Any] | None, Exception | None]]:
        """Return every job's predictions; when a batch fails, each job is tried alone, so that one cannot harm all."""
        if len({job.probabilities for job in jobs}) == 1:
            try:
                return self._together(jobs)
            except Exception as error:  # noqa: BLE001 - whatever a model raises is an answer to its request
                if len(jobs) == 1:
                    return [(None, error)]
        return [result for job in jobs for result in self._compute([job])]

    def _together(self, jobs: list[Job]) -> list[tuple[list[Any] | None, Exception | None]]:
        rows = rows_module.joined([job.rows for job in jobs])
        engine = self._choice.engine
        cells = getattr(engine, "takes_cells", False)
        matrix = rows_module.cells_of(rows) if cells else describing.as_rows(rows, self._spec)
        if jobs[0].probabilities is None:
            outputs = [_checked(found, len(rows)) for found in _everything(engine, matrix)]
            answers = [list(row) for row in zip(*outputs, strict=True)]
        else:
            found = engine.predict_proba(matrix) if jobs[0].probabilities else engine.predict(matrix)
            answers = _checked(found, len(rows))
        if len(jobs) == 1:
            return [(answers, None)]
        parts: list[tuple[list[Any] | None, Exception | None]] = []
        start = 0
        for job in jobs:
            stop = start + len(job.rows)
            parts.append((answers[start:stop], None))
            start = stop
        return parts


def _everything(engine: Engine, matrix: Any) -> list[Any]:
    """Return all outputs: what the engine says they are, else labels and probabilities."""
    own = getattr(engine, "everything", None)
    return own(matrix) if own is not None else [engine.predict(matrix), engine.predict_proba(matrix)]


def _checked(found: Any, rows: int) -> list[Any]:
    """Return one output as plain values, one per row."""
    if len(found) != rows:
        raise ValueError(f"the model answered {len(found)} rows to {rows}")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError("the model answered a number that is not finite")
    values: list[Any] = found.tolist()
    return values


def _rows_within(choice: Choice, microseconds: float) -> int:
    """Return how many rows an engine computes in a time, at most a batch."""
    if choice.per_row_us <= 0:
        return MAX_BATCH_ROWS
    return max(1, min(MAX_BATCH_ROWS, int((microseconds - choice.one_row_us) / choice.per_row_us) + 1))
