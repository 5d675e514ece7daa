"""`ondol apply|get|describe|delete|wait` on the store and on what a kubeconfig names: all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from tests.behaviour import kubernetes_tools
from tests.behaviour.kubernetes_tools import manifest
from tests.conftest import RunningOndol

from ondol.app import kubeconfig
from ondol.backends.kubernetes import kubeconfig as reading
from ondol.base import errors
from ondol.base.settings import Address, Settings
from ondol.store import resources
from ondol.store.connection import Store


class Ondol:
    """The command line against one server."""

    def __init__(self, home: Settings, *target: str) -> None:
        self._home, self._target = home, target

    def __call__(self, *arguments: str, text: str = "", expect: int = 0) -> str:
        """Run a command and return what it printed, errors after output."""
        done = subprocess.run(
            [sys.executable, "-m", "ondol.cli.main", *arguments, *self._target],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ONDOL_HOME": str(self._home.home), "HOME": str(self._home.project)},
            cwd=self._home.project,
        )
        assert done.returncode == expect, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(params=["store", "server"])
def ondol(request: pytest.FixtureRequest, home: Settings, store: Store) -> Iterator[Ondol]:
    if request.param == "store":
        yield Ondol(home)
        return
    with kubernetes_tools.door(store) as url:
        path = home.project / "cluster.yaml"
        kubeconfig.write(path, url, "")
        yield Ondol(home, "--kubeconfig", str(path))


@pytest.mark.slow
def test_from_apply_to_delete(ondol: Ondol, store: Store) -> None:
    text = json.dumps(manifest())
    label = "inferenceservice.serving.kserve.io/delay"
    assert ondol("apply", "-f", "-", "--dry-run", text=text) == f"{label} created (dry run)\n"
    assert ondol("apply", "-f", "-", text=text) == f"{label} created\n"
    assert ondol("apply", "-f", "-", text=text) == f"{label} unchanged\n"
    assert ondol("apply", "-f", "-", text=json.dumps(manifest(timeout=3))) == f"{label} configured\n"
    listed = json.loads(ondol("get", "isvc", "--json"))
    assert [one["metadata"]["name"] for one in listed["items"]] == ["delay"]
    assert ondol("get", "isvc", "-A").split()[:3] == ["NAMESPACE", "NAME", "URL"]
    assert len(ondol("get", "isvc", "-o", "wide").splitlines()) == 2, "one line each, however long it is"
    assert "There are some in default" in ondol("get", "isvc", "-n", "kubeflow") or ondol._target
    assert "not reconciled yet" in ondol("describe", "isvc/delay")
    late = ondol("wait", "isvc/delay", "--timeout", "0.2", expect=1)
    assert "not met within 0.2 s" in late
    status = {"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}]}
    timer = threading.Timer(1.0, resources.set_status, (store, "InferenceService", "default", "delay", status))
    timer.start()
    assert ondol("wait", "isvc/delay", "--timeout", "180") == f"{label} condition met\n"
    timer.join()
    assert ondol("delete", "isvc", "delay") == 'inferenceservice.serving.kserve.io "delay" deleted\n'
    assert "NOF-006" in ondol("get", "isvc", "delay", expect=1)
    assert ondol("wait", "isvc/delay", "--for", "delete") == f"{label} deleted\n"


def test_everything_wrong_is_said_at_once_with_its_line(ondol: Ondol, home: Settings) -> None:
    good, refused = manifest("good"), manifest("refused", workerSpec={})
    unknown = manifest("unknown", bogus=1, timeout="soon")
    path = home.project / "many.yaml"
    path.write_text("\n---\n".join(json.dumps(one, indent=1) for one in (good, unknown, refused, {"kind": "Pod"})))
    said = ondol("apply", "-f", str(path), expect=2)
    assert "3 of 4 resources are refused, none was applied" in said
    lines = path.read_text().splitlines()
    bogus, soon, worker = (
        lines.index(f"   {one}") + 1 for one in ('"bogus": 1,', '"timeout": "soon"', '"workerSpec": {}')
    )
    assert f"line {bogus}: spec.predictor.bogus: unknown field" in said
    assert f"line {soon}: spec.predictor.timeout: Invalid value" in said
    assert f"line {worker}: spec.predictor.workerSpec: Forbidden" in said
    assert "kind 'Pod' is not served" in said
    assert json.loads(ondol("get", "isvc", "--json"))["items"] == []


def test_fields_of_others_are_taken_only_when_told(ondol: Ondol, store: Store) -> None:
    ondol("apply", "-f", "-", text=json.dumps(manifest(timeout=3)))
    one = resources.get(store, "InferenceService", "default", "delay")
    theirs = [{**entry, "manager": "somebody"} for entry in one.managed]
    with store.write() as tx:
        resources.write_in(tx, one, replace(one, managed=theirs))
    conflict = ondol("apply", "-f", "-", text=json.dumps(manifest(timeout=4)), expect=1)
    assert "CON-320" in conflict
    assert "--force-conflicts" in conflict
    ondol("apply", "-f", "-", "--force-conflicts", text=json.dumps(manifest(timeout=4)))


@pytest.mark.slow
def test_a_running_ondol_serves_what_is_applied(running: RunningOndol, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(60, 3))
    joblib.dump(LogisticRegression().fit(numbers, numbers[:, 0] > 0), tmp_path / "model.joblib")
    service = manifest("through-the-door")
    service["spec"]["predictor"]["model"]["storageUri"] = f"file://{tmp_path}"
    command = Ondol(running.settings)
    ready = command("apply", "-f", "-", "--wait", "180", text=json.dumps(service))
    assert "through-the-door is ready at http://" in ready
    by_file = Ondol(running.settings, "--kubeconfig", str(kubeconfig.path_of(running.settings.home)))
    shown = json.loads(by_file("get", "isvc", "through-the-door", "--json"))
    assert shown["status"]["modelStatus"]["transitionStatus"] == "UpToDate"
    answer = httpx.post(shown["status"]["url"], json={"instances": numbers[:4].tolist()}, timeout=120)
    assert len(answer.json()["predictions"]) == 4
    by_file("delete", "isvc", "through-the-door")


def test_the_kubeconfig_has_the_key_where_one_is_demanded(home: Settings) -> None:
    open_to_all = replace(home, control=Address("0.0.0.0", 5000), api_key="se'cret\"")
    home.home.mkdir()
    path = kubeconfig.write_for(open_to_all)
    assert path.stat().st_mode & 0o777 == 0o600
    server = reading.load(path)
    assert (server.url, server.headers) == ("http://127.0.0.1:5000/k8s", {"Authorization": "Bearer se'cret\""})
    assert "cret" not in repr(server)
    kubeconfig.write_for(home)
    assert reading.load(path).headers == {}


@pytest.mark.parametrize("wrong", ["", "[]", "contexts: [{name: a, context: {cluster: b}}]\ncurrent-context: a"])
def test_a_wrong_kubeconfig_is_said(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "config").write_text(wrong)
    with pytest.raises(errors.InputError) as caught:
        reading.load(tmp_path / "config")
    assert caught.value.code == "INP-320"
