"""KServe's batcher and payload logger, around a model in memory and around a process."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane
from tests.behaviour.test_inference_service import X, Y, manifest, settle, write
from tests.behaviour.test_workers import IMAGES, SERVERS, container

from ondol.base.settings import Settings
from ondol.store import resources
from ondol.store.connection import Store


@pytest.fixture
def plane(home: Settings, store: Store) -> Iterator[Plane]:
    shutil.copytree(SERVERS, home.project, dirs_exist_ok=True)
    (home.project / "ondol.yaml").write_text(IMAGES)
    with serving_tools.running(home, store) as plane:
        yield plane


class Receiver:
    """An event receiver that refuses the first event once with 503."""

    def __init__(self) -> None:
        self.events: list[tuple[dict[str, str], Any]] = []
        self.refused = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.refused += 1
                if receiver.refused == 1:
                    self.send_response(503)
                else:
                    receiver.events.append(({k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
                    self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/events"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_payloads_are_sent_as_cloudevents_and_tried_again(plane: Plane, receiver: Receiver, tmp_path: Path) -> None:
    logger = {"url": receiver.url, "mode": "all", "metadataHeaders": ["X-Tenant"], "metadataAnnotations": ["team"]}
    service = manifest(write(tmp_path / "model"), logger=logger)
    service["metadata"]["annotations"] = {"team": "delays", "other": "x"}
    resources.apply(plane.store, service)
    settle(plane)
    asked = {"instances": X[:2].tolist()}
    answer = plane.client.post("/v1/models/delay:predict", json=asked, headers={"ce-id": "e-1", "x-tenant": "seoul"})
    assert answer.json() == {"predictions": Y[:2].tolist()}
    assert plane.predict("delay", [["wrong"]]).status_code == 400
    serving_tools.wait(lambda: len(receiver.events) == 3)  # the refused request has no response event
    by_type: dict[str, list[tuple[dict[str, str], Any]]] = {}
    for headers, body in receiver.events:
        by_type.setdefault(headers["ce-type"].rpartition(".")[2], []).append((headers, body))
    ((sent, predictions),) = by_type["response"]
    assert predictions == {"predictions": Y[:2].tolist()}
    assert sorted(body["instances"][0] == ["wrong"] for _, body in by_type["request"]) == [False, True]
    expected = {
        "ce-specversion": "1.0", "ce-id": "e-1", "ce-type": "org.kubeflow.serving.inference.response",
        "ce-source": "delay-predictor", "ce-inferenceservicename": "delay", "ce-namespace": "default",
        "ce-component": "predictor", "ce-endpoint": "default", "ce-metadata": '{"X-Tenant": ["seoul"]}',
        "ce-annotations": '{"team": "delays"}', "content-type": "application/json",
    }  # fmt: skip
    assert {name: sent[name] for name in expected} == expected
    assert {"ce-time", "ce-recordedtime"} <= sent.keys()
    serving_tools.wait(lambda: "ondol_payload_events_delivered_total 3" in plane.client.get("/metrics").text)
    scored = plane.client.post(
        "/endpoints/delay/invocations", json={"inputs": X[:1].tolist()}, headers={"ce-id": "e-2"}
    )
    assert scored.json() == {"predictions": Y[:1].tolist()}
    serving_tools.wait(lambda: [headers["ce-id"] for headers, _ in receiver.events].count("e-2") == 2)


PATIENT = 25_000
"""Milliseconds: what is asked at once is one batch, however late its second half comes."""


def together(plane: Plane, *rows: Any) -> list[Any]:
    with ThreadPoolExecutor(len(rows)) as threads:
        return [one.json() for one in threads.map(lambda one: plane.predict("delay", one), rows)]


def test_a_batch_answers_in_kserves_shape_and_one_bad_row_harms_nobody_else(plane: Plane, tmp_path: Path) -> None:
    uri = write(tmp_path / "model")
    resources.apply(plane.store, manifest(uri, batcher={"maxBatchSize": 3, "maxLatency": PATIENT}))
    resources.apply(plane.store, manifest(uri, "hasty", batcher={"maxBatchSize": 3, "maxLatency": 50}))
    settle(plane)
    settle(plane, "hasty")
    first, second = together(plane, X[:2].tolist(), X[2:3].tolist())
    assert (first["message"], first["predictions"]) == ("", Y[:2].tolist())
    assert first["batchId"] == second["batchId"]
    alone = plane.predict("hasty", X[:1].tolist()).json()
    assert alone["predictions"] == Y[:1].tolist()
    good, bad = together(plane, X[:2].tolist(), [["wrong"]])
    assert good["predictions"] == Y[:2].tolist()
    assert (bad["predictions"], "features" in bad["message"] or "number" in bad["message"]) == (None, True)
    assert plane.predict("delay", []).status_code == 400
    row = {"name": "input-0", "shape": [1, 3], "datatype": "FP64", "data": X[0].tolist()}
    assert "outputs" in plane.infer("delay", {"inputs": [row]}).json(), "V2 passes the batcher by"


def test_a_process_gets_a_batch_as_one_request(plane: Plane) -> None:
    service = container("myorg/plain:v1", command=["python", "plain.py"])
    service["spec"]["predictor"]["batcher"] = {"maxBatchSize": 2, "maxLatency": PATIENT}
    resources.apply(plane.store, service)
    settle(plane)
    first, second = together(plane, [1], [2])
    assert sorted(first["predictions"] + second["predictions"]) == [1, 2]
    assert first["batchId"] == second["batchId"]
    assert {*first} == {"message", "batchId", "predictions"}
