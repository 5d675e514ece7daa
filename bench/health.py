"""Health probes while bodies near the limit are read and heavy predictions run: how long does one take?

`python bench/health.py [--seconds 5]`. For every kind of large request one client sends it again and again, and a probe
asks `/livez` and `/v2/health/live` every 5 ms over a connection of its own. What the machine adds is seen in the first
row, where nobody else asks. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.behaviour import serving_tools  # noqa: E402
from tests.conftest import new_settings  # noqa: E402

from ondol.base.settings import Address  # noqa: E402
from ondol.store.connection import Store  # noqa: E402

COLUMNS = 30
ROWS = 90_000
"""Of a JSON body of some 50 MB; the limit is 64."""

PROBE_SECONDS = 0.005
GOAL_MS = 100.0


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: bench", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def kinds() -> dict[str, tuple[bytes, int]]:
    """Return the large requests by name, and the status each must get."""
    matrix = serving_tools.matrix(ROWS, COLUMNS)
    rows, kind = matrix.tolist(), "content-type: application/json"
    v1 = json.dumps({"instances": rows}).encode()
    tensor: dict[str, Any] = {"name": "x", "shape": [ROWS, COLUMNS], "datatype": "FP64"}
    v2 = json.dumps({"inputs": [{**tensor, "data": matrix.ravel().tolist()}]}).encode()
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": matrix.nbytes}}]}).encode()
    raw, linear = head + matrix.tobytes(), "/v1/models/linear:predict"
    wrong = json.dumps({"instances": [*rows[:-1], [*rows[-1][:-1], "x"]]}).encode()
    some = json.dumps({"instances": rows[:20_000]}).encode()
    return {
        "V1 JSON, linear": (post(linear, v1, kind), 200),
        "V1 JSON, forest": (post("/v1/models/forest:predict", v1, kind), 200),
        "V1 JSON, wrong at its end": (post(linear, wrong, kind), 400),
        "V1 JSON, gzip": (post(linear, gzip.compress(v1, 1), kind, "content-encoding: gzip"), 200),
        "V1 JSON, a slow model": (post("/v1/models/slow:predict", some, kind), 200),
        "V2 JSON": (post("/v2/models/linear/infer", v2, kind), 200),
        "V2 raw": (post("/v2/models/linear/infer", raw, f"inference-header-content-length: {len(head)}"), 200),
    }


class Asker:
    """One connection."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection((address.host, address.port), timeout=120)
        self._file = self._socket.makefile("rb")

    def ask(self, request: bytes) -> int:
        """Send a request, read its answer, return its status."""
        self._socket.sendall(request)
        status, length = int(self._file.readline().split()[1]), 0
        while line := self._file.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        self._file.read(length)
        return status


def probe(address: Address, until: threading.Event) -> list[float]:
    """Ask for health until told to stop; return the milliseconds of every answer."""
    asker, found, number = Asker(address), [], 0
    while not until.is_set():
        path, number = ("/livez", "/v2/health/live")[number % 2], number + 1
        began = time.perf_counter()
        status = asker.ask(f"GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n".encode())
        found.append((time.perf_counter() - began) * 1000)
        if status != 200:
            raise RuntimeError(f"{path} answered {status}")
        time.sleep(PROBE_SECONDS)
    return found


def measure(address: Address, request: tuple[bytes, int] | None, seconds: float) -> dict[str, Any]:
    """Send a request again and again for a while, probing; return what the probes took."""
    done, sent = threading.Event(), 0
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.extend(probe(address, done)))
    thread.start()
    until = time.perf_counter() + seconds
    asker = Asker(address)
    while time.perf_counter() < until:
        if request is None:
            time.sleep(0.1)
            continue
        status = asker.ask(request[0])
        if status != request[1]:
            raise RuntimeError(f"{status} instead of {request[1]}")
        sent += 1
    done.set()
    thread.join()
    p50, p99 = (round(float(np.percentile(found, share)), 2) for share in (50, 99))
    size = round(len(request[0]) / 1e6, 1) if request else 0.0
    return {
        "megabytes": size, "requests": sent, "probes": len(found), "p50_ms": p50, "p99_ms": p99,
        "max_ms": round(max(found), 1),
    }  # fmt: skip


def main() -> None:
    """Measure every kind and print the table's rows, then the summary as the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0, help="of a kind of request (default: 5)")
    chosen = parser.parse_args()
    load = os.getloadavg()
    folder = Path(tempfile.mkdtemp(prefix="ondol-health-"))
    home = new_settings(folder)
    features = serving_tools.matrix(2_000, COLUMNS)
    labels = (features[:, 0] + features[:, 1] ** 2 > 0.5).astype(int)
    models = {"linear": LogisticRegression(), "forest": RandomForestClassifier(100, random_state=0), "slow": SVC()}
    figures: dict[str, Any] = {}
    with Store(home.database) as store, serving_tools.running(home, store) as plane:
        for name, model in models.items():
            plane.serve(name, model.fit(features, labels), folder / name)
        for name, request in {"nobody asks": None, **kinds()}.items():
            figures[name] = measure(plane.settings.data, request, chosen.seconds)
            print(f"{name:<26} {json.dumps(figures[name])}", flush=True)
    worst = max(row["max_ms"] for row in figures.values())
    loads = {"before": load, "after": os.getloadavg()}
    print(json.dumps({"goal_ms": GOAL_MS, "worst_ms": worst, "load_average": loads, "kinds": figures}))


if __name__ == "__main__":
    main()
