"""A running step and its limits: time, memory, and how it is asked and then made to end, with everything below it.

Part of the program worker_main.py, which loads it by its path: it must not import anything of Ondol's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

GRACE = 1.0  # seconds between asking a step to end and killing it
_TROUBLE = "trouble.txt"  # where a step's process says why it cannot go on
_TROUBLED = 125  # the exit code it has then


def in_trouble(folder: str, why: str) -> int:
    """Leave word, in the step's process, why it cannot go on; return the exit code that says so."""
    Path(folder, _TROUBLE).write_text(why, encoding="utf-8")
    return _TROUBLED


def trouble_of(folder: str | Path, code: int) -> str:
    """Return what `in_trouble` left, or nothing."""
    with contextlib.suppress(OSError):
        return Path(folder, _TROUBLE).read_text(encoding="utf-8") if code == _TROUBLED else ""
    return ""


def kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def children(pid: int) -> list[int]:
    """Return a process' children, which are kept by the thread that started them (Linux; elsewhere none are known)."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, Path(thread, "children").read_text(encoding="ascii").split())
    return found


def tree(pid: int) -> list[int]:
    """Return a process and everything below it, whatever session it moved to."""
    return [pid, *(below for child in children(pid) for below in tree(child))]


def _memory(pid: int) -> int:
    """Return the bytes that a process and everything below it hold in memory."""
    pages = 0
    for one in tree(pid):
        with contextlib.suppress(OSError, IndexError):
            pages += int(Path(f"/proc/{one}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Step:
    """A running step and its limits."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.id: int = request["id"]
        self.folder: str = request["folder"]
        self.memory: int = request.get("memory", 0)
        seconds: float = request.get("seconds", 0.0)
        self.deadline = time.monotonic() + seconds if seconds else 0.0
        self.why = ""
        self.last_call = 0.0

    def watched(self) -> bool:
        return bool(self.memory or self.deadline or self.last_call)

    def look(self, pid: int) -> None:
        """Stop the step when it is over a limit: asked first, then killed; for memory there is no time to ask."""
        now = time.monotonic()
        if self.last_call:
            self.insist(pid, now)
        elif self.deadline and now > self.deadline:
            self.why = "time"
            self.ask(pid)
        elif self.memory and _memory(pid) > self.memory:
            self.why, self.last_call = "memory", now
            self.insist(pid, now)

    def ask(self, pid: int) -> None:
        if not self.last_call:
            self.last_call = time.monotonic() + GRACE
            kill(pid, signal.SIGTERM)

    def insist(self, pid: int, now: float) -> None:
        if now >= self.last_call:
            for one in reversed(tree(pid)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(one, signal.SIGKILL)
