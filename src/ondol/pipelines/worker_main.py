"""A program of its own: a warm Python that forks one fresh process per step.

    python -P worker_main.py [MODULE …]
    python -P worker_main.py --debug FD     one step, described on a pipe, in a debugger on the terminal

It imports kfp's runtime and the modules once, then waits for `{"id": 1, "folder": "…", "job": {…}}` lines on standard
input (and perhaps `env`, `mounts`, `memory`, `seconds`). For each it forks; the child runs the job's component with
kfp's own executor, or its command, in a session of its own, with its output in `FOLDER/log.txt`, and leaves
`executor_output.json` or `error.json`. Lines on standard output say `{"id", "pid"}` when a child starts and
`{"id", "code", "why"}` when it has ended. When standard input closes, everything that still runs is killed: a killed
runner leaves no orphans.

A request with `shared` is run in a process that runs one such step after the other, without a fork of its own
(worker_host.py, loaded from beside this file, like worker_limits.py).

This is the other of the two places that import kfp. It must not import anything of Ondol's: it runs in environments
that have only kfp and the component's packages. The forking process runs no thread and no user code.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import faulthandler
import json
import linecache
import os
import select
import signal
import sys
import threading  # like atexit and faulthandler: imported once here, or every forked step would import it again
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ondol.pipelines.worker_host import Host
    from ondol.pipelines.worker_limits import Step

_LOOK = 0.1  # seconds between looks at steps with a limit
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
_ADOPT_ORPHANS = 36  # prctl's PR_SET_CHILD_SUBREAPER
_NEW_MOUNTS, _NEW_USER = 0x20000, 0x10000000  # unshare's CLONE_NEWNS, CLONE_NEWUSER
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000  # mount's MS_*


def _beside(name: str) -> Any:
    """Load a module from beside this file, where no import looks (`-P`), so that no step can import it either."""
    from importlib import util

    spec = util.spec_from_file_location(f"_ondol_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


limits: Any = _beside("worker_limits")


def _libc() -> Any:
    """Return libc where it can tie a child's life to its parent's (Linux), else None."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


# ---------------------------------------------------------------- in the child


def _function(job: dict[str, Any], folder: str) -> Any:
    """Load the component's function so that its lines are those of the user's own file when that is known."""
    place = str(Path(folder, "component.py"))  # written only when an error points there
    linecache.cache[place] = (len(job["source"]), None, job["source"].splitlines(keepends=True), place)
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


def _report(error: BaseException, folder: str, own: tuple[str, ...], source: str) -> None:
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
    Path(folder, "component.py").write_text(source, encoding="utf-8")
    sys.stderr.write(text)


def _work(folder: str, job: dict[str, Any], debug: bool = False) -> int:
    os.environ.update(job["env"])
    if "command" in job:
        _become(job)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # imported before the fork: without this every step would draw the same numbers
    own = (str(Path(folder, "component.py")), *([job["origin"][0]] if job.get("origin") else []))
    try:
        from kfp.dsl import executor

        sys.argv = ["ephemeral_component.py", "--function_to_execute", job["function"]]
        function = _function(job, folder)
        running = executor.Executor(executor_input=job["input"], function_to_execute=function)
        if debug:
            running.func = _in_debugger(running.func)
        running.execute()
    except SystemExit as error:
        if error.code in (None, 0):
            return 0
        _report(error, folder, own, job["source"])
        return error.code if isinstance(error.code, int) else 1
    except DebuggerLeft:
        return int(limits.in_trouble(folder, "debugger"))
    except BaseException as error:  # noqa: BLE001 - whatever the user's code raises is the answer
        _report(error, folder, own, job["source"])
        return 1
    return 0


class DebuggerLeft(BaseException):
    """The debugger was left before the function came to its end."""


def _in_debugger(function: Any) -> Any:
    """Let the function run in a debugger that stops at its first line; its inputs are the real ones."""
    import inspect
    import pdb  # noqa: T100 - it is what was asked for

    class Debugger(pdb.Pdb):
        def set_quit(self) -> None:  # `q`, or the end of the terminal: pdb itself would let the function return None
            super().set_quit()
            raise DebuggerLeft

    def debugged(*arguments: Any, **words: Any) -> Any:
        return Debugger().runcall(function, *arguments, **words)

    debugged.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # kfp asks it for the inputs
    return debugged


def debug(descriptor: int) -> int:
    """Run the one step that a pipe describes, on the terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the runner does not listen to it meanwhile
    with os.fdopen(descriptor, "rb") as pipe:
        request: dict[str, Any] = json.loads(pipe.read())
    os.environ.update(request.get("env", {}))
    trouble = _mount(request["mounts"], _libc()) if request.get("mounts") else ""
    if trouble:
        return int(limits.in_trouble(request["folder"], trouble))
    return _work(request["folder"], request["job"], debug=True)


def _become(job: dict[str, Any]) -> NoReturn:
    """Turn into the command of a container component."""
    os.environ["PATH"] = job["programs"] + os.pathsep + os.environ.get("PATH", os.defpath)
    os.environ.pop("_KFP_RUNTIME", None)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.chdir(job["cwd"] or os.curdir)
        os.execvpe(job["command"][0], job["command"], os.environ)
    except OSError as error:
        sys.stderr.write(f"{job['command'][0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


def _mount(mounts: list[list[Any]], libc: Any) -> str:
    """Let the step see folders at paths of its choice, in a view of the file system that is its own.

    Returns what went wrong, in words; empty when nothing did.
    """
    if libc is None or not hasattr(libc, "unshare"):
        return "asks for a folder at a path of its own, which only Linux can give a single process"
    for _, target, _ in mounts:
        try:
            Path(target).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return f"asks for a folder at {target!r}, which cannot be made ({error.strerror}): make it once, as root"
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_MOUNTS) != 0:
        if libc.unshare(_NEW_MOUNTS | _NEW_USER) != 0:
            return "asks for a folder at a path of its own, and this kernel allows no user namespaces"
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text, encoding="ascii")
    if libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None) != 0:
        return "cannot have a view of the file system of its own"
    for source, target, read_only in mounts:
        flags = [_BIND] + ([_BIND | _REMOUNT | _READ_ONLY] if read_only else [])
        if any(libc.mount(source.encode(), target.encode(), None, flag, None) != 0 for flag in flags):
            return f"cannot have {source!r} at {target!r}"
    return ""


def _settle_in(libc: Any) -> None:
    """Become a process for steps: a session, signals and streams of its own; it dies with the one that forked it."""
    os.setsid()
    if libc is not None:
        libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    faulthandler.enable(sys.stderr)


def _child(request: dict[str, Any], libc: Any) -> NoReturn:
    folder, code = request["folder"], 1
    try:
        _settle_in(libc)
        log = os.open(Path(folder, "log.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(request.get("env", {}))
        trouble = _mount(request["mounts"], libc) if request.get("mounts") else ""
        if trouble:
            code = limits.in_trouble(folder, trouble)
        else:
            code = _work(folder, request["job"])
            _leave()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _leave() -> None:
    """Do what Python does at its end, which `os._exit` leaves out: wait for threads, run `atexit` functions."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


# ---------------------------------------------------------------- in the warm process


class Warm:
    """The forking loop."""

    def __init__(self) -> None:
        self.requests = os.dup(0)
        self.answers = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        self.libc = _libc()
        if self.libc is not None:
            self.libc.prctl(_ADOPT_ORPHANS, 1)  # what a step leaves behind comes to this process, to be ended
        self.steps: dict[int, Step] = {}
        self.hosts: dict[int, Host] = {}  # processes for shared steps; one that is in `steps` is busy
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
        if request.get("shared"):
            pid = self.hand_over(request)
        else:
            pid = os.fork()
            if pid == 0:
                self.let_go()
                _child(request, self.libc)
        self.steps[pid] = limits.Step(request)
        self.say(id=request["id"], pid=pid)

    def let_go(self) -> None:
        """Close, in a forked process, what is the forking one's."""
        for end in (self.requests, self.answers, self.wake):
            os.close(end)
        for host in self.hosts.values():
            host.close()

    def hand_over(self, request: dict[str, Any]) -> int:
        """Give a shared step to a host that is idle, or to a new one; return its process."""
        for pid, host in list(self.hosts.items()):
            if pid not in self.steps and host.ask(request):
                return pid
        host = _beside("worker_host").Host()
        pid = os.fork()
        if pid == 0:
            self.let_go()
            host.serve(lambda: _settle_in(self.libc), _work, _leave)
        host.forked()
        host.ask(request)
        self.hosts[pid] = host
        return pid

    def hear(self) -> None:
        """Announce the steps that hosts have ended."""
        for pid, host in self.hosts.items():
            code = host.answer()
            if code is not None:
                self.say(id=self.steps.pop(pid).id, code=code)

    def stop(self, wanted: int) -> None:
        for pid, step in self.steps.items():
            if step.id == wanted:
                step.ask(pid)

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self.hear()
            if (host := self.hosts.pop(pid, None)) is not None:
                host.close()
            step = self.steps.pop(pid, None)
            if step is not None:
                limits.kill(pid, signal.SIGKILL)  # what the step left running behind it
                code = os.waitstatus_to_exitcode(status)
                why = step.why or limits.trouble_of(step.folder, code)
                self.say(id=step.id, code=code, **({"why": why} if why else {}))
        if not self.steps:
            self.end_orphans()

    def end_orphans(self) -> None:
        """End what left its step's session and outlived it; only when no step runs is it clear whose it was."""
        for pid in limits.children(os.getpid()):
            if pid not in self.steps and pid not in self.hosts:
                for one in reversed(limits.tree(pid)):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(one, signal.SIGKILL)

    def look(self) -> None:
        for pid, step in self.steps.items():
            if step.watched():
                step.look(pid)

    def run(self) -> None:
        self.say(ready=True)
        buffer = b""
        while True:
            watching = any(step.watched() for step in self.steps.values())
            ends = [self.requests, self.wake, *(host.answers for host in self.hosts.values())]
            readable, _, _ = select.select(ends, [], [], _LOOK if watching else None)
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
            self.hear()
            self.reap()
            self.look()
        self.end()

    def end(self) -> None:
        for pid, step in self.steps.items():
            step.ask(pid)
        for host in self.hosts.values():
            host.dismiss()
        deadline = time.monotonic() + limits.GRACE
        while (self.steps or self.hosts) and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.01)
        for pid, step in self.steps.items():
            step.insist(pid, step.last_call + 1)
        self.steps.clear()
        self.hosts.clear()
        self.end_orphans()


def main() -> None:
    os.environ["_KFP_RUNTIME"] = "true"
    import gc
    import importlib

    from kfp.dsl import executor  # noqa: F401 - imported before the first fork, so that no step pays for it

    if sys.argv[1:2] == ["--debug"]:
        sys.exit(debug(int(sys.argv[2])))

    for name in sys.argv[1:]:
        with contextlib.suppress(Exception):  # the step that needs it will say what is wrong
            importlib.import_module(name)
    gc.freeze()
    Warm().run()


if __name__ == "__main__":
    main()
