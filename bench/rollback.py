"""From the verdict to the last answer of the bad version, under load, and how many requests failed on the way.

A data plane serves two releases half and half to clients that ask as fast as they can; a rollback by hand is the same
pointer move as the judge's. Measured: seconds from the commit of the decision to the end of the last answer that the
candidate gave (answers under way included).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression

from ondol.app import listen
from ondol.base.settings import Address
from ondol.records.release import ModelManifest
from ondol.records.rollout import JudgePolicy, Route
from ondol.rollout import controller
from ondol.store import loads, releases, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

CLIENTS = 8
POLICY = JudgePolicy(steps=(50.0, 100.0), metrics=("error_rate",), max_requests=10_000_000)


class Clients:
    """Ask all the time; remember when each arm answered last, and what failed."""

    def __init__(self, url: str) -> None:
        self.last: dict[str, float] = {}
        self.answered = self.failed = 0
        self._url, self._stop = url, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=10) as client:
            index = 0
            while not self._stop.is_set():
                index += 1
                headers = {"x-ondol-unit": f"{number}-{index}"}
                answer = client.post("/v1/models/m:predict", json={"instances": [[0.1, 0.2, 0.3]]}, headers=headers)
                self.last[answer.headers.get("x-ondol-arm", "none")] = time.time()
                self.answered += 1
                self.failed += answer.status_code != 200


def wait(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def release(store: Store, home: Path, folder: Path, spread: float) -> str:
    folder.mkdir()
    rows = np.random.default_rng(0).normal(size=(100, 3))
    joblib.dump(LogisticRegression(C=spread).fit(rows, rows[:, 0] > 0), folder / "model.joblib")
    return releases.put(store, "m", ModelManifest(Blobs(home / "blobs").put_path(folder), str(folder))).digest


def measure(store: Store, candidate: str, url: str, rounds: int) -> tuple[list[float], Clients]:
    found = []
    with Clients(url) as clients:
        for _ in range(rounds):
            controller.start(store, "m", candidate, POLICY)
            began = time.time()
            wait(lambda began=began: clients.last.get("candidate", 0.0) > began + 0.1)
            controller.rollback(store, "m", "measured")
            decided = time.time()
            time.sleep(0.4)
            found.append(max(clients.last["candidate"] - decided, 0.0))
    return found, clients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="rollbacks")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        home, where = Path(folder) / "home", Address("127.0.0.1", listen.free_port())
        home.mkdir()
        with Store(home / "ondol.db") as store:
            stable, candidate = (release(store, home, Path(folder) / str(c), c) for c in (1.0, 0.5))
            routes.put(store, Route("m", "model", stable))
            command = [sys.executable, "-m", "ondol.app.dataplane", "--home", str(home), "--listen", str(where)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait(lambda: any(one.release == stable and one.state == "Loaded" for one in loads.every(store)))
                wait(lambda: answers(where.url))
                found, clients = measure(store, candidate, where.url, rounds)
            finally:
                process.terminate()
                process.wait(20)
    milliseconds = sorted(1000 * one for one in found)
    figures = {
        "rounds": rounds,
        "clients": CLIENTS,
        "requests": clients.answered,
        "failed_requests": clients.failed,
        "last_bad_answer_ms_p50": round(statistics.median(milliseconds), 1),
        "last_bad_answer_ms_p90": round(milliseconds[int(0.9 * (len(milliseconds) - 1))], 1),
        "last_bad_answer_ms_max": round(milliseconds[-1], 1),
        "load_average": round(os.getloadavg()[0], 1),
    }
    print(f"{rounds} rollbacks under load: last answer of the bad version after p50, max; failed requests")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
