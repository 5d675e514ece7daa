"""The data plane under load: swaps, a stop and a kill lose no answer; labels survive once acknowledged."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

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


def test_a_stop_writes_what_was_answered_to_the_log(plane: Plane, store: Store) -> None:
    answers: list[int] = []

    def ask(number: int) -> None:
        headers = {"x-request-id": f"last-{number}"}
        with httpx.Client(base_url=plane.settings.data.url, timeout=30) as client:
            rows = {"instances": X.tolist() * 50}
            answers.append(client.post("/v1/models/m:predict", json=rows, headers=headers).status_code)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plane.stop() == 0
    assert answers == [200] * 4
    kept = {one.id for one in observations.of_service(store, "m")}
    assert {f"last-{number}" for number in range(4)} <= kept


def test_it_says_not_ready_before_it_stops(plane: Plane) -> None:
    plane.process.send_signal(signal.SIGTERM)
    seen = set()
    try:
        while True:
            seen.add(plane.client.get("/readyz").status_code)
    except httpx.TransportError:
        pass
    assert 503 in seen
    assert plane.process.wait(30) == 0


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
