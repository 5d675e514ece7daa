"""Both ends of a host: a process, forked from the warm worker, that runs shared steps one after the other.

The forking end writes requests to a pipe and reads exit codes from another. The forked end gives each step a log, and
takes the process back to how it was after it: streams, environment, working directory, `sys.path`, `sys.argv`, signal
handlers and umask. Modules and what they hold stay. A step that ends its process ends the host; the next step gets a
new one.

Part of the program worker_main.py, which loads it by its path: it must not import anything of Ondol's.
"""

from __future__ import annotations

import contextlib
import json
import linecache
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
_LOOK = 0.005  # seconds between looks at a pool that a step leaves behind


class Host:
    """The pipes to one host, made before the fork."""

    def __init__(self) -> None:
        self._theirs, self._requests = os.pipe()
        self.answers, self._theirs_too = os.pipe()

    # ------------------------------------------------------------ the forking end

    def forked(self) -> None:
        """Keep the forking process' ends only."""
        os.close(self._theirs)
        os.close(self._theirs_too)
        os.set_blocking(self.answers, False)

    def ask(self, request: dict[str, Any]) -> bool:
        """Hand over a step; False when the host has gone."""
        left = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while left:
                left = left[os.write(self._requests, left) :]
        except BrokenPipeError:
            return False
        return True

    def answer(self) -> int | None:
        """Return the exit code of the step that has just ended, or None."""
        try:
            said = os.read(self.answers, 16)
        except BlockingIOError:
            return None
        return int(said) if said else None

    def dismiss(self) -> None:
        """Let the host end, with all that Python does at its end, as soon as it is idle."""
        if self._requests >= 0:
            os.close(self._requests)
            self._requests = -1

    def close(self) -> None:
        """Let go of a host that has ended, or is another process' to deal with."""
        self.dismiss()
        os.close(self.answers)

    # ------------------------------------------------------------ the forked end

    def serve(
        self, settle_in: Callable[[], None], work: Callable[[str, dict[str, Any]], int], leave: Callable[[], None]
    ) -> NoReturn:
        """Run steps until the forking end closes its pipe.

        :param work: runs a job in a folder and returns its exit code.
        :param leave: does what Python does at its end.
        """
        code = 1
        try:
            self.close()
            settle_in()
            idle, place = os.dup(2), os.open(os.curdir, os.O_RDONLY)
            with os.fdopen(self._theirs, "rb") as lines:
                for line in lines:
                    request = json.loads(line)
                    with _taken_back(request["folder"], idle, place):
                        ended = work(request["folder"], request["job"])
                    os.write(self._theirs_too, b"%d" % ended)
            leave()
            code = 0
        finally:
            os._exit(code)


@contextlib.contextmanager
def _taken_back(folder: str, idle: int, place: int) -> Iterator[None]:
    """Write to the step's log inside; afterwards the process is as it was, whatever the step did to it.

    :param idle: where output goes between steps.
    :param place: the working directory, open.
    """
    environ, streams = dict(os.environ), (sys.stdin, sys.stdout, sys.stderr)
    path, arguments, mask = [*sys.path], sys.argv, os.umask(0)
    os.umask(mask)
    handlers = [(number, signal.getsignal(number)) for number in _SIGNALS]
    if (chance := sys.modules.get("random")) is not None:
        chance.seed()  # a step that seeds it decides for itself only
    log = os.open(Path(folder, "log.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    _write_to(log)
    os.close(log)
    try:
        yield
        for thread in threading.enumerate():
            if not thread.daemon and thread is not threading.main_thread():
                _wait_for(thread)
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        _write_to(idle)
        os.fchdir(place)
        os.umask(mask)
        sys.path[:], sys.argv = path, arguments
        _restore(environ)
        for number, handler in handlers:
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        sys.modules.pop("ephemeral_component", None)
        linecache.cache.pop(str(Path(folder, "component.py")), None)


def _wait_for(thread: threading.Thread) -> None:
    """Wait until a thread has ended, or, of a pool that waits for more work until Python ends, has nothing to do.

    Twice: a thread that has just been given something looks idle for a moment.
    """
    looks = 0
    while thread.is_alive() and looks < 2:
        looks = looks + 1 if _is_idle(thread) else 0
        thread.join(_LOOK)


def _is_idle(thread: threading.Thread) -> bool:
    """Whether it is a thread of an executor of `concurrent.futures`, and that executor has no work for it."""
    threads, processes = (sys.modules.get(f"concurrent.futures.{kind}") for kind in ("thread", "process"))
    if threads is not None and (queue := threads._threads_queues.get(thread)) is not None:
        frame = sys._current_frames().get(thread.ident or 0)
        return bool(queue.empty() and frame is not None and frame.f_code is threads._worker.__code__)
    if processes is not None and thread in processes._threads_wakeups:
        return not thread.pending_work_items  # type: ignore[attr-defined]  # it is the pool's own kind of thread
    return False


def _write_to(target: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the step may have closed it
            stream.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)


def _restore(environ: dict[str, str]) -> None:
    for name in [name for name in os.environ if name not in environ]:
        del os.environ[name]
    for name, value in environ.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
