"""A real data plane process, models for it, and a client: what the serving tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np

from ondol.app import listen
from ondol.base.settings import OFF, Address, Settings
from ondol.records.release import ModelManifest, Release
from ondol.records.rollout import Route
from ondol.store import loads, releases, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

READY_SECONDS = 180.0
Json = dict[str, Any]


@dataclass
class Plane:
    """A running data plane and the store it follows."""

    settings: Settings
    store: Store
    client: httpx.Client
    process: subprocess.Popen[bytes]

    def predict(self, service: str, instances: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(f"/v1/models/{service}:predict", json={"instances": instances}, headers=named)

    def infer(self, service: str, body: Json) -> httpx.Response:
        return self.client.post(f"/v2/models/{service}/infer", json=body)

    def release(self, name: str, model: Any, folder: Path) -> Release:
        """Release a fitted model under a service's name."""
        return release(self.store, self.settings, name, model, folder)

    def serve(self, name: str, model: Any, folder: Path) -> Release:
        """Route a service to a model and wait until it is served."""
        made = self.release(name, model, folder)
        routes.put(self.store, Route(name, "model", made.digest))
        self.wait_for(name, made.digest)
        return made

    def wait_for(self, service: str, digest: str, state: str = "Loaded") -> None:
        """Wait until the data plane says this of a release."""
        wait(lambda: any(one.release == digest and one.state == state for one in loads.every(self.store, service)))

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(READY_SECONDS)


def wait(condition: Any, seconds: float = READY_SECONDS) -> None:
    """Wait until something is true; fail when it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def release(store: Store, settings: Settings, name: str, model: Any, folder: Path) -> Release:
    """Write a model the way users do, keep it as a blob and release it."""
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, folder / "model.joblib")
    digest = Blobs(settings.blobs).put_path(folder)
    return releases.put(store, name, ModelManifest(digest, str(folder)))


def start(home: Path, output: Any, grpc_at: str = OFF, cwd: Path | None = None) -> tuple[Any, Address]:
    """Start a data plane; its port is bound here and handed over, so that nobody else takes it in between."""
    with listen.bind(Address("127.0.0.1", 0), "--data") as listening:
        listening.set_inheritable(True)
        address = listen.address_of(listening)
        places = ["--home", str(home), "--listen", str(address), "--grpc", grpc_at]
        process = subprocess.Popen(
            [sys.executable, "-m", "ondol.app.dataplane", *places],
            stdout=output,
            stderr=output,
            cwd=cwd,
            pass_fds=[listening.fileno()],
            env={**os.environ, "OMP_NUM_THREADS": "1", listen.FD_VARIABLE: str(listening.fileno())},
        )
    return process, address


@contextmanager
def running(settings: Settings, store: Store, grpc: bool = False) -> Iterator[Plane]:
    """Start a data plane, wait until it is ready, and stop it at the end."""
    settings.logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as used:
        at = OFF
        if grpc:  # kept for it as long as it lives
            at = str(listen.address_of(used.enter_context(listen.reserve(Address("127.0.0.1", 0), "--grpc"))))
        with (settings.logs / "dataplane.log").open("ab") as output:
            process, address = start(settings.home, output, at)
        used.callback(_stop, process)
        client = used.enter_context(httpx.Client(base_url=address.url, timeout=60.0))
        wait(lambda: process.poll() is not None or _ready(client))
        assert process.poll() is None, (settings.logs / "dataplane.log").read_text()
        yield Plane(replace(settings, data=address, grpc_at=at), store, client, process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait(READY_SECONDS)


@contextmanager
def clients(url: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Give two clients with connections of their own."""
    with httpx.Client(base_url=url, timeout=60.0) as one, httpx.Client(base_url=url, timeout=60.0) as other:
        yield one, other


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def matrix(rows: int, columns: int, seed: int = 0) -> Any:
    """Return random rows."""
    return np.random.default_rng(seed).normal(size=(rows, columns))
