"""Whether the processes live: each says when it began, that it goes on, and that it ended on purpose.

A process that was killed says nothing any more: whoever looks next raises the alert, once. Must not start or end
processes: the supervisor does.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ondol.base import clock
from ondol.store import alerts, counters
from ondol.store.connection import Store

STUCK_SECONDS = 60.0
"""A conductor that has not finished a look for this long is stuck: its looks take milliseconds, a slow disk seconds."""

_BEAT_SECONDS = 5.0
LABELS = {"control": "the control process", "data": "the data plane"}


class Pulse:
    """One process' own pulse; `begin` once, `beat` whenever convenient, `end` when it stops on purpose."""

    def __init__(self, store: Store, role: str) -> None:
        self._store, self._name, self._role = store, f"pulse/{role}", role
        self._started = time.time()
        self._beaten = 0.0

    def begin(self) -> None:
        """Say that a process of this role runs; one before that did not end on purpose is worth an alert."""
        alert_if_dead(self._store, self._role)
        self._write("running")

    def beat(self) -> None:
        """Say that it goes on; at most every five seconds."""
        if time.monotonic() - self._beaten >= _BEAT_SECONDS:
            self._write("running")

    def end(self) -> None:
        """Say that it ended on purpose."""
        self._write("stopped")

    def _write(self, state: str) -> None:
        self._beaten = time.monotonic()
        value = {"pid": os.getpid(), "started": self._started, "beat": time.time(), "state": state}
        counters.put_fact(self._store, self._name, value)


def of(store: Store, role: str) -> dict[str, Any]:
    """Return what a role said last: `{pid, started, beat, state}`, or nothing."""
    return dict(counters.fact(store, f"pulse/{role}") or {})


def is_alive(pid: int) -> bool:
    """Whether a process of this machine lives; a zombie, whose parent has not looked yet, does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True  # no /proc here


def alert_if_dead(store: Store, role: str) -> bool:
    """Raise the alert about a process that is gone without having said so; True when there is such a process."""
    last = of(store, role)
    if last.get("state") != "running" or last["pid"] == os.getpid() or is_alive(int(last["pid"])):
        return False
    message = (
        f"{LABELS.get(role, role)} (process {last['pid']}) died; the last sign of life was {clock.iso(last['beat'])}"
    )
    key = f"worker/{role}/{last['started']}"
    alerts.put(store, alerts.make("worker", role, message, key=key, severity="critical", evidence=last))
    return True


def alert_if_stuck(store: Store, now: float) -> bool:
    """Raise the alert about a conductor whose looks do not end; True when it is stuck."""
    last = of(store, "conductor")
    if last.get("state") != "running" or now - float(last["beat"]) < STUCK_SECONDS or not is_alive(int(last["pid"])):
        return False
    message = f"the conductor has not finished a look since {clock.iso(last['beat'])}: nothing is judged or retrained"
    key = f"conductor/{last['beat']}"
    alerts.put(store, alerts.make("conductor", "conductor", message, key=key, severity="critical", evidence=last))
    return True
