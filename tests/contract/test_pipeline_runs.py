"""Pipeline runs on every database: what is written is read back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ondol.base import errors
from ondol.records.pipeline import Artifact, PipelineRun, TaskRun
from ondol.store import runs
from ondol.store.connection import Store


def test_runs_and_their_tasks_come_back_as_they_were(store: Store) -> None:
    run = PipelineRun("run-0001", "train", "running", {"n": 2**60, "xs": [1, 2.5, "가"]}, started_at=1.0)
    runs.put(store, run)
    scores = Artifact("scores", "system.Metrics", "u", "p", metadata={"nan": math.nan, "one": 1})
    first = TaskRun("a", "running", started_at=1.0, attempt=1)
    second = TaskRun("b/c", "skipped", error="a failed")
    runs.put_task(store, run.id, first)
    runs.put_task(store, run.id, second)
    ended = replace(first, state="succeeded", outputs={"scores": scores}, parameters={"rows": 3}, key="k1")
    runs.finish_task(store, run.id, ended, "train/a", {"code": "c"})
    found = runs.get(store, "run-0001")
    assert (found.parameters, [task.name for task in found.tasks]) == (run.parameters, ["a", "b/c"])
    assert found.tasks[1] == second
    metadata = found.tasks[0].outputs["scores"].metadata
    assert math.isnan(metadata["nan"])
    assert isinstance(metadata["one"], int)
    cached = runs.cached(store, "k1")
    assert cached is not None
    assert (cached[0], cached[1].parameters) == ("run-0001", {"rows": 3})
    assert runs.last_ingredients(store, "train/a") == {"code": "c"}
    assert runs.last_ingredients(store, "train/b") is None
    runs.forget_cached(store, "k1")
    assert runs.cached(store, "k1") is None


def test_runs_wait_for_their_mirror_until_they_have_one(store: Store) -> None:
    runs.put(store, PipelineRun("run-0001", "train", "running"))
    assert runs.not_mirrored(store) == []
    runs.put(store, PipelineRun("run-0001", "train", "succeeded"))
    assert [run.id for run in runs.not_mirrored(store)] == ["run-0001"]
    runs.put_task(store, "run-0001", TaskRun("a", "succeeded"))
    ended = runs.get(store, "run-0001")
    told = replace(ended, tasks=(replace(ended.tasks[0], mlflow_runs=("m2", "m3")),))
    runs.set_mlflow_run(store, told, "m1")
    assert runs.not_mirrored(store) == []
    runs.put(store, PipelineRun("run-0001", "train", "succeeded"))
    assert runs.get(store, "run-0001") == replace(told, mlflow_run="m1")


def test_a_run_that_goes_on_is_mirrored_again(store: Store) -> None:
    failed = PipelineRun("run-0001", "train", "failed", ended_at=2.0)
    runs.put(store, failed)
    runs.set_mlflow_run(store, failed, "m1")
    runs.put(store, replace(failed, state="running", ended_at=0.0))
    runs.set_mlflow_run(store, failed, "m1")  # by one who began before it went on
    again = replace(failed, ended_at=3.0)
    runs.put(store, again)
    runs.set_mlflow_run(store, failed, "m1")
    assert [run.id for run in runs.not_mirrored(store)] == ["run-0001"]
    runs.set_mlflow_run(store, again, "m1")
    assert runs.not_mirrored(store) == []


def test_a_run_is_found_by_a_part_of_its_id_when_only_one_has_it(store: Store) -> None:
    for number in (1, 2):
        runs.put(store, PipelineRun(f"run-abc{number}", "train", "failed", started_at=float(number)))
    assert runs.get(store, "latest").id == "run-abc2"
    assert runs.get(store, "-abc1").id == "run-abc1"
    assert [run.id for run in runs.every(store, "train", 1)] == ["run-abc2"]
    for wrong in ("run-abc", "run-x", "r"):
        with pytest.raises(errors.NotFoundError):
            runs.get(store, wrong)


def test_compilations_are_remembered(store: Store) -> None:
    assert runs.compiled(store, "k") is None
    runs.put_compiled(store, "k", {"ir": "1"})
    runs.put_compiled(store, "k", {"ir": "2"})
    assert runs.compiled(store, "k") == {"ir": "2"}
