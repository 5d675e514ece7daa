"""The processes of one worker: kept alive, scaled, and given requests.

A thread starts, looks at and stops processes; the event loop sends requests. What they share is replaced, not changed:
the tuple of ready workers. A request goes to the ready worker with the fewest; when none can take it, it waits in a
bounded queue, which is also what wakes a worker that had scaled to zero. A process that dies answers its requests with
503 and is started again, later each time it dies young.

Must not know a protocol: method, path, headers and body go through as they are.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ondol.base import errors, transport
from ondol.records.worker import Scaling, WorkerSpec
from ondol.serving.workers.process import GRACE_SECONDS, Worker
from ondol.serving.workers.scaling import Autoscaler, LoadMeter

log = logging.getLogger("ondol.workers")

MOST_WAITING = 1_000
"""Requests that may wait for a process; further ones are refused."""

DRAIN_SECONDS = 60.0
"""How long a process that is no longer wanted may take for the requests it has."""

START_SECONDS = 600.0
"""A process that does not serve after this long counts as failed."""

_LOOK_SECONDS = 0.05
_SCALE_SECONDS = 0.5
_LAST_CALL_SECONDS = 0.5  # requests that found the pool just before it was closed still get in
_STEADY_SECONDS = 10.0
_BACK_OFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_FIRST_TRIES = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs on this machine."""

    python: str
    """The interpreter of its environment."""

    log: Path
    extra: Mapping[str, str]
    mounts: Mapping[str, Path]
    secrets: Callable[[], Mapping[str, str]]
    """Looks up what the spec names by reference, for every process anew."""


class Pool:
    """The processes of one spec.

    :param name: for logs: service and component.
    :param loop: the event loop that sends requests.
    """

    def __init__(
        self, name: str, spec: WorkerSpec, scaling: Scaling, place: Place, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.name = name
        self.spec = spec
        self.place = place
        self.ready: tuple[Worker, ...] = ()
        self.restarts = 0
        self.failure = ""
        """Why it does not serve, when it does not."""

        self.load = LoadMeter()
        self._loop = loop
        self._client = transport.Client()
        self._scaler = Autoscaler(scaling)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._starting: list[Worker] = []
        self._leaving: list[tuple[Worker, float]] = []
        self._young_deaths = 0
        self._not_before = 0.0
        self._ever = False
        self._closed_at = 0.0
        self._changed = threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ondol-pool-{name}", daemon=True)

    # What the thread does.

    def start(self) -> None:
        """Begin to start processes."""
        self._thread.start()

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait for the first process that serves.

        :raises ComponentError: RUN-340 when it ends or does not serve in time, with what it printed.
        """
        self._first.wait(seconds)
        if not self._ever:
            self.close()
            raise errors.ComponentError(
                self.failure or f"{self.name} does not serve after {seconds:g} s",
                where=str(self.place.log),
                way_out="Its log says more; run the command by hand.",
                code="RUN-340",
            )

    @property
    def scaling(self) -> Scaling:
        return self._scaler.scaling

    def rescale(self, scaling: Scaling) -> None:
        """Take another scaling; the load that was measured stays."""
        self._scaler.scaling = scaling
        self._changed.set()

    def close(self, wait: bool = False) -> None:
        """Take no new requests soon; end the processes when those under way are answered.

        :param wait: return when they are gone.
        """
        self._closed_at = self._closed_at or time.monotonic()
        self._changed.set()
        if wait and self._thread.is_alive():
            self._thread.join(DRAIN_SECONDS + GRACE_SECONDS)

    def _run(self) -> None:
        wanted, scaled, changed = max(1, self.scaling.least), 0.0, False
        while True:
            now = time.monotonic()
            closing = bool(self._closed_at) and (not self._ever or now - self._closed_at > _LAST_CALL_SECONDS)
            if closing:
                self._dismiss([*self.ready, *self._starting], now)
                self._starting = []
                self._publish(())
            elif changed or now - scaled >= _SCALE_SECONDS:
                scaled, wanted = now, self._want(now, wanted)
            self._bury(now)
            self._look(now)
            if not closing:
                self._keep(wanted, now)
            self._let_go(now)
            if closing and not self._leaving:
                return
            quiet = not (self._starting or self._leaving or self._closed_at)
            changed = self._changed.wait(_SCALE_SECONDS if quiet else _LOOK_SECONDS)
            self._changed.clear()

    def _want(self, now: float, wanted: int) -> int:
        measured = self.load.take(now)
        if not self._ever:
            return wanted
        self._scaler.record(now, *measured)
        return self._scaler.wanted(now, len(self.ready))

    def _bury(self, now: float) -> None:
        """Take out what has ended, and plan when to try again."""
        for worker in (*self.ready, *self._starting):
            code = worker.exit_code()
            if code is None and worker in self._starting and now - worker.started > START_SECONDS:
                worker.ask_to_stop()
            if code is None:
                continue
            young = now - worker.started < _STEADY_SECONDS or worker in self._starting
            self._young_deaths = self._young_deaths + 1 if young else 0
            self._not_before = now + _BACK_OFF[min(self._young_deaths, len(_BACK_OFF) - 1)]
            self._reject(worker, f"{self.name} ended with exit code {code}", worker.last_words())

    def _reject(self, worker: Worker, reason: str, details: str = "") -> None:
        log.warning("%s; its log: %s", reason, worker.log)
        self.restarts += 1
        self._starting = [one for one in self._starting if one is not worker]
        self._publish(tuple(one for one in self.ready if one is not worker))
        worker.end()
        if not self.ready:
            self.failure = f"{reason}: {details}" if details else reason
        if not self._ever and self._young_deaths >= _FIRST_TRIES:
            self._first.set()

    def _look(self, now: float) -> None:
        for worker in self.ready:
            if worker.suspect and worker.exit_code() is None and worker.look():
                worker.suspect = False
                self._call(self._wake)
        for worker in list(self._starting):
            try:
                if not worker.look():
                    continue
            except errors.StateError as error:
                self._young_deaths = _FIRST_TRIES
                self._not_before = now + _BACK_OFF[-1]
                self._reject(worker, error.message)
                continue
            self._starting.remove(worker)
            log.info("%s serves at %s after %.1f s", self.name, worker.url, now - worker.started)
            self.failure, self._ever = "", True
            self._publish((*self.ready, worker))
            self._first.set()

    def _keep(self, wanted: int, now: float) -> None:
        have = len(self.ready) + len(self._starting)
        if have < wanted and now >= self._not_before and (self._ever or self._young_deaths < _FIRST_TRIES):
            try:
                for _ in range(wanted - have):
                    place = self.place
                    secrets = place.secrets()
                    self._starting.append(
                        Worker(self.spec, place.python, place.log, place.extra, place.mounts, secrets=secrets)
                    )
            except (errors.OndolError, OSError) as error:
                self.failure = str(error)
                self._young_deaths, self._not_before = _FIRST_TRIES, now + _BACK_OFF[-1]
                self._first.set()
        elif have > wanted:
            spare = (self._starting + sorted(self.ready, key=lambda one: one.in_flight))[: have - wanted]
            self._starting = [one for one in self._starting if one not in spare]
            self._publish(tuple(one for one in self.ready if one not in spare))
            self._dismiss(spare, now)

    def _dismiss(self, workers: list[Worker], now: float) -> None:
        self._leaving += [(worker, now) for worker in workers]

    def _let_go(self, now: float) -> None:
        """Stop those that left once they are idle; a request that picked one just before still gets there."""
        still = []
        for worker, since in self._leaving:
            if (worker.in_flight or now - since < 2 * _LOOK_SECONDS) and now - since < DRAIN_SECONDS:
                still.append((worker, since))
                continue
            worker.ask_to_stop()
            threading.Thread(target=worker.end, name="ondol-worker-end", daemon=False).start()
        self._leaving = still

    def _publish(self, ready: tuple[Worker, ...]) -> None:
        if ready != self.ready:
            self.ready = ready
            self._call(self._wake)

    def _call(self, wake: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(wake)

    # What the event loop does.

    async def send(
        self, method: str, path: Callable[[str], str], headers: Mapping[str, str], body: bytes, seconds: float
    ) -> Answer:
        """Send a request over HTTP; raises as `ask`.

        :param path: gives the path, told what the process calls its model (empty: it does not say).
        """

        async def over_http(worker: Worker) -> Answer:
            answer = await self._client.send(method, worker.url + path(worker.model_name), headers, body, seconds)
            return Answer(answer.status, answer.headers, await answer.read())

        return await self.ask(over_http, seconds)

    async def ask(self, send: Callable[[Worker], Awaitable[Answer]], seconds: float) -> Answer:
        """Let a process that is ready answer, waiting for one when needed.

        :param send: sends the request to a process; a `ConnectFailed` of its own sends it to another.
        :param seconds: for everything together.
        :raises RefusedError: REF-020 when too many wait already.
        :raises StateError: STA-340 when the process died under the request, or none can be started.
        :raises TimeoutError: when the time is over.
        """
        self.load.change(1)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    worker = await self._acquire()
                    try:
                        return await send(worker)
                    except transport.ConnectFailed:  # nothing was sent: another may take it
                        self._suspect(worker)
                    except transport.Broken:
                        self._suspect(worker)
                        raise
                    finally:
                        worker.in_flight -= 1
                        self._wake()
        except transport.TimedOut as error:
            raise TimeoutError from error
        except transport.Broken as error:
            raise _unavailable(f"the process behind {self.name} ended while it answered") from error
        finally:
            self.load.change(-1)

    def _suspect(self, worker: Worker) -> None:
        worker.suspect = True
        self._changed.set()

    async def _acquire(self) -> Worker:
        """Return a process that may take one more request, waiting for it in turn."""
        while True:
            limit = self.scaling.limit
            free = [one for one in self.ready if not one.suspect and (not limit or one.in_flight < limit)]
            if free:
                worker = min(free, key=lambda one: one.in_flight)
                worker.in_flight += 1
                return worker
            if not self.ready and (self._closed_at or (self.failure and self._young_deaths > 1)):
                why = self.failure.partition("\n")[0] or "it was stopped"
                raise _unavailable(f"{self.name} is not running: {why}")
            if len(self._waiting) >= MOST_WAITING:
                message = f"too busy: {len(self._waiting)} requests wait for {self.name}"
                raise errors.RefusedError(message, way_out="Try again.", code="REF-020")
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            self._changed.set()  # the thread may have to start one
            try:
                await turn
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)

    def _wake(self) -> None:
        """Let those who wait look again: as many as there may be room for."""
        room = sum((self.scaling.limit or len(self._waiting)) - one.in_flight for one in self.ready)
        while self._waiting and (room > 0 or not self.ready):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1

    @property
    def waiting(self) -> int:
        """Requests that wait for a process."""
        return len(self._waiting)


def _unavailable(message: str) -> errors.StateError:
    return errors.StateError(message, way_out="Send it again; a new process is being started.", code="STA-340")
