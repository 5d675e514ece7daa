"""V1 and V2 on a real data plane: answers, labels, arms, and what a client may get wrong."""

from __future__ import annotations

import gzip
import json
import re
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane
from tests.conftest import new_settings

from ondol.store import observations, resources, routes, spans
from ondol.store.connection import Store

COLUMNS = 5
X = serving_tools.matrix(300, COLUMNS)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
LINEAR = LogisticRegression().fit(X, Y)
FOREST = RandomForestClassifier(20, random_state=0).fit(X, np.where(Y, "late", "on time"))
HIST = HistGradientBoostingClassifier(max_iter=20).fit(np.where(X < -2, np.nan, X), Y)
FRAME = pd.DataFrame({"carrier": np.where(X[:, 0] > 0, "대한", "AA"), "distance": X[:, 1]})
NAMED = make_pipeline(
    ColumnTransformer(
        [("one", OneHotEncoder(handle_unknown="ignore"), ["carrier"]), ("two", "passthrough", ["distance"])]
    ),
    LogisticRegression(),
).fit(FRAME, Y)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("plane")
    with Store(new_settings(folder).database) as store, serving_tools.running(new_settings(folder), store) as plane:
        for name, model in {"linear": LINEAR, "forest": FOREST, "hist": HIST, "named": NAMED}.items():
            plane.serve(name, model, folder / name)
        yield plane


@pytest.mark.parametrize(("service", "model"), [("linear", LINEAR), ("forest", FOREST), ("hist", HIST)])
def test_v1_answers_what_the_model_answers(plane: Plane, service: str, model: Any) -> None:
    answer = plane.predict(service, X[:40].tolist())
    assert answer.status_code == 200
    assert answer.json() == {"predictions": model.predict(X[:40]).tolist()}
    assert answer.headers["x-ondol-arm"] == "stable"
    assert answer.headers["x-ondol-release"].startswith("sha256:")


def test_rows_by_name(plane: Plane) -> None:
    rows = FRAME.head(10).to_dict("records")
    assert plane.predict("named", rows).json() == {"predictions": NAMED.predict(FRAME.head(10)).tolist()}
    by_order = [[row["carrier"], row["distance"]] for row in rows]
    assert plane.predict("named", by_order).json() == {"predictions": NAMED.predict(FRAME.head(10)).tolist()}


def test_null_is_taken_where_the_model_takes_it(plane: Plane) -> None:
    row = [None, *X[0, 1:].tolist()]
    expected = HIST.predict(np.array([[np.nan, *X[0, 1:]]])).tolist()
    assert plane.predict("hist", [row]).json() == {"predictions": expected}
    refused = plane.predict("linear", [X[1].tolist(), row])
    assert refused.status_code == 400
    assert refused.json()["field"] == "instances[1][0]"


def test_v2_in_the_dialect_of_kserves_own_server(plane: Plane) -> None:
    tensor = {"name": "x", "shape": [2, COLUMNS], "datatype": "FP64", "data": X[:2].ravel().tolist()}
    answer = plane.infer("linear", {"id": "r-1", "inputs": [tensor]})
    output = {"name": "output-0", "shape": [2], "datatype": "INT64", "parameters": None}
    output["data"] = LINEAR.predict(X[:2]).tolist()
    expected = {"model_name": "linear", "model_version": None, "id": "r-1", "parameters": None, "outputs": [output]}
    assert answer.json() == expected
    nested = {**tensor, "data": X[:2].tolist()}
    assert plane.infer("linear", {"id": "r-1", "inputs": [nested]}).json() == expected
    narrow = {**tensor, "datatype": "FP32"}
    assert plane.infer("linear", {"id": "r-1", "inputs": [narrow]}).json() == expected


def test_v2_in_the_dialect_of_mlserver(plane: Plane) -> None:
    model = {"modelFormat": {"name": "sklearn"}, "protocolVersion": "v2", "storageUri": "somewhere"}
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "forest"},
        "spec": {"predictor": {"model": model}},
    }
    tensor = {"name": "x", "shape": [1, COLUMNS], "datatype": "FP64", "data": X[0].tolist()}
    resources.apply(plane.store, manifest)
    try:
        serving_tools.wait(lambda: "model_version" not in plane.infer("forest", {"inputs": [tensor]}).json())
        answer = plane.infer("forest", {"id": "7", "inputs": [tensor]}).json()
        data = FOREST.predict(X[:1]).tolist()
        output = {"name": "predict", "shape": [1, 1], "datatype": "BYTES", "parameters": {"content_type": "np"}}
        assert answer == {"model_name": "forest", "id": "7", "parameters": {}, "outputs": [{**output, "data": data}]}
        wanted = plane.infer("forest", {"inputs": [tensor], "outputs": [{"name": "predict_proba"}]}).json()
        assert wanted["outputs"][0]["shape"] == [1, 2]
        assert wanted["outputs"][0]["data"] == FOREST.predict_proba(X[:1])[0].tolist()
        names = [{"name": "predict_proba"}, {"name": "predict"}]
        both = plane.infer("forest", {"inputs": [tensor], "outputs": names}).json()["outputs"]
        assert [one["name"] for one in both] == ["predict_proba", "predict"]
        assert both[0] == wanted["outputs"][0]
        assert both[1]["data"] == FOREST.predict(X[:1]).tolist()
        assert plane.client.get("/v2/models/forest/ready").content == b""
    finally:
        resources.delete(plane.store, "InferenceService", "default", "forest")


def test_v2_one_input_per_column(plane: Plane) -> None:
    inputs = [
        {"name": "distance", "shape": [3, 1], "datatype": "FP64", "data": FRAME["distance"].head(3).tolist()},
        {"name": "carrier", "shape": [3, 1], "datatype": "BYTES", "data": FRAME["carrier"].head(3).tolist()},
    ]
    answer = plane.infer("named", {"inputs": inputs}).json()
    assert answer["outputs"][0]["data"] == NAMED.predict(FRAME.head(3)).tolist()


def test_what_is_served_can_be_looked_up(plane: Plane) -> None:
    get = plane.client.get
    assert get("/v1/models").json() == {"models": ["forest", "hist", "linear", "named"]}
    assert get("/v1/models/linear").json() == {"name": "linear", "ready": True}
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    metadata = get("/v2/models/named").json()
    assert [(column["name"], column["datatype"]) for column in metadata["inputs"]] == [
        ("carrier", "BYTES"),
        ("distance", "FP64"),
    ]
    assert get("/v2/models/forest").json()["parameters"]["engine"]["compiled"] is True
    plane.predict("linear", X[:1].tolist())
    assert 'ondol_requests_total{service="linear",' in get("/metrics").text


BAD: list[tuple[bytes, int, str]] = [
    (b"", 400, "$"),
    (b"[", 400, "$"),
    (b"[1]", 400, "$"),
    (b"{}", 400, "instances"),
    (b'{"instances": []}', 400, "instances"),
    (b'{"instances": 3}', 400, "instances"),
    (b'{"instances": [[]]}', 400, "instances[0]"),
    (b'{"instances": [[1,2,3,4]]}', 400, "instances[0]"),
    (b'{"instances": [[1,2,3,4,5],[1,2,3,4,5,6]]}', 400, "instances[1]"),
    (b'{"instances": [[1,2,"3",4,5]]}', 400, "instances[0][2]"),
    (b'{"instances": [[1,2,true,4,5]]}', 400, "instances[0][2]"),
    (b'{"instances": [[1,2,[3],4,5]]}', 400, "instances[0][2]"),
    (b'{"instances": [[1,2,NaN,4,5]]}', 400, "$"),
    (b'{"instances": [[1,2,1e999,4,5]]}', 400, "instances"),
    (b'{"instances": [{"a": 1}]}', 400, "instances[0]"),
    (b'{"instances": [1]}', 400, "instances[0]"),
    (b"[" * 100_000, 400, "$"),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD)
def test_a_mistake_is_named_with_its_field(plane: Plane, body: bytes, status: int, field: str) -> None:
    headers = {"content-type": "application/json"}
    answer = plane.client.post("/v1/models/linear:predict", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["field"] == field
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"shape": [1, 4]}, "inputs[0].data"),
        ({"shape": [2, 5]}, "inputs[0].data"),
        ({"shape": [5]}, "inputs[0].shape"),
        ({"shape": [0, 5]}, "inputs[0].shape"),
        ({"shape": [-1, -5]}, "inputs[0].shape"),
        ({"shape": [1, 5.5]}, "inputs[0].shape[1]"),
        ({"datatype": "FP128"}, "inputs[0].datatype"),
        ({"datatype": "INT32"}, "inputs[0].data[0]"),
        ({"datatype": "BYTES"}, "inputs[0].data[0]"),
        ({"data": [[1, 2], [3, 4, 5]]}, "inputs[0].data"),
        ({"data": [1, 2, 3, 4, None]}, "inputs[0].data[4]"),
        ({"data": "abc"}, "inputs[0].data"),
        ({"name": None}, "inputs[0].name"),
    ],
)
def test_a_tensor_that_lies_is_refused(plane: Plane, change: dict[str, Any], field: str) -> None:
    tensor = {"name": "x", "shape": [1, COLUMNS], "datatype": "FP64", "data": [0.5, 1, 2, 3, 4], **change}
    answer = plane.infer("linear", {"inputs": [tensor]})
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_paths_methods_types_and_sizes(plane: Plane) -> None:
    client = plane.client
    assert client.post("/v1/models/nobody:predict", json={"instances": [[1]]}).status_code == 404
    assert client.get("/nowhere").status_code == 404
    assert client.get("/v1/models/linear:predict").status_code == 405
    wrong_type = client.post("/v1/models/linear:predict", content=b"a=1", headers={"content-type": "text/csv"})
    assert wrong_type.status_code == 415
    big = client.post(
        "/v1/models/linear:predict", content=b" " * (64 * 1024 * 1024 + 1), headers={"content-type": "application/json"}
    )
    assert big.status_code == 413


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["instances", "inputs", "a"]), inner),
    max_leaves=12,
)


def _is_right(body: Any) -> bool:
    """Say whether a body is what the linear model takes, independently of the code under test."""
    if not isinstance(body, dict) or ("instances" in body) == ("inputs" in body):
        return False
    rows = body.get("instances", body.get("inputs"))
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(
            isinstance(row, list)
            and len(row) == COLUMNS
            and all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in row)
            for row in rows
        )
    )


@settings(max_examples=1500, deadline=None)
@given(body=json_values | st.fixed_dictionaries({"instances": st.lists(st.lists(st.floats() | st.none()), max_size=2)}))
def test_malformed_bodies_never_cause_a_server_error_nor_a_silent_answer(plane: Plane, body: Any) -> None:
    text = json.dumps(body)
    answer = plane.client.post(
        "/v1/models/linear:predict", content=text.encode(), headers={"content-type": "application/json"}
    )
    if answer.status_code == 200:
        assert _is_right(body), text
    else:
        assert answer.status_code == 400, text
        assert answer.json()["code"].startswith("INP-")


@settings(max_examples=1000, deadline=None)
@given(
    shape=st.lists(st.integers(-2, 7), max_size=3),
    datatype=st.sampled_from(["FP64", "FP32", "INT8", "UINT64", "BOOL", "BYTES", "X"]),
    data=st.lists(st.floats() | st.integers() | st.none() | st.booleans() | st.text(max_size=2), max_size=12)
    | st.lists(st.lists(st.floats(-9, 9), max_size=5), max_size=3),
)
def test_malformed_tensors_never_cause_a_server_error(plane: Plane, shape: Any, datatype: str, data: Any) -> None:
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    text = json.dumps({"inputs": [tensor]}).encode()
    answer = plane.client.post("/v2/models/linear/infer", content=text, headers={"content-type": "application/json"})
    if answer.status_code == 200:
        assert len(shape) == 2
        assert shape[1] == COLUMNS
        assert answer.json()["outputs"][0]["shape"] == [shape[0]]
    else:
        assert answer.status_code == 400, text


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=200))
@example(body=b"[]")
def test_any_bytes_are_answered(plane: Plane, body: bytes) -> None:
    no_labels = re.fullmatch(rb"[ \t\r\n]*\[[ \t\r\n]*\][ \t\r\n]*", body) is not None  # are stored like any others
    for path in ("/v1/models/forest:predict", "/v2/models/forest/infer", "/ondol/v1/labels"):
        answer = plane.client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == (200 if no_labels and path == "/ondol/v1/labels" else 400)


def test_requests_are_observed_and_labels_joined(plane: Plane) -> None:
    plane.predict("linear", X[:1].tolist(), x_request_id="seen-1", x_ondol_unit="user-7")
    labelled = plane.client.post("/ondol/v1/labels", json={"labels": {"seen-1": 1}})
    assert labelled.json() == {"received": 1, "new": 1}
    again = plane.client.post("/ondol/v1/labels", json=[{"id": "seen-1", "label": 0}])
    assert again.json() == {"received": 1, "new": 0}
    found = _observed(plane, "linear", "seen-1")
    assert (found.unit, found.arm, found.status, found.label) == ("user-7", "stable", 200, "1")
    assert json.loads(found.features) == [X[0].tolist()]
    assert json.loads(found.prediction) == LINEAR.predict(X[:1]).tolist()


def _observed(plane: Plane, service: str, request: str) -> Any:
    found: list[Any] = []

    def there() -> bool:
        found[:] = [one for one in observations.of_service(plane.store, service) if one.id == request]
        return bool(found)

    serving_tools.wait(there)
    return found[0]


def test_rows_of_one_request_go_to_their_own_arms(plane: Plane, tmp_path: Path) -> None:
    always = LogisticRegression().fit(X, Y)
    always.intercept_[:] = 1e6  # says 1 whatever it is asked
    candidate = plane.release("linear", always, tmp_path / "candidate")
    before = routes.get(plane.store, "linear")
    assert before is not None
    trial = routes.put(
        plane.store, replace(before, candidate=candidate.digest, weight=40.0, salt="trial", rollout="rollout-1")
    )
    plane.wait_for("linear", candidate.digest)
    try:
        serving_tools.wait(lambda: "candidate" in _arms(plane))
        ids = [f"unit-{number}" for number in range(200)]
        answer = plane.predict("linear", X[:200].tolist(), x_request_ids=",".join(ids))
        assert answer.status_code == 200
        from ondol.rollout import split

        arms = [split.assign(trial, one) for one in ids]
        stable = LINEAR.predict(X[:200]).tolist()
        expected = [1 if arm == "candidate" else label for arm, label in zip(arms, stable, strict=True)]
        assert answer.json()["predictions"] == expected
        seen: dict[str, Any] = {}

        def all_logged() -> bool:
            seen.update({one.id: one for one in observations.of_service(plane.store, "linear") if one.rollout})
            return seen.keys() >= set(ids)

        serving_tools.wait(all_logged)
        assert {seen[one].rollout for one in ids} == {"rollout-1"}
        assert [seen[one].arm for one in ids] == arms
        assert {seen[one].release for one in ids if seen[one].arm == "candidate"} == {candidate.digest}
        once = {plane.predict("linear", X[:1].tolist(), x_ondol_unit="me").headers["x-ondol-arm"] for _ in range(20)}
        assert len(once) == 1
    finally:
        routes.put(plane.store, replace(trial, candidate="", weight=0.0, rollout=""))


def _arms(plane: Plane) -> set[str]:
    return {plane.predict("linear", X[:1].tolist()).headers["x-ondol-arm"] for _ in range(30)}


def test_ids_must_match_the_rows(plane: Plane) -> None:
    answer = plane.predict("linear", X[:3].tolist(), x_request_ids="a,b")
    assert (answer.status_code, answer.json()["field"]) == (400, "x-request-ids")


def test_health_answers_while_a_large_request_is_read_and_computed(plane: Plane) -> None:
    """60,000 rows take seconds; the probe is asked after they were sent and must be answered before they are."""
    body = {"instances": serving_tools.matrix(60_000, COLUMNS).tolist()}
    answered: list[float] = []
    with serving_tools.clients(plane.settings.data.url) as (slow, quick):
        large = threading.Thread(target=lambda: answered.append(_seconds(slow, "/v1/models/forest:predict", body)))
        large.start()
        alive = 0
        while large.is_alive():
            assert quick.get("/livez").status_code == 200
            alive += large.is_alive()
    assert answered
    assert alive >= 3


def _seconds(client: httpx.Client, path: str, body: Any) -> float:
    started = time.monotonic()
    assert client.post(path, json=body).status_code == 200
    return time.monotonic() - started


def test_a_callers_deadline_is_kept(plane: Plane) -> None:
    body = {"instances": serving_tools.matrix(20_000, COLUMNS).tolist()}
    late = plane.client.post("/v1/models/forest:predict", json=body, headers={"x-request-timeout": "0.001"})
    assert (late.status_code, late.json()["code"]) == (504, "STA-020")
    for name, value in (("x-request-timeout", "soon"), ("x-request-timeout", "-1"), ("grpc-timeout", "5 m")):
        wrong = plane.client.post(
            "/v1/models/linear:predict", json={"instances": [X[0].tolist()]}, headers={name: value}
        )
        assert (wrong.status_code, wrong.json()["field"], wrong.json()["code"]) == (400, name, "INP-373")


def test_compressed_bodies_are_read_within_the_limit(plane: Plane) -> None:
    body = json.dumps({"instances": X[:2].tolist()}).encode()
    url, headers = "/v1/models/linear:predict", {"content-type": "application/json"}
    for encoding, data in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        answer = plane.client.post(url, content=data, headers={**headers, "content-encoding": encoding})
        assert answer.json() == {"predictions": LINEAR.predict(X[:2]).tolist()}
    many = json.dumps({"instances": X[:200].tolist()}).encode()  # enough to be inflated beside the event loop
    packed = gzip.compress(many)
    assert len(packed) > 4 * 1024
    answer = plane.client.post(url, content=packed, headers={**headers, "content-encoding": "gzip"})
    assert answer.json() == {"predictions": LINEAR.predict(X[:200]).tolist()}
    for path, status in (("/v1/models/nobody:predict", 404), ("/nowhere", 404)):
        assert plane.client.post(path, content=packed, headers={"content-encoding": "gzip"}).status_code == status
    cut = plane.client.post(url, content=packed[:-4], headers={**headers, "content-encoding": "gzip"})
    assert (cut.status_code, cut.json()["code"]) == (400, "INP-374")
    bomb = gzip.compress(b" " * (65 * 1024 * 1024))
    assert plane.client.post(url, content=bomb, headers={**headers, "content-encoding": "gzip"}).status_code == 413
    for encoding, data in (("gzip", body), ("gzip", gzip.compress(body)[:-4]), ("br", body)):
        answer = plane.client.post(url, content=data, headers={**headers, "content-encoding": encoding})
        assert (answer.status_code, answer.json()["code"]) == (400, "INP-374")


@settings(max_examples=1000, deadline=None)
@given(
    length=st.integers(-2, 200) | st.none(),
    size=st.integers(-9, 90) | st.none() | st.text(max_size=2),
    datatype=st.sampled_from(["FP64", "FP32", "FP16", "INT8", "BOOL", "BYTES", "X"]),
    shape=st.just([1, COLUMNS]) | st.lists(st.integers(-1, 6), max_size=3),
    tail=st.binary(max_size=50) | st.just(X[0].tobytes()),
)
def test_malformed_binary_tensors_are_refused(
    plane: Plane, length: int | None, size: Any, datatype: str, shape: list[int], tail: bytes
) -> None:
    parameters = {} if size is None else {"binary_data_size": len(tail) if size == 90 else size}
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "parameters": parameters}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    declared = len(head) if length is None else length
    headers = {"inference-header-content-length": str(declared), "content-type": "application/octet-stream"}
    answer = plane.client.post("/v2/models/linear/infer", content=head + tail, headers=headers)
    if answer.status_code == 200:
        assert declared == len(head)
        assert shape[1:] == [COLUMNS]
        size_of_json = int(answer.headers["inference-header-content-length"])
        (output,) = json.loads(answer.content[:size_of_json])["outputs"]
        assert output["parameters"]["binary_data_size"] == len(answer.content) - size_of_json == 8 * shape[0]
    else:
        assert answer.status_code == 400, answer.text
        assert answer.json()["code"].startswith("INP-")


def test_a_traced_request_is_a_span_of_its_callers_trace(plane: Plane) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    body, url = {"instances": [X[0].tolist()]}, "/v1/models/linear:predict"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "tracestate": "vendor=1", "x-request-id": "traced-1"}
    answer = plane.client.post(url, json=body, headers=headers)
    version, same, own, flags = answer.headers["traceresponse"].split("-")
    assert (version, same, flags) == ("00", trace, "01")
    serving_tools.wait(lambda: any(one.trace == trace for one in spans.traces(plane.store)))
    (span,) = spans.of_trace(plane.store, trace)
    assert (span.id, span.parent, span.name, span.error) == (own, parent, "predict linear", "")
    assert span.attributes["http.response.status_code"] == 200
    serving_tools.wait(lambda: any(one.id == "traced-1" for one in observations.of_service(plane.store, "linear")))
    (logged,) = (one for one in observations.of_service(plane.store, "linear") if one.id == "traced-1")
    assert logged.trace == trace
    unsampled = plane.client.post(url, json=body, headers={"traceparent": f"00-{trace[::-1]}-{parent}-00"})
    assert unsampled.headers["traceresponse"].endswith("-00")
    for broken in ("", "00-x", f"ff-{trace}-{parent}-01", f"00-{'0' * 32}-{parent}-01", f"00-{trace}-{parent}-01-x"):
        assert "traceresponse" not in plane.client.post(url, json=body, headers={"traceparent": broken}).headers


def test_metrics_are_read_by_prometheus_own_parser(plane: Plane) -> None:
    plane.predict("linear", X[:1].tolist())
    plane.predict("linear", [[1]])
    text = plane.client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    counted = {
        (sample.labels["service"], sample.labels["protocol"], sample.labels["status"]): sample.value
        for sample in families["ondol_requests"].samples
    }
    assert counted["linear", "v1", "200"] >= 1
    assert counted["linear", "v1", "400"] >= 1
    seconds = families["ondol_request_seconds"]
    assert seconds.type == "histogram"
    buckets: dict[tuple[str, ...], list[float]] = {}
    for sample in seconds.samples:
        labels = tuple(sample.labels[name] for name in ("service", "release", "protocol"))
        if sample.name.endswith("_bucket"):
            buckets.setdefault(labels, []).append(sample.value)
        if sample.name.endswith("_count"):
            assert buckets[labels][-1] == sample.value
    assert all(found == sorted(found) for found in buckets.values())
    assert {"ondol_queue_rows", "ondol_requests_in_flight"} <= set(families)
