"""Experiment tracking beside `mlflow server`: one metric at a time over HTTP, batches, runs, memory and start-up.

    python bench/tracking.py [--calls 300] [--rounds 3] [--defaults]

Both servers run at the same time on their own SQLite file and are asked in turns, so that a busy machine slows both.
Two callers: MLflow's own client (its cost is part of what a user waits for) and a bare keep-alive connection that sends
the same bytes. The peer is `mlflow server --workers 1` with its job runners off, its leanest set-up; `--defaults` adds
`mlflow server` as it comes (4 workers and job runners). The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_START_SECONDS = 120


@dataclass
class Server:
    """A tracking server under test and what was measured of it."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    start_seconds: float
    latencies: dict[str, list[float]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(name: str, folder: Path, command: list[str], environment: dict[str, str], port: int, ready: str) -> Server:
    """Start a server and wait until it answers."""
    folder.mkdir(parents=True)
    began = time.perf_counter()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log, stdin=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    while time.perf_counter() - began < _START_SECONDS:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", ready)
            if connection.getresponse().status == 200:
                return Server(name, port, process, time.perf_counter() - began)
        time.sleep(0.05)
    raise SystemExit(f"{name} did not start: {(folder / 'log').read_text()[-2000:]}")


def ours(folder: Path) -> Server:
    port = free_port()
    environment = {"ONDOL_HOME": str(folder / ".ondol"), "ONDOL_CONTROL": f"127.0.0.1:{port}"}
    command = [sys.executable, "-m", "ondol.app.child", "control"]
    return start("ondol", folder, command, environment, port, "/readyz")


def mlflow(folder: Path, *, defaults: bool) -> Server:
    port = free_port()
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "art")]
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true"}
    if not defaults:
        command += ["--workers", "1"]
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    name = "mlflow server" + ("" if defaults else " --workers 1, jobs off")
    return start(name, folder, command, environment, port, "/health")


def stop(server: Server) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGTERM)
    try:
        server.process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
    if server.process.stdin:
        server.process.stdin.close()


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for child in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split():
        found += tree(int(child))
    return found


def memory(pid: int) -> tuple[float, int]:
    """Return the proportional memory of a process tree in MB, and its number of processes."""
    total, pids = 0.0, tree(pid)
    for one in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total, len(pids)


class Bare:
    """A keep-alive connection that sends JSON and reads the answer."""

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(body).encode()
        answer = self._ask(path, data)
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {text[:300]!r}")
        return dict(json.loads(text))

    def _ask(self, path: str, data: bytes) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        try:
            self.connection.request("POST", f"/api/2.0/mlflow{path}", data, headers)
            return self.connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):  # an idle connection was closed
            self.connection.close()
            self.connection.request("POST", f"/api/2.0/mlflow{path}", data, headers)
            return self.connection.getresponse()


def workloads(server: Server, calls: int) -> Iterator[tuple[str, int, Callable[[int], object]]]:
    """Yield (name, calls, one call) for a server."""
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    client, bare = MlflowClient(server.url), Bare(server)
    experiment = bare.post("/experiments/create", {"name": f"bench-{time.time_ns()}"})["experiment_id"]
    run = client.create_run(experiment).info.run_id
    now = int(time.time() * 1000)
    one = {"run_id": run, "key": "bare", "value": 0.5, "timestamp": now}
    thousand = [Metric(f"m{index % 10}", 0.1, now, index) for index in range(1000)]

    def start_and_end(_: int) -> None:
        client.set_terminated(client.create_run(experiment).info.run_id)

    yield "log_metric, MLflow's client", calls, lambda step: client.log_metric(run, "loss", 0.5, now, step)
    yield "log_metric, bare HTTP", calls, lambda step: bare.post("/runs/log-metric", {**one, "step": step})
    yield (
        "log_batch of 1,000 metrics",
        max(3, calls // 30),
        lambda step: client.log_batch(run, [Metric(m.key, m.value + step, m.timestamp, m.step) for m in thousand]),
    )
    yield "log_param", max(10, calls // 5), lambda step: client.log_param(run, f"p{time.time_ns()}", step)
    yield "start and end a run", max(5, calls // 10), start_and_end


def measure(servers: list[Server], calls: int, rounds: int) -> None:
    """Ask the servers in turns."""
    prepared = [list(workloads(server, calls)) for server in servers]
    for index in range(len(prepared[0])):
        for turn in range(rounds + 1):
            for server, work in zip(servers, prepared, strict=True):
                name, count, call = work[index]
                for step in range(max(2, count // 10) if turn == 0 else count):  # the first turn only warms up
                    began = time.perf_counter()
                    call(turn * count + step)
                    if turn:
                        server.latencies.setdefault(name, []).append(time.perf_counter() - began)


def report(servers: list[Server]) -> dict[str, Any]:
    """Print the figures and return them."""
    figures: dict[str, Any] = {}
    for server in servers:
        used, processes = memory(server.process.pid)
        figures[server.name] = {
            "start_seconds": round(server.start_seconds, 2),
            "memory_mb": round(used),
            "processes": processes,
            **{
                name: {
                    "per_second": round(1 / statistics.mean(taken), 1),
                    "p50_ms": round(statistics.median(taken) * 1000, 2),
                    "p99_ms": round(sorted(taken)[int(len(taken) * 0.99)] * 1000, 2),
                }
                for name, taken in server.latencies.items()
            },
        }
    for name in servers[0].latencies:
        print(name)
        for server in servers:
            one = figures[server.name][name]
            ratio = figures[servers[0].name][name]["per_second"] / one["per_second"]
            rate, p50, p99 = one["per_second"], one["p50_ms"], one["p99_ms"]
            print(f"  {server.name:34} {rate:9.1f}/s   p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   ours is {ratio:.2f}x")
    for server in servers:
        one = figures[server.name]
        started, used, count = one["start_seconds"], one["memory_mb"], one["processes"]
        print(f"{server.name:36} start {started:5.1f} s   {used} MB   {count} process(es)")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--defaults", action="store_true")
    chosen = parser.parse_args()
    os.environ |= {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryDirectory(prefix="bench-tracking-") as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        servers = [ours(root / "ondol")]
        stack.callback(stop, servers[0])
        servers.append(mlflow(root / "one", defaults=False))
        stack.callback(stop, servers[1])
        if chosen.defaults:
            servers.append(mlflow(root / "defaults", defaults=True))
            stack.callback(stop, servers[-1])
        measure(servers, chosen.calls, chosen.rounds)
        figures = report(servers)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
