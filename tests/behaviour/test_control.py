"""The control process' own doors: admin API, guard, readiness, commands against it."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from tests.conftest import ControlProcess, end, new_settings, start_control

from ondol.api.admin import guard
from ondol.app import running
from ondol.base.settings import Address
from ondol.records.release import ModelManifest
from ondol.records.rollout import Decision, Observation
from ondol.store import observations, releases, rollouts


@pytest.fixture
def http(control: ControlProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=control.url, timeout=120) as client:
        yield client


def test_every_decision_has_one_url(control: ControlProcess, http: httpx.Client) -> None:
    name = f"decision-{uuid.uuid4().hex}"
    decision = Decision(name, time.time(), "s", "gate", "pass", "auc 0.7 against 0.6", {"n": 3, "low": 0.05})
    rollouts.decide(control.store, decision)
    shown = http.get(f"/api/ondol/decisions/{name}").json()
    assert shown["evidence"] == {"n": 3, "low": 0.05}
    assert name in [one["id"] for one in http.get("/api/ondol/decisions", params={"subject": "s"}).json()]
    missing = http.get("/api/ondol/decisions/none")
    assert (missing.status_code, missing.json()["code"]) == (404, "NOF-005")


def test_labels_are_joined_once(control: ControlProcess, http: httpx.Client) -> None:
    service = f"s-{uuid.uuid4().hex[:8]}"
    one = Observation(f"{service}-1", time.time(), service, "d", "stable", "u", 200, 1.0)
    observations.append(control.store, [one])
    body = {"labels": {one.id: 1, f"{service}-later": [0, 1]}}
    assert http.post("/api/ondol/labels", json=body).json() == {"received": 2, "new": 2}
    assert http.post("/api/ondol/labels", json=body).json() == {"received": 2, "new": 0}
    assert observations.of_service(control.store, service)[0].label == "1"


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"labels": [1]}', b'{"label": {}}', b""])
def test_wrong_labels_are_a_400_that_says_what(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/api/ondol/labels", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("limit", ["0", "-1", "many", "100000"])
def test_a_wrong_limit_is_a_400(http: httpx.Client, limit: str) -> None:
    answer = http.get("/api/ondol/decisions", params={"limit": limit})
    assert (answer.status_code, answer.json()["where"]) == (400, "limit")


def test_lists_are_json(control: ControlProcess, http: httpx.Client) -> None:
    digest = releases.put(control.store, "lists", ModelManifest("sha256:9", "file:///m")).digest
    for path in ("services", "releases", "rollouts", "decisions", "runs", "resources", "loads", "registry/models"):
        answer = http.get(f"/api/ondol/{path}")
        assert answer.status_code == 200, path
        assert isinstance(answer.json(), list), path
    assert http.get(f"/api/ondol/releases/{digest}").json()["name"] == "lists"


def test_other_sites_may_not_write_nor_rebind(http: httpx.Client) -> None:
    foreign = http.post("/api/ondol/labels", json={"labels": {}}, headers={"Origin": "https://evil.example"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "REF-011")
    rebound = http.get("/api/ondol/releases", headers={"Host": "evil.example"})
    assert rebound.status_code == 403
    log = {"run_id": "0" * 32, "key": "k", "value": 1, "timestamp": 1}
    path = "/api/2.0/mlflow/runs/log-metric"
    assert http.post(path, json=log, headers={"Origin": "https://evil.example"}).status_code == 403


def test_the_key_is_taken_in_every_usual_way() -> None:
    basic = "Basic " + base64.b64encode("아무개:s3cret".encode()).decode()
    for headers in ({"authorization": "Bearer s3cret"}, {"x-api-key": "s3cret"}, {"authorization": basic}):
        assert guard.has_key(headers, "s3cret")
    for headers in ({}, {"authorization": "Bearer s3cre"}, {"authorization": "Basic !!"}, {"x-api-key": "키"}):
        assert not guard.has_key(headers, "s3cret")


@pytest.mark.slow
def test_beyond_loopback_everything_needs_the_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = new_settings(tmp_path_factory.mktemp("exposed"))
    settings = replace(settings, control=Address("0.0.0.0", 0), api_key="s3cret")
    process, settings = start_control(settings)
    try:
        url = f"http://127.0.0.1:{settings.control.port}"
        search = "/api/2.0/mlflow/experiments/search?max_results=1"
        for path in ("/", "/api/ondol/services", search, "/mlflow/"):
            assert httpx.get(url + path, timeout=120).status_code == 401, path
            allowed = httpx.get(url + path, headers={"Authorization": "Bearer s3cret"}, timeout=120)
            assert allowed.status_code == 200, path
        # The registry asks MLflow through the same door, so it must have the key too.
        answer = httpx.get(f"{url}/api/ondol/registry/models", headers={"X-API-Key": "s3cret"}, timeout=120)
        assert answer.json() == []
    finally:
        end(process)


def test_the_doctor_explains_each_finding(control: ControlProcess) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ondol.cli.main", "doctor"],
        cwd=control.settings.project,
        env=running.environment(control.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "skops" in done.stdout
    assert "full-text search" in done.stdout
    assert "port" in done.stdout
    assert f"is in use by process {control.pid}" in done.stdout
