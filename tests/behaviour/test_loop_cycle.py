"""Once round the loop on a small table: real pipeline, real registry, real data plane."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from tests.behaviour import demo_tools
from tests.conftest import RunningOndol

from ondol.app import looping
from ondol.base import errors, progress
from ondol.formats import project as projects
from ondol.loop import cycle, walking
from ondol.loop.conductor import Conductor, Hands
from ondol.loop.context import Context
from ondol.registry.client import RegistryClient
from ondol.store import releases, rollouts, routes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PIPELINE = """
from kfp import dsl
from kfp.dsl import Dataset, Model, Input, Output


@dsl.component
def prepare(table: str, train: Output[Dataset], test: Output[Dataset]):
    import pandas as pd

    rows = pd.read_csv(table)
    rows[: len(rows) // 2].to_csv(train.path, index=False)
    rows[len(rows) // 2 :].to_csv(test.path, index=False)


@dsl.component
def train(data: Input[Dataset], strength: float, upside_down: bool, model: Output[Model]):
    import joblib
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    if strength <= 0:
        raise ValueError(f"strength {strength} makes no model")
    rows = pd.read_csv(data.path)
    truth = 1 - rows["late"] if upside_down else rows["late"]
    joblib.dump(LogisticRegression(C=strength).fit(rows[["a", "b"]], truth), model.path)


@dsl.pipeline(name="small")
def small(table: str, strength: float = 0.02, upside_down: bool = False):
    made = prepare(table=table)
    train(data=made.outputs["train"], strength=strength, upside_down=upside_down)
"""
SERVING = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: {name}}}
spec:
  predictor:
    model:
      modelFormat: {{name: sklearn}}
      storageUri: models:/{name}@champion
      env: [{{name: PREDICT_PROBA, value: "true"}}]
"""
PROJECT = """
name: small
serving: [serving.yaml]
models:
  {name}:
    pipeline: pipeline.py
    parameters: {{table: "{table}"}}
    model: train.model
    check: {{data: table.csv, schema: schema.yaml}}
    evaluate: {{data: prepare.test, train: prepare.train, target: late, positive: 1, slices: [group]}}
    gate: {{primary: log_loss, margin: 0.01, min_samples: 200, rules: [{{metric: roc_auc, at_least: 0.6}}]}}
retrain: {{on: [drift]}}
"""
SCHEMA = """
name: small
rows: {min: 1000}
columns:
  a: {type: number, min: -10, max: 10}
  b: {type: number}
  group: {type: category, values: [x, y]}
  late: {type: integer, min: 0, max: 1}
"""


@pytest.fixture
def around(running: RunningOndol, tmp_path: Path) -> Iterator[tuple[Context, str]]:
    """A small project with a model of its own name, in the running Ondol."""
    name = f"small-{tmp_path.name.rstrip('0123456789').replace('_', '-')[-30:].strip('-')}"
    generator = np.random.default_rng(3)
    rows = pd.DataFrame(generator.normal(size=(2000, 2)), columns=["a", "b"])
    rows["group"] = np.where(generator.random(2000) < 0.5, "x", "y")
    rows["late"] = (rows["a"] + 0.5 * rows["b"] + generator.normal(size=2000) > 0).astype(int)
    rows.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "pipeline.py").write_text(PIPELINE, encoding="utf-8")
    (tmp_path / "serving.yaml").write_text(SERVING.format(name=name), encoding="utf-8")
    (tmp_path / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    text = PROJECT.format(name=name, table=tmp_path / "table.csv")
    (tmp_path / "ondol.yaml").write_text(text, encoding="utf-8")
    settings = replace(running.settings, project=tmp_path)
    context = looping.context(running.store, settings, projects.load(tmp_path), progress.SILENT)
    yield context, name
    assert isinstance(context.registry, RegistryClient)
    context.registry.close()


def predict(context: Context, name: str) -> list[list[float]]:
    answer = httpx.post(
        f"{context.settings.data.url}/v1/models/{name}:predict",
        json={"instances": [[2.0, 1.0], [-2.0, -1.0]]}, timeout=60, trust_env=False,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    found: list[list[float]] = answer.json()["predictions"]
    return found


def served(context: Context, name: str) -> str:
    """Wait until something of this name is served; return its release."""
    deadline = time.monotonic() + 180
    while (route := routes.get(context.store, name)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    looping.wait_served(context.store, name, route.stable, patience=180)
    return route.stable


def versions(context: Context, name: str) -> list[str]:
    registry = context.registry
    assert isinstance(registry, RegistryClient)
    return [one.version for model in registry.models() if model.name == name for one in model.versions]


def conducted(context: Context, name: str) -> tuple[str, ...]:
    """Which releases wait for a trial."""
    return Conductor(context.store, context.settings, Hands()).state(name, context.project).waiting


def test_the_first_model_serves_and_a_better_one_waits_for_its_trial(around: tuple[Context, str]) -> None:
    context, name = around
    first = cycle.walk(context, name)
    assert first.decision.verdict == "pass", first.decision.reason
    assert "base rate" in first.gate.reason
    assert first.release is not None
    assert served(context, name) == first.release.digest
    likely, unlikely = predict(context, name)
    assert likely[1] > 0.5 > unlikely[1]

    again = cycle.walk(context, name)
    assert again.version == first.version
    assert again.release == first.release
    assert all(task.cached for task in again.run.tasks if not task.graph)

    second = cycle.walk(context, name, {"strength": 1.0})
    assert second.decision.verdict == "pass", second.decision.reason
    assert second.release is not None
    assert second.release.digest != first.release.digest
    assert second.decision.evidence["champion"] == first.release.digest
    assert set(second.decision.evidence["slices"]) == {"group=x", "group=y"}
    assert conducted(context, name) == (second.release.digest,)
    route = routes.get(context.store, name)
    assert route is not None
    assert route.stable == first.release.digest  # the gate promotes nobody: the trial does
    assert sorted(versions(context, name)) == ["1", "2"]

    wrong = cycle.walk(context, name, {"strength": 1.0, "upside_down": True})
    assert wrong.decision.verdict == "fail"
    assert wrong.release is None
    assert sorted(versions(context, name)) == ["1", "2"]
    assert len(releases.of_name(context.store, name)) == 2
    assert conducted(context, name) == (second.release.digest,)
    for decision in rollouts.decisions(context.store, name, "gate"):
        assert demo_tools.again(decision) == decision.verdict


def test_a_first_model_that_is_no_better_than_the_base_rate_is_not_served(around: tuple[Context, str]) -> None:
    context, name = around
    outcome = cycle.walk(context, name, {"upside_down": True})
    assert outcome.decision.verdict == "fail"
    assert routes.get(context.store, name) is None
    assert releases.of_name(context.store, name) == []
    assert versions(context, name) == []


def test_data_that_fails_its_check_stops_everything(around: tuple[Context, str]) -> None:
    context, name = around
    rows = pd.read_csv(context.root / "table.csv")
    rows.loc[:99, "a"] = 99.0
    rows.to_csv(context.root / "table.csv", index=False)
    with pytest.raises(errors.InputError) as caught:
        cycle.walk(context, name)
    assert "a: 100 values outside -10 to 10" in caught.value.message
    assert caught.value.way_out
    assert rollouts.decisions(context.store, name) == []
    assert versions(context, name) == []


@dataclass
class Another(progress.Silent):
    """Somebody who tries to walk in the middle of a walk."""

    context: Context
    name: str
    refused: list[str] = field(default_factory=list)

    def start(self, stage: str, total: float | None = None) -> None:
        """Try it before the gate."""
        if stage == "gate":
            with pytest.raises(errors.ConflictError) as caught:
                cycle.walk(self.context, self.name)
            self.refused.append(caught.value.code)


def test_one_walk_at_a_time(around: tuple[Context, str]) -> None:
    context, name = around
    another = Another(context, name)
    assert cycle.walk(replace(context, progress=another), name).decision.verdict == "pass"
    assert another.refused == ["CON-011"]
    assert not walking.is_walking(context.settings.home, name)


def test_a_retraining_whose_pipeline_fails_leaves_a_decision(around: tuple[Context, str]) -> None:
    context, name = around
    with pytest.raises(errors.ComponentError, match="strength -1"):
        cycle.walk(context, name, {"strength": -1.0})
    assert rollouts.decisions(context.store, name) == []  # nobody asked for a retraining: the error is enough
    with pytest.raises(errors.ComponentError):
        cycle.walk(context, name, {"strength": -1.0}, because="decision-of-drift")
    (failed,) = rollouts.decisions(context.store, name)
    assert (failed.action, failed.verdict) == ("retrain", "failed")
    assert failed.evidence["because"] == "decision-of-drift"
    assert "strength -1" in failed.reason


def test_what_the_project_does_not_have_is_named(around: tuple[Context, str]) -> None:
    context, name = around
    with pytest.raises(errors.NotFoundError, match="no model 'other'"):
        cycle.walk(context, "other")
    spec = replace(context.project.models[name], model="train.nothing")
    wrong = replace(context, project=replace(context.project, models={name: spec}))
    with pytest.raises(errors.InputError) as caught:
        cycle.walk(wrong, name)
    assert "train.nothing" in caught.value.message
    assert "train.model" in caught.value.way_out
