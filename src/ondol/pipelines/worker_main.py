"""A program of its own: a warm Python that forks one fresh process per step.

    python -P worker_main.py [MODULE …]

It imports kfp's runtime and the modules once, then waits for `{"id": 1, "folder": "…"}` lines on standard input. For
each it forks; the child runs the component of `FOLDER/job.json` with kfp's own executor, in a session of its own,
with its output in `FOLDER/log.txt`, and leaves `executor_output.json` or `error.json`. Lines on standard output say
`{"id", "pid"}` when a child starts and `{"id", "code"}` when it has ended. When standard input closes, everything that
still runs is killed: a killed runner leaves no orphans.

This is the other of the two places that import kfp. It must not import anything of Ondol's: it runs in environments
that have only kfp and the component's packages. The forking process runs no thread and no user code.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

_GRACE = 1.0  # seconds between asking a step to end and killing it
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


def _libc() -> Any:
    """Return libc where it can tie a child's life to its parent's (Linux), else None."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


# ---------------------------------------------------------------- in the child


def _function(job: dict[str, Any], folder: str) -> Any:
    """Load the component's function so that its lines are those of the user's own file when that is known."""
    place = str(Path(folder, "component.py"))
    Path(place).write_text(job["source"], encoding="utf-8")
    tree = ast.parse(job["source"], place)
    module = ModuleType("ephemeral_component")
    module.__file__ = place
    sys.modules[module.__name__] = module
    definition = next((node for node in tree.body if getattr(node, "name", "") == job["function"]), None)
    shift = _shift(job, definition)
    if definition is None or shift is None:
        exec(compile(tree, place, "exec", dont_inherit=True), vars(module))
    else:
        position = tree.body.index(definition)
        ast.increment_lineno(definition, shift)
        for nodes, name in (
            (tree.body[:position], place),
            ([definition], job["origin"][0]),
            (tree.body[position + 1 :], place),
        ):
            exec(compile(ast.Module(nodes, []), name, "exec", dont_inherit=True), vars(module))
    return getattr(module, job["function"])


def _shift(job: dict[str, Any], definition: ast.stmt | None) -> int | None:
    """Return how many lines the user's function is below the embedded one; None when it is not there any more."""
    if not job.get("origin") or definition is None:
        return None
    file, first = job["origin"]
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    embedded = job["source"].splitlines()[definition.lineno - 1 : definition.end_lineno]
    for index in range(max(0, first - 1), len(lines)):
        if lines[index].lstrip().startswith(("def ", "async def ")):
            found = lines[index : index + len(embedded)]
            same = [line.strip() for line in found] == [line.strip() for line in embedded]
            return index + 1 - definition.lineno if same else None
    return None


def _report(error: BaseException, folder: str, own: tuple[str, ...]) -> None:
    """Write what the component raised, without the frames of kfp and of this program."""
    import traceback

    def trim(report: traceback.TracebackException) -> None:
        first = next((i for i, frame in enumerate(report.stack) if frame.filename in own), None)
        if first is None:
            first = next((i for i, frame in enumerate(report.stack) if frame.filename != __file__), 0)
        report.stack = traceback.StackSummary.from_list(list(report.stack)[first:])
        for other in (report.__cause__, report.__context__):
            if other is not None:
                trim(other)

    report = traceback.TracebackException.from_exception(error)
    trim(report)
    mine = [frame for frame in report.stack if frame.filename in own]
    place = mine[-1] if mine else (report.stack[-1] if report.stack else None)
    text = "".join(report.format())
    answer = {
        "type": type(error).__name__,
        "message": str(error),
        "where": f"{place.filename}:{place.lineno}" if place else "",
        "trace": text,
        "module": getattr(error, "name", "") if isinstance(error, ModuleNotFoundError) else "",
    }
    Path(folder, "error.json").write_text(json.dumps(answer, default=str), encoding="utf-8")
    sys.stderr.write(text)


def _work(folder: str) -> int:
    job = json.loads(Path(folder, "job.json").read_text(encoding="utf-8"))
    os.environ.update(job["env"])
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # imported before the fork: without this every step would draw the same numbers
    own = (str(Path(folder, "component.py")), *([job["origin"][0]] if job.get("origin") else []))
    try:
        from kfp.dsl import executor

        sys.argv = ["ephemeral_component.py", "--function_to_execute", job["function"]]
        function = _function(job, folder)
        executor.Executor(executor_input=job["input"], function_to_execute=function).execute()
    except SystemExit as error:
        if error.code in (None, 0):
            return 0
        _report(error, folder, own)
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - whatever the user's code raises is the answer
        _report(error, folder, own)
        return 1
    return 0


def _child(folder: str, libc: Any) -> NoReturn:
    code = 1
    try:
        os.setsid()
        if libc is not None:
            libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(Path(folder, "log.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        import faulthandler

        faulthandler.enable(sys.stderr)
        code = _work(folder)
        _leave()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _leave() -> None:
    """Do what Python does at its end, which `os._exit` leaves out: wait for threads, run `atexit` functions."""
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


# ---------------------------------------------------------------- in the warm process


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


class Warm:
    """The forking loop."""

    def __init__(self) -> None:
        self.requests = os.dup(0)
        self.answers = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        self.libc = _libc()
        self.children: dict[int, int] = {}
        self.wake, wake_end = os.pipe()
        os.set_blocking(wake_end, False)
        os.set_blocking(self.wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)

    def say(self, **answer: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self.answers, json.dumps(answer).encode() + b"\n")

    def start(self, request: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            os.close(self.requests)
            os.close(self.answers)
            os.close(self.wake)
            _child(request["folder"], self.libc)
        self.children[pid] = request["id"]
        self.say(id=request["id"], pid=pid)

    def stop(self, wanted: int) -> None:
        for pid, number in self.children.items():
            if number == wanted:
                _kill(pid, signal.SIGTERM)

    def reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self.children.pop(pid, None)
            _kill(pid, signal.SIGKILL)  # what the step left running behind it
            if number is not None:
                self.say(id=number, code=os.waitstatus_to_exitcode(status))

    def run(self) -> None:
        self.say(ready=True)
        buffer = b""
        while True:
            readable, _, _ = select.select([self.requests, self.wake], [], [])
            if self.wake in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake, 4096)
            if self.requests in readable:
                data = os.read(self.requests, 65536)
                if not data:
                    break
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    request = json.loads(line)
                    if "stop" in request:
                        self.stop(request["stop"])
                    else:
                        self.start(request)
            self.reap()
        self.end()

    def end(self) -> None:
        for pid in self.children:
            _kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        while self.children and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.01)
        for pid in self.children:
            _kill(pid, signal.SIGKILL)


def main() -> None:
    os.environ["_KFP_RUNTIME"] = "true"
    import gc
    import importlib

    from kfp.dsl import executor  # noqa: F401 - imported before the first fork, so that no step pays for it

    for name in sys.argv[1:]:
        with contextlib.suppress(Exception):  # the step that needs it will say what is wrong
            importlib.import_module(name)
    gc.freeze()
    Warm().run()


if __name__ == "__main__":
    main()
