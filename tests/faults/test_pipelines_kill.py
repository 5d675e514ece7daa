"""Killed runners, killed workers, two runners at once: finished steps are kept, nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.behaviour import pipeline_tools as tools

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.pipelines import compiling, plan, values
from ondol.store import runs
from ondol.store.connection import Store

_RUN = """
import sys
from pathlib import Path
from ondol.base.settings import Settings
from ondol.pipelines import runner
from ondol.store.connection import Store
home, source, path, gate, resume, how = sys.argv[1:]
settings = Settings(home=Path(home), project=Path(home))
with Store(settings.database) as store:
    given = {"path": path, "gate": gate}
    in_process = None if resume else how == "in process"  # a resumed run knows it
    runner.run(Path(source), given, store=store, settings=settings, resume=resume or None, in_process=in_process)
"""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.compile_samples(tmp_path_factory.mktemp("samples"))


class Held:
    """A run in a process of its own that has finished its first step and waits in its second."""

    def __init__(self, samples: Path, home: Settings, folder: Path, how: str, *before: str) -> None:
        self.source, self.home, self.how, self.before = samples / "held.yaml", home, how, before
        self.path, self.gate = folder / "lines.txt", folder / "gate"
        self.process = self.start("")
        tools.wait_until(lambda: len(self.lines()) == 2)
        self.step_pid = int(self.lines()[1].split()[1])

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def start(self, resume: str) -> subprocess.Popen[bytes]:
        arguments = [str(part) for part in (self.home.home, self.source, self.path, self.gate)]
        words = [*self.before, sys.executable, "-c", _RUN, *arguments, resume, self.how]
        return subprocess.Popen(words, stderr=subprocess.PIPE)

    def parameters(self) -> dict[str, str]:
        return {"path": str(self.path), "gate": str(self.gate)}

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(params=["a process a step", "in process"])
def held(samples: Path, home: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Held]:
    running = Held(samples, home, tmp_path, request.param)
    yield running
    running.end()


def test_a_killed_runner_leaves_no_step_and_is_resumed(held: Held, home: Settings, store: Store) -> None:
    os.kill(held.process.pid, signal.SIGKILL)
    held.process.wait()
    tools.wait_until(lambda: not tools.alive(held.step_pid))
    left = runs.get(store, "latest")
    assert left.state == "running"
    assert {task.name: task.state for task in left.tasks} == {"count-line": "succeeded", "hold": "running"}
    held.gate.touch()
    done = tools.run(held.source, store, home, resume=left.id)
    assert (done.id, done.state) == (left.id, "succeeded")
    assert [line.split()[0] for line in held.lines()] == ["first", "second", "second", "third"]
    assert tools.task(done, "hold").attempt == 2


def kill_worker_of(step: int) -> None:
    """Kill a step's parent, the warm worker, and wait until the step has ended with it."""
    stat = Path(f"/proc/{step}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    tools.wait_until(lambda: not tools.alive(step))


def test_a_step_whose_worker_is_killed_starts_again(held: Held, store: Store) -> None:
    kill_worker_of(held.step_pid)
    tools.wait_until(lambda: len(held.lines()) == 3)
    held.gate.touch()
    assert held.process.wait(120) == 0
    assert [line.split()[0] for line in held.lines()] == ["first", "second", "second", "third"]
    done = runs.get(store, "latest")
    assert (done.state, tools.task(done, "hold").attempt) == ("succeeded", 2)


def test_a_step_whose_every_worker_is_killed_fails_and_the_run_is_resumed(
    held: Held, home: Settings, store: Store
) -> None:
    for number in range(4):
        tools.wait_until(lambda: len(held.lines()) == 2 + number)  # noqa: B023 - called before the next round
        kill_worker_of(int(held.lines()[-1].split()[1]))
    _, said = held.process.communicate(timeout=120)
    assert b"lost its worker process" in said
    assert runs.get(store, "latest").state == "failed"
    held.gate.touch()
    done = tools.run(held.source, store, home, resume="latest")
    assert [line.split()[0] for line in held.lines()] == ["first", *["second"] * 5, "third"]
    assert done.state == "succeeded"


def test_an_interrupted_runner_stops_its_steps_and_says_so(held: Held, home: Settings, store: Store) -> None:
    held.process.send_signal(signal.SIGINT)
    held.process.communicate(timeout=120)
    tools.wait_until(lambda: not tools.alive(held.step_pid))
    left = runs.get(store, "latest")
    assert left.state == "cancelled"
    assert tools.task(left, "hold").state == "cancelled"
    held.gate.touch()
    assert tools.run(held.source, store, home, resume=left.id).state == "succeeded"


def test_a_run_that_a_script_started_in_its_background_is_stopped_too(
    samples: Path, home: Settings, store: Store, tmp_path: Path
) -> None:
    held = Held(samples, home, tmp_path, "", "sh", "-c", "trap '' INT; exec \"$@\"", "sh")
    try:
        held.process.send_signal(signal.SIGINT)
        held.process.wait(120)
    finally:
        held.end()
    assert runs.get(store, "latest").state == "cancelled"


def test_a_run_that_is_running_is_not_resumed_a_second_time(held: Held, home: Settings, store: Store) -> None:
    with pytest.raises(errors.ConflictError, match="is running"):
        tools.run(held.source, store, home, resume="latest")
    held.gate.touch()
    assert held.process.wait(120) == 0
    assert runs.get(store, "latest").state == "succeeded"


def test_a_changed_pipeline_is_not_resumed(held: Held, home: Settings, store: Store) -> None:
    os.kill(held.process.pid, signal.SIGKILL)
    held.process.wait()
    held.source.write_text(held.source.read_text() + "\n# changed\n")
    with pytest.raises(errors.StateError, match="the pipeline changed"):
        tools.run(held.source, store, home, resume="latest")


def test_runs_at_once_in_one_home(samples: Path, home: Settings, store: Store) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with Store(home.database) as opened:
                done = tools.run(samples / "nested.yaml", opened, home, {"number": number}, use_cache=False)
                assert tools.task(done, "twice-2/increase-2").parameters["Output"] == number + 4
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def many_steps(samples: Path, target: Path, count: int) -> Path:
    """Write a pipeline of many steps, each after the one before it in its row of four, out of a compiled sample."""
    document = yaml.safe_load((samples / "held.yaml").read_text())
    component = next(name for name in document["components"] if name.startswith("comp-hold"))
    tasks = {}
    for number in range(count):
        tasks[f"step-{number}"] = {
            "cachingOptions": {"enableCache": True},
            "componentRef": {"name": component},
            "dependentTasks": [f"step-{number - 4}"] if number >= 4 else [],
            "inputs": {
                "parameters": {
                    "path": {"componentInputParameter": "path"},
                    "gate": {"componentInputParameter": "gate"},
                    "text": {"runtimeValue": {"constant": f"step-{number}"}},
                }
            },
            "taskInfo": {"name": f"step-{number}"},
        }
    document["root"]["dag"]["tasks"] = tasks
    target.write_text(yaml.safe_dump(document))
    return target


class Many:
    """A run of many steps."""

    def __init__(self, samples: Path, home: Settings, folder: Path, count: int, how: str) -> None:
        self.how = how
        self.source, self.path = many_steps(samples, folder / "many.yaml", count), folder / "lines.txt"
        self.home, self.gate = home, folder / "gate"
        self.gate.touch()

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def start(self, resume: str) -> subprocess.Popen[bytes]:
        """Start or resume the run."""
        arguments = [str(part) for part in (self.home.home, self.source, self.path, self.gate)]
        return subprocess.Popen([sys.executable, "-c", _RUN, *arguments, resume, self.how], stderr=subprocess.PIPE)

    def goes_on(self, process: subprocess.Popen[bytes], steps: int) -> bool:
        """Wait until this many more steps have run or the run has ended; return whether it goes on."""
        before = len(self.lines())
        while process.poll() is None and len(self.lines()) < before + steps:
            time.sleep(0.005)
        return process.poll() is None


def children_of(pid: int) -> list[int]:
    """Return the processes that a process' threads have started."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # this thread has just ended
            found += map(int, thread.read_text().split())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "count", "steps", "how"),
    [
        ("runner", 200, 17, "a process a step"),
        ("worker", 100, 17, "a process a step"),
        ("runner", 100, 17, "in process"),
        ("worker", 100, 17, "in process"),
    ],
)
def test_killed_again_and_again_it_repeats_no_finished_step(
    samples: Path, home: Settings, store: Store, tmp_path: Path, victim: str, count: int, steps: int, how: str
) -> None:
    many, kills = Many(samples, home, tmp_path, count, how), 0
    process = many.start("")
    while many.goes_on(process, steps):
        kills += 1
        assert kills < 2 * count / steps + 5, "it makes no progress"
        if victim == "runner":
            process.kill()
            process.communicate()
            if runs.get(store, "latest").state == "succeeded":  # it was through just before
                break
            process = many.start(runs.get(store, "latest").id)
        else:
            for worker in children_of(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
    else:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert kills > 1, "nothing was killed: the test shows nothing"
    done = runs.get(store, "latest")
    assert (done.state, len(done.tasks)) == ("succeeded", count)
    assert len(runs.every(store)) == 1
    assert {line.split()[0] for line in many.lines()} == {f"step-{number}" for number in range(count)}
    # Only what ran in the moment of a kill ran twice.
    at_once = os.cpu_count() or 1
    assert len(many.lines()) - count <= kills * at_once
    # Shared processes, also after a kill; second attempts had one of their own.
    processes = len({line.split()[1] for line in many.lines()})
    assert processes <= (kills + 1) * 2 * at_once if how == "in process" else processes > count / 2


@pytest.mark.slow
def test_a_thousand_steps_are_planned_run_and_reused(
    samples: Path, home: Settings, store: Store, tmp_path: Path
) -> None:
    source = many_steps(samples, tmp_path / "many.yaml", 1000)
    given = {"path": str(tmp_path / "lines.txt"), "gate": str(tmp_path)}
    compiled = compiling.load(source, store)
    arguments = values.arguments(compiled.pipeline, given)

    def planned() -> list[str]:
        return [step.action for step in plan.plan(compiled, arguments, store=store, settings=home)]

    assert planned() == ["run"] * 1000
    done = tools.run(source, store, home, given, in_process=True)
    assert [task.state for task in done.tasks] == ["succeeded"] * 1000
    assert len((tmp_path / "lines.txt").read_text().splitlines()) == 1000
    assert planned() == ["reuse"] * 1000
