"""A model from another scikit-learn runs in an environment of its own, and answers as it did there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import zlib
from pathlib import Path

import joblib
import pytest
from sklearn.linear_model import LogisticRegression
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane
from tests.behaviour.test_inference_service import X, Y, manifest, settle

from ondol.base import environments
from ondol.base.environments import Need
from ondol.base.settings import Settings
from ondol.serving.workers import recorded
from ondol.store import resources
from ondol.store.connection import Store

OLD = "1.5.2"
TRAIN = """
import json, sys, joblib, numpy as np
from sklearn.ensemble import RandomForestClassifier
X, y = np.array(json.loads(sys.argv[2])), json.loads(sys.argv[3])
model = RandomForestClassifier(5, random_state=0).fit(X, y)
joblib.dump(model, sys.argv[1])
print(json.dumps(model.predict_proba(X[:20]).tolist()))
"""


def test_what_the_files_say_decides(tmp_path: Path) -> None:
    joblib.dump(LogisticRegression().fit(X, Y), tmp_path / "model.joblib")
    assert recorded.need_of(tmp_path, "sklearn") is None, "ours"
    (tmp_path / "model.joblib").write_bytes(b"\x80\x04\x95_sklearn_version\x94\x8c\x051.2.1\x94u")
    need = recorded.need_of(tmp_path, "sklearn")
    assert need is not None
    assert need.packages[0] == "scikit-learn==1.2.1"

    (tmp_path / "model.joblib").write_bytes(zlib.compress(b"\x80\x04\x95_sklearn_version\x94\x8c\x051.2.1\x94u"))
    assert recorded.need_of(tmp_path, "sklearn") == need, "joblib's compression hides nothing"

    logged = tmp_path / "logged"
    logged.mkdir()
    (logged / "requirements.txt").write_text("mlflow==2.9.0\nscikit-learn==1.2.1  # pinned\n-i https://x\nscipy==1.0\n")
    (logged / "MLmodel").write_text("flavors: {sklearn: {sklearn_version: 1.2.1}, python_function: {}}")
    need = recorded.need_of(logged, "mlflow")
    assert need is not None
    assert need.packages[:3] == ("mlflow==2.9.0", "scikit-learn==1.2.1", "scipy==1.0")
    (logged / "MLmodel").write_text("flavors: {python_function: {}}")
    (logged / "requirements.txt").write_text("mlflow==2.9.0\n")
    (logged / "python_env.yaml").write_text("python: 3.9.2\n")
    need = recorded.need_of(logged, "mlflow")
    assert need is not None
    assert need.python == "3.9"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_model_of_another_version_is_served_from_its_own_environment(
    home: Settings, store: Store, tmp_path: Path
) -> None:
    need = Need((f"scikit-learn=={OLD}", *recorded.OURS))
    old = environments.ensure(need, home.home, print)
    (tmp_path / "model").mkdir()
    command = [
        old.python,
        "-c",
        TRAIN,
        str(tmp_path / "model" / "model.joblib"),
        json.dumps(X.tolist()),
        json.dumps(Y.tolist()),
    ]
    expected = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    with serving_tools.running(home, store) as plane:
        _serve_from_elsewhere(plane, tmp_path / "model", expected)


def _serve_from_elsewhere(plane: Plane, model: Path, expected: list[list[float]]) -> None:
    service = manifest(f"file://{model}")
    service["spec"]["predictor"]["model"]["env"] = [{"name": "PREDICT_PROBA", "value": "true"}]
    resources.apply(plane.store, service)
    assert settle(plane)["modelStatus"]["transitionStatus"] == "UpToDate"
    assert plane.predict("delay", X[:20].tolist()).json()["predictions"] == expected
    wrong = plane.predict("delay", [[1, 2]])
    assert (wrong.status_code, wrong.json()["field"]) == (400, "instances[0]"), "checked here, not there"
    engine = plane.client.get("/v2/models/delay").json()["parameters"]["engine"]
    assert f"scikit-learn {OLD}" in engine["reason"]
    (process,) = _children(plane.process.pid)
    os.kill(process, signal.SIGKILL)
    serving_tools.wait(lambda: plane.predict("delay", X[:20].tolist()).json().get("predictions") == expected)
    (process,) = _children(plane.process.pid)
    os.kill(plane.process.pid, signal.SIGKILL)
    serving_tools.wait(lambda: not Path(f"/proc/{process}").exists())


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(entry.name))
    return found
