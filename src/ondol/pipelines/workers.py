"""Warm worker processes, one per environment, and the steps that run in them.

A worker forks a fresh process per step, so steps share nothing but what was imported before them; shared steps run one
after the other in a process that the worker forks once per slot. Must not interpret
what a step makes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.base import errors
from ondol.pipelines import worker_limits

_PROGRAM = Path(__file__).with_name("worker_main.py")
_SECRETS = ("ONDOL_SECRET_", "ONDOL_CONFIGMAP_")  # only the steps that ask for one get it
_STOP_SECONDS = 5.0  # a worker gives its steps one second; then it is killed itself


@dataclass(frozen=True, slots=True)
class End:
    """How a step's process ended."""

    code: int
    """Exit code, negative for a signal."""

    why: str = ""
    """Why the worker stopped it: `time`, `memory`, or in words what could not be mounted; empty: it ended by itself."""


class WorkerDied(Exception):
    """The worker process went away while a step ran in it.

    :param words: what it said last.
    :param killed: a signal ended it; otherwise it gave up itself, as when something that it needs is not installed.
    """

    def __init__(self, words: str, killed: bool) -> None:
        super().__init__(words)
        self.killed = killed


class Worker:
    """One warm process and its line protocol.

    :param python: the interpreter of the environment.
    :param environ: the whole environment of the worker and its steps.
    :param modules: imported before the first step.
    :param log: gets what the worker itself prints.
    """

    def __init__(self, python: str, environ: Mapping[str, str], log: Path, modules: Sequence[str] = ()) -> None:
        self.log = log
        with log.open("ab") as errors_file:
            self._process = subprocess.Popen(
                [python, "-P", str(_PROGRAM), *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors_file,
                env=dict(environ),
                start_new_session=True,  # a Ctrl-C is the runner's to handle
            )
        self._guard = threading.Lock()
        self._running: dict[int, Future[End]] = {}
        self._next = 0
        self._dead = False
        self._reader = threading.Thread(target=self._read, name="ondol-worker", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, folder: Path, request: Mapping[str, Any]) -> Future[End]:
        """Start a step in a folder; the future says how it ended.

        :param request: its `job`, and perhaps `env` (secrets), `mounts`, `memory` in bytes and `seconds`, beyond which
            it is stopped; `shared`: in a process that runs other such steps before and after it.

        The future raises :class:`WorkerDied` when the worker itself is gone.
        """
        future: Future[End] = Future()
        with self._guard:
            self._next += 1
            self._running[self._next] = future
            line = json.dumps({**request, "id": self._next, "folder": str(folder)}).encode() + b"\n"
            assert self._process.stdin is not None
            try:
                if self._dead:
                    raise BrokenPipeError
                self._process.stdin.write(line)
                self._process.stdin.flush()
            except OSError:
                self._running.pop(self._next, None)
                future.set_exception(self._died())
        return future

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer: dict[str, Any] = json.loads(line)
            if "code" in answer:
                with self._guard:
                    future = self._running.pop(answer["id"], None)
                if future is not None:
                    future.set_result(End(int(answer["code"]), str(answer.get("why", ""))))
        with self._guard:
            self._dead = True
            left, self._running = self._running, {}
        for future in left.values():
            future.set_exception(self._died())

    def _died(self) -> WorkerDied:
        words = ""
        with contextlib.suppress(OSError):
            words = self.log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)  # its pipes are closed: it is ending
        return WorkerDied(words, (self._process.returncode or 0) < 0)

    @property
    def alive(self) -> bool:
        return not self._dead

    def stop(self) -> None:
        """End the worker and everything that runs in it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_STOP_SECONDS)
        self._process.stdout.close()


class Terminal:
    """Runs one step in the foreground, in a debugger that stops at the first line of its function.

    :param python: the interpreter of the environment.
    :param environ: the whole environment of the step.
    """

    def __init__(self, python: str, environ: Mapping[str, str]) -> None:
        self._python, self._environ = python, environ

    def run(self, folder: Path, request: Mapping[str, Any]) -> Future[End]:
        """Run the step to its end on this process' own terminal."""
        read, write = os.pipe()
        process = subprocess.Popen(
            [self._python, "-P", str(_PROGRAM), "--debug", str(read)], env=dict(self._environ), pass_fds=[read]
        )
        os.close(read)
        with contextlib.suppress(BrokenPipeError), os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps({**request, "id": 0, "folder": str(folder)}).encode())
        code = process.wait()
        future: Future[End] = Future()
        future.set_result(End(code, worker_limits.trouble_of(folder, code)))
        return future


class Workers:
    """The workers of one run, started when first needed.

    :param folder: for the workers' own logs.
    :param environ: added to this process' environment.
    :param modules: imported by each worker before its first step.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], modules: Sequence[str] = ()) -> None:
        self._folder = folder
        self._modules = modules
        # Several steps share the processors: threads that spin while they wait for each other make training five
        # times slower then. The caller's own setting wins.
        patient = {"OMP_WAIT_POLICY": "PASSIVE"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
        self._environ = {**patient, **inherited, **environ, "_KFP_RUNTIME": "true"}
        self._workers: dict[str, Worker] = {}
        self._guard = threading.Lock()

    def of(self, python: str) -> Worker:
        """Return the warm worker of an interpreter; a dead one is replaced."""
        with self._guard:
            worker = self._workers.get(python)
            if worker is None or not worker.alive:
                if worker is not None:
                    worker.stop()
                try:
                    worker = Worker(
                        python, self._environ, self._folder / f"worker-{len(self._workers)}.log", self._modules
                    )
                except OSError as error:
                    raise errors.DependencyError(
                        f"cannot start a worker: {error}", where=python, code="DEP-011"
                    ) from error
                self._workers[python] = worker
            return worker

    def terminal(self, python: str) -> Terminal:
        """Return a way to run one step in a debugger, in the same environment as a worker."""
        return Terminal(python, self._environ)

    def stop(self) -> None:
        """End all workers and everything that runs in them."""
        with self._guard:
            workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.stop()

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        with self._guard:
            return [worker.pid for worker in self._workers.values()]
