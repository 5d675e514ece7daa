"""One Postgres URL moves everything: our tables and MLflow's live in it side by side."""

from __future__ import annotations

from dataclasses import replace

import httpx
import psycopg
import pytest
from tests.conftest import end, start_control

from ondol.base.settings import Settings


@pytest.mark.slow
def test_ours_and_mlflows_tables_share_one_postgres(home: Settings, postgres_database: str) -> None:
    process, settings = start_control(replace(home, database_url=postgres_database))
    try:
        with httpx.Client(base_url=settings.control.url, timeout=180) as http:
            rest = "/api/2.0/mlflow"
            experiment = http.post(f"{rest}/experiments/create", json={"name": "x"}).json()["experiment_id"]
            body = {"experiment_id": experiment, "start_time": 1}
            run = http.post(f"{rest}/runs/create", json=body).json()["run"]["info"]["run_id"]
            metric = {"run_id": run, "key": "loss", "value": 0.5, "timestamp": 1}
            assert http.post(f"{rest}/runs/log-metric", json=metric).json() == {}
            found = http.get(f"{rest}/runs/get", params={"run_id": run}).json()["run"]["data"]["metrics"]
            assert [one["value"] for one in found] == [0.5]
            assert http.get("/api/ondol/registry/models").json() == []
            assert http.get("/").status_code == 200
        with psycopg.connect(settings.database_url) as connection:
            query = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'runs' ORDER BY 1"
            assert [row[0] for row in connection.execute(query)] == ["mlflow", "public"]
    finally:
        end(process)
