"""The servers that are measured: how each is started, at its best settings, and how it is asked.

Batching servers appear twice, with batching and without, because the better of the two depends on the load.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers import environments

from ondol.records.release import ModelManifest
from ondol.records.rollout import Route
from ondol.store import releases, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

HERE = Path(__file__).resolve().parent
Rows = list[list[float]]
AGAIN = "-again"
"""What the folder of a second start is called beside the first one's; who keeps something finds it there."""

_QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Work:
    """One model, with the rows to send and what it says of them."""

    name: str
    folder: Path
    """A folder with model.joblib, which becomes `NAME-mlflow` beside it."""

    rows: Rows
    labels: list[int]
    probabilities: list[list[float]]


@dataclass(frozen=True)
class Start:
    """A command with its environment and working folder."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def variables(self) -> dict[str, str]:
        """Return the whole environment of the process: programs of its own venv are found first."""
        path = f"{Path(self.command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**os.environ, **_QUIET, "PATH": path, **self.environment}


@dataclass(frozen=True)
class Server:
    """One server: how it is started and asked."""

    name: str
    start: Callable[[Work, int, Path], Start]
    """Takes the model, the port and an empty folder."""

    path: Callable[[Work], str]
    body: Callable[[Rows], str]
    labels: Callable[[Any], list[int]]
    """From the answer's JSON."""

    peer: str = ""
    """Name of its environment; empty: ours."""

    probability_body: Callable[[Rows], str] | None = None
    """Asks for probabilities instead of labels; None: it cannot be asked."""

    probabilities: Callable[[Any], list[float]] = lambda answer: list(answer["outputs"][0]["data"])
    batching: bool = False


def _instances(rows: Rows) -> str:
    return json.dumps({"instances": rows})


def _named(rows: Rows) -> str:
    return json.dumps({"rows": rows})


def _tensor(rows: Rows, output: str = "") -> str:
    flat = [value for row in rows for value in row]
    body: dict[str, Any] = {
        "inputs": [{"name": "x", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": flat}]
    }
    return json.dumps(body | ({"outputs": [{"name": output}]} if output else {}))


def _python(name: str) -> str:
    return str(environments.ROOT / name / "bin" / "python")


def _v1(work: Work) -> str:
    return f"/v1/models/{work.name}:predict"


def ours() -> Server:
    """Our data plane with its request log on, as `ondol up` starts it."""

    def start(work: Work, port: int, folder: Path) -> Start:
        home = folder.with_name(folder.name.removesuffix(AGAIN) + "-home")
        begins = not home.exists()
        with Store(home / "ondol.db") as store:
            digest = Blobs(home / "blobs").put_path(work.folder)
            release = releases.put(store, work.name, ModelManifest(digest, str(work.folder)))
            if begins:
                routes.put(store, Route(work.name, "model", release.digest))
        where = f"127.0.0.1:{port}"
        command = [sys.executable, "-m", "ondol.app.dataplane", "--home", str(home), "--listen", where]
        return Start(command, folder=folder)

    return Server("ondol", start, _v1, _instances, lambda answer: list(answer["predictions"]))


def kserve() -> Server:
    """KServe's ModelServer with the sklearn predictor of its own runtime; latency and access logs are off."""

    def start(work: Work, port: int, folder: Path) -> Start:
        script = str(HERE / "kserve_server.py")
        return Start([_python("kserve"), script, str(port), work.name, str(work.folder / "model.joblib")])

    return Server("kserve", start, _v1, _instances, lambda answer: list(answer["predictions"]), "kserve")


def mlserver(batching: bool) -> Server:
    """MLServer without its worker processes (with them it is slower here), with and without adaptive batching."""

    def start(work: Work, port: int, folder: Path) -> Start:
        settings = {
            "host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2,
            "parallel_workers": 0, "debug": False,
        }  # fmt: skip
        model: dict[str, Any] = {
            "name": work.name,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(work.folder / "model.joblib")},
        }
        if batching:
            model |= {"max_batch_size": 64, "max_batch_time": 0.005}
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
        return Start([str(Path(_python("mlserver")).with_name("mlserver")), "start", str(folder)], folder=folder)

    return Server(
        "mlserver-batch" if batching else "mlserver",
        start,
        lambda work: f"/v2/models/{work.name}/infer",
        _tensor,
        lambda answer: list(answer["outputs"][0]["data"]),
        "mlserver",
        probability_body=lambda rows: _tensor(rows, "predict_proba"),
        batching=batching,
    )


def mlflow() -> Server:
    """`mlflow models serve`, one worker; it has no batching."""

    def start(work: Work, port: int, folder: Path) -> Start:
        command = [str(Path(_python("mlflow")).with_name("mlflow")), "models", "serve", "--env-manager", "local"]
        return Start([*command, "-m", f"{work.folder}-mlflow", "-h", "127.0.0.1", "-p", str(port), "-w", "1"])

    def body(rows: Rows) -> str:
        return json.dumps({"inputs": rows})

    return Server("mlflow", start, lambda _: "/invocations", body, lambda answer: list(answer["predictions"]), "mlflow")


def bentoml(batching: bool) -> Server:
    """BentoML's service with one worker, with and without `batchable`."""

    def start(work: Work, port: int, folder: Path) -> Start:
        shutil.copy(HERE / "bentoml_service.py", folder / "bentoml_service.py")
        command = [str(Path(_python("bentoml")).with_name("bentoml")), "serve", "bentoml_service:Peer"]
        environment = {
            "PEER_MODEL": str(work.folder / "model.joblib"),
            "PEER_BATCHING": str(int(batching)),
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(folder / "bento"),
        }
        return Start([*command, "--host", "127.0.0.1", "--port", str(port)], environment, folder)

    name = "bentoml-batch" if batching else "bentoml"
    return Server(name, start, lambda _: "/predict", _named, list, "bentoml", batching=batching)


def litserve(batching: bool) -> Server:
    """LitServe on the CPU with one worker, with and without batching."""

    def start(work: Work, port: int, folder: Path) -> Start:
        script = str(HERE / "litserve_server.py")
        model = str(work.folder / "model.joblib")
        return Start([_python("litserve"), script, str(port), model, str(int(batching))], folder=folder)

    name = "litserve-batch" if batching else "litserve"
    labels = lambda answer: list(answer["labels"])  # noqa: E731 - one of seven, all of this form
    return Server(name, start, lambda _: "/predict", _named, labels, "litserve", batching=batching)


def everyone() -> list[Server]:
    """Return all servers, ours first."""
    pairs = [maker(batching) for maker in (mlserver, bentoml, litserve) for batching in (False, True)]
    return [ours(), kserve(), mlflow(), *pairs]
