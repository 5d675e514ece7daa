"""Compiled engines say what the model says, on thresholds too; what cannot be compiled runs as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ondol.serving import describing, loading
from ondol.serving.engines import bitmasks, boosted, compiled, proof, trees
from ondol.serving.engines.base import Original
from ondol.serving.loading import Artifact


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """OpenMP's threads wait for each other very long on a busy machine."""
    with threadpool_limits(1):
        yield


RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 6))
X[:, 5] = RNG.integers(0, 5, 400)
Y2 = (X[:, 0] * X[:, 1] > 0).astype(int)
Y3 = np.array(["가", "b", "c"])[RNG.integers(0, 3, 400)]
HOLES = np.where(RNG.random(X.shape) < 0.1, np.nan, X)

MODELS: dict[str, Any] = {
    "logistic": LogisticRegression().fit(X, Y2),
    "multinomial": LogisticRegression().fit(X, Y3),
    "linear": LinearRegression().fit(X, X[:, 0]),
    "ridge": Ridge().fit(X, X[:, 1]),
    "sgd": SGDClassifier(loss="log_loss", random_state=0).fit(X, Y3),
    "tree": DecisionTreeClassifier(random_state=0).fit(X, Y3),
    "forest": RandomForestClassifier(30, random_state=0).fit(X, Y3),
    "forest of 64 leaves": RandomForestClassifier(30, max_leaf_nodes=64, random_state=0).fit(X, Y3),
    "forest of few leaves": RandomForestRegressor(30, max_leaf_nodes=9, random_state=0).fit(X, X[:, 0]),
    "forest regressor": RandomForestRegressor(30, random_state=0).fit(X, X[:, 0]),
    "extra trees": ExtraTreesRegressor(30, random_state=0).fit(X, X[:, 0]),
    "boosting": GradientBoostingClassifier(n_estimators=20, random_state=0).fit(X, Y2),
    "boosting, three classes": GradientBoostingClassifier(n_estimators=20, random_state=0).fit(X, Y3),
    "boosting regressor": GradientBoostingRegressor(n_estimators=20, random_state=0).fit(X, X[:, 0]),
    "histogram": HistGradientBoostingClassifier(max_iter=20).fit(HOLES, Y2),
    "histogram, three classes": HistGradientBoostingClassifier(max_iter=20).fit(X, Y3),
    "histogram regressor": HistGradientBoostingRegressor(max_iter=20, loss="poisson").fit(HOLES, np.abs(X[:, 0])),
    "histogram, category": HistGradientBoostingRegressor(max_iter=20).fit(X, X[:, 0]),
    "pipeline": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(HOLES, Y2),
    "pipeline of trees": make_pipeline(
        SimpleImputer(strategy="median"), RandomForestClassifier(20, random_state=0)
    ).fit(HOLES, Y2),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_compiled_form_is_chosen_and_measured(name: str) -> None:
    model = MODELS[name]
    choice = compiled.choose(model, describing.describe(Artifact(model, "sklearn")))
    assert not choice.engine.exact, choice.reason
    assert choice.tested_rows > 100
    assert choice.one_row_us > 0


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6, deadline=None)
@given(
    rows=hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(6)), elements=st.floats(-1e4, 1e4)),
    seed=st.integers(0, 2**20),
)
def test_the_compiled_form_says_the_same(name: str, rows: Any, seed: int) -> None:
    model = MODELS[name]
    spec = describing.describe(Artifact(model, "sklearn"))
    engine = compiled.compile_model(model)
    assert engine is not None
    edges = compiled.sample_rows(model, spec)[seed % 200 :][:40]
    for part in (rows, edges):
        assert not proof.difference(Original(model), engine, part, compiled.has_probabilities(model))


def test_forests_are_the_same_to_the_last_bit() -> None:
    for name in ("forest", "forest of 64 leaves", "boosting, three classes", "histogram", "tree"):
        engine = compiled.compile_model(MODELS[name])
        assert engine is not None
        for size in (1, 2, 33, 400):
            assert (engine.predict_proba(X[:size]) == MODELS[name].predict_proba(X[:size])).all(), name


BOOSTERS: dict[str, Any] = {
    "xgboost": xgboost.XGBClassifier(n_estimators=20, n_jobs=1).fit(HOLES, Y2),
    "xgboost, three classes": xgboost.XGBClassifier(n_estimators=20, n_jobs=1).fit(X, RNG.integers(0, 3, 400)),
    "xgboost regressor": xgboost.XGBRegressor(n_estimators=20, n_jobs=1).fit(HOLES, X[:, 0]),
    "xgboost, counts": xgboost.XGBRegressor(n_estimators=20, n_jobs=1, objective="count:poisson").fit(
        X, np.abs(X[:, 5])
    ),
    "lightgbm": lightgbm.LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1).fit(HOLES, Y3),
    "lightgbm regressor": lightgbm.LGBMRegressor(n_estimators=20, n_jobs=1, verbose=-1).fit(HOLES, X[:, 0]),
}


@pytest.mark.parametrize("name", BOOSTERS)
@settings(max_examples=6, deadline=None)
@given(
    rows=hnp.arrays(
        np.float64, st.tuples(st.integers(1, 40), st.just(6)), elements=st.floats(-1e4, 1e4) | st.just(np.nan)
    ),
    seed=st.integers(0, 2**20),
)
def test_boosters_say_the_same_joined_and_natively(name: str, rows: Any, seed: int) -> None:
    model = BOOSTERS[name]
    spec = describing.describe(loading.adapted(model))
    engine = boosted.compile_model(model)
    assert engine is not None
    edges = compiled.sample_rows(model, spec, thresholds=engine.thresholds())[seed % 200 :][:40]
    for engine.most_joined_rows in (0, 1000):
        for part in (rows, edges):
            assert not proof.difference(Original(model), engine, part, compiled.has_probabilities(model))


def test_an_xgboost_model_that_stopped_early_predicts_with_its_best_round() -> None:
    model = xgboost.XGBRegressor(n_estimators=60, n_jobs=1, early_stopping_rounds=3, learning_rate=1.0)
    model.fit(X, X[:, 0] + RNG.normal(size=400), eval_set=[(X, RNG.normal(size=400))], verbose=False)
    assert model.best_iteration < len(model.get_booster().get_dump()) - 1
    choice = compiled.choose(model, describing.describe(loading.adapted(model)))
    assert not choice.engine.exact, choice.reason
    assert np.array_equal(choice.engine.predict(X), model.predict(X))


FRAME = pd.DataFrame(
    {
        "a": X[:, 0],
        "b": HOLES[:, 1],
        "city": pd.Series(RNG.choice(["서울", "부산", "x", "rare"], 400, p=[0.4, 0.3, 0.29, 0.01]), dtype=object),
        "size": pd.Series(RNG.choice(["s", "l"], 400), dtype=object),
    }
)
NUMBERS = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
ENCODERS: dict[str, Any] = {
    "infrequent": OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=3),
    "ignore": OneHotEncoder(handle_unknown="ignore", drop="if_binary"),
    "error": OneHotEncoder(sparse_output=False),
    "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, max_categories=3),
    "imputed": make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
}


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.parametrize("name", ENCODERS)
def test_pipelines_of_named_columns_need_no_data_frame(name: str) -> None:
    numbers = "passthrough" if name == "ordinal" else NUMBERS
    columns = ColumnTransformer([("numbers", numbers, ["a", "b"]), ("words", ENCODERS[name], ["city", "size"])])
    last = HistGradientBoostingClassifier(max_iter=10) if name == "ordinal" else LogisticRegression()
    model = make_pipeline(columns, last).fit(FRAME, Y2)
    spec = describing.describe(Artifact(model, "sklearn"))
    choice = compiled.choose(model, spec)
    assert not choice.engine.exact, choice.reason
    cells = FRAME.astype(object).where(FRAME.notna(), None).to_numpy().tolist()
    assert np.array_equal(choice.engine.predict(cells), model.predict(FRAME))
    assert np.allclose(choice.engine.predict_proba(cells), model.predict_proba(FRAME), atol=1e-12)
    strange = [[0.5, 0.5, "never seen", "s"]]
    if name == "error":
        with pytest.raises(ValueError, match="never seen"):
            choice.engine.predict(strange)
    else:
        assert np.array_equal(choice.engine.predict(strange), model.predict(describing.as_rows(strange, spec)))


@settings(max_examples=20, deadline=None)
@given(
    rows=hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(6)), elements=st.floats(-3, 3) | st.just(np.nan)),
    seed=st.integers(0, 2**20),
)
def test_small_trees_are_looked_up_to_the_last_bit(rows: Any, seed: int) -> None:
    for name in ("forest of 64 leaves", "forest of few leaves", "boosting, three classes"):
        model = MODELS[name]
        engine = compiled.compile_model(model)
        assert isinstance(engine, trees.TreesEngine)
        assert isinstance(engine.joined, trees.JoinedTrees)
        edges = compiled.sample_rows(model, describing.describe(Artifact(model, "sklearn")))[seed % 200 :]
        for part in (rows[~np.isnan(rows).any(axis=1)], edges):
            masks = bitmasks.of_trees(engine.joined.trees)
            assert masks is not None
            if len(part):
                assert np.array_equal(masks.leaves(part), engine.joined.leaves(part))
    forest = RandomForestClassifier(30, max_leaf_nodes=9, random_state=0).fit(HOLES, Y2)  # with missing values
    compiled_forest = compiled.compile_model(forest)
    assert compiled_forest is not None
    several = np.tile(rows, (200, 1))
    assert np.array_equal(compiled_forest.predict_proba(several), forest.predict_proba(several))


def test_trees_too_large_for_words_of_bits_are_walked() -> None:
    assert (
        bitmasks.of_trees([one.tree_ for one in RandomForestClassifier(5, random_state=0).fit(X, Y3).estimators_])
        is None
    )


def test_a_large_batch_goes_another_way_to_the_same_answer() -> None:
    many = RNG.normal(size=(3000, 6))
    for name in ("forest", "boosting", "histogram"):
        engine = compiled.compile_model(MODELS[name])
        assert engine is not None
        assert (engine.predict(many) == MODELS[name].predict(many)).all()


def test_what_has_no_compiled_form_runs_as_it_is() -> None:
    model = KNeighborsClassifier().fit(X, Y2)
    choice = compiled.choose(model, describing.describe(Artifact(model, "sklearn")))
    assert choice.engine.exact
    assert "KNeighborsClassifier" in choice.reason


def test_a_failed_self_test_falls_back_to_the_original(caplog: pytest.LogCaptureFixture) -> None:
    model = LogisticRegression().fit(X, Y2)

    class Contrary(LogisticRegression):  # type: ignore[misc]  # scikit-learn has no types
        def predict(self, X: Any) -> Any:
            return 1 - super().predict(X)

    contrary = Contrary().fit(X, Y2)
    contrary.__class__.__module__ = "sklearn.linear_model"
    contrary.__class__.__name__ = "LogisticRegression"
    choice = compiled.choose(contrary, describing.describe(Artifact(contrary, "sklearn")), name="contrary")
    assert choice.engine.exact
    assert "self-test" in choice.reason
    assert "contrary" in caplog.text
    assert (choice.engine.predict(X) == 1 - model.predict(X)).all()


def test_where_null_is_taken() -> None:
    def nulls(model: Any) -> tuple[bool, ...]:
        return describing.describe(Artifact(model, "sklearn")).nulls

    assert nulls(MODELS["logistic"]) == ()
    assert nulls(MODELS["forest"]) == ()
    assert nulls(MODELS["histogram"]) == (True,) * 6
    assert nulls(MODELS["pipeline"]) == (True,) * 6
    assert nulls(MODELS["pipeline of trees"]) == (True,) * 6
