"""A drift window of a million requests, counted look by look as the conductor does it: processor time and memory.

Requests of ten features and an answer are put into a database, one column of them moved; the reference are 5,000 rows.
The time is the counting process' own, from the first look to the decision, without imports. `--quick`: a tenth.
The last line is one JSON object; the exit code is 1 when the decision does not name the column that moved.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ondol.data import drift, sketches
from ondol.loop import watch
from ondol.records.project import MonitorSpec
from ondol.records.rollout import Observation, Route
from ondol.store import counters, observations, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

SERVICE, RELEASE, MOVED = "bench", "sha256:bench", "n3"


def table(rows: int, random: np.random.Generator, shift: float = 0.0) -> pd.DataFrame:
    """Return seven normal columns, one with empty cells, a count and two categories."""
    frame = pd.DataFrame({f"n{at}": random.normal(0, 1, rows).round(4) for at in range(7)})
    frame[MOVED] += shift
    frame.loc[random.random(rows) < 0.05, "n5"] = np.nan
    frame["hour"] = random.integers(0, 24, rows)
    frame["plan"] = random.choice(["basic", "plus", "pro"], rows)
    frame["city"] = random.choice([f"city {at}" for at in range(40)], rows)
    return frame


def chance(frame: pd.DataFrame) -> pd.Series[float]:
    """Return what a model answers."""
    chances: pd.Series[float] = 1 / (1 + np.exp(-frame["n0"]))
    return chances


def fill(store: Store, blobs: Blobs, requests: int) -> None:
    """Let a service have answered so many requests."""
    random = np.random.default_rng(0)
    routes.put(store, Route(SERVICE, "model", RELEASE))
    kept = table(5000, random)
    buffer = io.BytesIO()
    kept.assign(prediction=chance(kept)).to_parquet(buffer, index=False)
    counters.put_fact(store, f"reference/{RELEASE}", blobs.put_bytes(buffer.getvalue()))
    began = time.time()
    for first in range(0, requests, 20_000):
        frame = table(min(20_000, requests - first), random, 0.5)
        answers = chance(frame).tolist()
        rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
        observations.append(
            store,
            [
                Observation(
                    f"r{first + at}", began + (first + at) / 1000, SERVICE, RELEASE, "stable", f"u{at % 500}", 200, 1.0,
                    features=json.dumps([row]), prediction=json.dumps([[1 - answer, answer]]),
                )
                for at, (row, answer) in enumerate(zip(rows, answers, strict=True))
            ],
        )  # fmt: skip


def main() -> int:
    """Fill, count, print, and end with one JSON line."""
    requests = 100_000 if "--quick" in sys.argv else 1_000_000
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "ondol.db") as store:
        blobs = Blobs(Path(folder) / "blobs")
        fill(store, blobs, requests)
        warm = sketches.of_frame(kept := table(500, np.random.default_rng(1)), sketches.cells_of(kept), 20)
        sketches.compare(warm, warm, "", drift.Options())  # what is imported late is imported now
        before, began, wall = _peak(), time.process_time(), time.perf_counter()
        decision, looks = None, 0
        while decision is None:
            decision, looks = watch.look(store, blobs, SERVICE, MonitorSpec(window=requests)), looks + 1
        seconds, wall = time.process_time() - began, time.perf_counter() - wall
    print(f"{requests:,} requests in {looks} looks: {seconds:.1f} s of processor time, {wall:.1f} s on the clock,")
    print(f"{_peak() - before:.0f} MiB more memory than before. {decision.reason}")
    print(json.dumps({"requests": requests, "cpu_seconds": seconds, "more_mib": _peak() - before, "looks": looks}))
    return 0 if decision.verdict == "drift" and decision.reason.endswith(f": {MOVED}") else 1


def _peak() -> float:
    """Return the most memory that the process ever had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    raise SystemExit(main())
