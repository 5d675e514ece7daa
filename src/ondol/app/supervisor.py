"""The supervisor: starts the control process and the data plane, starts them again when they die, stops them in order.

It holds the listening sockets, the lock of the home and nothing else: no database, no heavy import, so that it has no
reason to die. Must not do any of its children's work.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ondol.app import kubeconfig, listen, running
from ondol.app.running import Running, ensure_running, stop
from ondol.base import errors
from ondol.base import settings as settings_module
from ondol.base.settings import Settings
from ondol.formats import project

__all__ = ["Running", "Supervisor", "ensure_running", "run", "stop"]

MODULES = {"control": "control", "data": "dataplane"}
LABELS = {"control": "control   ", "data": "data plane"}
_BACK_OFF = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds before the n-th start in a row
_STEADY_SECONDS = 20.0  # a child that lived this long starts again at once
_GRACE_SECONDS = 10.0  # to answer what is under way
_LOG_BYTES, _LOG_FILES = 10_000_000, 3

Say = Callable[[str], None]


class RotatingLog:
    """A log file that is moved aside when it is full: `x.log`, `x.log.1`, `x.log.2`."""

    def __init__(self, path: Path, limit: int = _LOG_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._limit = path, limit
        self._file = path.open("ab")

    def write(self, data: bytes) -> None:
        """Append; a full disk must not stop the process whose words these are."""
        with contextlib.suppress(OSError):
            self._file.write(data)
            self._file.flush()
            if self._file.tell() > self._limit:
                self._rotate()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(_LOG_FILES - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
            if newer.exists():
                newer.replace(older)
        self._file = self._path.open("ab")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(slots=True)
class _Child:
    name: str
    socket: socket.socket
    """Bound here and handed over at every start."""

    log: RotatingLog
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    restarts: int = 0
    ready: threading.Event = field(default_factory=threading.Event)


class Supervisor:
    """Runs one Ondol until it is told to stop.

    :param say: where status lines for people go.
    :raises UsageError: for an address beyond loopback without ONDOL_API_KEY.
    :raises InputError: for an `ondol.yaml` that cannot be read: what it says of safety must not be lost.
    """

    def __init__(self, settings: Settings, say: Say) -> None:
        check_exposure(settings)
        self.settings = replace(settings, safe=settings.safe or _project_is_safe(settings.project))
        self._say = say
        self._events: queue.SimpleQueue[tuple[str, str, int]] = queue.SimpleQueue()
        self._children: dict[str, _Child] = {}
        self._grpc: socket.socket | None = None
        """Keeps gRPC's port while the data plane is started again."""

        self._stopping = False
        self._started_at = time.time()

    def run(self) -> None:
        """Start both processes and keep them running until SIGTERM, SIGINT or `request_stop`.

        :raises ConflictError: when an Ondol runs in this home already, or a port is taken.
        """
        lock = running.Lock(self.settings.home)
        patience = running.patience(self.settings.home)
        try:
            if not lock.take(running.LOOK_SECONDS):
                raise running.already_running(running.find(self.settings.home), self.settings.home)
            self._bind(patience)
            kubeconfig.write_for(self.settings)
            try:
                for child in self._children.values():
                    self._start(child)
                self._loop()
            finally:
                self._stop_children()
                running.clear_state(self.settings.home)
        finally:
            lock.release()

    def request_stop(self, *_: object) -> None:
        """Ask the loop to end; safe in a signal handler."""
        self._events.put(("stop", "", 0))

    def _bind(self, patience: float) -> None:
        with contextlib.ExitStack() as bound:  # closes what it has when a later port is taken
            sockets = {"control": bound.enter_context(listen.bind(self.settings.control, "--control", patience))}
            sockets["data"] = bound.enter_context(listen.bind(self.settings.data, "--data", patience))
            if self.settings.grpc is not None:
                self._grpc = bound.enter_context(listen.reserve(self.settings.grpc, "--grpc", patience))
            bound.pop_all()
        where = {name: listen.address_of(one) for name, one in sockets.items()}
        grpc_at = str(listen.address_of(self._grpc)) if self._grpc is not None else settings_module.OFF
        self.settings = replace(self.settings, control=where["control"], data=where["data"], grpc_at=grpc_at)
        for name, listening in sockets.items():
            listening.set_inheritable(True)
            self._children[name] = _Child(name, listening, RotatingLog(self.settings.logs / f"{name}.log"))

    def _start(self, child: _Child) -> None:
        child.ready.clear()
        environment = {**running.environment(self.settings), listen.FD_VARIABLE: str(child.socket.fileno())}
        child.process = subprocess.Popen(
            [sys.executable, "-m", "ondol.app.child", MODULES[child.name]],
            stdin=subprocess.PIPE,  # never written to: its end tells the child that we are gone
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[child.socket.fileno()],
            cwd=self.settings.project,
            env=environment,
            start_new_session=True,  # the terminal's Ctrl-C goes to us; we stop the children in order
        )
        child.started = time.monotonic()
        threading.Thread(target=self._pump, args=(child, child.process), daemon=True).start()
        threading.Thread(target=self._watch, args=(child, child.process), daemon=True).start()
        threading.Thread(target=self._announce, args=(child, child.process), daemon=True).start()
        self._write_state()

    def _write_state(self) -> None:
        pids = {name: child.process.pid for name, child in self._children.items() if child.process}
        restarts = {name: child.restarts for name, child in self._children.items()}
        state = Running(
            self.settings.control,
            self.settings.data,
            {"supervisor": os.getpid(), **pids},
            self._started_at,
            self.settings.grpc,
            restarts,
        )
        running.write_state(self.settings.home, state)

    @staticmethod
    def _pump(child: _Child, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # PIPE
        for line in process.stdout:
            child.log.write(line)
        process.stdout.close()

    def _watch(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        self._events.put(("exit", child.name, process.wait()))

    def _announce(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        address = self.settings.control if child.name == "control" else self.settings.data
        pause = 0.05
        while process.poll() is None and not self._stopping:
            if running.is_ready(address):
                child.ready.set()
                also = f", gRPC at {self.settings.grpc}" if child.name == "data" and self.settings.grpc else ""
                seconds = time.monotonic() - child.started
                self._say(f"{LABELS[child.name]} ready at {address.url}{also} ({seconds:.1f} s)")
                return
            time.sleep(pause)
            pause = min(pause * 1.3, 1.0)

    def _loop(self) -> None:
        while True:
            what, name, code = self._events.get()
            if what == "stop":
                return
            if what == "start":
                self._start(self._children[name])
                continue
            self._after_exit(self._children[name], code)

    def _after_exit(self, child: _Child, code: int) -> None:
        steady = time.monotonic() - child.started > _STEADY_SECONDS
        child.failures = 0 if steady else child.failures + 1
        child.restarts += 1
        wait = _BACK_OFF[min(child.failures, len(_BACK_OFF) - 1)] if not steady else 0.0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._say(f"{LABELS[child.name]} ended ({how}); starting it again in {wait:.1f} s")
        timer = threading.Timer(wait, self._events.put, (("start", child.name, 0),))
        timer.daemon = True
        timer.start()

    def _stop_children(self) -> None:
        self._stopping = True
        alive = [child.process for child in self._children.values() if child.process and child.process.poll() is None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in self._children.values():
            child.socket.close()
            child.log.close()
        if self._grpc is not None:
            self._grpc.close()


def _project_is_safe(folder: Path) -> bool:
    try:
        return project.load(folder).safe
    except errors.NotFoundError:
        return False


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond this machine without a key.

    :raises UsageError: naming the address and the variable to set.
    """
    places = (("--control", settings.control), ("--data", settings.data), ("--grpc", settings.grpc))
    for option, address in places:
        if address is not None and not address.is_loopback and not settings.api_key:
            raise errors.UsageError(
                f"{str(address)!r} is reachable from other machines and no key is set",
                where=option,
                way_out='Set one: export ONDOL_API_KEY="$(openssl rand -hex 32)", or listen on 127.0.0.1.',
                code="USE-005",
            )


def run(settings: Settings, say: Say = print) -> None:
    """Run a supervisor in this process until SIGTERM or SIGINT."""
    supervisor = Supervisor(settings, say)
    before = {number: signal.signal(number, supervisor.request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        supervisor.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """Run detached: what `ensure_running` starts. Status lines go to the log."""
    try:
        run(settings_module.load(), lambda line: print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}", flush=True))
    except errors.OndolError as error:
        print(f"error[{error.code}]: {error.message}\n  {error.way_out}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
