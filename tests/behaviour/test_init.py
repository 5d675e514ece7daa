"""`ondol init`: an ordinary project out of any table, or one sentence why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.base import errors
from ondol.data import examples, schema, starting, tables, validation
from ondol.evaluation import tabular
from ondol.formats import project


def customers(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    age = random.integers(18, 80, rows).astype(float)
    leaves = age + random.normal(0, 10, rows) > 55
    age[::20] = np.nan
    return pd.DataFrame(
        {
            "고객번호": np.arange(1000, 1000 + rows),
            "이름": [f"고객 {number}" for number in range(rows)],
            "나이": age,
            "지역": random.choice(["서울", "부산", None], rows),  # type: ignore[arg-type]
            "vip": random.random(rows) < 0.2,
            "가입일": pd.date_range("2020-01-01", periods=rows).strftime("%Y-%m-%d"),
            "나라": "한국",
            "해지여부": np.where(leaves, "예", "아니오"),
        }
    )


def made(folder: Path, frame: pd.DataFrame, target: str, name: str = "project") -> tuple[Path, starting.Plan]:
    data = folder / "table.csv"
    frame.to_csv(data, index=False)
    return folder / name, starting.make(folder / name, data, target)


def run_steps(folder: Path, plan: starting.Plan, data: Path) -> tuple[Path, Path, dict[str, float]]:
    """Call the pipeline's own functions in order, as a debugger would; return model, test rows and metrics."""
    made_pipeline = examples.module(folder, "pipeline")
    place = {name: SimpleNamespace(path=str(folder / name), metadata={}) for name in ("train", "test", "model")}
    columns = {"target": plan.target, "numbers": list(plan.numbers), "categories": list(plan.categories)}
    scores: dict[str, float] = {}
    made_pipeline.prepare.python_func(
        data=SimpleNamespace(path=str(data)),
        **columns,
        test_share=0.25,
        seed=0,
        train=place["train"],
        test=place["test"],
    )
    made_pipeline.train.python_func(
        data=place["train"], **columns, estimator=plan.estimator, seed=0, model=place["model"]
    )
    made_pipeline.evaluate.python_func(
        model=place["model"],
        data=place["test"],
        target=plan.target,
        metrics=SimpleNamespace(log_metric=scores.__setitem__),
    )
    return Path(place["model"].path), Path(place["test"].path), scores


def test_a_korean_table_becomes_a_project_whose_files_fit_together(tmp_path: Path) -> None:
    folder, plan = made(tmp_path, customers(), "해지여부", "이탈예측")
    assert (plan.task, plan.positive, plan.estimator) == ("binary", "예", "linear")
    assert plan.numbers == ("나이", "vip")
    assert plan.categories == ("지역",)
    assert {name for name, _ in plan.left_out} == {"고객번호", "이름", "가입일", "나라"}
    read = project.load(folder)
    (name,) = read.models
    assert name == plan.name == starting.slug("이탈예측")
    spec = read.models[name]
    assert (spec.evaluate.target, spec.evaluate.positive) == ("해지여부", "예")
    assert spec.check is not None
    frame = tables.read(folder / spec.check.data)
    assert validation.check(frame, schema.load(folder / spec.check.schema)).verdict == "pass"
    service = yaml.safe_load((folder / "serving.yaml").read_text(encoding="utf-8"))
    assert service["metadata"]["name"] == name
    assert service["spec"]["predictor"]["model"]["storageUri"] == f"models:/{name}@champion"
    assert ".ondol/" in (folder / ".gitignore").read_text(encoding="utf-8")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "ondol loop run --once" in readme
    assert "한국어" in readme


def test_a_row_stays_in_its_part_when_the_table_grows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    size = 400
    first = pd.DataFrame({"x": random.normal(size=size).round(1), "g": random.choice(["a", "b", ""], size)})
    first["y"] = np.where(random.random(size) < 0.5, "yes", "no")
    first.loc[0, "y"] = "rarely"  # a class of one row can only be learned from
    folder, plan = made(tmp_path, first.iloc[1:], "y")
    parts = []
    for frame in (first, pd.concat([first, first.tail(200)]).sample(frac=1, random_state=1)):
        frame.to_csv(tmp_path / "table.csv", index=False)
        run_steps(folder, plan, tmp_path / "table.csv")
        parts.append([Counter(map(repr, tables.read(folder / one).to_numpy().tolist())) for one in ("train", "test")])
    (train, test), (more_train, more_test) = parts
    assert train <= more_train
    assert test <= more_test
    assert 60 < test.total() < 140
    assert not any("rarely" in row for row in test)


@pytest.mark.parametrize("estimator", ["linear", "trees"])
def test_its_model_learns_and_takes_the_example_request(tmp_path: Path, estimator: Any) -> None:
    import dataclasses

    import joblib

    folder, plan = made(tmp_path, customers(), "해지여부")
    plan = dataclasses.replace(plan, estimator=estimator)
    model_file, test_file, scores = run_steps(folder, plan, tmp_path / "table.csv")
    assert set(scores) == {"log_loss", "accuracy", "rows"}
    model = joblib.load(model_file)
    predictions = tabular.predict(model, tables.read(test_file), plan.target, plan.positive)
    assert tabular.evaluate(predictions, metrics=["roc_auc"])[0].value > 0.75
    example = json.loads((folder / "example.json").read_text(encoding="utf-8"))
    rows = pd.DataFrame([*example["instances"], {"나이": None, "vip": 1.0, "지역": "제주"}])
    assert model.predict_proba(rows[list(model.feature_names_in_)]).shape == (2, 2)


def test_numbers_and_several_classes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=200), "g": random.choice(list("abc"), 200)})
    frame["price"] = frame["x"] * 3 + (frame["g"] == "a") * 2 + random.normal(0, 0.1, 200)
    frame["grade"] = np.clip((frame["x"] * 1.2 + 3).round(), 2, 4)
    folder, plan = made(tmp_path, frame.drop(columns=["grade"]), "price", "one")
    assert (plan.task, plan.positive) == ("regression", None)
    assert run_steps(folder, plan, tmp_path / "table.csv")[2]["r2"] > 0.95
    read = project.load(folder)
    assert read.models["one"].gate.primary == "absolute_error"
    policy = read.policy("one")
    assert policy.quality_loss == "absolute"
    assert policy.quality_scale == pytest.approx(frame["price"].std(), rel=0.01)
    assert "PREDICT_PROBA" not in (folder / "serving.yaml").read_text(encoding="utf-8")
    folder, plan = made(tmp_path, frame.drop(columns=["price"]), "grade", "two")
    assert (plan.task, plan.target_type) == ("multiclass", "integer")
    assert run_steps(folder, plan, tmp_path / "table.csv")[2]["accuracy"] > 0.6


@pytest.mark.parametrize(
    ("change", "target", "says"),
    [
        (lambda frame: frame, "해지", "no column '해지'"),
        (lambda frame: frame.assign(해지여부="예"), "해지여부", "every row has the same '해지여부'"),
        (lambda frame: frame.head(40), "해지여부", "40 rows have a value in '해지여부'"),
        (lambda frame: frame, "이름", "300 different values that are not numbers"),
        (lambda frame: frame, "가입일", "300 different values that are not numbers"),
        (lambda frame: frame[["이름", "나라", "해지여부"]], "해지여부", "no column is left"),
        (
            lambda frame: frame.assign(해지여부=["모름", *frame["해지여부"][1:]]),
            "해지여부",
            "'해지여부' is '모름' in 1 rows only",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused_and_leaves_nothing(
    tmp_path: Path, change: Any, target: str, says: str
) -> None:
    with pytest.raises(errors.InputError) as caught:
        made(tmp_path, change(customers()), target)
    assert says in caught.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(errors.ConflictError, match="not empty"):
        made(tmp_path, customers(), "해지여부")
    assert (tmp_path / "project" / "mine.txt").read_text(encoding="utf-8") == "keep"
    (tmp_path / "empty").mkdir()
    assert made(tmp_path, customers(), "해지여부", "empty")[0].joinpath("ondol.yaml").is_file()


def test_a_table_that_needed_guessing_is_kept_as_plain_csv(tmp_path: Path) -> None:
    text = customers().to_csv(index=False, sep=";")
    (tmp_path / "고객.csv").write_bytes(text.encode("cp949"))
    starting.make(tmp_path / "p", tmp_path / "고객.csv", "해지여부")
    assert pd.read_csv(tmp_path / "p" / "data" / "table.csv")["이름"][0] == "고객 0"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=3, max_size=3, unique=True))
def test_any_column_names_give_files_that_parse(names: list[str]) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {names[0]: random.normal(size=80), names[1]: random.choice(["a", "b"], 80), names[2]: [0, 1] * 40}
    )
    plan = starting.planned(frame, names[2], "any name")
    values = starting.values_of(plan, frame, 'a """ b\\.csv', "data/table.csv")
    code = compile(starting.render("pipeline.py", values), "pipeline.py", "exec")
    assert code.co_name == "<module>"
    read = project.parse(starting.render("ondol.yaml", values))
    assert read.models["any-name"].evaluate.target == names[2]
    yaml.safe_load(starting.render("serving.yaml", values))


@pytest.mark.parametrize("name", ["My Project!", "이탈예측", "2024", "---", "A" * 90, "x_y.z"])
def test_names_are_names_kubernetes_takes(name: str) -> None:
    import re

    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", starting.slug(name))
    assert starting.slug(name) == starting.slug(name)


@pytest.mark.slow
def test_the_project_runs_as_an_ordinary_pipeline(tmp_path: Path) -> None:
    """The real command line, the real SDK, the real runner."""
    customers().to_csv(tmp_path / "고객.csv", index=False)
    environ = {**os.environ, "ONDOL_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "ondol.cli.main"]
    first = subprocess.run(
        [*command, "init", "p", "--data", "고객.csv", "--target", "해지여부", "--json"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(first.stdout)["positive"] == "예"
    ran = subprocess.run(
        [*command, "run", "pipeline.py", "--json"],
        cwd=tmp_path / "p", env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    tasks = {task["name"]: task for task in json.loads(ran.stdout)["tasks"]}
    assert {task["state"] for task in tasks.values()} == {"succeeded"}
    assert tasks["evaluate"]["outputs"]["metrics"]["metadata"]["accuracy"] > 0.6
