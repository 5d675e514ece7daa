"""Scores of tabular models: equal to scikit-learn's, with intervals that cover, slices and losses per row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.linear_model import LinearRegression, LogisticRegression

from ondol.base import errors
from ondol.evaluation import tabular
from ondol.evaluation.tabular import Predictions
from ondol.records.evaluation import Score


def binary(count: int = 2000, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    chance = random.beta(2, 4, count).round(3)  # rounding makes ties
    return Predictions("binary", chance, (random.random(count) < chance).astype(np.float64), ("no", "yes"))


def several(count: int = 1500, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    chances = random.dirichlet([1, 2, 3], count)
    labels = np.array([random.choice(3, p=row) for row in chances], dtype=np.float64)
    return Predictions("multiclass", chances, labels, ("a", "b", "c"))


def numbers(count: int = 1500, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    truth = random.normal(10, 3, count)
    return Predictions("regression", truth + random.normal(0.2, 1, count), truth)


def by_name(scores: list[Score], part: str = "") -> dict[str, Score]:
    return {score.name: score for score in scores if score.slice == part}


def test_binary_scores_equal_scikit_learns() -> None:
    given = binary()
    scores = by_name(tabular.evaluate(given))
    expected = {
        "roc_auc": metrics.roc_auc_score(given.labels, given.values),
        "pr_auc": metrics.average_precision_score(given.labels, given.values),
        "log_loss": metrics.log_loss(given.labels, given.values),
        "brier": metrics.brier_score_loss(given.labels, given.values),
        "accuracy": metrics.accuracy_score(given.labels, given.values >= 0.5),
        "f1": metrics.f1_score(given.labels, given.values >= 0.5),
    }
    for name, value in expected.items():
        assert scores[name].value == pytest.approx(value, abs=1e-12), name
        low, high = scores[name].low, scores[name].high
        assert low is not None
        assert high is not None
        assert low < value < high
    assert scores["log_loss"].greater_is_better is False


def test_scores_of_several_classes_and_of_numbers_equal_scikit_learns() -> None:
    given = several()
    scores = by_name(tabular.evaluate(given))
    decided = given.values.argmax(axis=1)
    assert scores["log_loss"].value == pytest.approx(metrics.log_loss(given.labels, given.values))
    assert scores["f1"].value == pytest.approx(metrics.f1_score(given.labels, decided, average="macro"))
    assert scores["accuracy"].value == pytest.approx(metrics.accuracy_score(given.labels, decided))
    given = numbers()
    scores = by_name(tabular.evaluate(given))
    assert scores["mae"].value == pytest.approx(metrics.mean_absolute_error(given.labels, given.values))
    assert scores["rmse"].value == pytest.approx(metrics.root_mean_squared_error(given.labels, given.values))
    assert scores["r2"].value == pytest.approx(metrics.r2_score(given.labels, given.values))


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "brier", "f1", "pr_auc"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(name: str) -> None:
    truth = by_name(tabular.evaluate(binary(40_000, seed=99), metrics=[name]))[name].value
    hits = 0
    for seed in range(120):
        score = by_name(tabular.evaluate(binary(300, seed=seed), metrics=[name]))[name]
        assert score.low is not None
        assert score.high is not None
        hits += score.low <= truth <= score.high
    assert hits >= 105  # 114 expected; fewer than 105 of 120 has a chance below 1 in 1000


def test_a_calibrated_model_has_a_small_calibration_error_and_a_bold_one_does_not() -> None:
    honest = binary(20_000)
    bold = Predictions("binary", honest.values**0.3, honest.labels, honest.classes)
    errors_ = [by_name(tabular.evaluate(one))["calibration_error"] for one in (honest, bold)]
    assert errors_[0].value < 0.02
    assert errors_[1].value > 0.2
    assert by_name(tabular.evaluate(several(20_000)))["calibration_error"].value < 0.02


def test_slices_have_a_least_size_and_the_worst_is_found() -> None:
    given = binary(1000)
    carrier = np.where(np.arange(1000) < 480, "UA", np.where(np.arange(1000) < 950, "한진", "tiny"))
    worse = given.values.copy()
    worse[carrier == "한진"] = 1 - worse[carrier == "한진"]
    frame = pd.DataFrame({"carrier": carrier})
    frame.loc[:149, "carrier"] = None
    scores = tabular.evaluate(Predictions("binary", worse, given.labels), frame, ["carrier"])
    parts = {score.slice for score in scores}
    assert parts == {"", "carrier=UA", "carrier=한진", "carrier=(empty)"}
    assert tabular.worst_slices(scores, "log_loss")[0].slice == "carrier=한진"
    assert tabular.worst_slices(scores, "roc_auc")[0].slice == "carrier=한진"
    assert next(score.n for score in scores if score.slice == "carrier=UA") == 330


def test_a_slice_with_one_class_has_no_auc_but_the_rest() -> None:
    given = Predictions("binary", np.full(200, 0.3), np.zeros(200))
    names = {score.name for score in tabular.evaluate(given)}
    assert "roc_auc" not in names
    assert {"log_loss", "brier", "accuracy"} <= names


def test_losses_are_per_row_and_average_to_the_scores() -> None:
    for one in (binary(), several()):
        scores = by_name(tabular.evaluate(one))
        for name in ("log_loss", "brier"):
            each = tabular.losses(one, name)
            assert each.shape == (len(one),)
            assert each.mean() == pytest.approx(scores[name].value)
        assert tabular.losses(one, "error").mean() == pytest.approx(1 - scores["accuracy"].value)
    assert tabular.losses(numbers()).mean() == pytest.approx(by_name(tabular.evaluate(numbers()))["mae"].value)
    with pytest.raises(errors.InputError, match="no loss per row 'roc_auc'"):
        tabular.losses(binary(), "roc_auc")


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=60))
def test_any_probabilities_give_finite_scores(pairs: list[tuple[float, bool]]) -> None:
    values = np.array([value for value, _ in pairs])
    given_ = Predictions("binary", values, np.array([float(label) for _, label in pairs]))
    for score in tabular.evaluate(given_):
        assert np.isfinite(score.value), score
    assert np.isfinite(tabular.losses(given_, "log_loss")).all()


@pytest.mark.parametrize(
    ("labels", "positive", "classes"),
    [
        (["예", "아니오"], "예", ("아니오", "예")),
        (["yes", "no"], "no", ("yes", "no")),
        ([0, 1], 1, ("0", "1")),
        ([0, 1], "1", ("0", "1")),
        ([False, True], True, ("0", "1")),
        ([0, 1], None, ("0", "1")),
    ],
)
def test_a_model_is_asked_for_its_positive_class(labels: list[Any], positive: object, classes: tuple[str, str]) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"나이": random.normal(size=400)})
    frame["truth"] = np.where(frame["나이"] > 0, labels[1], labels[0])
    if isinstance(labels[0], bool):
        frame["truth"] = frame["truth"].astype(bool)
    model = LogisticRegression().fit(frame[["나이"]], frame["truth"])
    given = tabular.predict(model, frame, "truth", positive)
    assert given.classes == classes
    assert by_name(tabular.evaluate(given))["roc_auc"].value == pytest.approx(1.0)
    unlabelled = frame.astype({"truth": "object"})
    unlabelled.loc[:9, "truth"] = None
    assert len(tabular.predict(model, unlabelled, "truth", positive)) == 390


def test_what_does_not_fit_the_model_is_refused() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "t": ["x", "y", "x", "y"]})
    model = LogisticRegression().fit(frame[["a"]], frame["t"])
    with pytest.raises(errors.InputError, match="no column 'a'"):
        tabular.predict(model, frame.drop(columns=["a"]), "t")
    with pytest.raises(errors.InputError, match="the class 'z', which the model does not know"):
        tabular.predict(model, frame.assign(t=["x", "y", "z", "y"]), "t")
    with pytest.raises(errors.InputError, match="no row has a value"):
        tabular.predict(model, frame.assign(t=None), "t")
    with pytest.raises(errors.InputError, match="no metric 'mae' for binary"):
        tabular.evaluate(binary(), metrics=["mae"])
    numeric = LinearRegression().fit(frame[["a"]], [1.0, 2.0, 3.0, 4.0])
    assert tabular.predict(numeric, frame.assign(t=[1, 2, 3, 4]), "t").kind == "regression"
