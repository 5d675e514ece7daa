"""kill -9 of a conductor that counts a large drift window: one decision for each window, about every request of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.behaviour.loop_tools import MODEL
from tests.behaviour.test_loop_watch import Watched, rows, watched

from ondol.base.settings import Settings
from ondol.loop import watch
from ondol.records.project import MonitorSpec
from ondol.records.rollout import Decision
from ondol.store import counters, rollouts
from ondol.store.connection import Store

__all__ = ["watched"]  # the fixture

WINDOW = 21_000
WORKER = f"""
import sys
from pathlib import Path
from ondol.data import drift, sketches
from ondol.loop import large_windows, watch
from ondol.records.project import MonitorSpec
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

home = Path(sys.argv[1])
store, blobs = Store(home / "ondol.db"), Blobs(home / "blobs")
print("ready", flush=True)
sys.stdin.readline()
while True:
    watch.look(store, blobs, {MODEL!r}, MonitorSpec(window={WINDOW}))
"""


def conductor(home: Settings) -> subprocess.Popen[bytes]:
    """Start a process that counts until it is killed, and begins when it is told."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(home.home)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def begin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def said(decision: Decision) -> tuple[object, ...]:
    return decision.verdict, decision.reason, decision.evidence


@pytest.mark.slow
def test_killed_anywhere_every_window_is_counted_whole_and_decided_once(
    home: Settings, store: Store, watched: Watched
) -> None:
    for shift in (0.0, 1.0, 0.0):
        watched.send(rows(WINDOW, watched.generator, shift))
    fact = f"watch/{MODEL}/counting"
    for delay in (0.0, 0.05, 0.2, None):
        before, at_once = counters.fact(store, fact), [conductor(home) for _ in range(1 if delay is not None else 2)]
        for worker in at_once:
            begin(worker)
        until = time.monotonic() + 180
        while time.monotonic() < until and len(rollouts.decisions(store, MODEL, "drift")) < 3:
            if delay is not None and (not delay or counters.fact(store, fact) != before):
                time.sleep(delay)
                break
            time.sleep(0.001)
        for worker in at_once:
            worker.kill()
            worker.communicate()
    killed = list(reversed(rollouts.decisions(store, MODEL, "drift")))
    assert [one.evidence["window"] for one in killed] == [[n * WINDOW, (n + 1) * WINDOW] for n in range(3)]
    assert [one.evidence["report"]["current_rows"] for one in killed] == [WINDOW] * 3
    for name in (fact, f"watch/{MODEL}"):
        with store.write() as tx:
            tx.execute("DELETE FROM facts WHERE name = ?", (name,))
    looks = 0
    while looks < 3:
        looks += watch.look(store, watched.blobs, MODEL, MonitorSpec(window=WINDOW)) is not None
    undisturbed = list(reversed(rollouts.decisions(store, MODEL, "drift", limit=3)))
    assert [said(one) for one in killed] == [said(one) for one in undisturbed]
    assert [one.verdict for one in killed] == ["stable", "drift", "stable"]
