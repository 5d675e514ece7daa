"""Steps that share a process make what steps in processes of their own make, and leave it as they found it."""

from __future__ import annotations

import contextlib
import pprint
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.behaviour import pipeline_tools as tools

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.cli import main
from ondol.store import runs
from ondol.store.connection import Store

SAMPLES: dict[str, dict[str, Any]] = {
    "types": {"big": 2**60 + 1},
    "artifacts": {},
    "choice": {"coin": "heads", "count": 2},
    "nested": {"number": 5},
    "loops": {},
    "chain": {},
    "exit_handler": {},
    "failing": {},
    "variables": {},
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    tools.compile_samples(folder, "meddling")
    return tools.compile_samples(folder)


def made(path: Path, home: Settings, in_process: bool) -> str:
    """Run a pipeline in a new home; return all it made, in words, but for the names of the run and of the home."""
    with Store(home.database) as store:
        with contextlib.suppress(errors.ComponentError):
            tools.run(path, store, home, SAMPLES[path.stem], in_process=in_process)
        run = runs.get(store, "latest")
    steps = {
        task.name: (
            task.state,
            task.error,
            task.parameters,
            {name: (one.type, one.digest, one.metadata) for name, one in task.outputs.items()},
            Path(task.log_path).read_text() if task.log_path else "",
        )
        for task in run.tasks
    }
    said = pprint.pformat((run.state, run.error, run.outputs, steps))
    return said.replace(run.id.removeprefix("run-"), "RUN").replace(str(home.home), "HOME")


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_make_the_same_in_both_modes(samples: Path, tmp_path: Path, name: str) -> None:
    alone, shared = (
        made(samples / f"{name}.yaml", Settings(home=tmp_path / str(mode), project=tmp_path), in_process=bool(mode))
        for mode in (0, 1)
    )
    assert shared == alone


def test_a_step_finds_the_process_as_the_first_one_did_but_for_modules(
    samples: Path, home: Settings, store: Store
) -> None:
    done = tools.run(samples / "meddled.yaml", store, home, in_process=True, use_cache=False)
    first, second, third = (tools.task(done, name).parameters["Output"] for name in ("look", "look-2", "look-3"))
    assert first["process"] == tools.task(done, "meddle").parameters["Output"] == third["process"]
    assert first.pop("kept") is None
    assert second.pop("kept") == third.pop("kept") == "kept"
    assert len({seen.pop("drawn") for seen in (first, second, third)}) == 3
    assert first == second == third
    for name in ("look", "look-2", "look-3"):
        assert Path(tools.task(done, name).log_path).read_text().count("looked") == 2
    said = Path(tools.task(done, "meddle").log_path).read_text()
    assert "before the output went elsewhere" in said


@pytest.mark.parametrize("in_process", [False, True])
def test_pools_that_a_step_leaves_finish_their_work_and_hold_nothing_up(
    samples: Path, home: Settings, store: Store, in_process: bool
) -> None:
    done = tools.run(samples / "pooling.yaml", store, home, in_process=in_process, slots=1, use_cache=False)
    for turn, name in enumerate(("pool", "pool-2", "pool-3")):
        task = tools.task(done, name)
        assert task.parameters["Output"] == str(7 + turn)
        assert sorted(Path(task.log_path).read_text().splitlines()) == [f"left {turn} {number}" for number in range(3)]


@pytest.mark.parametrize(
    ("how", "said"), [("exit", "its process ended with exit code 3"), ("kill", "its process was killed by SIGKILL")]
)
def test_a_step_that_ends_the_process_fails_alone(
    samples: Path, home: Settings, store: Store, how: str, said: str
) -> None:
    with pytest.raises(errors.ComponentError, match=said):
        tools.run(samples / "leaving.yaml", store, home, {"how": how}, in_process=True, slots=1, use_cache=False)
    left = runs.get(store, "latest")
    assert [tools.task(left, f"leave{end}").state for end in ("", "-2", "-3", "-4")] == [
        "succeeded",
        "failed",
        "succeeded",
        "succeeded",
    ]
    before, after, last = (tools.task(left, f"leave{end}").parameters["Output"] for end in ("", "-3", "-4"))
    assert before != after == last


def test_a_step_with_a_limit_or_an_earlier_attempt_gets_a_process_of_its_own_and_that_is_said(
    samples: Path, home: Settings, store: Store, tmp_path: Path
) -> None:
    done = tools.run(samples / "limited.yaml", store, home, in_process=True, slots=1)
    first, limited, last = (tools.task(done, name).parameters["Output"] for name in ("own", "own-2", "own-3"))
    assert first == last != limited
    again = tools.run(samples / "retrying.yaml", store, home, {"counter": str(tmp_path / "tries")}, in_process=True)
    assert again.state == "succeeded"


def test_what_a_step_registered_for_the_end_of_python_runs_at_the_end_of_the_run(
    samples: Path, home: Settings, store: Store, tmp_path: Path
) -> None:
    tools.run(samples / "registering.yaml", store, home, {"path": str(tmp_path / "said")}, in_process=True)
    assert (tmp_path / "said").read_text() == "the end"


def test_the_command_says_which_steps_share_no_process(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDOL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(main.cli, ["run", str(samples / "limited.yaml"), "--in-process"])
    assert answer.exit_code == 0, answer.output
    assert "own-2: in a process of its own, for it has a memory limit" in answer.stderr
