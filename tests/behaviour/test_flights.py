"""The flights example: an ordinary project, no leakage, and candidates that are really better or broken."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import yaml

from ondol.base.settings import Settings
from ondol.data import drift, examples, schema, validation
from ondol.evaluation import tabular
from ondol.formats import project
from ondol.pipelines import runner
from ondol.store.connection import Store

pytest.importorskip("sklearn")
FLIGHTS = examples.path("flights")
AFTERWARDS = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}


@pytest.fixture(scope="module")
def replay() -> Any:
    return examples.module(FLIGHTS, "replay")


@pytest.fixture(scope="module")
def year(replay: Any, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    frame: pd.DataFrame = replay.table(list(range(1, 13)), tmp_path_factory.mktemp("cache"))
    return frame


def test_the_pipeline_imports_nothing_of_ours_and_the_project_reads() -> None:
    tree = ast.parse((FLIGHTS / "pipeline.py").read_text(encoding="utf-8"))
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert not any(name.startswith("ondol") for name in imported)
    read = project.load(FLIGHTS)
    assert read.models["flights"].evaluate.slices == ("carrier", "origin")
    service = yaml.safe_load((FLIGHTS / "serving.yaml").read_text(encoding="utf-8"))
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"


def test_the_real_table_passes_its_check_with_its_real_nulls(replay: Any) -> None:
    frame = replay.raw([1, 2, 3])
    assert len(frame) == 80_789
    report = validation.check(frame, schema.load(FLIGHTS / "schema.yaml"))
    assert report.verdict == "pass"
    cancelled = next(one for one in report.findings if (one.column, one.check) == ("arr_delay", "nulls"))
    assert (cancelled.count, cancelled.severity) == (2878, "pass")
    assert "no label" in cancelled.message
    worse = validation.check(frame.drop(columns=["distance"]), schema.load(FLIGHTS / "schema.yaml"))
    assert worse.verdict == "fail"


def test_requests_are_the_training_rows_and_know_nothing_of_the_future(replay: Any, year: pd.DataFrame) -> None:
    may = replay.month(5)
    assert len(may.ids) == len(set(may.ids)) == 28_796
    assert not AFTERWARDS & set(may.features)
    assert np.isfinite(np.array(may.rows)).all()
    assert sum(label is None for label in may.labels) == 668
    known = [label for label in may.labels if label is not None]
    assert 0.22 < sum(known) / len(known) < 0.23
    same = year[year["month"] == 5].reset_index(drop=True)
    pd.testing.assert_frame_equal(may.frame, same, check_dtype=False)  # a month alone is as in the whole year
    few = replay.month(5, limit=500)
    assert len(few.rows) == 500
    assert few.ids[0] == may.ids[0]
    assert json.loads(json.dumps({"instances": few.rows}))["instances"] == few.rows


def test_the_label_is_not_among_the_features_by_another_name(year: pd.DataFrame) -> None:
    labelled = year[year["late"].notna()]
    late = labelled["late"].astype(float)
    for name in labelled.drop(columns=["month", "late"]).select_dtypes("number"):
        values = labelled[name]
        ranks, truth = np.array(values.rank(pct=True), dtype=float), np.array(late, dtype=float)
        auc = tabular.Predictions("binary", ranks, truth)
        (score,) = tabular.evaluate(auc, metrics=["roc_auc"])
        assert abs(score.value - 0.5) < 0.2, f"{name} alone knows too much: {score.value}"


def test_the_seasons_drift_and_december_is_like_january(year: pd.DataFrame) -> None:
    frame = year.assign(day=year["id"].str[:8])
    winter = frame[frame["month"] <= 3]
    columns = ["humid", "wind_speed", "precip", "pressure", "visib", "distance", "weekday"]
    options = drift.Options(block="day", alpha=0.05)
    july = drift.compare(winter, frame[frame["month"] == 7], columns=columns, options=options)
    assert "wind_speed" in july.names()
    december = drift.compare(winter, frame[frame["month"] == 12], columns=columns, options=options)
    assert not december.drifted


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_candidates_are_what_they_are_called(replay: Any, home: Settings, store: Store) -> None:
    """Trained by the real runner, asked about May: one is no worse, one is blatantly worse, one slightly."""
    may = replay.month(5)
    table = may.frame
    models = {}
    for name, parameters in {"first": {}, **replay.CANDIDATES}.items():
        run = runner.run(FLIGHTS / "pipeline.py", parameters, store=store, settings=home)
        task = run.task("train")
        assert task is not None, run
        models[name] = joblib.load(task.outputs["model"].path)
    losses = {
        name: tabular.losses(tabular.predict(model, table, "late", 1), "brier").mean() for name, model in models.items()
    }
    assert losses["more trees"] < losses["first"] + 0.001
    assert losses["units bug"] > losses["first"] + 0.015
    assert losses["first"] + 0.002 < losses["stale join"] < losses["units bug"]


@pytest.mark.slow
def test_the_wheel_carries_the_example_and_the_templates(tmp_path: Path) -> None:
    root = FLIGHTS.parent.parent
    if not (root / "pyproject.toml").is_file():
        pytest.skip("not in the repository")
    uv = Path(sys.executable).with_name("uv")
    made = subprocess.run(
        [str(uv), "build", "--wheel", "--out-dir", str(tmp_path), str(root)],
        capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    if made.returncode and "hatchling" in made.stderr:
        pytest.skip("the build backend (hatchling) is neither in uv's cache nor to be had")
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in ("pipeline.py", "serving.yaml", "ondol.yaml", "schema.yaml", "replay.py"):
        assert f"ondol/templates/flights/{file}" in names
    assert "ondol/templates/project/pipeline.py.jinja" in names
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    asked = "from ondol.data import examples; print(examples.path('flights'))"
    found = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )  # fmt: skip
    assert found.stdout.strip() == str(tmp_path / "installed" / "ondol" / "templates" / "flights")
