"""One row over V1 at 64 connections and at one: ours beside `mlflow models serve` and KServe's own model server.

`python bench/serving.py [--seconds S] [--connections 64,1]`. Same models, same random rows, no response cache, servers
one after the other on one core, the load generator (`peers/load.py`) on another. KServe gets an environment of its own
(bench/.venvs, built once with uv). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "src"))

from ondol.app import listen  # noqa: E402
from ondol.records.release import ModelManifest  # noqa: E402
from ondol.records.rollout import Route  # noqa: E402
from ondol.store import releases, routes  # noqa: E402
from ondol.store.blobs import Blobs  # noqa: E402
from ondol.store.connection import Store  # noqa: E402

BODIES = 2_000
_QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
Row = dict[str, Any]


@dataclass
class Work:
    """One model with the requests to send to it."""

    name: str
    folder: Path
    rows: list[list[float]]
    expected: list[Any]


@dataclass
class Server:
    """A peer: how it is started, and where and how a row is sent to it."""

    name: str
    start: Callable[[Work, int], list[str]]
    path: Callable[[Work], str]
    key: str = "instances"


def prepare(folder: Path) -> list[Work]:
    """Fit and write the models, once as joblib and once as MLflow's folder."""
    import mlflow.sklearn

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
        mlflow.sklearn.save_model(model, str(folder / f"{name}-mlflow"), serialization_format="cloudpickle")
        made.append(Work(name, folder / name, rows.tolist(), model.predict(rows).tolist()))
    return made


def ours(home: Path) -> Server:
    """Our data plane with its request log on, as `ondol up` runs it."""

    def start(work: Work, port: int) -> list[str]:
        shutil.rmtree(home, ignore_errors=True)
        with Store(home / "ondol.db") as store:
            digest = Blobs(home / "blobs").put_path(work.folder)
            release = releases.put(store, work.name, ModelManifest(digest, str(work.folder)))
            routes.put(store, Route(work.name, "model", release.digest))
        where = f"127.0.0.1:{port}"
        return [sys.executable, "-m", "ondol.app.dataplane", "--home", str(home), "--listen", where]

    return Server("ondol", start, lambda work: f"/v1/models/{work.name}:predict")


def mlflow_peer() -> Server:
    """`mlflow models serve` in this environment, one worker."""

    def start(work: Work, port: int) -> list[str]:
        command = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "--env-manager", "local"]
        return [*command, "-m", f"{work.folder}-mlflow", "-h", "127.0.0.1", "-p", str(port), "-w", "1"]

    return Server("mlflow", start, lambda _: "/invocations", key="inputs")


def kserve_peer() -> Server | None:
    """KServe's own server in a venv of its own, or None when it cannot be installed."""
    venv = HERE / ".venvs" / "kserve"
    python = venv / "bin" / "python"
    if not (venv / "ready").exists():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        wanted = ["kserve", *(f"{name}=={_version(name)}" for name in ("scikit-learn", "joblib"))]
        try:
            subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
            subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *wanted], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"kserve is not measured: {error}", flush=True)
            return None
        (venv / "ready").touch()
    script = str(HERE / "peers" / "kserve_server.py")
    return Server(
        "kserve",
        lambda work, port: [str(python), script, str(port), work.name, str(work.folder / "model.joblib")],
        lambda work: f"/v1/models/{work.name}:predict",
    )


def _version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


@contextlib.contextmanager
def running(server: Server, work: Work, log: Path) -> Iterator[int]:
    """Start a server on one core and wait for its first right answer."""
    port = listen.free_port()
    command = server.start(work, port)
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=_environment(), start_new_session=True)
    _pin(process.pid, 0)
    try:
        if not _wait(server, work, port, process):
            raise SystemExit(f"{server.name} does not start:\n{log.read_text(errors='replace')[-2000:]}")
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _environment() -> dict[str, str]:
    """Return the servers' environment; MLflow starts `uvicorn` by name, so it must be found."""
    return {**os.environ, **_QUIET, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _pin(pid: int, core: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(pid, {core})


def _wait(server: Server, work: Work, port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 90
    url = f"http://127.0.0.1:{port}{server.path(work)}"
    body = {server.key: work.rows[:20]}
    while True:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.post(url, json=body, timeout=10)
            if answer.status_code == 200:
                if answer.json()["predictions"] != work.expected[:20]:
                    raise SystemExit(f"{server.name} answers other labels than the model")
                return True
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def measure(server: Server, work: Work, port: int, connections: int, seconds: float, folder: Path) -> Row:
    """Run the load generator on the other core and return its figures."""
    bodies = folder / f"{work.name}-{server.key}.json"
    bodies.write_text(json.dumps([json.dumps({server.key: [row]}) for row in work.rows]), encoding="utf-8")
    command = [sys.executable, str(HERE / "peers" / "load.py"), "127.0.0.1", str(port), server.path(work)]
    process = subprocess.Popen(
        [*command, str(connections), str(seconds), str(bodies)], stdout=subprocess.PIPE, text=True
    )
    _pin(process.pid, 1)
    output, _ = process.communicate()
    return {"server": server.name, "model": work.name, "connections": connections, **json.loads(output)}


def run(seconds: float, connections: list[int]) -> list[Row]:
    """Measure every server on every model and print a line each."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        works = prepare(folder)
        servers = [one for one in (ours(folder / "home"), mlflow_peer(), kserve_peer()) if one is not None]
        for work in works:
            for server in servers:
                with running(server, work, folder / "server.log") as port:
                    for count in connections:
                        row = measure(server, work, port, count, seconds, folder)
                        found.append(row)
                        print(
                            f"{row['model']:<9} c{count:<3} {row['server']:<8} {row['requests_per_second']:>9} req/s "
                            f"p50 {row['p50_ms']:>8} ms  p99 {row['p99_ms']:>8} ms  errors {row['errors']}",
                            flush=True,
                        )
    return found


def ratio(rows: list[Row], model: str, connections: int, field: str = "requests_per_second") -> float | None:
    """Return ours over the best peer's (for latencies: the best peer's over ours)."""
    here = [row for row in rows if row["model"] == model and row["connections"] == connections]
    mine = [row[field] for row in here if row["server"] == "ondol"]
    peers = [row[field] for row in here if row["server"] != "ondol"]
    if not mine or not peers:
        return None
    value = float(mine[0] / max(peers) if field == "requests_per_second" else min(peers) / mine[0])
    return round(value, 2)


def main() -> None:
    """Measure and print the summary as the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", default="64,1")
    chosen = parser.parse_args()
    connections = [int(one) for one in chosen.connections.split(",")]
    rows = run(chosen.seconds, connections)
    versions = {name: _version(name) for name in ("scikit-learn", "mlflow", "uvicorn", "uvloop")}
    summary: Row = {
        "logistic_1row_c64_ratio": ratio(rows, "logistic", 64),
        "forest_1row_c64_ratio": ratio(rows, "forest", 64),
        "logistic_1row_c1_p50_ratio": ratio(rows, "logistic", 1, "p50_ms"),
        "forest_1row_c1_p50_ratio": ratio(rows, "forest", 1, "p50_ms"),
        "load_generator": "bench/peers/load.py (asyncio, uvloop)",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
        "rows": rows,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
