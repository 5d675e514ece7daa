"""What no field shows by itself: the rules of KServe's validating webhooks in their words, and this backend's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.formats.kserve import kinds
from ondol.formats.resource import openapi

Json = dict[str, Any]
STANDARD = {"serving.kserve.io/deploymentMode": "Standard"}


def model(**own: Any) -> Json:
    return {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://b/m", **own}


def service(annotations: Json | None = None, predictor: Json | None = None, **spec: Any) -> Json:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "delay", "annotations": annotations or {}},
        "spec": {"predictor": predictor or {"name": "v1", "model": model()}, **spec},
    }


def canary(name: str = "v2", percent: int = 10, **predictor: Any) -> Json:
    return {"predictor": {"name": name, "model": model(), **predictor}, "trafficPercent": percent}


def graph(nodes: Json) -> Json:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": "g"},
        "spec": {"nodes": nodes},
    }


def node(kind: str, *steps: Json) -> Json:
    return {"routerType": kind, "steps": list(steps)}


A, B = {"serviceName": "a"}, {"serviceName": "b"}
FIXED: list[Any] = [{"maxReplicas": 2}, {"scaleTarget": 1}, {"scaleMetric": "cpu"}, {"autoScaling": {"metrics": []}}]
WRONG: list[tuple[Json, str, str]] = [
    (service(canary=[canary()]), "spec.canary", "canary is only supported in Standard deployment mode"),
    (service(STANDARD, canary=[canary("")]), "spec.canary[0].predictor.name", "canary[0] predictor.name is required"),
    (
        service(STANDARD, canary=[canary(), canary()]),
        "spec.canary[1].predictor.name",
        'canary predictor.name "v2" is duplicated',
    ),
    (
        service(STANDARD, canary=[canary("v1")]),
        "spec.canary[0].predictor.name",
        'canary predictor.name "v1" conflicts with stable predictor name',
    ),
    (
        service(STANDARD, canary=[canary(percent=60), canary("v3", 41)]),
        "spec.canary",
        "sum of canary trafficPercent values (101) must be <= 100",
    ),
    (
        service(STANDARD, canary=[canary(percent=101)]),
        "spec.canary[0].trafficPercent",
        "must be a whole number from 0 to 100, not 101",
    ),
    *(
        (
            service(STANDARD, canary=[canary(**fixed)]),
            f"spec.canary[0].predictor.{next(iter(fixed))}",
            f'canary "v2" must not set {next(iter(fixed))} (canary uses fixed replicas)',
        )
        for fixed in FIXED
    ),
    (
        service(STANDARD, canary=[canary(minReplicas=2)]),
        "spec.canary[0].predictor.minReplicas",
        'canary "v2" minReplicas (2) must not exceed stable predictor minReplicas (1)',
    ),
    (
        service(predictor={"model": model(), "minReplicas": 3, "maxReplicas": 2}),
        "spec.predictor.maxReplicas",
        "'MinReplicas' cannot be greater than MaxReplicas: 3 > 2",
    ),
    (
        service(predictor={"model": model(), "sklearn": {"storageUri": "x"}}),
        "spec.predictor",
        "must have exactly one of: model, containers",
    ),
    (
        service(STANDARD, predictor={"model": model(), "scaleMetric": "rps"}),
        "spec.predictor.scaleMetric",
        "[rps] is not a supported metric",
    ),
    (
        service(predictor={"model": model(env=[{"name": "PYTHONPATH", "value": "/x"}])}),
        "spec.predictor.model.env[0]",
        "PYTHONPATH is not allowed",
    ),
    (
        service(predictor={"model": model(env=[{"name": "PREDICT_PROBA"}, {"name": "PREDICT_PROBA"}])}),
        "spec.predictor.model.env[1]",
        "name 'PREDICT_PROBA' is there twice",
    ),
    (
        service({"serving.kserve.io/autoscalerClass": "magic"}),
        "metadata.annotations.serving.kserve.io/autoscalerClass",
        "[magic] is not a supported autoscaler class type",
    ),
    (graph({"start": node("Sequence", A)}), "spec.nodes", "root node not found"),
    (
        graph({"root": node("Splitter", {**A, "weight": 30}, {**B, "weight": 60})}),
        "spec.nodes.root.steps",
        "the sum of traffic weights for all routing targets should be 100",
    ),
    (graph({"root": node("Splitter", A)}), "spec.nodes.root.steps[0].weight", "Route[a] missing the 'Weight'"),
    (
        graph({"root": node("Sequence", {**A, "name": "x"}, {**B, "name": "x"})}),
        "spec.nodes.root.steps[1].name",
        'contains more than one step with name "x"',
    ),
    (graph({"root": node("Sequence", {})}), "spec.nodes.root.steps[0]", "does not specify an inference target"),
    (
        graph({"root": node("Sequence", {**A, "nodeName": "root"})}),
        "spec.nodes.root.steps[0]",
        "specifies more than one of nodeName, serviceName, serviceUrl",
    ),
    (graph({"root": node("Sequence", {"nodeName": "x"})}), "spec.nodes.root.steps[0].nodeName", "there is no node 'x'"),
    (
        graph({"root": node("Sequence", {"nodeName": "x"}), "x": node("Sequence", {"nodeName": "root"})}),
        "spec.nodes.x",
        "leads back to itself",
    ),
    (
        graph({"root": node("Switch", {**A, "condition": "a|@dig:b"})}),
        "spec.nodes.root.steps[0].condition",
        "'@dig' is not supported",
    ),
]


@pytest.mark.parametrize(("manifest", "path", "text"), WRONG)
def test_the_rule_names_the_field_in_kserves_words(manifest: Json, path: str, text: str) -> None:
    found = {problem.path: problem.reason for problem in kinds.check(manifest).problems}
    assert text in found.get(path, ""), found


def test_a_right_canary_is_only_refused_where_it_is_not_honoured() -> None:
    right = service(STANDARD, canary=[canary(percent=0), canary("v3", 30, minReplicas=1)])
    assert all(problem.unsupported for problem in kinds.check(right).problems)


def test_what_has_no_effect_is_noted_once_and_a_null_is_nothing() -> None:
    manifest = service(
        {"autoscaling.knative.dev/target": "5", "mine": "x"},
        {"model": model(modelFormat={"name": "sklearn", "version": "1"}, args=None), "tolerations": None},
    )
    found = kinds.check(manifest)
    assert not found.problems
    assert [note.partition(": ")[0] for note in found.notes] == [
        "metadata.annotations.autoscaling.knative.dev/target",
        "spec.predictor.model.modelFormat.version",
    ]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
STARTS = [service(STANDARD, canary=[canary()]), graph({"root": node("Splitter", {**A, "weight": 100})})]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) in a manifest."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in items] + [place for _, inner in items for place in places(inner)]


@given(start=st.sampled_from(STARTS), value=values, data=st.data())
def test_no_value_anywhere_breaks_a_check(start: Json, value: Any, data: st.DataObject) -> None:
    manifest = copy.deepcopy(start)
    container, key = data.draw(st.sampled_from(places(manifest)))
    container[key] = value
    for problem in kinds.check(manifest).problems:
        assert problem.path or problem.reason
        assert problem.reason


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: f"{kind.kind}-{kind.version}")
def test_every_kind_has_a_schema_and_a_table(kind: Any) -> None:
    schema = kinds.schema(kind)
    assert schema["properties"]["spec"]["type"] == "object"
    assert schema == openapi.schema(kinds.whole(kind))
    table = kinds.table(kind)
    assert all(line.count(" | ") >= 2 for line in table.splitlines()[2:])
