"""KFP's own clients, unmodified, against the control process."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import pytest
from tests.behaviour.pipeline_tools import compile_samples
from tests.conftest import ControlProcess

pytestmark = pytest.mark.slow

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # kfp's own, at import
    import kfp
    import kfp_server_api
    from kfp.kubeflow_client import KubernetesBackendConfig, PipelinesClient


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def client(control: ControlProcess) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kfp.Client(host=control.url)


def finished(client: Any, run: str) -> Any:
    return client.wait_for_run_completion(run, timeout=180, sleep_duration=0.1)


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def test_a_whole_session_of_the_client(client: Any, samples: Path) -> None:
    name = unique("chain")
    experiment = client.create_experiment(unique("exp"))
    pipeline = client.upload_pipeline(str(samples / "chain.yaml"), pipeline_name=name)
    version = client.upload_pipeline_version(str(samples / "chain.yaml"), "v2", pipeline_id=pipeline.pipeline_id)
    assert client.get_pipeline_id(name) == pipeline.pipeline_id
    assert [one.name for one in client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions] == [name, "v2"]
    run = client.run_pipeline(
        experiment.experiment_id,
        "by version",
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
        params={"number": 3},
    )
    assert run.state == "PENDING"
    ended = finished(client, run.run_id)
    assert ended.state == "SUCCEEDED"
    assert ended.runtime_config.parameters == {"number": 3}
    assert {one.state for one in ended.run_details.task_details} == {"SUCCEEDED"}
    assert [one.run_id for one in client.list_runs(experiment_id=experiment.experiment_id).runs] == [run.run_id]
    client.archive_run(run.run_id)
    assert client.get_run(run.run_id).storage_state == "ARCHIVED"
    client.unarchive_run(run.run_id)
    client.delete_run(run.run_id)
    with pytest.raises(kfp_server_api.ApiException, match="404"):
        client.get_run(run.run_id)
    client.delete_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)


def test_an_archived_experiment_asks_for_no_more_runs(client: Any, samples: Path) -> None:
    experiment = client.create_experiment(unique("exp")).experiment_id
    package = str(samples / "chain.yaml")
    nightly = client.create_recurring_run(
        experiment, "nightly", cron_expression="0 0 3 1 1 *", pipeline_package_path=package, params={"number": 1}
    )
    run = client.create_run_from_pipeline_package(package, arguments={"number": 2}, experiment_id=experiment).run_id
    assert finished(client, run).state == "SUCCEEDED"
    client.archive_experiment(experiment)
    assert client.get_recurring_run(nightly.recurring_run_id).status == "DISABLED"
    assert client.get_run(run).storage_state == "ARCHIVED"
    with pytest.raises(kfp_server_api.ApiException, match="STA-730"):
        client.unarchive_run(run)
    client.unarchive_experiment(experiment)
    client.unarchive_run(run)
    assert client.get_run(run).storage_state == "AVAILABLE"
    client.delete_recurring_run(nightly.recurring_run_id)


def test_a_package_runs_and_what_is_wrong_with_it_is_a_400_that_names_it(client: Any, samples: Path) -> None:
    run = client.create_run_from_pipeline_package(str(samples / "choice.yaml"), arguments={"coin": "tails", "count": 2})
    ended = finished(client, run.run_id)
    states = {one.display_name: one.state for one in ended.run_details.task_details}
    assert ended.state == "SUCCEEDED"
    assert "SKIPPED" in states.values()
    with pytest.raises(kfp_server_api.ApiException) as wrong:
        client.create_run_from_pipeline_package(str(samples / "choice.yaml"), arguments={"count": "two"})
    assert wrong.value.status == 400
    assert "count" in str(wrong.value.body)
    with pytest.raises(kfp_server_api.ApiException) as refused:
        client.create_run_from_pipeline_package(str(samples / "chain.yaml"), pipeline_root="gs://bucket/root")
    assert (refused.value.status, "pipeline_root" in str(refused.value.body)) == (400, True)


def test_a_failed_run_says_why_and_a_stopped_one_does_not_hang_the_client(
    client: Any, samples: Path, tmp_path: Path
) -> None:
    failed = client.create_run_from_pipeline_package(str(samples / "failing.yaml"), arguments={})
    ended = finished(client, failed.run_id)
    assert (ended.state, "missing key" in ended.error.message) == ("FAILED", True)
    held = {"path": str(tmp_path / "log"), "gate": str(tmp_path / "gate")}
    run = client.create_run_from_pipeline_package(str(samples / "held.yaml"), arguments=held)
    while not (tmp_path / "log").exists():
        time.sleep(0.05)
    client.terminate_run(run.run_id)
    stopped = finished(client, run.run_id)
    assert [one.state for one in stopped.state_history][-1] == "CANCELED"
    assert (stopped.state, stopped.error.code) == ("FAILED", 1)
    with pytest.raises(kfp_server_api.ApiException, match="400"):
        client.terminate_run(run.run_id)
    (tmp_path / "gate").touch()
    client._run_api.run_service_retry_run(run_id=run.run_id)
    assert finished(client, run.run_id).state == "SUCCEEDED"


def test_recurring_runs_by_interval_and_by_cron_with_seconds(client: Any, samples: Path) -> None:
    experiment = client.create_experiment(unique("exp")).experiment_id
    options = {"pipeline_package_path": str(samples / "chain.yaml"), "params": {"number": 1}}
    often = client.create_recurring_run(experiment, "often", interval_second=1, **options)
    cron = client.create_recurring_run(experiment, "cron", cron_expression="* * * * * *", no_catchup=True, **options)
    seen: dict[str, int] = {}
    deadline = time.monotonic() + 180
    while min(seen.get("often", 0), seen.get("cron", 0)) < 2 and time.monotonic() < deadline:
        runs = client.list_runs(experiment_id=experiment, page_size=100).runs or []
        seen = {name: sum(one.display_name == name for one in runs) for name in ("often", "cron")}
        time.sleep(0.2)
    assert min(seen.values()) >= 2
    for one in (often, cron):
        client.disable_recurring_run(one.recurring_run_id)
        assert client.get_recurring_run(one.recurring_run_id).status == "DISABLED"
        client.delete_recurring_run(one.recurring_run_id)
    with pytest.raises(kfp_server_api.ApiException, match="never due"):
        client.create_recurring_run(experiment, "never", cron_expression="0 0 0 31 2 *", **options)


def test_the_command_line_of_kfp(control: ControlProcess, samples: Path) -> None:
    def say(*words: str) -> str:
        command = [
            sys.executable,
            "-W",
            "ignore",
            str(Path(sys.executable).with_name("kfp")),
            "--endpoint",
            control.url,
        ]
        return subprocess.run([*command, *words], check=True, capture_output=True, text=True).stdout

    name = unique("cli")
    assert name in say("pipeline", "create", "-p", name, str(samples / "chain.yaml"))
    say("experiment", "create", name)
    assert name in say("run", "create", "-e", name, "-r", name, "-f", str(samples / "chain.yaml"), "number=2")
    assert name in say("run", "list", "--max-size", "200")


def test_the_pipelines_client(control: ControlProcess, samples: Path) -> None:
    client = PipelinesClient(KubernetesBackendConfig(base_url=control.url))
    name = unique("sdk")
    client.upload_pipeline(str(samples / "chain.yaml"), name=name)
    run = client.run(name, params={"number": 4})
    assert client.wait_for_run_status(run, timeout=180, polling_interval=1).state.lower() == "succeeded"
    assert name in [one.name for one in client.list_pipelines().pipelines]
