"""`ondol.yaml` is read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondol.base import errors
from ondol.formats import project
from ondol.records.project import ImageSpec

_DESIGN = """
name: support
pipelines: [pipelines/train.py]
serving: [serving/delay.yaml]
prompts: prompts/
guardrails: guardrails/
evaluations: [evals/qa.yaml]
indexes: {docs: docs/}
models:
  delay:
    pipeline: pipelines/train.py
    model: train.model
    evaluate: {data: split.test, target: late, slices: [carrier]}
    gate: {primary: log_loss, margin: 0.002}
applications:
  support:
    llm: openai/gpt-4o-mini
    prompt: qa_prompt
    index: docs
    output: "schemas.py:StructuredResponse"
    rollout: {steps: [50, 100], judge: {alpha: 0.05}}
rollout: {steps: [1, 5, 25, 100], judge: {metrics: [error_rate, cost], alpha: 0.02}}
budgets: [{scope: application/support, limit: 20 USD, per: day, alert_at: [0.5, 0.8, 1.0]}]
alerts: [{webhook: "${ALERT_WEBHOOK}"}]
retrain: {on: [drift], pipeline: pipelines/train.py}
"""


def test_the_file_of_the_design_is_read() -> None:
    read = project.parse(_DESIGN)
    assert list(read.rollout.steps) == [1, 5, 25, 100]
    assert (read.rollout.alpha, read.rollout.metrics) == (0.02, ("error_rate", "cost"))
    assert read.models["delay"].evaluate.target == "late"
    assert read.indexes["docs"].path == "docs/"
    assert list(read.retrain.on) == ["drift"]
    assert read.applications["support"].index == "docs"
    assert read.policy("support").alpha == 0.05
    assert read.policy("delay").alpha == 0.02


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not YAML"),
        ("- a list", "mapping"),
        ("pipelines: []", "name"),
        ("name: x\npipeline: [a.py]", "'pipeline'"),
        ("name: x\nrollout: {judge: {alfa: 1}}", "'rollout.alfa'"),
        (
            "name: x\nmodels: {m: {pipeline: a, model: b, evaluate: {data: c, target: d, metric: [e]}}}",
            "evaluate.metric",
        ),
        ("name: x\nmodels: {m: {pipeline: a, model: b}}", "evaluate"),
        ("name: x\nrollout: fast", "rollout"),
        ("name: x\nretrain: {on: [drift, '0 25 * * *']}", "hour: '25' is not 0 to 23"),
        ("name: x\nretrain: {on: [storms]}", "nothing is called 'storms'"),
        ("name: x\nretrain: {on: [data]}", "belong together"),
        ("name: x\nretrain: {on: drift, cool_down: soon}", "'soon' is no span of time"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(errors.InputError, match=message):
        project.parse(text)


_IMAGES = """
name: x
images:
  "python:3.11*": python
  "myorg/scorer:*": {command: [./scorer, --fast]}
  "myorg/*": {packages: [scikit-learn==1.5.2], python: "3.11"}
"""


def test_an_image_means_what_the_first_fitting_rule_says() -> None:
    read = project.parse(_IMAGES)
    assert read.image("docker.io/library/python:3.11-slim") == ImageSpec()
    assert read.image("myorg/scorer").command == ("./scorer", "--fast")
    assert read.image("myorg/trainer:v2").packages == ("scikit-learn==1.5.2",)
    with pytest.raises(errors.UnsupportedError, match=r"'python:3\.12'") as caught:
        read.image("python:3.12", where="isvc.yaml")
    assert (caught.value.code, caught.value.where) == ("UNS-340", "isvc.yaml")
    with pytest.raises(errors.InputError, match=r"images\.a:"):
        project.parse("name: x\nimages: {a: {command: [b], python: '3.11'}}")


def test_the_nearest_key_is_offered_and_a_missing_file_has_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(errors.UnsupportedError) as caught:
        project.parse("name: x\nservings: []")
    assert "'serving'" in caught.value.way_out
    with pytest.raises(errors.NotFoundError) as missing:
        project.load(tmp_path)
    assert "ondol init" in missing.value.way_out
