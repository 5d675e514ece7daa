"""The data plane under load: swaps, a stop and a kill lose no answer; labels survive once acknowledged."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sklearn.linear_model import LogisticRegression
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane

from ondol.base.settings import Settings
from ondol.store import observations
from ondol.store.connection import Store

X = serving_tools.matrix(100, 3)
Y = (X[:, 0] > 0).astype(int)


@pytest.fixture
def plane(home: Settings, store: Store, tmp_path: Path) -> Iterator[Plane]:
    with serving_tools.running(home, store) as plane:
        plane.serve("m", LogisticRegression().fit(X, Y), tmp_path / "first")
        yield plane


GATED = """
import time
from pathlib import Path
from sklearn.linear_model import LogisticRegression

class Gated(LogisticRegression):
    def predict(self, X):
        while not Path(self.gate).exists():
            time.sleep(0.01)
        return super().predict(X)
"""


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model that answers while a file is there; the data plane finds its module as this process does."""
    (tmp_path / "gated_model.py").write_text(GATED, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model = importlib.import_module("gated_model").Gated().fit(X, Y)
    model.gate = str(tmp_path / "gate")
    yield model
    del sys.modules["gated_model"]


def test_a_stop_answers_what_is_under_way_and_writes_the_log(
    gated: Any, home: Settings, store: Store, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    with serving_tools.running(home, store) as plane:
        plane.serve("m", gated, tmp_path / "m")
        gate.unlink()
        with ThreadPoolExecutor(1) as pool, serving_tools.clients(plane.settings.data.url) as (asking, probing):
            body = {"instances": X.tolist()}
            answer = pool.submit(asking.post, "/v1/models/m:predict", json=body, headers={"x-request-id": "last"})
            try:
                serving_tools.wait(lambda: 'requests_in_flight{service="m"} 1' in probing.get("/metrics").text)
                plane.process.send_signal(signal.SIGTERM)
                serving_tools.wait(lambda: not _takes(plane))
            finally:
                gate.touch()
            assert answer.result().json() == {"predictions": gated.predict(X).tolist()}
        assert plane.process.wait(serving_tools.READY_SECONDS) == 0
    (kept,) = observations.of_service(store, "m")
    assert (kept.id, kept.status) == ("last", 200)


def _takes(plane: Plane) -> bool:
    """Whether somebody who comes now is let in."""
    address = plane.settings.data
    try:
        socket.create_connection((address.host, address.port), timeout=60).close()
    except ConnectionRefusedError:
        return False
    return True


def test_it_says_not_ready_before_it_stops(home: Settings, store: Store) -> None:
    for _ in range(5):  # it says so for a fifth of a second, in which this process may get no turn
        with serving_tools.running(home, store) as plane:
            plane.process.send_signal(signal.SIGTERM)
            seen = set()
            with contextlib.suppress(httpx.TransportError):
                while True:
                    seen.add(plane.client.get("/readyz").status_code)
            assert plane.process.wait(serving_tools.READY_SECONDS) == 0
        if 503 in seen:
            return
    pytest.fail(f"nobody saw that it was not ready: {seen}")


def test_acknowledged_labels_survive_a_kill(plane: Plane, home: Settings, store: Store) -> None:
    plane.predict("m", X[:1].tolist(), x_request_id="kept")
    serving_tools.wait(lambda: bool(observations.of_service(store, "m")))
    assert plane.client.post("/ondol/v1/labels", json={"labels": {"kept": 1, "early": 0}}).status_code == 200
    os.kill(plane.process.pid, signal.SIGKILL)
    plane.process.wait()
    (seen,) = observations.of_service(store, "m")
    assert (seen.id, seen.label) == ("kept", "1")
    with serving_tools.running(home, store) as again:  # and what was served is served again
        again.wait_for("m", seen.release)
        assert again.predict("m", X[:1].tolist()).status_code == 200
