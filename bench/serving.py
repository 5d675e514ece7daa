"""scikit-learn models over HTTP: ours beside KServe, MLServer, MLflow, BentoML and LitServe, in one run.

`make bench-serving`, or `python bench/serving.py [--quick] [--only NAME,…] [--plot]`. The same two models and the same
random rows for everybody, no response cache, one server at a time on one core, the load generator on another; every
peer in an environment of its own (bench/.envs) at its best settings, batching ones with and without it. A peer that
fails is reported and left out. A cell is warmed up before it is measured. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from bench.peers import environments, loads, plot, servers  # noqa: E402
from bench.peers.processes import Running, running  # noqa: E402
from bench.peers.servers import Server, Work  # noqa: E402

BODIES = 1_000
CELLS = ((1, 1), (1, 64), (32, 1), (32, 64))
"""Rows of a request, connections."""

WARM_UP_SECONDS = 1.0
SETTLE_SECONDS = 5.0
"""What a server does just after its first answer is over by then: cells measure serving, not starting."""

CHECKED_ROWS = 256
Row = dict[str, Any]


@dataclass
class Result:
    """Everything one run found."""

    cells: list[Row] = field(default_factory=list)
    servers: list[Row] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def prepare(folder: Path) -> list[Work]:
    """Fit and write the models, as joblib and as MLflow's folder."""
    import mlflow.sklearn

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    features, labels = load_breast_cancer(return_X_y=True)
    generator = np.random.default_rng(0)
    picked = features[generator.integers(0, len(features), BODIES)]
    rows = np.round(picked * (1 + 0.05 * generator.normal(size=picked.shape)), 4)
    models = {
        "logistic": LogisticRegression(solver="liblinear"),
        "forest": RandomForestClassifier(100, random_state=0),
    }
    made = []
    for name, model in models.items():
        model.fit(features, labels)
        (folder / name).mkdir()
        joblib.dump(model, folder / name / "model.joblib")
        target = str(folder / f"{name}-mlflow")
        requirements = [f"scikit-learn=={importlib.metadata.version('scikit-learn')}"]
        mlflow.sklearn.save_model(model, target, serialization_format="cloudpickle", pip_requirements=requirements)
        made.append(
            Work(name, folder / name, rows.tolist(), model.predict(rows).tolist(), model.predict_proba(rows).tolist())
        )
    return made


def bodies(server: Server, work: Work, rows: int, folder: Path) -> Path:
    """Write the requests of a cell, one a line, and return the file."""
    file = folder / f"bodies-{rows}"
    if not file.exists():
        places = range(0, BODIES, 1 if rows == 1 else 7)
        texts = [server.body([work.rows[(place + index) % BODIES] for index in range(rows)]) for place in places]
        file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return file


def identity(found: Running, work: Work) -> Row:
    """Compare labels, and probabilities where the server has them, to the model's own, row by row and in batches."""
    labels: list[int] = []
    for start in range(0, CHECKED_ROWS, 32):
        answer = found.ask(work, found.server.body(work.rows[start : start + 32]))
        labels += found.server.labels(answer.json())
    wrong = sum(a != b for a, b in zip(labels, work.labels, strict=False)) + abs(CHECKED_ROWS - len(labels))
    row: Row = {"labels_checked": CHECKED_ROWS, "labels_wrong": wrong}
    if found.server.probability_body is not None:
        body = found.server.probability_body(work.rows[:32])
        given = np.asarray(found.server.probabilities(found.ask(work, body).json())).reshape(32, -1)
        row["probabilities_gap"] = float(np.abs(given - np.asarray(work.probabilities[:32])).max())
    return row


def measure(server: Server, work: Work, seconds: float, folder: Path, result: Result) -> None:
    """Start a server, check it, run every cell; then start it once more."""
    cores = (0, 1) if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity") else (None, None)
    where = folder / f"{server.name}-{work.name}"
    with running(server, work, where, cores[0]) as found:
        about: Row = {
            "server": server.name,
            "model": work.name,
            "first_answer_s": round(found.first_answer_seconds, 2),
            "first_answer_cpu_s": round(found.cpu_seconds(), 2),
            "processes": found.count(),
            "idle_mb": round(found.megabytes(), 1),
            **identity(found, work),
        }
        time.sleep(SETTLE_SECONDS)
        for rows, connections in CELLS:
            file = bodies(server, work, rows, where)
            path = server.path(work)
            loads.run(found.port, path, file, connections, WARM_UP_SECONDS, cores[1])
            before = found.cpu_seconds()
            cell = loads.run(found.port, path, file, connections, seconds, cores[1])
            spent = found.cpu_seconds() - before
            cell |= {"server": server.name, "model": work.name, "rows": rows, "connections": connections}
            cell["cpu_ms"] = round(1000 * spent / max(1, cell.pop("requests")), 4)
            result.cells.append(cell)
            print(
                f"{work.name:<9} {rows:>2} rows c{connections:<3} {server.name:<14} "
                f"{cell['requests_per_second']:>9} req/s  p50 {cell['p50_ms']:>8} ms  p99 {cell['p99_ms']:>8} ms  "
                f"CPU {cell['cpu_ms']:>7} ms  errors {cell['errors']}",
                flush=True,
            )
        about["loaded_mb"] = round(found.megabytes(), 1)
    with running(server, work, where.with_name(where.name + servers.AGAIN), cores[0]) as found:
        about["restart_s"] = round(found.first_answer_seconds, 2)
        about["restart_cpu_s"] = round(found.cpu_seconds(), 2)
        about["restart_mb"] = round(found.megabytes(), 1)
    result.servers.append(about)
    print(f"{work.name:<9} {json.dumps(about)}", flush=True)


def _measure_twice(server: Server, work: Work, seconds: float, folder: Path, result: Result) -> None:
    """Measure, and once more when it did not start: on a shared machine somebody may have taken its port."""
    before = len(result.cells)
    try:
        measure(server, work, seconds, folder / "first", result)
    except RuntimeError as error:
        if len(result.cells) > before:
            raise
        print(f"{server.name} is started once more: {error}", flush=True)
        measure(server, work, seconds, folder / "second", result)


def run(seconds: float, only: list[str]) -> Result:
    """Measure everybody on every model."""
    result = Result()
    ready: dict[str, bool] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary)
        works = prepare(folder)
        for server in servers.everyone():
            if only and server.name not in only and server.peer not in only:
                continue
            try:
                if server.peer and server.peer not in ready:
                    environments.prepare(server.peer)
                    ready[server.peer] = True
                for work in works:
                    _measure_twice(server, work, seconds, folder, result)
            except Exception as error:  # noqa: BLE001 - one peer that fails must not cost the others' figures
                result.failures[server.name] = str(error)
                print(f"{server.name} is left out: {error}", flush=True)
    return result


def best(
    result: Result, model: str, rows: int, connections: int, figure: str, *, batching: bool | None = None
) -> tuple[float, float, str] | None:
    """Return our figure, the best peer's and its name.

    :param batching: True: batching peers only; False: the others only; None: all.
    """
    batches = {server.name: server.batching for server in servers.everyone()}
    wanted = {"model": model, "rows": rows, "connections": connections}
    here = [cell for cell in result.cells if wanted.items() <= cell.items() and cell["requests_per_second"]]
    mine = [cell[figure] for cell in here if cell["server"] == "ondol"]
    peers = [
        (cell[figure], cell["server"])
        for cell in here
        if cell["server"] != "ondol" and not cell["errors"] and batching in (None, batches[cell["server"]])
    ]
    if not mine or not peers:
        return None
    value, name = (max if figure == "requests_per_second" else min)(peers)
    return mine[0], value, name


def ratio(result: Result, model: str, rows: int, connections: int, *, batching: bool | None = None) -> float | None:
    """Return our requests a second over the best peer's."""
    found = best(result, model, rows, connections, "requests_per_second", batching=batching)
    return round(found[0] / found[1], 2) if found else None


def smallest(result: Result, model: str, figure: str) -> Row | None:
    """Return our figure of a process and the smallest of the peers' with the same model."""
    here = {row["server"]: row[figure] for row in result.servers if row["model"] == model}
    mine = here.pop("ondol", None)
    if mine is None or not here:
        return None
    peer = min(here, key=lambda name: float(here[name]))
    return {"ours": mine, "best_peer": here[peer], "peer": peer}


def summary(result: Result, load_before: tuple[float, ...]) -> Row:
    """Return the last line."""
    figures: Row = {f"{model}_1row_c64_ratio": ratio(result, model, 1, 64) for model in ("logistic", "forest")}
    figures["forest_1row_c64_ratio_without_batching"] = ratio(result, "forest", 1, 64, batching=False)
    figures["forest_1row_c64_ratio_with_batching"] = ratio(result, "forest", 1, 64, batching=True)
    for model in ("logistic", "forest"):
        figures[f"{model}_32rows_c64_ratio"] = ratio(result, model, 32, 64)
        cpu = best(result, model, 1, 64, "cpu_ms")
        figures[f"{model}_1row_c64_cpu_ratio"] = cpu and round(cpu[1] / max(cpu[0], 1e-6), 2)
        found = best(result, model, 1, 1, "p50_ms")
        figures[f"{model}_1row_c1_p50_ms"] = found and {"ours": found[0], "best_peer": found[1], "peer": found[2]}
    for figure in ("loaded_mb", "first_answer_s", "first_answer_cpu_s", "restart_s", "restart_cpu_s"):
        figures[figure] = {model: smallest(result, model, figure) for model in ("logistic", "forest")}
    ours = ("ondol", "scikit-learn", "numpy", "uvicorn", "uvloop", "httptools", "msgspec")
    return figures | {
        "errors": sum(cell["errors"] for cell in result.cells),
        "failures": result.failures,
        "load_generator": loads.name(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "versions": {name: importlib.metadata.version(name) for name in ours}
        | {name: environments.version(name) for name in environments.PACKAGES},
        "servers": result.servers,
        "cells": result.cells,
    }


def main() -> None:
    """Measure and print the summary as the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0, help="of a cell (default: 2)")
    parser.add_argument("--quick", action="store_true", help="cells of one second")
    parser.add_argument("--only", default="", help="names of servers or peers, separated by commas")
    parser.add_argument("--plot", action="store_true", help="write docs/benchmarks-serving.svg")
    chosen = parser.parse_args()
    load_before = os.getloadavg()
    result = run(1.0 if chosen.quick else chosen.seconds, [one for one in chosen.only.split(",") if one])
    if chosen.plot:
        plot.write(ROOT / "docs" / "benchmarks-serving.svg", result.cells)
    print(json.dumps(summary(result, load_before)))


if __name__ == "__main__":
    main()
