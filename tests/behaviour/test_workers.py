"""Containers of KServe's files as processes: transformers, explainers, custom predictors, and what befalls them."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import yaml
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane
from tests.behaviour.test_inference_service import X, Y, settle, write

from ondol.api.kserve.messages import CLASSES, SERVICE
from ondol.base.settings import Settings
from ondol.records.worker import WorkerSpec
from ondol.serving.workers.process import Worker
from ondol.store import components, observations, resources, routes
from ondol.store.connection import Store

SERVERS = Path(__file__).with_name("samples") / "servers"
IMAGES = """
name: workers
images:
  "myorg/transformer:*": {command: [python, transformer.py]}
  "myorg/predictor:*": {command: [python, predictor.py]}
  "myorg/plain:*": python
"""
Json = dict[str, Any]


@pytest.fixture
def plane(home: Settings, store: Store) -> Iterator[Plane]:
    shutil.copytree(SERVERS, home.project, dirs_exist_ok=True)
    (home.project / "ondol.yaml").write_text(IMAGES)
    with serving_tools.running(home, store) as plane:
        yield plane


def service(text: str) -> Json:
    """Read a manifest's spec."""
    head: Json = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "delay"}}
    return {**head, "spec": yaml.safe_load(text)}


def container(image: str, **fields: Any) -> Json:
    """Return a manifest of one container."""
    found = service("predictor: {}")
    found["spec"]["predictor"] = {"containers": [{"name": "kserve-container", "image": image, **fields}]}
    return found


def pids_of(plane: Plane, name: str) -> list[int]:
    """Return the processes of this plane's project whose command line names a file; others may run the same."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if name in (entry / "cmdline").read_text() and (entry / "cwd").readlink() == plane.settings.project:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def conditions(status: Json) -> dict[str, str]:
    return {one["type"]: one["status"] for one in status["conditions"]}


GUIDE = """
transformer:
  containers:
    - name: transformer
      image: myorg/transformer:latest
      resources:
        requests: {cpu: 100m, memory: 128Mi}
predictor:
  model:
    modelFormat: {name: sklearn}
    storageUri: "%s"
"""


def test_the_guides_transformer_stands_before_its_predictor(plane: Plane, tmp_path: Path) -> None:
    resources.apply(plane.store, service(GUIDE % write(tmp_path / "model")))
    status = settle(plane)
    serving_tools.wait(lambda: conditions(settle(plane))["Ready"] == "True")
    assert conditions(settle(plane))["TransformerReady"] == "True"
    answer = plane.predict("delay", (2 * X[:5]).tolist(), x_request_id="order-1", x_ondol_unit="kim")
    assert answer.json() == {"predictions": [[int(label), "transformed"] for label in Y[:5]]}
    assert answer.headers["x-request-id"] == "order-1"
    serving_tools.wait(lambda: bool(observations.of_service(plane.store, "delay")))
    (kept,) = observations.of_service(plane.store, "delay")
    assert (kept.id, kept.unit) == ("order-1", "kim")
    assert status["url"].endswith("/v1/models/delay:predict")


def test_a_custom_predictor_answers_dies_and_comes_back(plane: Plane) -> None:
    resources.apply(plane.store, container("myorg/predictor:v1", env=[{"name": "OFFSET", "value": "10"}]))
    assert conditions(settle(plane))["Ready"] == "True"
    answer = plane.predict("delay", [[1, 2], [3, 4]], x_request_id="a")
    assert answer.json() == {"predictions": [13.0, 17.0]}
    assert answer.headers["x-ondol-arm"] == "stable"
    explained = plane.client.post("/v1/models/delay:explain", json={"instances": [1]})
    assert explained.json() == {"explanations": [1]}
    died = plane.predict("delay", ["die"])
    assert (died.status_code, died.json()["code"]) == (503, "STA-340")
    assert plane.predict("delay", [[1]]).json() == {"predictions": [11.0]}, "it waited for the new process"

    def logged() -> dict[int, Any]:
        return {one.status: one for one in observations.of_service(plane.store, "delay")}

    serving_tools.wait(lambda: {200, 503} <= logged().keys())
    kept = logged()
    assert kept[200].prediction in ("[13.0, 17.0]", "[13.0,17.0]", "[11.0]")
    assert kept[503].release == kept[200].release


PLAIN = """
predictor:
  minReplicas: %s
  maxReplicas: 2
  scaleTarget: 1
  scaleMetric: concurrency
  annotations: {autoscaling.knative.dev/window: 2s}
  containers:
    - name: kserve-container
      image: myorg/plain:v1
      command: [python, plain.py, "$(GREETING)"]
      env: [{name: GREETING, value: hello}]
      readinessProbe: {httpGet: {path: /healthz}}
      resources: {limits: {memory: 200Mi}}
explainer:
  containers: [{name: kserve-container, image: "myorg/plain:v1", command: [python, plain.py]}]
"""


def test_a_plain_server_explains_stops_when_idle_and_is_killed_when_it_outgrows_its_memory(
    plane: Plane, home: Settings
) -> None:
    resources.apply(plane.store, service(PLAIN % 0))
    serving_tools.wait(lambda: conditions(settle(plane)).get("ExplainerReady") == "True")
    first = plane.predict("delay", [1]).json()
    assert first["predictions"] == [1]
    assert "plain server hello" in (home.logs / "delay-predictor.log").read_text()
    assert plane.client.post("/v1/models/delay:explain", json={"instances": [5]}).json() == {"explanations": [5]}
    serving_tools.wait(lambda: not Path(f"/proc/{first['pid']}").exists())
    again = plane.predict("delay", [2]).json()
    assert again["predictions"] == [2]
    assert again["pid"] != first["pid"]
    hog = plane.client.post("/v1/models/delay:predict", json={"hog": 400_000_000})
    assert hog.status_code == 503
    serving_tools.wait(lambda: "OOMKilled" in (home.logs / "delay-predictor.log").read_text())
    assert plane.predict("delay", [3]).status_code == 200
    third = plane.predict("delay", [3]).json()["pid"]
    os.kill(plane.process.pid, signal.SIGKILL)
    serving_tools.wait(lambda: not Path(f"/proc/{third}").exists())


def test_an_image_without_a_rule_is_refused_by_name(plane: Plane) -> None:
    resources.apply(
        plane.store, service("predictor: {containers: [{name: kserve-container, image: 'codait/max-object-detector'}]}")
    )
    failure = settle(plane)["modelStatus"]["lastFailureInfo"]
    assert failure["reason"] == "InvalidPredictorSpec"
    assert "'codait/max-object-detector'" in failure["message"]
    assert plane.client.get("/readyz").status_code == 200


def test_a_server_that_other_machines_could_reach_is_stopped(plane: Plane) -> None:
    everywhere = "import socket, time; s = socket.socket(); s.bind(('', 0)); s.listen(); time.sleep(99)"
    isolated = ["python", "-I", "-c", everywhere]  # without the module that binds the loopback address
    resources.apply(plane.store, container("myorg/plain:v1", command=isolated))
    failure = settle(plane)["modelStatus"]["lastFailureInfo"]
    assert "other machines reach" in failure["message"]
    serving_tools.wait(lambda: not pids_of(plane, everywhere))


def test_a_server_that_does_not_start_leaves_the_old_one_serving(plane: Plane) -> None:
    resources.apply(plane.store, container("myorg/plain:v1", command=["python", "plain.py"]))
    settle(plane)
    broken = ["python", "-c", 'raise SystemExit("no licence")']
    resources.apply(plane.store, container("myorg/plain:v1", command=broken))
    status = settle(plane)
    assert status["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
    assert "no licence" in status["modelStatus"]["lastFailureInfo"]["message"]
    assert plane.predict("delay", [1]).json()["predictions"] == [1]


def test_a_canary_of_servers_splits_and_a_copy_is_compared(plane: Plane) -> None:
    resources.apply(plane.store, container("myorg/plain:v1", command=["python", "plain.py", "one"]))
    settle(plane)
    second = container("myorg/plain:v1", command=["python", "plain.py", "two"])
    second["spec"]["predictor"]["canaryTrafficPercent"] = 50
    resources.apply(plane.store, second)
    settle(plane)

    def arms() -> set[str]:
        return {plane.predict("delay", [1]).headers["x-ondol-arm"] for _ in range(20)}

    serving_tools.wait(lambda: arms() == {"stable", "candidate"})
    route = routes.get(plane.store, "delay")
    assert route is not None
    routes.put(plane.store, replace(route, weight=0.0, mirror=100.0))

    def copies() -> list[Any]:
        assert plane.predict("delay", [1], x_request_id="copied").headers["x-ondol-arm"] in ("stable", "candidate")
        return [one for one in observations.of_service(plane.store, "delay") if one.shadow]

    serving_tools.wait(lambda: bool(copies()))
    assert copies()[0].signals["disagreement"] == 0.0


def test_swaps_of_servers_under_load_lose_no_request(plane: Plane) -> None:
    resources.apply(plane.store, container("myorg/plain:v1", command=["python", "plain.py", "0"]))
    settle(plane)
    stop: list[bool] = []

    def ask(number: int) -> list[int]:
        wrong = []
        with httpx.Client(base_url=plane.settings.data.url, timeout=120) as client:
            while not stop:
                answer = client.post("/v1/models/delay:predict", json={"instances": [number]})
                if answer.status_code != 200 or answer.json()["predictions"] != [number]:
                    wrong.append(answer.status_code)
        return wrong

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask, number) for number in range(4)]
        for version in range(1, 4):
            resources.apply(plane.store, container("myorg/plain:v1", command=["python", "plain.py", str(version)]))
            settle(plane)
        stop.append(True)
        assert [one.result() for one in asking] == [[], [], [], []]
    assert components.every(plane.store) == []
    serving_tools.wait(
        lambda: len(pids_of(plane, "plain.py")) <= 4
    )  # the last one and the one before, each with its guard


def test_variables_in_secrets_reach_the_process_and_nothing_else(
    home: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SERVERS, home.project, dirs_exist_ok=True)
    (home.project / "ondol.yaml").write_text(IMAGES)
    monkeypatch.setenv("MY_TOKEN", "hunter-2-hunter")
    token = base64.b64encode(b"${MY_TOKEN}").decode()
    head: Json = {"apiVersion": "v1", "metadata": {"name": "keys", "namespace": "default"}}
    resources.apply(store, {**head, "kind": "Secret", "data": {"token": token}})
    resources.apply(store, {**head, "kind": "ConfigMap", "data": {"OFFSET": "1", "MODE": "fast"}})
    env = [
        {"name": "OFFSET", "value": "2"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "x", "optional": True}}},
    ]
    every = [{"prefix": "CFG_", "configMapRef": {"name": "keys"}}, {"configMapRef": {"name": "keys"}}]
    with serving_tools.running(home, store) as plane:
        command = ["python", "plain.py"]
        resources.apply(store, container("myorg/plain:v1", command=command, env=env, envFrom=every))
        assert conditions(settle(plane))["Ready"] == "True"
        pid = plane.predict("delay", [1]).json()["pid"]
        given = dict(one.partition("=")[::2] for one in Path(f"/proc/{pid}/environ").read_text().split("\0"))
        assert [given.get(name) for name in ("TOKEN", "OFFSET", "CFG_OFFSET", "MODE", "NONE")] == [
            "hunter-2-hunter", "2", "1", "fast", None,
        ]  # fmt: skip
        gone = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "other"}}}]
        resources.apply(store, container("myorg/plain:v1", command=command, env=gone))
        failure = settle(plane)["modelStatus"]["lastFailureInfo"]["message"]
        assert "Secret 'keys' in namespace 'default' has no key 'other'" in failure
        assert plane.predict("delay", [1]).status_code == 200, "the version before goes on"
    written = [path for path in home.home.rglob("*") if path.is_file()]
    assert not [path for path in written if b"hunter-2-hunter" in path.read_bytes()]


def over_grpc(channel: grpc.Channel, rows: Any, **fields: Any) -> tuple[list[float], Any]:
    """Ask over gRPC with one FP64 tensor; return the first output and the trailing metadata."""
    tensor = {"name": "x", "datatype": "FP64", "shape": np.shape(rows)}
    raw = np.array(rows, "<f8").tobytes()
    message = CLASSES["ModelInferRequest"](model_name="delay", inputs=[tensor], raw_input_contents=[raw], **fields)
    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    data, told = call.with_call(message.SerializeToString(), timeout=60)
    contents = CLASSES["ModelInferResponse"].FromString(data).outputs[0].contents
    return [*contents.fp64_contents, *contents.int64_contents], dict(told.trailing_metadata())


def code_of(channel: grpc.Channel, rows: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        over_grpc(channel, rows)
    failed: Any = caught.value
    return failed.code().name, failed.details()


@pytest.mark.slow
def test_grpc_and_invocations_reach_the_processes_that_speak_them(home: Settings, store: Store, tmp_path: Path) -> None:
    shutil.copytree(SERVERS, home.project, dirs_exist_ok=True)
    (home.project / "ondol.yaml").write_text(IMAGES)
    with (
        serving_tools.running(home, store, grpc=True) as plane,
        grpc.insecure_channel(plane.settings.grpc_at) as channel,
    ):
        resources.apply(store, container("myorg/predictor:v1", args=["--model_name=sum", "--grpc_port=9000"]))
        assert conditions(settle(plane))["Ready"] == "True"
        sums, told = over_grpc(channel, [[1, 2], [3, 4]], id="r-1")
        assert (sums, told["x-request-id"], told["x-ondol-arm"]) == ([3.0, 7.0], "r-1", "stable")
        assert code_of(channel, [[1, 2, 3]]) == ("INVALID_ARGUMENT", "two columns at most")
        serving_tools.wait(lambda: bool(observations.of_service(store, "delay")))
        (kept,) = observations.of_service(store, "delay")
        assert kept.features == '[{"name":"x","shape":[2,2],"datatype":"FP64","data":[1.0,2.0,3.0,4.0]}]'
        assert '"data":[3.0,7.0]' in kept.prediction
        described = CLASSES["ModelMetadataRequest"](name="delay").SerializeToString()
        answer = channel.unary_unary(f"/{SERVICE}/ModelMetadata")(described, timeout=60)
        assert CLASSES["ModelMetadataResponse"].FromString(answer).name == "sum"
        scored = plane.client.post("/endpoints/delay/invocations", json={"inputs": [[1, 1]]})
        assert (scored.status_code, scored.json()["code"]) == (422, "UNS-370")
        assert code_of(channel, [[-9]])[0] == "UNAVAILABLE"

        resources.apply(store, service(GUIDE % write(tmp_path / "model")))
        serving_tools.wait(lambda: conditions(settle(plane))["Ready"] == "True")
        assert over_grpc(channel, (2 * X[:5]).tolist())[0] == Y[:5].tolist()

        resources.apply(store, container("myorg/plain:v1", command=["python", "plain.py"]))
        settle(plane)
        serving_tools.wait(lambda: "pid" in plane.predict("delay", [1]).json())
        assert code_of(channel, [[1]])[0] == "UNIMPLEMENTED"
        scored = plane.client.post("/endpoints/delay/invocations", json={"instances": [[1, 1]]})
        assert scored.json()["predictions"] == [[1, 1]]


def test_a_process_that_served_once_is_looked_at_anew(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "$(PORT)")
    worker = Worker(WorkerSpec(command, ready_path="/", model_name="m"), sys.executable, tmp_path / "log")
    try:
        serving_tools.wait(worker.look)
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        (child,) = map(int, children.read_text().split())
        os.kill(child, signal.SIGSTOP)
        assert not worker.look()  # it lives and its port takes connections, but it does not answer
        os.kill(child, signal.SIGCONT)
        serving_tools.wait(worker.look)
    finally:
        worker.end()
