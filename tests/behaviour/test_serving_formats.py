"""Model files of every format, found, checked, opened and answered from as KServe's servers would."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ondol.base import errors
from ondol.serving import describing, loading, pickles

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 5))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
Y3 = RNG.integers(0, 3, 300)


class Hostile:
    """What an attacker would leave behind."""

    def __reduce__(self) -> Any:
        return os.system, ("echo hostile",)


def xgboost_file(folder: Path, labels: Any = Y, suffix: str = ".json") -> Any:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(X, labels)
    model.save_model(folder / f"model{suffix}")
    return model


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
def test_an_xgboost_file_answers_as_kserves_server(tmp_path: Path, suffix: str) -> None:
    model = xgboost_file(tmp_path, suffix=suffix)
    artifact = loading.load(tmp_path, model_format="xgboost")
    assert np.array_equal(artifact.model.predict(X), model.predict_proba(X)[:, 1])
    spec = describing.describe(artifact)
    assert (spec.n_features, spec.nulls) == (5, (True,) * 5)


def test_an_xgboost_file_answers_labels_under_v2_as_mlserver(tmp_path: Path) -> None:
    model = xgboost_file(tmp_path, Y3)
    artifact = loading.load(tmp_path, model_format="xgboost", dialect="v2")
    assert np.array_equal(artifact.model.predict(X), model.predict(X))
    assert np.array_equal(artifact.model.predict_proba(X), model.predict_proba(X))


def test_a_lightgbm_file_answers_probabilities(tmp_path: Path) -> None:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1).fit(X, Y)
    model.booster_.save_model(tmp_path / "model.bst")
    artifact = loading.load(tmp_path, model_format="lightgbm")
    assert np.array_equal(artifact.model.predict(X), model.predict_proba(X)[:, 1])


def test_a_catboost_file_answers_labels(tmp_path: Path) -> None:
    import catboost

    text = [[f"{row[0]:.0f}", *row[1:].tolist()] for row in X]
    options = {"iterations": 10, "verbose": False, "allow_writing_files": False, "cat_features": [0]}
    model = catboost.CatBoostClassifier(**options).fit(text, Y3)
    model.save_model(str(tmp_path / "model.cbm"))
    artifact = loading.load(tmp_path, model_format="catboost")
    spec = describing.describe(artifact)
    assert spec.kind(0) == "any"
    rows = describing.as_rows(text, spec)
    assert np.array_equal(artifact.model.predict(rows), model.predict(text)[:, 0])
    assert np.array_equal(artifact.model.predict_proba(rows), model.predict_proba(text))


def test_an_onnx_classifier_answers_labels_and_probabilities(tmp_path: Path) -> None:
    import skl2onnx

    model = LogisticRegression().fit(X, Y3)
    graph = skl2onnx.to_onnx(model, X[:1].astype(np.float32))
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    artifact = loading.load(tmp_path, model_format="onnx")
    assert describing.describe(artifact).n_features == 5
    assert np.array_equal(artifact.model.predict(X), model.predict(X))
    assert np.allclose(artifact.model.predict_proba(X), model.predict_proba(X), atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # importing MLflow warns about its own type hints
@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "catboost"])
def test_mlflows_own_flavours_are_read_without_mlflow(tmp_path: Path, name: str) -> None:
    import catboost
    import lightgbm
    import mlflow
    import xgboost

    model = {
        "xgboost": lambda: xgboost.XGBClassifier(n_estimators=5, n_jobs=1),
        "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1),
        "catboost": lambda: catboost.CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False),
    }[name]().fit(X, Y3)
    requirements = [name]  # or MLflow starts a process to find out
    getattr(mlflow, name).save_model(model, tmp_path / "m", pip_requirements=requirements)
    artifact = loading.load(tmp_path / "m", model_format="mlflow", safe=True)
    assert artifact.flavour == name
    assert np.array_equal(artifact.model.predict(X), np.ravel(model.predict(X)))


def test_pickled_boosters_are_served_by_their_own_library(tmp_path: Path) -> None:
    joblib.dump(xgboost_file(tmp_path), tmp_path / "model.joblib")
    (tmp_path / "model.json").unlink()
    artifact = loading.load(tmp_path, model_format="xgboost")
    assert artifact.flavour == "xgboost"
    assert describing.describe(artifact).nulls == (True,) * 5


def test_two_model_files_are_one_too_many(tmp_path: Path) -> None:
    xgboost_file(tmp_path, suffix=".json")
    xgboost_file(tmp_path, suffix=".ubj")
    with pytest.raises(errors.InputError, match=r"more than one .*model\.json, model\.ubj") as caught:
        loading.load(tmp_path, model_format="xgboost")
    assert caught.value.code == "INP-221"


def test_bytes_that_are_not_what_the_name_says_are_refused(tmp_path: Path) -> None:
    for name, model_format in (("model.cbm", "catboost"), ("model.onnx", "onnx"), ("model.bst", "lightgbm")):
        (tmp_path / name).write_bytes(b"PNG nonsense")
        with pytest.raises(errors.InputError) as caught:
            loading.load(tmp_path / name, model_format=model_format)
        assert caught.value.code == "INP-222"
    with pytest.raises(errors.UnsupportedError) as unknown:
        loading.load(tmp_path, model_format="pmml")
    assert unknown.value.code == "UNS-390"


@pytest.mark.parametrize("compress", [0, 3, ("bz2", 3), ("xz", 3)])
def test_a_scan_lists_what_a_joblib_file_imports(tmp_path: Path, compress: Any) -> None:
    model = LogisticRegression().fit(X, np.array(["a", "b"], dtype=object)[Y])  # an array of objects is a pickle inside
    joblib.dump(model, tmp_path / "model.joblib", compress=compress)
    report = pickles.scan(tmp_path / "model.joblib")
    assert report.complete
    assert "sklearn.linear_model._logistic.LogisticRegression" in report.names
    assert not report.hostile


@pytest.mark.parametrize("where", ["alone", "after an array"])
def test_a_hostile_pickle_is_refused_before_it_runs(
    tmp_path: Path, where: str, capfd: pytest.CaptureFixture[str]
) -> None:
    bait = Hostile() if where == "alone" else {"model": LogisticRegression().fit(X, Y), "bait": [Hostile()]}
    joblib.dump(bait, tmp_path / "model.joblib")
    with pytest.raises(errors.RefusedError, match=r"posix\.system") as caught:
        loading.load(tmp_path)
    assert caught.value.code == "REF-391"
    assert "hostile" not in capfd.readouterr().out


def test_safe_mode_opens_no_pickle_and_takes_skops(tmp_path: Path) -> None:
    import skops.io

    model = LogisticRegression().fit(X, Y)
    (tmp_path / "model.bst").write_bytes(pickle.dumps(model))
    for model_format in ("sklearn", "xgboost", "lightgbm"):  # whatever it calls itself
        with pytest.raises(errors.RefusedError) as caught:
            loading.load(tmp_path / "model.bst", model_format=model_format, safe=True)
        assert caught.value.code == "REF-390"
    skops.io.dump(model, tmp_path / "model.skops")
    artifact = loading.load(tmp_path / "model.skops", safe=True)
    assert np.array_equal(artifact.model.predict(X), model.predict(X))


def test_a_model_of_numbers_is_served_without_pandas(tmp_path: Path) -> None:
    joblib.dump(LogisticRegression().fit(X, Y), tmp_path / "model.joblib")
    program = """
import pathlib, sys
from ondol.serving import describing, loading
from ondol.serving.engines import compiled
artifact = loading.load(pathlib.Path(sys.argv[1]))
choice = compiled.choose(artifact.model, describing.describe(artifact))
assert not choice.engine.exact, choice.reason
assert "pandas" not in sys.modules
import pandas
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
