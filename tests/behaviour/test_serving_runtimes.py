"""Serving runtimes of the user's own: who is chosen for a model, what it is started with, what is said when none is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.behaviour import kubernetes_tools, serving_tools
from tests.behaviour.serving_tools import Plane
from tests.behaviour.test_inference_service import X, Y, settle, write

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats import inference_service, serving_runtime
from ondol.formats.inference_service import Model
from ondol.formats.kserve import kinds, placeholders
from ondol.formats.serving_runtime import ModelFormat, ServingRuntime
from ondol.store import resources
from ondol.store.connection import Store

SERVERS = Path(__file__).with_name("samples") / "servers"
RUNTIME = """
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata: {name: team-server, namespace: default}
spec:
  supportedModelFormats:
    - {name: sklearn, version: "1", autoSelect: true, priority: 1}
    - {name: team-format, autoSelect: true}
  protocolVersions: [v1]
  containers:
    - name: kserve-container
      image: team/server:v1
      args: ["--model_name={{.Name}}", --model_dir=/mnt/models, "--team={{ .Labels.team }}{{.Labels.none}}"]
      env: [{name: GIVEN_A, value: "{{.Namespace}}"}, {name: GIVEN_B, value: base}]
      readinessProbe: {httpGet: {path: /ready}}
      securityContext: {allowPrivilegeEscalation: false}
"""
SERVICE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: delay, namespace: default, labels: {team: search}}
spec:
  predictor:
    model:
      modelFormat: {name: %s}
      storageUri: "%s"
      args: [--more=yes]
      env: [{name: GIVEN_B, value: own}, {name: GIVEN_C, value: $(GIVEN_A)}]
"""
Json = dict[str, Any]


def runtime(**spec: Any) -> Json:
    found: Json = yaml.safe_load(RUNTIME)
    found["spec"] |= spec
    return found


def service(form: str = "team-format", at: Path | str = "models/x", **model: Any) -> Json:
    found: Json = yaml.safe_load(SERVICE % (form, at))
    found["spec"]["predictor"]["model"] |= model
    return found


@pytest.fixture
def plane(home: Settings, store: Store) -> Iterator[Plane]:
    shutil.copytree(SERVERS, home.project, dirs_exist_ok=True)
    (home.project / "ondol.yaml").write_text('name: x\nimages: {"team/server:*": {command: [python, model_server.py]}}')
    with serving_tools.running(home, store) as plane:
        yield plane


def test_a_model_is_served_by_the_runtime_that_has_its_format(plane: Plane, tmp_path: Path) -> None:
    resources.apply(plane.store, runtime())
    resources.apply(plane.store, service(at=write(tmp_path / "model")))
    status = settle(plane)
    assert status["servingRuntimeName"] == "team-server"
    assert plane.predict("delay", X[:5].tolist()).json() == {"predictions": Y[:5].tolist(), "by": "delay"}
    said = plane.client.post("/v1/models/delay:predict", json={"options": True}).json()
    folder = said["options"].pop("model_dir")
    assert Path(folder, "model.joblib").is_file()
    assert said == {
        "path": "/v1/models/delay:predict",
        "options": {"model_name": "delay", "team": "search", "more": "yes"},
        "env": {"GIVEN_A": "default", "GIVEN_B": "own", "GIVEN_C": "default"},
    }
    resources.apply(plane.store, service(at=tmp_path / "model" / "model.joblib", env=[]))
    settle(plane)

    def without_env() -> Json:
        found: Json = plane.client.post("/v1/models/delay:predict", json={"options": True}).json()
        return found if found.get("env") == {"GIVEN_A": "default", "GIVEN_B": "base"} else {}

    serving_tools.wait(lambda: bool(without_env()))
    single = Path(without_env()["options"]["model_dir"])
    assert [one.name for one in single.iterdir()] == ["model.joblib"], "a single file is in the folder, as in KServe's"


def test_a_runtime_without_a_rule_for_its_image_is_named_and_no_engine_steps_in(plane: Plane, tmp_path: Path) -> None:
    resources.apply(plane.store, runtime(containers=[{"name": "kserve-container", "image": "team/unknown:v1"}]))
    resources.apply(plane.store, service("sklearn", write(tmp_path / "model")))
    model = settle(plane)["modelStatus"]
    assert (model["transitionStatus"], model["states"]["activeModelState"]) == ("InvalidSpec", "Pending")
    assert "ServingRuntime 'team-server'" in model["lastFailureInfo"]["message"]
    assert "'team/unknown:v1'" in model["lastFailureInfo"]["message"]


def test_a_service_waits_for_the_runtime_that_it_names(plane: Plane, tmp_path: Path) -> None:
    resources.apply(plane.store, service(at=write(tmp_path / "model"), runtime="team-server"))
    found = settle(plane)["modelStatus"]
    assert (found["transitionStatus"], found["lastFailureInfo"]["reason"]) == ("InvalidSpec", "RuntimeNotRecognized")
    resources.apply(plane.store, runtime(supportedModelFormats=[{"name": "team-format"}]))
    serving_tools.wait(lambda: settle(plane)["modelStatus"]["transitionStatus"] == "UpToDate")
    assert plane.predict("delay", X[:1].tolist()).json()["by"] == "delay"


def one(name: str, namespace: str = "", priority: int | None = 1, created: float = 1.0, **more: Any) -> ServingRuntime:
    formats = (ModelFormat("sklearn", more.pop("version", ""), more.pop("auto", True), priority),)
    return ServingRuntime(
        name, namespace, formats, more.pop("protocols", ("v1",)), more.pop("disabled", False), {}, created
    )


def chosen(*runtimes: ServingRuntime, form: str = "sklearn", protocol: str = "", **model: Any) -> str:
    asked = Model(form, protocol=protocol or "v1", declared_protocol=protocol, **model)
    found = serving_runtime.choose(asked, "default", runtimes)
    return found.name if found else "built-in"


def test_the_choice_is_kserves() -> None:
    assert chosen() == "built-in"
    assert (
        chosen(one("cluster", priority=None), one("elsewhere", "other"), one("off", "default", disabled=True))
        == "built-in"
    )
    assert chosen(one("cluster", priority=3), one("near", "default", priority=None)) == "near", (
        "the namespace's own first"
    )
    assert chosen(one("a", "default", 1), one("b", "default", 2)) == "b"
    assert chosen(one("old", created=1), one("new", created=2)) == "new"
    assert chosen(one("v2-only", protocols=("v2",), priority=9)) == "built-in", "a model without a protocol speaks v1"
    assert chosen(one("v2", protocols=("v2",)), protocol="v2") == "built-in", "KServe's MLServer has priority 2"
    assert chosen(one("v2", protocols=("v2",), priority=2), protocol="v2") == "v2"
    assert chosen(one("x", version="1"), version="2") == "built-in"
    assert chosen(one("kserve-sklearnserver", "default", 9)) == "built-in"
    assert chosen(one("manual", auto=False)) == "built-in"
    assert chosen(one("manual", auto=False), runtime="manual") == "manual"
    assert chosen(one("manual", priority=9), runtime="kserve-sklearnserver") == "built-in"


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ({"form": "pmml"}, "INP-562"),
        ({"runtime": "gone"}, "INP-560"),
        ({"runtime": "off"}, "INP-561"),
        ({"runtime": "mine", "protocol": "v2"}, "INP-562"),
        ({"runtime": "mine", "form": "onnx"}, "INP-562"),
    ],
)
def test_what_cannot_be_chosen_is_said(model: Json, code: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        chosen(one("mine"), one("off", disabled=True), **model)
    assert caught.value.code == code


def test_the_door_takes_what_an_applied_runtime_serves_and_lists_it(store: Store) -> None:
    isvc, runtimes = kubernetes_tools.ISVC, "/apis/serving.kserve.io/v1alpha1"
    with kubernetes_tools.door(store) as url, kubernetes_tools.client(url) as http:
        refused = http.post(isvc, json=service())
        assert refused.status_code == 422
        fields = {cause["field"] for cause in refused.json()["details"]["causes"]}
        model = "spec.predictor.model"
        assert fields == {f"{model}.modelFormat.name", f"{model}.args"} | {f"{model}.env[{n}].name" for n in (0, 1)}
        cluster = {**runtime(), "kind": "ClusterServingRuntime", "metadata": {"name": "team-server"}}
        made = http.post(f"{runtimes}/clusterservingruntimes", json=cluster)
        assert made.status_code == 201, made.text
        assert "securityContext" in made.headers["warning"]
        assert http.post(isvc, json=service()).status_code == 201
        table = http.get(
            f"{runtimes}/clusterservingruntimes",
            headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
        ).json()
        assert table["rows"][0]["cells"][:4] == ["team-server", None, "sklearn,team-format", "kserve-container"]
        off = http.put(f"{runtimes}/clusterservingruntimes/team-server", json=_disabled(made.json()))
        assert off.status_code == 200
        named = service(runtime="team-server")
        named["metadata"]["name"] = "second"
        assert "is disabled" in http.post(isvc, json=named).text


def _disabled(found: Json) -> Json:
    return {**found, "spec": {**found["spec"], "disabled": True}}


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"multiModel": True}, "spec.multiModel"),
        ({"workerSpec": {}}, "spec.workerSpec"),
        ({"containers": [{"name": "main"}]}, "spec.containers"),
        ({"containers": [{"name": "kserve-container"}, {"name": "sidecar"}]}, "spec.containers"),
        ({"containers": [{"name": "kserve-container", "args": ["{{ .Name | upper }}"]}]}, "spec.containers[0]"),
    ],
)
def test_what_a_runtime_cannot_have_here_is_refused(spec: Json, path: str) -> None:
    assert [problem.path for problem in kinds.check(runtime(**spec)).problems] == [path]


def test_an_engine_keeps_its_name() -> None:
    found = kinds.check({**runtime(), "metadata": {"name": "kserve-sklearnserver"}})
    assert (found.problems, len(found.notes)) == ([], 2)


@given(st.text(), st.text(), st.text())
def test_texts_around_placeholders_stay(before: str, name: str, after: str) -> None:
    whole = json.dumps([before, after])
    if "{{" not in whole and "}}" not in whole and not before.endswith("{") and not after.startswith("}"):
        assert placeholders.fill([before + "{{.Name}}" + after], {"name": name}) == [before + name + after]


def test_a_model_of_a_runtime_needs_no_files() -> None:
    manifest = service()
    del manifest["spec"]["predictor"]["model"]["storageUri"]
    assert inference_service.read(manifest, ["spec.predictor"])[1] == []
