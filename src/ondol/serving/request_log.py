"""Observations on their way to the store: taken without waiting, written in batches by one thread.

A request must never wait for the disk, nor fail because of it. What was answered is therefore in memory for at most
`flush_seconds` before it is committed: that is the window a kill -9 may cost. Labels do not go through here: they are
committed before they are acknowledged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable

from ondol.base import errors
from ondol.records.rollout import Observation
from ondol.store import observations
from ondol.store.connection import Store

log = logging.getLogger("ondol.serving")

FLUSH_SECONDS = 0.2
CAPACITY = 200_000
"""Observations held when the database is slow or away; further ones are dropped and counted."""

BATCH = 5_000
"""Observations per transaction: short enough that other writers get their turn."""


class RequestLog:
    """A bounded queue in front of `store.observations`.

    :param store: where observations go.
    :param flush_seconds: longest time an observation stays in memory only.
    :param capacity: how many may wait; more are dropped and counted in `dropped`.
    """

    def __init__(self, store: Store, flush_seconds: float = FLUSH_SECONDS, capacity: int = CAPACITY) -> None:
        self._store = store
        self._flush_seconds = flush_seconds
        self._capacity = capacity
        self._queue: deque[Observation] = deque()
        self._writing = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.dropped = 0
        """How many observations were lost because the queue was full."""
        self.written = 0
        """How many are committed."""

    def start(self) -> None:
        """Begin to write in the background; appending works before, too."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="ondol-request-log", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Write what is queued and stop."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.flush()

    def append(self, observation: Observation) -> None:
        """Queue an observation; never blocks, never raises."""
        if len(self._queue) >= self._capacity:
            self.dropped += 1
        else:
            self._queue.append(observation)

    def extend(self, batch: Iterable[Observation]) -> None:
        """Queue several observations."""
        for observation in batch:
            self.append(observation)

    @property
    def waiting(self) -> int:
        """How many observations are not committed yet."""
        return len(self._queue)

    def flush(self) -> None:
        """Write everything that is queued now, in the caller's thread."""
        with self._writing:
            while batch := self._take():
                try:
                    observations.append(self._store, batch)
                except errors.OndolError as error:
                    self._queue.extendleft(reversed(batch))  # nothing is lost; the next round tries again
                    log.warning("request log: %s; %d observations wait", error.message, len(self._queue))
                    return
                self.written += len(batch)

    def _take(self) -> list[Observation]:
        batch: list[Observation] = []
        while self._queue and len(batch) < BATCH:
            batch.append(self._queue.popleft())
        return batch

    def _run(self) -> None:
        while not self._stopping.wait(self._flush_seconds):
            if self._queue:
                self.flush()
                time.sleep(0)  # let request threads in between two bursts
