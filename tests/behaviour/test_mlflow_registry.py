"""The registry's adapter, its light client, and the audit history of stage and alias moves."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import joblib
import msgspec
import pytest
from sklearn.linear_model import LogisticRegression
from tests.behaviour import pipeline_tools
from tests.conftest import ControlProcess

from ondol.app import looping, running
from ondol.backends.local import model_source
from ondol.base import errors, hashing
from ondol.base.progress import SILENT
from ondol.pipelines.importing import Fetch
from ondol.records.pipeline import Artifact, PipelineRun, TaskRun
from ondol.records.project import Project
from ondol.records.release import ModelManifest, Release
from ondol.records.rollout import Route
from ondol.registry import agreement
from ondol.registry.client import RegistryClient
from ondol.registry.models import ModelVersion, RegisteredModel
from ondol.store import registry_events, releases, runs

EXAMPLE = [{"a": 0.5, "b": 1}, {"a": 1.5, "b": 0}]


@pytest.fixture
def registry(control: ControlProcess) -> Iterator[RegistryClient]:
    client = RegistryClient(control.url)
    yield client
    client.close()


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A joblib file with a fitted model, different in every test."""
    value = uuid.uuid4().int % 1000 / 1000
    model = LogisticRegression().fit([[0.0, value], [1.0, 1.0], [2.0, 0.5], [3.0, 1.5]], [0, 0, 1, 1])
    joblib.dump(model, tmp_path / "model")
    return tmp_path / "model"


def new_name() -> str:
    return f"model-{uuid.uuid4().hex[:8]}"


def test_registering_twice_gives_one_version(registry: RegistryClient, model_file: Path) -> None:
    name = new_name()
    first = registry.register(name, model_file, tags={"team": "delays"}, example=EXAMPLE)
    again = registry.register(name, model_file, aliases=["champion"])
    assert first == again
    assert (first.version, first.digest) == ("1", hashing.of_tree(model_file))
    assert (Path(first.source_path) / "MLmodel").is_file()
    found = next(model for model in registry.models() if model.name == name)
    assert found == RegisteredModel(name, (first,), {"champion": "1"})


@pytest.mark.slow
def test_mlflow_loads_what_was_registered(control: ControlProcess, registry: RegistryClient, model_file: Path) -> None:
    name = new_name()
    registry.register(name, model_file, aliases=["champion"], example=EXAMPLE)
    script = (
        "import mlflow, joblib, pandas as pd\n"
        f"frame = pd.DataFrame({EXAMPLE!r})\n"
        f"loaded = mlflow.pyfunc.load_model('models:/{name}@champion')\n"
        f"assert (loaded.predict(frame) == joblib.load({str(model_file)!r}).predict(frame.to_numpy())).all()\n"
        "assert [c.name for c in loaded.metadata.signature.inputs] == ['a', 'b']\n"
        f"assert type(mlflow.sklearn.load_model('models:/{name}/1')).__name__ == 'LogisticRegression'\n"
    )
    environment = {"MLFLOW_TRACKING_URI": control.url, "PATH": "/usr/bin:/bin", "HOME": str(model_file.parent)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_a_pipeline_imports_the_version_that_an_alias_means_now(
    control: ControlProcess, registry: RegistryClient, model_file: Path, tmp_path: Path
) -> None:
    name, source = new_name(), pipeline_tools.compile_samples(tmp_path) / "imported_model.yaml"
    project = Project("imports")
    loop = looping.context(control.store, control.settings, project, SILENT)

    def contents(registry: Fetch | None, uri: str = f"models:/{name}@champion") -> TaskRun:
        done = pipeline_tools.run(source, control.store, control.settings, {"uri": uri}, registry=registry)
        task: TaskRun = pipeline_tools.task(done, "contents")
        assert "MLmodel" in task.parameters["Output"]
        return task

    registry.register(name, model_file, aliases=["champion"])
    assert not contents(model_source.for_importers(control.settings)).cached
    assert contents(loop.importers).cached
    assert contents(loop.importers, f"models:/{name}/1").cached
    joblib.dump(LogisticRegression().fit([[0.0, 9.0], [1.0, 1.0]], [0, 1]), model_file)
    registry.register(name, model_file, aliases=["champion"])
    assert not contents(loop.importers).cached
    with pytest.raises(errors.NotFoundError, match="name=nobody"):
        contents(loop.importers, "models:/nobody/1")


def test_a_file_that_is_no_model_is_refused_and_leaves_no_version(registry: RegistryClient, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"not a pickle")
    name = new_name()
    with pytest.raises(errors.InputError) as caught:
        registry.register(name, tmp_path / "model.pkl")
    assert caught.value.code == "INP-082"
    with pytest.raises(errors.InputError, match="no model at"):
        registry.register(name, tmp_path / "nowhere")
    assert [model.versions for model in registry.models() if model.name == name] in ([], [()])


def test_alias_and_stage_moves_are_kept(control: ControlProcess, registry: RegistryClient, model_file: Path) -> None:
    name = new_name()
    registry.register(name, model_file)
    registry.set_alias(name, "champion", "1")
    registry.set_alias(name, "champion", "")
    stage = {"name": name, "version": "1", "stage": "Production", "archive_existing_versions": False}
    url = f"{control.url}/api/2.0/mlflow/model-versions/transition-stage"
    httpx.post(url, json=stage, auth=("kim", "secret"), timeout=180).raise_for_status()
    refused = httpx.post(url, json={**stage, "stage": "Nonsense"}, auth=("kim", "secret"), timeout=180)
    assert refused.status_code == 400
    kept = registry_events.every(control.store, name)
    moves = [(one.kind, one.name, one.before_value, one.after_value, one.outcome) for one in reversed(kept)]
    assert moves == [
        ("alias", "champion", "", "1", "done"),
        ("alias", "champion", "1", "", "done"),
        ("stage", "1", "None", "Production", "done"),
        ("stage", "1", "Production", "Nonsense", "refused: 400"),
    ]
    assert kept[0].actor == "kim from 127.0.0.1"
    shown = httpx.get(f"{control.url}/api/ondol/registry/events", params={"model": name}, timeout=180).json()
    assert [one["seq"] for one in shown] == [one.seq for one in kept]


def test_pipeline_runs_are_mirrored_once(control: ControlProcess, registry: RegistryClient) -> None:
    name = f"pipeline-{uuid.uuid4().hex[:8]}"
    digest = "sha256:" + "a" * 64
    tasks = (
        TaskRun("load", "succeeded", {"table": Artifact("table", "system.Dataset", "file:///t", "/t", digest)}),
        TaskRun("test", "succeeded", {"m": Artifact("m", "system.Metrics", "", "", "", {"auc": 0.75, "note": "x"})}),
        TaskRun("test-2", "succeeded", {"m": Artifact("m", "system.Metrics", "", "", "", {"auc": float("nan")})}),
    )
    run = PipelineRun(f"run-{uuid.uuid4().hex}", name, "succeeded", {"trees": 10}, tasks, 1000.0, 1003.0, "p.py", "d")
    runs.put(control.store, replace(run, state="running"))  # until it has its tasks: control's own conductor mirrors
    for task in tasks:
        runs.put_task(control.store, run.id, task)
    runs.put(control.store, run)
    registry.mirror()
    mirrored = runs.get(control.store, run.id).mlflow_run
    assert mirrored
    # As after a crash between MLflow's commit and ours: the same run is found again and nothing is doubled.
    runs.set_mlflow_run(control.store, run, "")
    registry.mirror()
    assert runs.get(control.store, run.id).mlflow_run == mirrored
    rest = f"{control.url}/api/2.0/mlflow"
    found = httpx.get(f"{rest}/runs/get", params={"run_id": mirrored}, timeout=180).json()["run"]
    assert found["info"]["status"] == "FINISHED"
    assert found["data"]["params"] == [{"key": "trees", "value": "10"}]
    assert {one["key"]: one["value"] for one in found["data"]["metrics"]} == {"test/auc": 0.75, "test-2/auc": "NaN"}
    assert [one["dataset"]["name"] for one in found["inputs"]["dataset_inputs"]] == ["load.table"]
    history = {"run_id": mirrored, "metric_key": "test/auc"}
    assert len(httpx.get(f"{rest}/metrics/get-history", params=history, timeout=180).json()["metrics"]) == 1


def test_a_run_that_went_on_after_a_failure_is_no_failure_in_mlflow(
    control: ControlProcess, registry: RegistryClient
) -> None:
    name, found = f"pipeline-{uuid.uuid4().hex[:8]}", []
    failed = PipelineRun(f"run-{uuid.uuid4().hex}", name, "failed", error="disk full", started_at=1.0, ended_at=2.0)
    for run in (failed, replace(failed, state="running"), replace(failed, state="succeeded", error="", ended_at=9.0)):
        runs.put(control.store, run)
        registry.mirror()
        if (mirrored := runs.get(control.store, run.id).mlflow_run) != "":
            rest = f"{control.url}/api/2.0/mlflow/runs/get"
            found.append(httpx.get(rest, params={"run_id": mirrored}).json()["run"])
    assert [one["info"]["status"] for one in found] == ["FAILED", "FINISHED"]
    assert found[0]["info"]["run_id"] == found[1]["info"]["run_id"]
    errors_said = [[tag["value"] for tag in one["data"]["tags"] if tag["key"] == "ondol.error"] for one in found]
    assert errors_said == [["disk full"], []]


@pytest.mark.slow
def test_what_a_step_tracks_by_itself_is_tied_to_the_run_both_ways(
    control: ControlProcess, registry: RegistryClient, tmp_path: Path
) -> None:
    source = pipeline_tools.compile_samples(tmp_path, "tracking") / "tracked.yaml"
    done = pipeline_tools.run(
        source,
        control.store,
        control.settings,
        {"experiment": f"by-hand-{uuid.uuid4().hex[:8]}"},
        environ={"MLFLOW_TRACKING_URI": control.url},
        in_process=True,
        use_cache=False,
    )
    registry.mirror()
    run = runs.get(control.store, done.id)
    fitted, (outer, inner) = (pipeline_tools.task(run, name).parameters["Output"] for name in ("fit", "note"))
    assert pipeline_tools.task(run, "fit").mlflow_runs == (fitted,)
    assert pipeline_tools.task(run, "note").mlflow_runs == (outer,)

    def tags(identifier: str) -> dict[str, str]:
        rest = f"{control.url}/api/2.0/mlflow/runs/get"
        found = httpx.get(rest, params={"run_id": identifier}).json()["run"]["data"]["tags"]
        return {tag["key"]: tag["value"] for tag in found}

    belongs = {"ondol.pipeline": "tracked", "ondol.pipeline_run": run.id, "ondol.attempt": "1"}
    known = {"ondol.step": "fit", "team": "delays", "mlflow.source.name": str(source)}
    assert {**belongs, **known}.items() <= tags(fitted).items()
    assert {**belongs, "ondol.step": "note"}.items() <= tags(outer).items()
    assert tags(inner)["ondol.step"] == "by hand"
    assert tags(run.mlflow_run)["ondol.mlflow_runs.note"] == outer


def test_disagreement_between_alias_and_route() -> None:
    version = ModelVersion("delay", "2", "", "", "")
    manifest = ModelManifest("sha256:1", "models:/delay/1", model="delay", version="1")
    digest = releases.digest_of("delay", "model", manifest)
    release = Release(digest, "delay", "model", {"model": "delay", "version": "1"}, 0.0)
    route = Route("delay", "model", digest)
    model = RegisteredModel("delay", (version,), {"champion": "2"})
    found = agreement.disagreements([route], {digest: release}, [model])
    assert [(one.says, one.version, one.served) for one in found] == [("alias champion", "2", "1")]
    agreed = replace(model, aliases={"champion": "1", "challenger": "2"})
    assert agreement.disagreements([route], {digest: release}, [agreed]) == []


def test_the_command_lists_promotes_and_says_who(control: ControlProcess, model_file: Path) -> None:
    """`ondol model` against a home whose supervisor is this test: it has the lock and has written where to ask."""
    name = new_name()
    home = control.settings.home
    lock = running.Lock(home)
    assert lock.take()
    try:
        running.write_state(home, running.Running(control.settings.control, control.settings.data, {"supervisor": 1}))
        client = RegistryClient(control.url)
        client.register(name, model_file)
        client.close()
        assert ondol(control, "model", "promote", name, "1")[:2] == (0, f"{name}@champion: none -> 1\n")
        code, printed, _ = ondol(control, "model", "list", name, "--history", "--json")
        shown = msgspec.json.decode(printed)
        assert code == 0
        assert shown["models"][0]["aliases"] == {"champion": "1"}
        assert [(one["after_value"], one["outcome"]) for one in shown["history"]] == [("1", "done")]
        code, _, said = ondol(control, "model", "promote", name, "9")
        assert code == 1
        assert f"no version '9' of model '{name}'" in said
    finally:
        running.clear_state(home)
        lock.release()
    code, _, said = ondol(control, "model", "list")
    assert code == 1
    assert "ondol up --detach" in said


def ondol(control: ControlProcess, *arguments: str) -> tuple[int, str, str]:
    """Run the command in the control process' home and return its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ondol.cli.main", *arguments],
        cwd=control.settings.project,
        env=running.environment(control.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
