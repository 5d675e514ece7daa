"""Model files of every format, found, checked, opened and answered from as KServe's servers would."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ondol.base import errors
from ondol.serving import describing, loading, payloads_v1, pickles

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


def test_torchscript_and_exported_programs_answer_as_the_module(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is an extra, and not of the development environment")
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).eval()
    rows = torch.from_numpy(X.astype(np.float32))
    expected = module(rows).detach().numpy()[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that TorchScript is old
        torch.jit.save(torch.jit.trace(module, rows[:2]), str(tmp_path / "script.pt"))
    shapes = ({0: torch.export.Dim("rows")},)
    torch.export.save(torch.export.export(module, (rows[:2],), dynamic_shapes=shapes), str(tmp_path / "exported.pt2"))
    for name, width in (("script.pt", 0), ("exported.pt2", 5)):
        artifact = loading.load(tmp_path / name, model_format="pytorch")
        assert describing.describe(artifact).n_features == width
        assert np.allclose(artifact.model.predict(X), expected, atol=1e-6)
    torch.save(module.state_dict(), str(tmp_path / "weights.pt"))
    torch.export.save(torch.export.export(module, (rows[:2],)), str(tmp_path / "fixed.pt2"))
    for name, code in (("weights.pt", "INP-222"), ("fixed.pt2", "UNS-391")):
        with pytest.raises(errors.InputError) as caught:
            loading.load(tmp_path / name, model_format="pytorch")
        assert caught.value.code == code
    with pytest.raises(errors.RefusedError):
        loading.load(tmp_path / "script.pt", model_format="pytorch", safe=True)


@pytest.mark.parametrize("classifies", [True, False])
def test_hugging_face_folders_classify_and_embed_texts(tmp_path: Path, classifies: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is an extra, and not of the development environment")
    transformers = pytest.importorskip("transformers", reason="transformers is an extra")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "좋다"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=len(words), num_labels=3, **sizes)
    torch.manual_seed(0)
    kind = transformers.BertForSequenceClassification if classifies else transformers.BertModel
    kind(config).save_pretrained(tmp_path)
    artifact = loading.load(tmp_path, model_format="huggingface")
    spec = describing.describe(artifact)
    rows, _ = payloads_v1.read('{"instances": ["good bad", "좋다"]}'.encode(), spec)
    matrix = describing.as_rows(rows, spec)
    found = artifact.model.predict(matrix)
    if classifies:
        assert np.array_equal(found, artifact.model.predict_proba(matrix).argmax(axis=1))
        assert np.allclose(artifact.model.predict_proba(matrix).sum(axis=1), 1)
    else:
        assert found.shape == (2, 16)
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert not np.allclose(found[0], found[1]) or classifies


def test_a_missing_library_names_the_extra(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/constants.pkl", b"")
    program = "import sys; sys.modules['torch'] = None\nfrom ondol.serving import loading\nimport pathlib\n"
    program += f"loading.load(pathlib.Path({str(tmp_path)!r}), model_format='pytorch')"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr
    assert "DependencyError" in said
    assert "'torch'" in said
