"""InferenceService manifests: read, refused with all reasons at once, and reconciled into what is served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from tests.behaviour import serving_tools
from tests.behaviour.kubernetes_tools import GUIDE
from tests.behaviour.serving_tools import Plane

from ondol.backends.local.inference_service import reconcile
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats import inference_service
from ondol.formats.resource.documents import documents
from ondol.store import resources, routes
from ondol.store.connection import Store


def manifest(uri: str, name: str = "delay", **predictor: Any) -> dict[str, Any]:
    """Return a small manifest."""
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": uri}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {"model": model, **predictor}},
    }


def test_the_guides_manifest_is_read_as_it_stands() -> None:
    (document,) = documents(GUIDE)
    service = inference_service.typed(document)
    predictor = service.predictor
    assert predictor.model is not None
    assert (service.name, service.namespace, predictor.model.format) == ("sklearn-model", "kubeflow", "sklearn")
    assert (predictor.min_replicas, predictor.max_replicas, predictor.scale_target) == (1, 10, 10)
    assert predictor.model.container.limits["memory"] == "512Mi"


def test_every_problem_is_said_at_once() -> None:
    bad = manifest("s3://bucket/model", minReplicas=3, maxReplicas=2, tolerations=[], foo=1)
    bad["spec"]["transformer"] = {"containers": []}
    bad["metadata"]["name"] = "Bad_Name"
    with pytest.raises(errors.InputError) as caught:
        inference_service.typed(bad, "serving.yaml")
    text = caught.value.message
    for path in ("metadata.name", "spec.transformer", "spec.predictor.maxReplicas", "spec.predictor.tolerations"):
        assert path in text
    assert "spec.predictor.foo: unknown field" in text


def test_what_is_only_not_honoured_is_unsupported() -> None:
    refused = manifest("s3://bucket/model")
    refused["spec"]["predictor"]["tolerations"] = []
    with pytest.raises(errors.UnsupportedError, match="tolerations"):
        inference_service.typed(refused)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    where=st.sampled_from(["metadata", "spec", "predictor", "model", "modelFormat", "env", "resources"]),
    value=json_values,
)
def test_no_manifest_whatever_crashes_the_reader(where: str, value: Any) -> None:
    broken = manifest("x")
    model = broken["spec"]["predictor"]["model"]
    holders = {"metadata": broken, "spec": broken, "predictor": broken["spec"], "model": broken["spec"]["predictor"]}
    holders.get(where, model)[where] = value
    service, problems = inference_service.read(broken)
    assert (service is None) == bool(problems)


X = serving_tools.matrix(100, 3)
Y = (X[:, 0] > 0).astype(int)


def write(folder: Path, flip: bool = False) -> str:
    """Write a model and return its URI."""
    folder.mkdir(parents=True)
    joblib.dump(LogisticRegression().fit(X, 1 - Y if flip else Y), folder / "model.joblib")
    return f"file://{folder}"


@pytest.fixture
def plane(home: Settings, store: Store) -> Iterator[Plane]:
    with serving_tools.running(home, store) as plane:
        yield plane


def settle(plane: Plane, name: str = "delay") -> dict[str, Any]:
    """Reconcile until the status stays, and return it."""

    def done() -> bool:
        if reconcile(plane.store, plane.settings):
            return False
        one = resources.get(plane.store, "InferenceService", "default", name)
        waiting = one.status.get("modelStatus", {}).get("transitionStatus") in (None, "InProgress")
        return one.status.get("observedGeneration") == one.generation and not waiting

    serving_tools.wait(done)
    return resources.get(plane.store, "InferenceService", "default", name).status


def test_from_a_file_to_an_answer_and_on_to_the_next_model(plane: Plane, tmp_path: Path) -> None:
    resources.apply(plane.store, manifest(write(tmp_path / "one")))
    status = settle(plane)
    assert status["url"] == f"{plane.settings.data.url}/v1/models/delay:predict"
    assert status["modelStatus"]["transitionStatus"] == "UpToDate"
    assert {one["type"]: one["status"] for one in status["conditions"]}["Ready"] == "True"
    assert plane.predict("delay", X[:9].tolist()).json()["predictions"] == Y[:9].tolist()
    first = routes.get(plane.store, "delay")
    assert first is not None

    resources.apply(plane.store, manifest(write(tmp_path / "two", flip=True)))
    settle(plane)
    second = routes.get(plane.store, "delay")
    assert second is not None
    assert (second.previous, second.candidate) == (first.stable, "")
    serving_tools.wait(lambda: plane.predict("delay", X[:9].tolist()).json()["predictions"] == (1 - Y[:9]).tolist())

    resources.delete(plane.store, "InferenceService", "default", "delay")
    reconcile(plane.store, plane.settings)
    serving_tools.wait(lambda: plane.predict("delay", X[:1].tolist()).status_code == 404)


def test_a_model_that_does_not_load_leaves_the_old_one_serving(plane: Plane, tmp_path: Path) -> None:
    resources.apply(plane.store, manifest(write(tmp_path / "good")))
    settle(plane)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.joblib").write_bytes(b"\x80\x04 this is no model")
    resources.apply(plane.store, manifest(f"file://{broken}"))
    status = settle(plane)
    assert status["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
    assert "model.joblib" in status["modelStatus"]["lastFailureInfo"]["message"]
    assert plane.predict("delay", X[:5].tolist()).json()["predictions"] == Y[:5].tolist()
    assert plane.client.get("/readyz").status_code == 200

    resources.apply(plane.store, manifest(write(tmp_path / "better", flip=True)))
    assert settle(plane)["modelStatus"]["transitionStatus"] == "UpToDate"


def test_a_canary_percent_splits_and_its_removal_promotes(plane: Plane, tmp_path: Path) -> None:
    resources.apply(plane.store, manifest(write(tmp_path / "one")))
    settle(plane)
    two = write(tmp_path / "two", flip=True)
    resources.apply(plane.store, manifest(two, canaryTrafficPercent=30))
    status = settle(plane)
    shares = {one["tag"]: one["percent"] for one in status["components"]["predictor"]["traffic"]}
    assert shares == {"stable": 70, "candidate": 30}
    serving_tools.wait(lambda: "candidate" in _arms(plane))
    resources.apply(plane.store, manifest(two, canaryTrafficPercent=0))
    settle(plane)
    serving_tools.wait(lambda: _arms(plane) == {"stable"})
    resources.apply(plane.store, manifest(two))
    settle(plane)
    serving_tools.wait(lambda: plane.predict("delay", X[:9].tolist()).json()["predictions"] == (1 - Y[:9]).tolist())


def _arms(plane: Plane) -> set[str]:
    return {plane.predict("delay", X[:1].tolist()).headers["x-ondol-arm"] for _ in range(40)}


def test_missing_files_are_said_and_waited_for(plane: Plane, tmp_path: Path) -> None:
    resources.apply(plane.store, manifest(f"file://{tmp_path / 'later'}"))
    status = settle(plane)
    assert status["modelStatus"]["transitionStatus"] == "InvalidSpec"
    assert "later" in status["modelStatus"]["lastFailureInfo"]["message"]
    write(tmp_path / "later")
    serving_tools.wait(lambda: settle(plane)["modelStatus"]["transitionStatus"] == "UpToDate")


def test_what_moved_the_route_afterwards_is_not_undone(plane: Plane, tmp_path: Path) -> None:
    resources.apply(plane.store, manifest(write(tmp_path / "one")))
    settle(plane)
    other = plane.release("delay", LogisticRegression().fit(X, np.roll(Y, 1)), tmp_path / "other")
    before = routes.get(plane.store, "delay")
    assert before is not None
    routes.put(plane.store, replace(before, stable=other.digest, previous=before.stable))
    plane.wait_for("delay", other.digest)
    settle(plane)
    after = routes.get(plane.store, "delay")
    assert after is not None
    assert after.stable == other.digest


def ondol(home: Settings, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line in a home."""
    return subprocess.run(
        [sys.executable, "-m", "ondol.cli.main", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ONDOL_HOME": str(home.home)},
        cwd=home.project,
    )


def test_kubectls_habits_on_the_command_line(home: Settings) -> None:
    text = json.dumps(manifest("file:///nowhere"))
    created = ondol(home, "apply", "-f", "-", text=text)
    assert created.stdout == "inferenceservice.serving.kserve.io/delay created\n"
    assert ondol(home, "apply", "-f", "-", text=text).stdout.endswith("/delay unchanged\n")
    changed = json.dumps(manifest("file:///elsewhere"))
    assert ondol(home, "apply", "-f", "-", text=changed).stdout.endswith("/delay configured\n")
    listed = json.loads(ondol(home, "get", "isvc", "--json").stdout)
    assert [one["metadata"]["name"] for one in listed["items"]] == ["delay"]
    assert "delay" in ondol(home, "get", "isvc").stdout
    assert "not reconciled yet" in ondol(home, "describe", "isvc", "delay").stdout
    assert ondol(home, "delete", "isvc", "delay").stdout == 'inferenceservice.serving.kserve.io "delay" deleted\n'
    gone = ondol(home, "get", "isvc", "delay")
    assert (gone.returncode, "NOF-006" in gone.stderr) == (1, True)


def test_nothing_of_a_file_is_applied_when_a_part_is_refused(home: Settings) -> None:
    bad = manifest("x", name="other", tolerations=[])
    text = f"{json.dumps(manifest('file:///x'))}\n---\n{json.dumps(bad)}"
    refused = ondol(home, "apply", "-f", "-", text=text)
    assert refused.returncode == 2
    assert "spec.predictor.tolerations" in refused.stderr
    assert json.loads(ondol(home, "get", "isvc", "--json").stdout)["items"] == []
