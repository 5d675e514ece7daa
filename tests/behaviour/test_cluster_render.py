"""Manifests for a cluster, compared with the schemas of those who read them there, and the judge they ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from tests.behaviour.serving_tools import wait
from tests.conftest import ControlProcess, shared_folder

from ondol.backends.kubernetes import rendering
from ondol.base import errors
from ondol.cli import main as command_line
from ondol.formats import inference_service
from ondol.records.release import ModelManifest
from ondol.records.rollout import JudgePolicy, Rollout, Route
from ondol.rollout import controller
from ondol.store import releases, routes

SERVING = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: delay, namespace: mlops}
spec:
  predictor:
    minReplicas: 1
    maxReplicas: 4
    scaleTarget: 10
    model: {modelFormat: {name: sklearn}, storageUri: "s3://models/delay/1"}
"""
TRIED = SERVING.replace("delay/1", "delay/2")
CRDS = {
    "InferenceService": "serving.kserve.io_inferenceservices.yaml",
    "AnalysisTemplate": "argoproj.io_analysistemplates.yaml",
    "Canary": "flagger.app_crds.yaml",
    "MetricTemplate": "flagger.app_crds.yaml",
}


def trial(**policy: Any) -> rendering.Trial:
    chosen = JudgePolicy(**{"steps": (5.0, 25.0, 100.0), **policy})
    return rendering.Trial(yaml.safe_load(SERVING), yaml.safe_load(TRIED), chosen, "http://ondol:5000/", "rollout-1")


def schema_of(folder: Path, kind: str) -> Any:
    """Return a kind's schema; a field that it does not know is an error, as in a cluster's strict validation."""
    path = folder / CRDS[kind]
    if not path.exists():
        pytest.skip(f"needs {path.name}")
    for document in yaml.load_all(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if document and document["spec"]["names"]["kind"] == kind:
            return closed(
                next(one for one in document["spec"]["versions"] if one["served"])["schema"]["openAPIV3Schema"]
            )
    raise AssertionError(kind)


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(one) for key, one in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not is_open:
        made["additionalProperties"] = False
    if isinstance(made.get("properties"), dict) and "metadata" in made["properties"] and "spec" in made["properties"]:
        made["properties"]["metadata"] = {"type": "object"}
    return made


@pytest.mark.parametrize("form", list(rendering.FORMS))
def test_what_is_written_is_valid_where_it_is_read(form: str) -> None:
    folder = shared_folder("crds")
    for document in rendering.FORMS[form](trial()):
        schema = schema_of(folder, document["kind"])
        jsonschema.Draft7Validator(schema).validate(json.loads(json.dumps(document)))
        spoiled = {**document, "spec": {**document["spec"], "unheard": 1}}
        assert not jsonschema.Draft7Validator(schema).is_valid(spoiled)


def test_both_dialects_say_the_same_and_pass_kserves_own_rules() -> None:
    (standard,) = rendering.standard(trial())
    (canary,) = standard["spec"]["canary"]
    assert (standard["spec"]["predictor"]["name"], canary["predictor"]["name"]) == ("stable", "candidate")
    assert (canary["trafficPercent"], canary["predictor"]["model"]["storageUri"]) == (5, "s3://models/delay/2")
    assert standard["spec"]["predictor"]["model"]["storageUri"] == "s3://models/delay/1"
    assert "maxReplicas" not in canary["predictor"]
    (knative,) = rendering.knative(trial())
    assert knative["spec"]["predictor"]["canaryTrafficPercent"] == 5
    for made in (standard, knative):
        assert not [one for one in inference_service.read(made)[1] if not one.unsupported]


def test_a_dark_first_step_is_no_traffic_and_fractions_are_refused() -> None:
    assert rendering.flagger(trial(steps=(0.0, 10.0, 50.0, 100.0)))[1]["spec"]["analysis"]["stepWeights"] == [10, 50]
    with pytest.raises(errors.UnsupportedError, match=r"0\.5"):
        rendering.knative(trial(steps=(0.5, 100.0)))
    other = rendering.Trial(
        yaml.safe_load(SERVING.replace("name: delay", "name: other")), yaml.safe_load(TRIED), JudgePolicy(), "", ""
    )
    with pytest.raises(errors.InputError, match="'other'"):
        rendering.standard(other)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serving, tried = tmp_path / "serving.yaml", tmp_path / "tried.yaml"
    serving.write_text(SERVING)
    tried.write_text(TRIED)
    with pytest.raises(SystemExit) as ended:
        command_line.main(
            ["cluster", "render", str(serving), str(tried), "--as", "knative", "--as", "argo", "--rollout", "rollout-7"]
        )
    assert not ended.value.code
    made = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [one["kind"] for one in made] == ["InferenceService", "AnalysisTemplate"]
    web = made[1]["spec"]["metrics"][0]["provider"]["web"]
    assert web["url"] == "http://ondol:5000/api/ondol/rollouts/rollout-7/verdict"


def started(control: ControlProcess, service: str) -> Rollout:
    stable, candidate = (
        releases.put(control.store, service, ModelManifest(f"{service}{name}", "file:///x")).digest for name in "ab"
    )
    routes.put(control.store, Route(service, "model", stable))
    policy = JudgePolicy(metrics=("error_rate",), margin=0.05, min_requests=100)
    return controller.start(control.store, service, candidate, policy)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=120) as made:
        yield made


def test_a_clusters_controllers_ask_and_are_answered(control: ControlProcess, client: httpx.Client) -> None:
    """What Argo's web metric, Flagger's Prometheus client and Flagger's webhooks send, and what they look at."""
    rollout = started(control, "judged-elsewhere")
    base = f"{control.url}/api/ondol/rollouts/{rollout.id}"

    def ask(query: str) -> float:
        answer = client.get(f"{base}/prometheus/api/v1/query", params={"query": query})
        assert answer.status_code == 200, answer.text
        return float(answer.json()["data"]["result"][0]["value"][1])

    def post(*given: dict[str, Any]) -> Any:
        return client.post(f"{base}/observations", json={"observations": list(given)})

    assert (ask("vector(1)"), ask("ondol_rollout_harm"), ask(" ondol_rollout_verdict ")) == (1.0, 0.0, 0.0)
    assert client.get(f"{base}/prometheus/api/v1/query", params={"query": "up"}).json()["errorType"] == "bad_data"
    healthy = [
        {"id": f"h{index}", "arm": "candidate" if index % 10 == 0 else "stable", "status": 200, "latency_ms": 5.0,
         "weight": 10.0}
        for index in range(500)
    ]  # fmt: skip
    assert post(*healthy).json() == {"received": 500, "new": 500}
    assert post(*healthy[:7]).json() == {"received": 7, "new": 0}  # sent again, counted once
    verdict = client.get(f"{base}/verdict").json()
    assert (verdict["verdict"], verdict["value"], verdict["harm"]) == ("go_on", 0.0, 0.0)
    assert client.post(f"{base}/gates/promote").status_code == 409
    broken = [
        {"id": f"b{index}", "arm": "candidate", "status": 500, "latency_ms": 5.0, "weight": 10.0} for index in range(5)
    ]
    assert post(*broken).json()["new"] == 5
    wait(lambda: client.get(f"{base}/verdict").json()["verdict"] == "roll_back")
    verdict = client.get(f"{base}/verdict").json()
    assert (verdict["value"], verdict["harm"], ask("ondol_rollout_harm")) == (-1.0, 1.0, 1.0)
    assert client.post(f"{base}/gates/roll_back").status_code == 200
    assert client.post(f"{base}/gates/hold").status_code == 400
    for wrong, field in (
        ({**broken[0], "arm": "blue"}, "observations[0].arm"),
        ({**broken[0], "colour": 1}, "observations[0]"),
        ({**broken[0], "weight": 101.0}, "observations[0].weight"),
    ):
        answer = post(wrong)
        assert (answer.status_code, answer.json()["where"]) == (400, field)
    assert client.get(f"{control.url}/api/ondol/rollouts/nobody/verdict").status_code == 404
