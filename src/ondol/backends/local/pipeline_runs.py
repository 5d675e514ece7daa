"""The controller of pipeline runs that were asked for: due -> request -> process -> end.

Level-triggered: every round looks at what is and does what is missing, so that it may be killed anywhere. A run whose
process was killed goes on in a new one, finished steps kept. Must not run a pipeline itself: that is user code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from ondol.base.settings import Settings
from ondol.pipelines import requests, runner, schedules
from ondol.records.kfp import RunRequest
from ondol.records.pipeline import PipelineRun
from ondol.store import kfp, runs
from ondol.store.connection import Store

MOST_ATTEMPTS = 5
"""Processes for one run in a row that finished no step; a run that kills each of them is given up."""

FORGOTTEN_SECONDS = 86_400.0
"""A run of the command line that was killed longer ago than this is not taken up again unasked."""


class Process(Protocol):
    """A process that runs a pipeline; `subprocess.Popen` is one."""

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...


class PipelineRuns:
    """Runs what was asked for, a few at a time.

    :param launch: starts the process that runs a request, by its id.
    """

    def __init__(self, store: Store, settings: Settings, launch: Callable[[str], Process], most: int = 0) -> None:
        self._store, self._settings, self._launch = store, settings, launch
        self._most = most or max(2, os.cpu_count() or 1)
        self._processes: dict[str, Process] = {}
        self._looked = False

    def round(self, now: float | None = None) -> None:
        """Do what is due."""
        now = time.time() if now is None else now
        self._processes = {run: one for run, one in self._processes.items() if one.poll() is None}
        if not self._looked:
            self._take_up(now)
            self._looked = True
        going = {record.id: record for record in runs.headers(self._store, "running")}
        waiting: list[RunRequest] = []
        busy = 0
        under_way: dict[str, int] = {}
        for request in kfp.unsettled(self._store):
            record = going.get(request.id) or runs.find(self._store, request.id)
            if self._settled(request, record):
                continue
            under_way[request.recurring] = under_way.get(request.recurring, 0) + 1
            if self._is_running(request.id):
                busy += 1
            else:
                waiting.append(request)
        for asked in schedules.ask(self._store, now, lambda recurring: under_way.get(recurring, 0)):
            waiting.insert(0, asked)
        for request in reversed(waiting):  # the oldest first
            if busy >= self._most:
                break
            busy += self._start(request)

    def stop(self) -> None:
        """End the processes; their runs go on at the next start."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        self._processes.clear()

    def _is_running(self, run: str) -> bool:
        return run in self._processes or runner.is_running(self._settings.home, run)

    def _settled(self, request: RunRequest, record: PipelineRun | None) -> bool:
        """Carry out a wish to stop; return whether there is nothing more to do for a request."""
        running = self._is_running(request.id)
        if request.wish != "run":
            if running:
                self._interrupt(request.id)
                return False
            if request.wish == "delete":
                requests.purge(self._store, self._settings.home, request.id)
            elif record is not None and record.state == "running":
                requests.give_up(self._store, request, record)
            else:
                kfp.settle(self._store, request)
            return True
        state = requests.state_of(request, record, running)
        if state in ("SUCCEEDED", "FAILED", "CANCELED"):
            kfp.settle(self._store, request)
            return True
        return False

    def _interrupt(self, run: str) -> None:
        """Ask a runner to stop, as Ctrl-C would; the lock it holds says that the process is still the one meant."""
        pid = runner.runner_of(self._settings.home, run)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGINT)

    def _start(self, request: RunRequest) -> int:
        record = runs.find(self._store, request.id)
        finished = sum(task.state == "succeeded" for task in record.tasks) if record is not None else 0
        attempts = 0 if finished > request.finished else request.attempts
        if attempts >= MOST_ATTEMPTS:
            message = f"its process ended {MOST_ATTEMPTS} times before it did: see logs/pipelines.log"
            kfp.change(self._store, RunRequest, request.id, lambda one: replace(one, error=message))
            return 0
        kfp.change(
            self._store, RunRequest, request.id, lambda one: replace(one, attempts=attempts + 1, finished=finished)
        )
        self._processes[request.id] = self._launch(request.id)
        return 1

    def _take_up(self, now: float) -> None:
        """Ask for the runs of the command line whose process was killed."""
        for record in runs.headers(self._store, "running"):
            if record.origin != "cli" or now - record.started_at > FORGOTTEN_SECONDS:
                continue
            if kfp.find(self._store, RunRequest, record.id) is None and not self._is_running(record.id):
                kfp.add(self._store, requests.adopt(record))
