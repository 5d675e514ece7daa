"""A small process between the data plane and a worker: nothing survives the data plane, nothing outgrows its memory.

Run as `python -I -S guard.py MEMORY_BYTES GRACE_SECONDS COMMAND…` with a pipe as standard input whose other end only
the data plane holds. When it closes, or on SIGTERM, the worker and everything it started get SIGTERM and, after the
grace, SIGKILL. When the worker's processes together hold more memory than allowed they are killed at once, as
Kubernetes does. Should this process itself be killed, the kernel kills the worker.

A stand-alone program of the standard library only; must not import Ondol.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

OUT_OF_MEMORY = 137  # exit code: 128 + SIGKILL, as Kubernetes reports it
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOK_SECONDS = 0.2


def _before_exec() -> None:
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def resident_bytes(session: int) -> int:
    """Return the memory that a session's processes but this one hold, without shared file pages; 0 where unknown."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                sizes = (folder / "statm").read_text().split()
                total += (int(sizes[1]) - int(sizes[2])) * _PAGE
    return total


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _stop(child: subprocess.Popen[bytes], grace: float) -> None:
    _signal(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    _signal(child.pid, signal.SIGKILL)
    child.wait()


def watch(child: subprocess.Popen[bytes], memory: int, grace: float, asked: list[int]) -> int:
    """Wait for the worker's end, or bring it about; return the exit code."""
    while child.poll() is None:
        ready, _, _ = select.select([0], [], [], _LOOK_SECONDS)
        if asked or (ready and not os.read(0, 64)):
            _stop(child, grace)
            return 0
        if memory and resident_bytes(os.getpid()) > memory:
            print(f"killed: more than {memory} bytes of memory (OOMKilled)", file=sys.stderr, flush=True)
            _signal(child.pid, signal.SIGKILL)
            child.wait()
            return OUT_OF_MEMORY
    _signal(child.pid, signal.SIGKILL)  # what it left behind
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def main(arguments: list[str]) -> int:
    """Start the worker and watch it."""
    memory, grace, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda given, _: asked.append(given))
    try:
        with Path(os.devnull).open("rb") as nothing:
            child = subprocess.Popen(command, stdin=nothing, preexec_fn=_before_exec)
    except OSError as error:
        print(f"cannot start {command[0]!r}: {error.strerror or error}", file=sys.stderr, flush=True)
        return 127
    return watch(child, memory, grace, asked)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
