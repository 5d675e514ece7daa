"""KServe's named canaries, and the annotation that has a new model tried and judged: on a real data plane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LogisticRegression
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane

from ondol.backends.local.inference_service import reconcile
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats import inference_service
from ondol.records.rollout import Observation, Route
from ondol.rollout import controller, split
from ondol.store import observations, resources, rollouts, routes
from ondol.store.connection import Store

X = serving_tools.matrix(100, 3)
Y = (X[:, 0] > 0).astype(int)
FAR = X[abs(X[:, 0]) > 0.5][:1]  # a row about which no model is in doubt
Json = dict[str, Any]


@pytest.fixture
def plane(home: Settings, store: Store) -> Iterator[Plane]:
    with serving_tools.running(home, store) as plane:
        yield plane


def write(folder: Path, flip: bool = False) -> str:
    folder.mkdir()
    joblib.dump(LogisticRegression().fit(X, 1 - Y if flip else Y), folder / "model.joblib")
    return str(folder)


def predictor(uri: str, name: str = "", **more: Any) -> Json:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": uri}
    return {"model": model, **({"name": name} if name else {}), **more}


def manifest(stable: Json, canaries: dict[str, tuple[str, int]] | None = None, annotations: Json | None = None) -> Json:
    named = dict(annotations or {})
    spec: Json = {"predictor": stable}
    if canaries:
        named["serving.kserve.io/deploymentMode"] = "Standard"
        spec["canary"] = [
            {"predictor": predictor(uri, name), "trafficPercent": percent} for name, (uri, percent) in canaries.items()
        ]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "delay", "annotations": named},
        "spec": spec,
    }


def settle(plane: Plane, done: str = "Ready") -> Json:
    """Reconcile until nothing is left to do and a condition is true; return the status."""

    def settled() -> bool:
        changed = reconcile(plane.store, plane.settings)
        found = resources.get(plane.store, "InferenceService", "default", "delay").status
        states = {one["type"]: one["status"] for one in found.get("conditions", [])}
        return not changed and states.get(done) == "True"

    serving_tools.wait(settled)
    return resources.get(plane.store, "InferenceService", "default", "delay").status


def route_of(plane: Plane) -> Route:
    route = routes.get(plane.store, "delay")
    assert route is not None
    return route


def answered(plane: Plane, count: int = 60) -> dict[str, set[int]]:
    """Return what each arm answers to a row about which the models differ."""
    found: dict[str, set[int]] = {}
    for index in range(count):
        answer = plane.predict("delay", FAR.tolist(), x_ondol_unit=f"u{index}")
        found.setdefault(answer.headers["x-ondol-arm"], set()).add(answer.json()["predictions"][0])
    return found


def test_named_canaries_are_launched_in_the_dark_given_traffic_renamed_into_place_and_dropped(
    plane: Plane, tmp_path: Path
) -> None:
    one, two, three = (write(tmp_path / name, name == "two") for name in ("one", "two", "three"))
    right, wrong = {int(Y[(FAR[0] == X).all(axis=1)][0])}, {1 - int(Y[(FAR[0] == X).all(axis=1)][0])}
    resources.apply(plane.store, manifest(predictor(one, "v1"), {"v2": (two, 0)}))
    status = settle(plane, "CanaryPredictorReady")
    (said,) = status["canaryStatuses"]
    assert (said["name"], said["ready"], said["trafficPercent"]) == ("v2", True, 0)
    assert said["modelStatus"]["states"]["activeModelState"] == "Loaded"
    assert answered(plane) == {"stable": right}
    resources.apply(plane.store, manifest(predictor(one, "v1"), {"v2": (two, 30), "v3": (three, 30)}))
    settle(plane, "CanaryPredictorReady")
    serving_tools.wait(lambda: set(answered(plane)) == {"stable", "v2", "v3"})
    assert answered(plane) == {"stable": right, "v2": wrong, "v3": right}
    traffic = settle(plane)["components"]["predictor"]["traffic"]
    assert {share["tag"]: share["percent"] for share in traffic} == {"stable": 40, "v2": 30, "v3": 30}
    before = route_of(plane)
    resources.apply(plane.store, manifest(predictor(two, "v2"), {"v3": (three, 30)}))  # KServe's promotion: a rename
    status = settle(plane)
    assert [share["name"] for share in status["canaryStatuses"]] == ["v3"]
    after = route_of(plane)
    assert (after.stable, after.previous) == (before.candidate, before.stable)
    serving_tools.wait(lambda: answered(plane) == {"stable": wrong, "v3": right})
    resources.apply(plane.store, manifest(predictor(two, "v2")))
    assert "canaryStatuses" not in settle(plane)
    serving_tools.wait(lambda: answered(plane) == {"stable": wrong})


def test_a_canary_that_does_not_load_gets_no_traffic_and_says_why(plane: Plane, tmp_path: Path) -> None:
    one = write(tmp_path / "one")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.joblib").write_bytes(b"no model")
    resources.apply(plane.store, manifest(predictor(one, "v1"), {"v2": (str(tmp_path / "broken"), 50)}))
    settle(plane)
    serving_tools.wait(lambda: "lastFailureInfo" in settle(plane)["canaryStatuses"][0]["modelStatus"])
    status = settle(plane)
    conditions = {one["type"]: one["status"] for one in status["conditions"]}
    assert (conditions["CanaryPredictorReady"], conditions["PredictorReady"]) == ("False", "True")
    assert set(answered(plane)) == {"stable"}


def test_an_annotation_has_a_new_model_judged_and_the_judge_has_the_last_word(plane: Plane, tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "two", flip=True)
    policy = "{steps: [20, 100], judge: {metrics: [error_rate]}}"
    trial = {"ondol.io/rollout": policy, "ondol.io/unit": "header:x-user"}
    resources.apply(plane.store, manifest(predictor(one), annotations=trial))
    settle(plane)
    assert route_of(plane).unit == "header:x-user"
    stable = route_of(plane).stable
    resources.apply(plane.store, manifest(predictor(two), annotations=trial))

    def on_trial() -> bool:
        reconcile(plane.store, plane.settings)
        return bool(route_of(plane).rollout)

    serving_tools.wait(on_trial)
    rollout = rollouts.get(plane.store, route_of(plane).rollout)
    assert (rollout.policy.steps, route_of(plane).weight) == ((20.0, 100.0), 20.0)
    route = route_of(plane)
    arms = {f"u{index}": split.assign(route, f"u{index}") for index in range(400)}
    batch = [
        Observation(name, rollout.started_at, "delay", "d", arm, name, 500 if arm == "candidate" else 200, 1.0,
                    rollout.id, weight=20.0)
        for name, arm in arms.items()
    ]  # fmt: skip
    observations.append(plane.store, batch)
    serving_tools.wait(lambda: bool(controller.tick(plane.store)) or not route_of(plane).rollout)
    settle(plane)
    assert (route_of(plane).stable, route_of(plane).candidate) == (stable, "")  # the manifest does not undo it
    assert len(rollouts.of_service(plane.store, "delay")) == 1


def test_an_annotation_that_cannot_be_followed_is_refused_by_its_field() -> None:
    wrong = {
        "{steps: [10, 100], jugde: {}}": "unknown key 'jugde'",
        "{strategy: green}": "strategy",
        "[1, 2]": "mapping",
    }
    for text, said in wrong.items():
        with pytest.raises(errors.InputError, match=r"ondol\.io/rollout") as caught:
            inference_service.typed(manifest(predictor("s3://b/m"), annotations={"ondol.io/rollout": text}))
        assert said in caught.value.message
    both = manifest(predictor("s3://b/m", canaryTrafficPercent=10), annotations={"ondol.io/rollout": "{}"})
    with pytest.raises(errors.InputError, match="keep one"):
        inference_service.typed(both)
