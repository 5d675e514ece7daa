"""The thread of control that looks after pipeline runs, and the processes it starts for them."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

from ondol.app import running
from ondol.backends.local.pipeline_runs import PipelineRuns, Process
from ondol.base.settings import Settings
from ondol.store.connection import Store

_log = logging.getLogger(__name__)
_TICK_SECONDS = 0.5
_STOP_SECONDS = 3


class PipelineThread:
    """Runs `PipelineRuns` round by round until it is stopped; a failed round is tried again."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._settings = settings
        self._runs = PipelineRuns(store, settings, self._launch)
        self._wake, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="pipelines", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once: something was asked for."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread and the processes; what they ran goes on at the next start."""
        self._ended.set()
        self._wake.set()
        self._thread.join(_STOP_SECONDS)
        self._runs.stop()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._runs.round()
            except Exception:  # noqa: BLE001 - it must outlive any failure of one round
                _log.exception("looking after pipeline runs failed; the next round tries again")
            self._wake.wait(_TICK_SECONDS)
            self._wake.clear()

    def _launch(self, run: str) -> Process:
        """Start a process that outlives a killed control; its own words go to `logs/pipelines.log`."""
        self._settings.logs.mkdir(parents=True, exist_ok=True)
        with (self._settings.logs / "pipelines.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "ondol.app.pipeline_child", run],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._settings.project,
                env=running.environment(self._settings),
                start_new_session=True,
            )
