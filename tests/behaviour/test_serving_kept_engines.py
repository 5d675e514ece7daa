"""Compiled engines that are kept: a restart answers the same, opens no model, and trusts nothing it did not check."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import matrix, wait
from tests.conftest import new_settings

from ondol.base import errors
from ondol.serving import describing, opening
from ondol.serving.artifacts import Artifact
from ondol.serving.engines import compiled
from ondol.serving.kept_engines import Kept, KeptEngines
from ondol.store import loads, releases
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

X = matrix(400, 6)
HOLES = np.where(matrix(400, 6, 1) > 1.5, np.nan, X)
LABELS = np.array(["no", "yes", "perhaps"], dtype=object)[(X[:, 0] > 0).astype(int) + (X[:, 1] > 1)]
NUMBERS = X[:, 0] * 3 + X[:, 1] ** 2
MODELS: dict[str, Any] = {
    "logistic": LogisticRegression().fit(X, LABELS),
    "regression": LinearRegression().fit(X, NUMBERS),
    "forest": RandomForestClassifier(20, random_state=0).fit(X, LABELS),
    "forest regressor": RandomForestRegressor(20, random_state=0).fit(X, NUMBERS),
    "tree": DecisionTreeRegressor(random_state=0).fit(X, NUMBERS),
    "boosting": GradientBoostingClassifier(n_estimators=10, random_state=0).fit(X, LABELS),
    "pipeline": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(HOLES, LABELS),
    "pipeline of trees": make_pipeline(SimpleImputer(), MinMaxScaler(), RandomForestClassifier(9, random_state=0)).fit(
        HOLES, LABELS
    ),
}


def kept_of(model: Any) -> Kept:
    spec = describing.describe(Artifact(model, "sklearn"))
    choice = compiled.choose(model, spec)
    assert not choice.engine.exact, choice.reason
    return Kept(spec, True, "sklearn", "", ("a note",), compiled.parts_of(choice.engine), choice.proof)


@pytest.mark.parametrize("name", MODELS)
def test_what_was_kept_answers_as_the_model_does(name: str, tmp_path: Path) -> None:
    model, engines = MODELS[name], KeptEngines(tmp_path / "engines")
    kept = kept_of(model)
    assert kept.parts is not None
    engines.put("sha256:0", "sklearn", "v1", kept)
    assert engines.find("sha256:1", "sklearn", "v1") is None
    assert engines.find("sha256:0", "sklearn", "v2") is None
    found = engines.find("sha256:0", "sklearn", "v1")
    assert found is not None
    assert found.parts is not None
    assert found.proof is not None
    assert (found.spec, found.notes) == (kept.spec, ("a note",))
    rows = matrix(300, 6, 2) * 3
    for plain in (True, False):
        engine = compiled.of_parts(found.parts, plain=plain)
        assert not found.proof.trouble(engine)
        for part in (rows[:1], rows[:50], rows):
            theirs, ours = model.predict(part), engine.predict(part)
            assert ours.dtype.kind == theirs.dtype.kind
            assert (np.allclose(ours, theirs, 1e-12, 1e-12)) if ours.dtype.kind == "f" else (ours == theirs).all()
            if hasattr(model, "predict_proba"):
                assert np.abs(engine.predict_proba(part) - model.predict_proba(part)).max() < 1e-12


def test_the_plain_walk_sends_missing_values_where_the_trees_do() -> None:
    model = RandomForestClassifier(20, random_state=0).fit(HOLES, LABELS)
    parts = compiled.parts_of(compiled.compile_model(model) or pytest.fail("not compiled"))
    assert parts is not None
    engine = compiled.of_parts(parts, plain=True)
    assert (engine.predict(HOLES) == model.predict(HOLES)).all()
    assert (engine.predict_proba(HOLES) == model.predict_proba(HOLES)).all()


PROGRAM = """
import sys
from pathlib import Path
from tests.conftest import new_settings
from ondol.serving import opening
from ondol.serving.kept_engines import KeptEngines
from ondol.store import releases
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

home = new_settings(Path(sys.argv[1]))
with Store(home.database) as store:
    release = releases.get(store, sys.argv[2])
    engines = KeptEngines(home.home / "engines")
    model = opening.load_release(store, Blobs(home.blobs), release, engines=engines)
print("sklearn" in sys.modules, "scipy" in sys.modules, model.choice.reason)
"""


@pytest.mark.slow
def test_the_second_start_opens_nothing_and_distrusts_what_does_not_fit(tmp_path: Path) -> None:
    home = new_settings(tmp_path)
    with Store(home.database) as store:
        release = serving_tools.release(store, home, "m", MODELS["forest"], tmp_path / "m")
        engines = KeptEngines(home.home / "engines")

        def load(**chosen: Any) -> opening.Model:
            return opening.load_release(store, Blobs(home.blobs), release, engines=engines, **chosen)

        assert load().choice.reason == "same as the original on 256 rows"
        again = load()
        assert again.choice.reason.endswith("by its recorded answers")
        assert again.faster is not None
        assert again.faster().choice.reason == again.choice.reason
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path), release.digest], capture_output=True, text=True, timeout=280
        )
        assert done.stdout.startswith("False False same as"), (done.stdout, done.stderr)
        with pytest.raises(errors.RefusedError, match="safe mode opens no pickle"):
            load(safe=True)

        (file,) = (home.home / "engines").iterdir()
        whole = file.read_bytes()
        for broken in (
            whole[:-1],
            whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:],
            b"",
            whole[:20],
            b"\x80\x04.",
        ):
            file.write_bytes(broken)
            assert load().choice.reason == "same as the original on 256 rows"
            assert file.read_bytes() == whole
        # One whose checksum is right and whose answers are another model's is found by asking it.
        manifest = releases.model_manifest(release)
        kept = engines.find(manifest.artifact, manifest.format, "v1")
        assert kept is not None
        assert kept.proof is not None
        flipped = replace(kept.proof, predictions=kept.proof.predictions[::-1])
        engines.put(manifest.artifact, manifest.format, "v1", replace(kept, proof=flipped))
        assert load().choice.reason == "same as the original on 256 rows"
        # The files themselves are still checked.
        blob = Blobs(home.blobs).path(manifest.artifact)
        model = blob / "model.joblib"
        model.chmod(0o600)
        model.write_bytes(b"something else")
        with pytest.raises(errors.InputError, match="not the ones released"):
            load()


@pytest.mark.slow
def test_a_restarted_data_plane_answers_the_same_and_gets_its_faster_engine(tmp_path: Path) -> None:
    home = new_settings(tmp_path)
    rows = matrix(200, 6, 3).tolist()
    expected = MODELS["forest"].predict(rows).tolist()
    with Store(home.database) as store:
        with serving_tools.running(home, store) as plane:
            made = plane.serve("m", MODELS["forest"], tmp_path / "m")
            assert plane.predict("m", rows).json()["predictions"] == expected
            assert plane.stop() == 0
        with serving_tools.running(home, store) as plane:
            wait(lambda: plane.predict("m", rows[:1]).status_code == 200)
            (load,) = [one for one in loads.every(store, "m") if one.release == made.digest]
            assert load.message.endswith("by its recorded answers")
            log = home.logs / "dataplane.log"
            found: list[bool] = []

            def asked_often() -> bool:
                found.append(plane.predict("m", rows).json()["predictions"] == expected)
                return "m: goes on with a faster engine" in log.read_text() and len(found) >= 20

            wait(asked_often)
            assert all(found)
