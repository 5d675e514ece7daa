"""The ledger: every call of a model is booked before it is made and settled after.

One thread writes; calls that arrive together share a transaction (group commit), so that a booking costs about as much
as the database's answer time however many there are. `reserve` returns when the booking is committed, and `settle` when
the result is; a process that is killed in between leaves its bookings, which the next ledger to start settles as
estimated. Budgets are kept in the same transactions, so several processes can not overshoot together.

Must not make calls, and must not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ondol.base import clock, errors, ids
from ondol.monitoring import bookings, owners
from ondol.records.chat import TokenUsage
from ondol.records.usage import Reservation, UsageIntent, UsageRow
from ondol.store.connection import Store, Tx

log = logging.getLogger("ondol.ledger")
_BATCH = 512  # calls in one transaction
_GATHER = 0.002  # seconds: under load, wait for company before a transaction; alone, a call does not wait
_RETRY_WAITING = 0.05  # seconds: another process may have given money back
_RECOVER_EVERY = 60.0  # seconds between looks for calls whose process died


@dataclass(slots=True)
class _Operation:
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    intent: UsageIntent | None = None
    deadline: float = 0.0
    row: UsageRow | None = None
    reservation: Reservation | None = None
    result: Any = None
    error: Exception | None = None


@dataclass(slots=True)
class _Typical:
    """The last output lengths of one kind of call; their 95th percentile is what a new one is thought to need."""

    seen: deque[int] = field(default_factory=lambda: deque(maxlen=200))

    def tokens(self) -> int:
        if not self.seen:
            return 256
        return int(sorted(self.seen)[int(0.95 * (len(self.seen) - 1))] * 1.2) + 8


class Ledger:
    """Books calls into a store; a `Meter`.

    :param wait_seconds: how long a call waits for money that other calls hold before it is shortened or refused.
    :param on_alert: called (in the ledger's thread) when an alert was written.
    """

    def __init__(
        self,
        store: Store,
        wait_seconds: float = 2.0,
        on_alert: Callable[[], None] | None = None,
        time_source: clock.Clock = clock.SYSTEM,
    ) -> None:
        self._store, self._wait, self._on_alert, self._clock = store, wait_seconds, on_alert, time_source
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._waiting: list[_Operation] = []
        self._unwritten: deque[_Operation] = deque()
        self._typical: dict[tuple[str, str, str], _Typical] = {}
        self._thread: threading.Thread | None = None
        self._owner = owners.this_process()
        self._crowded = False

    def start(self) -> Ledger:
        """Settle what dead processes left behind and begin to write."""
        if self._thread is None:
            self._recover()
            self._thread = threading.Thread(target=self._run, name="ondol-ledger", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Write what is queued and end."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=10)
            self._thread = None

    # The callers' side.

    async def reserve(self, intent: UsageIntent) -> Reservation:
        """Book a call that is about to be made; durable when it returns.

        :raises RefusedError: REF-160 a budget is used up, REF-161 it applies and the model has no price.
        """
        result = await self._do(_Operation(*_future(), intent=intent, deadline=self._clock.now() + self._wait))
        assert isinstance(result, Reservation)
        return result

    async def settle(self, reservation: Reservation, usage: TokenUsage, outcome: str = "ok") -> UsageRow:
        """Book what a call really took; durable when it returns.

        Goes on in the background when the caller is cancelled meanwhile: what was produced is booked.
        """
        row = bookings.settled(reservation, usage, outcome, self._clock.now())
        if outcome == "ok" and usage.output:
            intent = reservation.intent
            key = (intent.application, intent.provider, intent.model)
            self._typical.setdefault(key, _Typical()).seen.append(usage.output)
        await self._do(_Operation(*_future(), row=row, reservation=reservation))
        return row

    async def _do(self, operation: _Operation) -> Any:
        if self._thread is None:
            raise errors.StateError("the ledger is not running", code="STA-160")
        self._queue.put(operation)
        return await operation.future

    # The writing thread.

    def _run(self) -> None:
        stopping, recovered = False, time.monotonic()
        while not stopping:
            batch = self._next()
            stopping = None in batch
            work = [one for one in batch if one is not None]
            if work or self._waiting or self._unwritten:
                self._write(work)
            if time.monotonic() - recovered > _RECOVER_EVERY:
                recovered = time.monotonic()
                self._recover()
        for one in self._waiting:
            one.error = errors.StateError("Ondol is stopping", code="STA-161")
        _answer(self._waiting)

    def _next(self) -> list[_Operation | None]:
        busy = self._waiting or self._unwritten
        try:
            batch = [self._queue.get(timeout=_RETRY_WAITING if busy else _RECOVER_EVERY)]
        except queue.Empty:
            return []
        if self._crowded:
            time.sleep(_GATHER)
        with contextlib.suppress(queue.Empty):
            while len(batch) < _BATCH:
                batch.append(self._queue.get_nowait())
        self._crowded = len(batch) > 1
        return batch

    def _write(self, batch: list[_Operation]) -> None:
        settles = [*self._unwritten, *(one for one in batch if one.row is not None)]
        reserves = [*self._waiting, *(one for one in batch if one.intent is not None)]
        self._unwritten.clear()
        self._waiting = []
        alerted = False
        try:
            with self._store.write() as tx:
                books = bookings.Books(tx, self._clock.now())
                for one in settles:
                    assert one.row is not None
                    assert one.reservation is not None
                    books.settle(one.row, one.reservation)
                for one in reserves:
                    self._reserve(tx, books, one)
                alerted = books.flush()
        except Exception as error:  # noqa: BLE001  the thread must live; what can not be written is tried again
            self._failed(settles, reserves, error)
            return
        for one in settles:
            one.result = one.row
        done = [one for one in reserves if one not in self._waiting]
        _answer([*settles, *done])
        if alerted and self._on_alert is not None:
            self._on_alert()

    def _reserve(self, tx: Tx, books: bookings.Books, one: _Operation) -> None:
        intent = one.intent
        assert intent is not None
        typical = self._typical.get((intent.application, intent.provider, intent.model), _Typical()).tokens()
        patient = self._clock.now() < one.deadline
        try:
            one.result = books.reserve(ids.new_id("use"), intent, typical, patient, self._owner)
        except errors.RefusedError as error:
            one.error = error
        if one.result is None and one.error is None:
            self._waiting.append(one)

    def _failed(self, settles: list[_Operation], reserves: list[_Operation], error: Exception) -> None:
        """Nothing of the batch was written: refuse the new calls, keep the finished ones to be written later."""
        log.error("the ledger could not write: %s", error)
        self._waiting = []
        for one in reserves:
            one.error, one.result = error, None
        _answer(reserves)
        for one in settles:  # their callers have an answer to give; the booking itself is durable already
            one.result = one.row
        _answer(settles)
        self._unwritten.extend(settles)
        time.sleep(0.2)

    def _recover(self) -> None:
        try:
            with self._store.write() as tx:
                books = bookings.Books(tx, self._clock.now())
                recovered = books.recover(lambda owner: not owners.is_alive(owner))
                books.flush()
        except errors.StateError as error:
            log.error("the ledger could not look for unfinished calls: %s", error)
            return
        if recovered:
            log.warning("%d calls had not been settled when their process ended: booked as estimated", recovered)


def _future() -> tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]:
    loop = asyncio.get_running_loop()
    return loop, loop.create_future()


def _resolve(operations: list[_Operation]) -> None:
    for one in operations:
        if one.future.done():
            continue
        if one.error is not None:
            one.future.set_exception(one.error)
        else:
            one.future.set_result(one.result)


def _answer(operations: list[_Operation]) -> None:
    """Wake the callers, with one call per event loop."""
    loops: dict[int, list[_Operation]] = {}
    for one in operations:
        loops.setdefault(id(one.loop), []).append(one)
    for group in loops.values():
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            group[0].loop.call_soon_threadsafe(_resolve, group)
