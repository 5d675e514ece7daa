"""Control and runners killed while KFP's API has work for them: nothing is lost, nothing runs twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.behaviour import pipeline_tools as tools
from tests.conftest import end, new_settings, start_control
from tests.faults.test_pipelines_kill import many_steps

from ondol.app import running
from ondol.backends.local import pipeline_runs
from ondol.base.settings import Address, Settings
from ondol.pipelines import runner

pytestmark = pytest.mark.slow
API = "/apis/v2beta1"


class Server:
    """A control process that is killed and started again in the same home."""

    def __init__(self, settings: Settings) -> None:
        self.process: subprocess.Popen[bytes]
        self.process, self.settings = start_control(settings)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(method, f"{self.settings.control.url}{API}{path}", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def kill(self) -> None:
        self.process.kill()
        end(self.process)

    def again(self) -> None:
        self.process, self.settings = start_control(replace(self.settings, control=Address("127.0.0.1", 0)))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(new_settings(tmp_path))
    yield running
    end(running.process)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.compile_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def specs(samples: Path) -> dict[str, Any]:
    return {name: yaml.safe_load((samples / f"{name}.yaml").read_text()) for name in ("held", "chain")}


def held(server: Server, spec: Any, folder: Path) -> tuple[str, Path, Path]:
    """Start a run that has finished its first step and waits in its second."""
    path, gate = folder / "lines.txt", folder / "gate"
    parameters = {"path": str(path), "gate": str(gate)}
    body = {"display_name": "held", "pipeline_spec": spec, "runtime_config": {"parameters": parameters}}
    run = server.ask("POST", "/runs", body)["run_id"]
    tools.wait_until(lambda: path.exists() and len(path.read_text().splitlines()) == 2)
    return run, path, gate


def said(path: Path) -> list[str]:
    return [line.split()[0] for line in path.read_text().splitlines()]


def test_a_killed_control_leaves_its_runs_alone(server: Server, specs: dict[str, Any], tmp_path: Path) -> None:
    run, path, gate = held(server, specs["held"], tmp_path)
    server.kill()
    assert runner.is_running(server.settings.home, run)
    server.again()
    assert server.ask("GET", f"/runs/{run}")["state"] == "RUNNING"
    gate.touch()
    tools.wait_until(lambda: server.ask("GET", f"/runs/{run}")["state"] == "SUCCEEDED")
    assert said(path) == ["first", "second", "third"]


@pytest.mark.parametrize("control_too", [False, True])
def test_a_killed_runner_is_taken_up_and_finished_steps_are_kept(
    server: Server, specs: dict[str, Any], tmp_path: Path, control_too: bool
) -> None:
    run, path, gate = held(server, specs["held"], tmp_path)
    if control_too:
        server.kill()
    pid = runner.runner_of(server.settings.home, run)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    gate.touch()
    if control_too:
        server.again()
    tools.wait_until(lambda: server.ask("GET", f"/runs/{run}")["state"] == "SUCCEEDED")
    assert [said(path).count(step) for step in ("first", "third")] == [1, 1]


def test_a_runner_killed_again_and_again_is_taken_up_as_long_as_it_gets_on(
    server: Server, samples: Path, tmp_path: Path
) -> None:
    path, gate, steps = tmp_path / "lines.txt", tmp_path / "gate", 64
    spec = yaml.safe_load(many_steps(samples, tmp_path / "many.yaml", steps).read_text())
    parameters = {"path": str(path), "gate": str(gate)}
    body = {"display_name": "many", "pipeline_spec": spec, "runtime_config": {"parameters": parameters}}
    path.touch()
    gate.touch()
    run, killed = server.ask("POST", "/runs", body)["run_id"], {0}
    while len(killed) - 1 <= pipeline_runs.MOST_ATTEMPTS:
        wanted = len(set(said(path))) + 4
        assert wanted <= steps, "it was through before it was killed often enough"
        tools.wait_until(lambda: len(set(said(path))) >= wanted)  # noqa: B023 - called before the next round
        tools.wait_until(lambda: (runner.runner_of(server.settings.home, run) or 0) not in killed)
        pid = runner.runner_of(server.settings.home, run)
        assert pid, "it was through before it was killed often enough"
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    tools.wait_until(lambda: server.ask("GET", f"/runs/{run}")["state"] == "SUCCEEDED")
    assert set(said(path)) == {f"step-{number}" for number in range(steps)}


@pytest.mark.parametrize("how", [[], ["--in-process"]])
def test_a_killed_run_of_the_command_line_ends_once_control_is_up(
    server: Server, specs: dict[str, Any], tmp_path: Path, how: list[str]
) -> None:
    server.kill()
    source, path, gate = tmp_path / "held.yaml", tmp_path / "lines.txt", tmp_path / "gate"
    source.write_text(yaml.safe_dump(specs["held"]))
    words = ["run", str(source), "-p", f"path={path}", "-p", f"gate={gate}", *how]
    process = subprocess.Popen(
        [sys.executable, "-m", "ondol.cli.main", *words],
        env=running.environment(server.settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    tools.wait_until(lambda: path.exists() and len(path.read_text().splitlines()) == 2)
    process.kill()
    process.wait()
    gate.touch()
    assert said(path) == ["first", "second"]
    server.again()
    (run,) = server.ask("GET", "/runs")["runs"]
    tools.wait_until(lambda: server.ask("GET", f"/runs/{run['run_id']}")["state"] == "SUCCEEDED")
    assert said(path) == ["first", "second", "second", "third"]


def test_every_due_run_is_asked_for_once_whoever_is_killed(server: Server, specs: dict[str, Any]) -> None:
    trigger = {"periodic_schedule": {"interval_second": "1"}}
    body = {"display_name": "often", "pipeline_spec": specs["chain"], "trigger": trigger, "mode": "ENABLE"}
    recurring = server.ask("POST", "/recurringruns", {**body, "max_concurrency": "10"})["recurring_run_id"]

    def times() -> list[str]:
        found = server.ask("GET", "/runs?page_size=200").get("runs", [])
        return sorted(one["scheduled_at"] for one in found if one.get("recurring_run_id") == recurring)

    for wanted in (2, 4):
        tools.wait_until(lambda: len(times()) >= wanted)  # noqa: B023 - called before the next round
        server.kill()
        server.again()
    tools.wait_until(lambda: len(times()) >= 6)
    server.ask("POST", f"/recurringruns/{recurring}:disable")
    seconds = [_seconds(one) for one in times()]
    assert {round(later - sooner) for sooner, later in pairwise(seconds)} == {1}


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
