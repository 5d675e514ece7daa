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
from sklearn.neighbors import KNeighborsClassifier
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


def test_a_stop_answers_what_is_under_way_and_writes_the_log(plane: Plane, store: Store, tmp_path: Path) -> None:
    many = serving_tools.matrix(60_000, 3)
    slow = KNeighborsClassifier(algorithm="brute").fit(many, many[:, 0] > 0)  # compares every row with every other
    plane.serve("slow", slow, tmp_path / "slow")
    answers: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=plane.settings.data.url, timeout=60) as client:
            rows = {"instances": many[:16_000].tolist()}
            answer = client.post("/v1/models/slow:predict", json=rows, headers={"x-request-id": "last"})
            answers.append(answer.status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    serving_tools.wait(lambda: 'ondol_requests_in_flight{service="slow"} 1' in plane.client.get("/metrics").text)
    assert plane.stop() == 0
    thread.join()
    assert answers == [200]
    assert any(one.id.startswith("last") for one in observations.of_service(store, "slow"))


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
