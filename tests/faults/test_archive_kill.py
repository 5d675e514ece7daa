"""kill -9 of the compactor wherever it is: every request is in exactly one place, with its label."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL

from ondol.base.settings import Settings
from ondol.monitoring.request_archive import Archive
from ondol.records.rollout import Observation
from ondol.store import observations, segments
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

REQUESTS, IN_A_FILE = 12_000, 300
WORKER = f"""
import contextlib, os, signal, sys, time
from pathlib import Path
from ondol.monitoring.request_archive import Archive
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

home = Path(sys.argv[1])
store, writes = Store(home / "ondol.db"), 0
plain = store.write


@contextlib.contextmanager
def write():
    global writes
    writes += 1
    with plain() as tx:
        yield tx
        if writes == int(sys.argv[2]):  # it dies in this one and loses it
            os.kill(os.getpid(), signal.SIGKILL)


store.write = write
archive = Archive(store, Blobs(home / "blobs"))
archive.compact({MODEL!r}, time.time(), least=1, most={IN_A_FILE})
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_anywhere_no_request_is_lost_or_doubled(home: Settings, store: Store) -> None:
    tools.serving(store)
    at = time.time() - 1000
    rows = [
        Observation(f"r{n}", at + n / 100, MODEL, "r", "stable", "u", 200, 1.0, label=str(n)) for n in range(REQUESTS)
    ]
    observations.append(store, rows)
    archive = Archive(store, Blobs(home.blobs))
    for last, delay in ((1, None), (3, None), (0, 0.0), (0, 0.003), (0, 0.007), (0, 0.015), (0, 0.03), (0, None)):
        before = len(segments.every(store))
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(home.home), str(last)],
            stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        while delay is not None and worker.poll() is None and len(segments.every(store)) <= before:
            time.sleep(0.001)
        if delay is not None:
            time.sleep(delay)
            worker.kill()
        said = worker.communicate()[0]
        if last:
            assert worker.returncode == -signal.SIGKILL
            assert len(segments.every(store)) == before + last - 1
        elif delay is None:
            assert said == b"done\n"
        found = [one.label for one in archive.read(MODEL)]
        assert len(found) == REQUESTS
        assert set(found) == {str(n) for n in range(REQUESTS)}
    assert observations.of_service(store, MODEL) == []
    assert len(segments.every(store, MODEL)) == REQUESTS // IN_A_FILE
