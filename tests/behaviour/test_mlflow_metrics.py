"""The fast path writes what MLflow would have written, and leaves everything unusual to MLflow."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import ControlProcess

from ondol.api.mlflow import fast_metrics

Json = dict[str, Any]
# Naming an origin makes MLflow itself answer: the fast path never takes a browser's request.
BY_MLFLOW = "Origin"


class Tracking:
    """MLflow's REST API, through the fast path or around it."""

    def __init__(self, control: ControlProcess) -> None:
        self.url = control.url
        self.http = httpx.Client(base_url=f"{control.url}/api/2.0/mlflow", timeout=180)
        name = f"metrics-{uuid.uuid4().hex}"
        self.experiment = self.http.post("/experiments/create", json={"name": name}).json()["experiment_id"]
        self.file = control.settings.home / "mlflow.db"

    def run(self) -> str:
        body = {"experiment_id": self.experiment, "start_time": 1}
        return str(self.http.post("/runs/create", json=body).json()["run"]["info"]["run_id"])

    def post(self, verb: str, body: Json, *, fast: bool) -> httpx.Response:
        headers = {} if fast else {BY_MLFLOW: self.url}
        return self.http.post(f"/runs/{verb}", json=body, headers=headers)

    def rows(self, run: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        columns = "key, value, typeof(value), timestamp, step, is_nan, typeof(is_nan)"
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            every = connection.execute(f"SELECT {columns} FROM metrics WHERE run_uuid = ? ORDER BY 1, 4, 5, 2", (run,))
            latest = connection.execute(f"SELECT {columns} FROM latest_metrics WHERE run_uuid = ? ORDER BY 1", (run,))
            return every.fetchall(), latest.fetchall()


@pytest.fixture(scope="module")
def tracking(control: ControlProcess) -> Iterator[Tracking]:
    opened = Tracking(control)
    yield opened
    opened.http.close()


values = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.integers(-(2**60), 2**60), st.sampled_from([0.0, -0.0, 1e308])
)
metrics = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["loss", "acc/train", "a b", "x.y-z:1"]),
        "value": values,
        "timestamp": st.integers(0, 5),
        "step": st.integers(-2, 3),
    }
)


def in_json(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(metrics, min_size=1, max_size=6), min_size=1, max_size=4), single=st.booleans())
def test_the_tables_end_up_the_same(tracking: Tracking, batches: list[list[Json]], single: bool) -> None:
    """Whatever is logged in whatever order: history and latest values are MLflow's own, to the storage class."""
    ends = []
    for fast in (True, False):
        run = tracking.run()
        for batch in batches:
            told = [{**metric, "value": in_json(float(metric["value"]))} for metric in batch]
            if single:
                for metric in told:
                    assert tracking.post("log-metric", {"run_id": run, **metric}, fast=fast).json() == {}
            else:
                assert tracking.post("log-batch", {"run_id": run, "metrics": told}, fast=fast).json() == {}
        ends.append(tracking.rows(run))
    assert ends[0] == ends[1]


def test_the_first_metrics_take_the_fast_path(tracking: Tracking) -> None:
    """Otherwise the conformance above compares MLflow with itself."""
    plain = {"run_id": "a" * 32, "key": "loss", "value": 1, "timestamp": 1, "step": 0}
    assert fast_metrics.rows_of("/api/2.0/mlflow/runs/log-metric", plain) == [("a" * 32, "loss", 1.0, 1, 0, False)]
    answer = tracking.post("log-metric", {**plain, "run_id": tracking.run()}, fast=True)
    by_mlflow = tracking.post("log-metric", {**plain, "run_id": tracking.run()}, fast=False)
    assert "x-content-type-options" in by_mlflow.headers
    assert "x-content-type-options" not in answer.headers


UNUSUAL: list[Json] = [
    {"key": ""},
    {"key": "../up"},
    {"key": "a//b"},
    {"key": "white\tspace"},
    {"key": "k" * 251},
    {"value": "high"},
    {"value": None},
    {"value": True},
    {"timestamp": -1},
    {"timestamp": None},
    {"timestamp": "12"},
    {"step": 2**63},
    {"step": 1.5},
    {"surprise": 1},
    {"run_id": "0" * 32},
    {"run_id": ""},
    {"model_id": "m-" + "0" * 32},
]


@pytest.mark.parametrize("change", UNUSUAL, ids=lambda change: str(change)[:40])
def test_unusual_requests_get_mlflows_own_answer(tracking: Tracking, change: Json) -> None:
    run = tracking.run()
    body = {"run_id": run, "key": "loss", "value": 1.0, "timestamp": 1, "step": 0, **change}
    fast, by_mlflow = (tracking.post("log-metric", body, fast=fast) for fast in (True, False))
    assert (fast.status_code, fast.json()) == (by_mlflow.status_code, by_mlflow.json())


def test_a_deleted_run_refuses_metrics(tracking: Tracking) -> None:
    run = tracking.run()
    tracking.http.post("/runs/delete", json={"run_id": run}).raise_for_status()
    body = {"run_id": run, "key": "loss", "value": 1.0, "timestamp": 1, "step": 0}
    for verb, request in (("log-metric", body), ("log-batch", {"run_id": run, "metrics": [body]})):
        answer = tracking.post(verb, request, fast=True)
        assert answer.status_code == 400
        assert "active" in answer.json()["message"]
    assert tracking.rows(run) == ([], [])


def test_batches_with_params_or_tags_go_to_mlflow_whole(tracking: Tracking) -> None:
    run = tracking.run()
    metric = {"key": "loss", "value": 1.0, "timestamp": 1, "step": 0}
    body = {"run_id": run, "metrics": [metric], "params": [{"key": "p", "value": "1"}]}
    assert tracking.post("log-batch", body, fast=True).status_code == 200
    data = tracking.http.get("/runs/get", params={"run_id": run}).json()["run"]["data"]
    assert data["params"] == [{"key": "p", "value": "1"}]
    assert data["metrics"][0]["value"] == 1.0


FIELDS = ["run_id", "key", "value", "timestamp", "step", "metrics", "params", "tags", "other"]
leaves = st.none() | st.booleans() | st.floats() | st.text()
bodies = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(FIELDS), inner))


@given(body=st.dictionaries(st.sampled_from(FIELDS), bodies))
def test_no_body_makes_the_reader_fail(body: Json) -> None:
    for verb in ("log-metric", "log-batch"):
        fast_metrics.rows_of(f"/api/2.0/mlflow/runs/{verb}", body)
