"""`ondol check` as a user calls it: every problem of every file, with its line, before anything runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.base import errors
from ondol.formats.resource import documents

ROOT = Path(__file__).parents[2]
FILES = {
    "ondol.yaml": "name: x\nserving: [serving/iris.yaml, serving/gone.yaml]\nprompts: prompts/\n",
    "serving/iris.yaml": """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: iris
  annotations: {built: 2026-11-27}
spec:
  predictor:
    scaleMetric: cpu
    sklearn:
      storageUri: models/iris
      env:
        - name: A
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
    tolerations: []
    bogus: 1
""",
    "serving/list.yaml": """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
- apiVersion: serving.kserve.io/v1alpha1
  kind: TrainedModel
  metadata: {name: old}
  spec: {inferenceService: a, model: {framework: sklearn, memory: 1Gi, storageUri: x}}
""",
    "serving/twice.yaml": "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nspec: {}\nspec: {}\n",
    "overlay/kustomization.yaml": "resources: [../serving/list.yaml]\npatches: [{path: more.yaml}]\n",
    "overlay/more.yaml": "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: iris}\n",
    "deploy/web.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
    "pipeline.yaml": "pipelineInfo: {name: x}\nroot: {}\nschemaVersion: 2.1.0\nwhatever: 1\n",
    "prompts/qa.yaml": 'name: qa\ntemplate: "{question} {context}"\ninput_variables: [question]\n',
    "guardrails/config.yml": "models: []\nrails:\n  input:\n    flows:\n      - check jailbreak  # a comment\n",
    "evals/qa.yaml": "name: qa\nmetrics: [faithfulness]\nsamples: [{question: a}]\nextra: 1\n",
    ".ondol/left.yaml": "apiVersion: serving.kserve.io/v1beta1\nkind: Nothing\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in which every kind of file is wrong somewhere."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def check(folder: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ONDOL_HOME"}
    return subprocess.run(
        [sys.executable, "-m", "ondol.cli.main", "check", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        input=text,
        env=environment,
        timeout=240,
        check=False,
    )


def test_every_file_below_a_folder_is_checked_with_its_lines(project: Path) -> None:
    done = check(project, ".", "--json")
    assert done.returncode == 2, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    kinds = {Path(one["file"]).as_posix(): one["kind"] for one in answer["checked"]}
    assert kinds == {
        "ondol.yaml": "project",
        "serving/iris.yaml": "manifests",
        "serving/list.yaml": "manifests",
        "serving/twice.yaml": "manifests",
        "pipeline.yaml": "pipelines",
        "prompts/qa.yaml": "prompts",
        "guardrails/config.yml": "rails",
        "evals/qa.yaml": "suites",
    }
    said = {(one["file"], one["line"], one["field"], one["severity"]) for one in answer["findings"]}
    assert {
        ("ondol.yaml", 2, "serving[1]", "error"),
        ("serving/iris.yaml", 8, "spec.predictor.scaleMetric", "note"),
        ("serving/iris.yaml", 13, "spec.predictor.sklearn.env[0].valueFrom.fieldRef", "error"),
        ("serving/iris.yaml", 14, "spec.predictor.tolerations", "error"),
        ("serving/iris.yaml", 15, "spec.predictor.bogus", "error"),
        ("serving/list.yaml", 7, "kind", "error"),
        ("serving/twice.yaml", 4, "", "error"),
        ("guardrails/config.yml", 5, "", "error"),
    } <= said
    failed = {one["file"] for one in answer["findings"] if one["severity"] == "error"}
    assert failed == set(kinds), (
        "a date in an annotation is a string, as in Kubernetes; each file has one mistake or more"
    )
    assert not (project / ".ondol" / "ondol.db").exists()


def test_a_named_file_must_be_of_a_known_kind(project: Path) -> None:
    done = check(project, "deploy/web.yaml")
    assert done.returncode == 2
    assert (
        "deploy/web.yaml:2: error: kind: kind 'Deployment' is not served by the local backend [UNS-012]" in done.stdout
    )
    assert check(project, "nowhere").returncode == 2
    (project / "notes.txt").write_text("nothing")
    assert "INP-302" in check(project, "notes.txt").stdout


def test_fix_mends_the_file_and_keeps_its_comments(project: Path) -> None:
    done = check(project, "guardrails", "--fix")
    assert done.returncode == 0, done.stdout
    assert "jailbreak detection" in (project / "guardrails/config.yml").read_text()
    assert "# a comment" in (project / "guardrails/config.yml").read_text()


def test_the_shipped_examples_are_clean() -> None:
    done = check(ROOT, "examples/assistant", "evals")
    assert done.returncode == 0, done.stdout


@given(st.text(alphabet="ab:-{}[]&*!|>\"'#%@\n 1.", max_size=60))
def test_no_text_breaks_the_reader_of_documents(text: str) -> None:
    try:
        found = documents.parse(text, "x.yaml")
    except errors.InputError:
        return
    assert all(isinstance(one.manifest["kind"], str) and one.line("a.b[0]") >= 1 for one in found)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on this machine")
def test_what_kustomize_builds_is_checked_from_standard_input(tmp_path: Path) -> None:
    base = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: iris}\n"
    (tmp_path / "base.yaml").write_text(base + "spec: {predictor: {sklearn: {storageUri: models/iris}}}\n")
    (tmp_path / "more.yaml").write_text(base + "spec: {predictor: {tolerations: [], timeout: 5}}\n")
    (tmp_path / "kustomization.yaml").write_text(
        "namePrefix: dev-\nresources: [base.yaml]\npatches: [{path: more.yaml}]\n"
    )
    built = subprocess.run(
        ["kubectl", "kustomize", "."], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=240
    )
    assert "dev-iris" in built.stdout
    done = check(tmp_path, "-", text=built.stdout)
    assert done.returncode == 2
    line = built.stdout.splitlines().index("    tolerations: []") + 1
    assert f"-:{line}: error: spec.predictor.tolerations" in done.stdout
    assert check(tmp_path, ".").returncode == 0  # the patch alone is no manifest


RUNTIME = """\
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata: {name: team-server}
spec:
  supportedModelFormats: [{name: team-format, autoSelect: true}]
  containers: [{name: kserve-container, image: "team/server:v1"}]
"""
SERVICE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: iris}
spec:
  predictor:
    model: {modelFormat: {name: team-format}, storageUri: models/iris, args: [--fast]}
  transformer:
    containers: [{name: kserve-container, image: "team/transformer:v1"}]
"""


def test_images_without_a_rule_are_said_of_services_and_of_the_runtime_they_get(tmp_path: Path) -> None:
    (tmp_path / "ondol.yaml").write_text("name: x\n")
    (tmp_path / "runtime.yaml").write_text(RUNTIME)
    (tmp_path / "service.yaml").write_text(SERVICE)
    done = check(tmp_path, "service.yaml")
    assert done.returncode == 2
    assert (
        "service.yaml:6: error: spec.predictor.model: ServingRuntime 'team-server': image 'team/server:v1'"
        in done.stdout
    )
    assert "service.yaml:8: error: spec.transformer.containers[0].image: image 'team/transformer:v1'" in done.stdout
    (tmp_path / "ondol.yaml").write_text('name: x\nimages: {"team/*": {command: [python, server.py]}}\n')
    assert check(tmp_path, ".").returncode == 0
    (tmp_path / "runtime.yaml").unlink()
    assert "no runtime here supports it" in check(tmp_path, "service.yaml").stdout
