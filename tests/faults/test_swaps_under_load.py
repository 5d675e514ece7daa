"""A thousand swaps of a served model under load: no request is lost, and no answer is of two versions."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import urllib3
from sklearn.linear_model import LogisticRegression
from tests.behaviour import serving_tools

from ondol.base.settings import Settings
from ondol.store import routes
from ondol.store.connection import Store

SWAPS = 1_000
NEW_EVERY = 50
ROWS = serving_tools.matrix(24, 3)
SIDE = (ROWS[:, 0] > 0).astype(int)
V1 = ("/v1/models/m:predict", msgspec.json.encode({"instances": ROWS.tolist()}))
V2 = (
    "/v2/models/m/infer",
    msgspec.json.encode(
        {"inputs": [{"name": "x", "datatype": "FP64", "shape": [24, 3], "data": ROWS.ravel().tolist()}]}
    ),
)
HEADERS = {"content-type": "application/json"}
Post = Callable[[str, bytes], tuple[int, str, bytes]]
"""Path and body to status, release and body."""


@contextmanager
def by_httpx(url: str) -> Iterator[Post]:
    with httpx.Client(base_url=url, timeout=30) as client:

        def post(path: str, body: bytes) -> tuple[int, str, bytes]:
            answer = client.post(path, content=body, headers=HEADERS)
            return answer.status_code, answer.headers.get("x-ondol-release", ""), answer.content

        yield post


@contextmanager
def by_urllib3(url: str) -> Iterator[Post]:
    with urllib3.PoolManager(retries=False) as pool:

        def post(path: str, body: bytes) -> tuple[int, str, bytes]:
            answer = pool.request("POST", url + path, body=body, headers=HEADERS, timeout=30)
            return answer.status, answer.headers.get("x-ondol-release", ""), answer.data

        yield post


@contextmanager
def by_the_standard_library(url: str) -> Iterator[Post]:
    """One connection per request, as the plainest clients do."""
    place = urllib.parse.urlsplit(url).netloc

    def post(path: str, body: bytes) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection(place, timeout=30)
        try:
            connection.request("POST", path, body, HEADERS)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("x-ondol-release", ""), answer.read()
        finally:
            connection.close()

    yield post


CLIENTS = (by_httpx, by_urllib3, by_the_standard_library)


class Load:
    """Every client asks all the time, V1 and V2 in turn; whatever is not one version's whole answer is kept."""

    def __init__(self, url: str, labels: dict[str, list[int]]) -> None:
        self._labels = labels
        self._stop = threading.Event()
        self.seen = {client.__name__: 0 for client in CLIENTS}
        self.newest = ""
        self.wrong: list[Any] = []
        self._threads = [threading.Thread(target=self._run, args=(client, url)) for client in CLIENTS]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: Any, url: str) -> None:
        try:
            with client(url) as post:
                while not self._stop.is_set():
                    self._ask(client.__name__, post, *(V1, V2)[self.seen[client.__name__] % 2])
        except (
            OSError,
            http.client.HTTPException,
            httpx.HTTPError,
            urllib3.exceptions.HTTPError,
        ) as error:  # a connection that broke is a request that was lost
            self.wrong.append((client.__name__, repr(error)))

    def _ask(self, name: str, post: Post, path: str, body: bytes) -> None:
        status, release, answer = post(path, body)
        value = msgspec.json.decode(answer)
        given = value.get("predictions") or value.get("outputs", [{}])[0].get("data")
        if status != 200 or given != self._labels.get(release):
            self.wrong.append((name, path, status, release, answer))
        self.seen[name] += 1
        self.newest = release

    def wait_for(self, release: str) -> None:
        """Wait until a client has got an answer of a release, or something is wrong."""
        deadline = time.monotonic() + serving_tools.READY_SECONDS
        while self.newest != release and not self.wrong:
            assert time.monotonic() < deadline, f"nobody saw {release}"
            time.sleep(0.001)


@pytest.mark.slow
def test_a_thousand_swaps_lose_no_request_and_mix_no_versions(home: Settings, store: Store, tmp_path: Path) -> None:
    """Each counts only once a client has got an answer of what came in; every fiftieth has to be loaded first."""
    labels: dict[str, list[int]] = {}

    with serving_tools.running(home, store) as plane:
        first = LogisticRegression().fit(ROWS, SIDE)
        stable = plane.serve("m", first, tmp_path / "0").digest
        labels[stable] = first.predict(ROWS).tolist()
        route = routes.get(store, "m")
        assert route is not None
        with Load(plane.settings.data.url, labels) as load:
            for number in range(SWAPS):
                if number % NEW_EVERY == 0:
                    opposite = 1 - np.array(labels[stable])
                    fresh = LogisticRegression(C=2.0 + number).fit(ROWS, opposite)
                    other = plane.release("m", fresh, tmp_path / str(number + 1)).digest
                    labels[other] = fresh.predict(ROWS).tolist()
                    assert labels[other] != labels[stable]
                route = routes.put(store, replace(route, stable=other, previous=stable))
                stable, other = other, stable
                load.wait_for(stable)
                assert load.wrong == []
    assert load.wrong == []
    assert len(labels) == 1 + SWAPS // NEW_EVERY
    assert all(count >= SWAPS // 10 for count in load.seen.values()), load.seen
