"""The resource door alone on a port of its own, and clients for it: what the tests of the Kubernetes API share."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

from ondol.api.kubernetes.door import KubernetesDoor
from ondol.app import kubeconfig, listen
from ondol.base.settings import Address
from ondol.store.connection import Store

Json = dict[str, Any]
ISVC = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"

GUIDE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: sklearn-model
  namespace: kubeflow
spec:
  predictor:
    model:
      modelFormat:
        name: sklearn
      storageUri: "s3://my-bucket/models/sklearn-model"
      resources:
        requests: {cpu: 100m, memory: 256Mi}
        limits: {cpu: 500m, memory: 512Mi}
    minReplicas: 1
    maxReplicas: 10
    scaleTarget: 10  # 동시 요청
    scaleMetric: concurrency
"""
"""What a course teaches to write first."""


@contextmanager
def door(store: Store, wrapped: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> Iterator[str]:
    """Serve a store's resources and yield the URL that a kubeconfig names."""
    listening = listen.bind(Address("127.0.0.1", 0))
    served = KubernetesDoor(store)
    server = uvicorn.Server(uvicorn.Config(wrapped(served), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"{listen.address_of(listening).url}/k8s"
    finally:
        served.close()
        server.force_exit = True
        server.should_exit = True
        thread.join()


def manifest(name: str = "delay", **predictor: Any) -> Json:
    """Return a small InferenceService."""
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": f"file:///models/{name}"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {"model": model, **predictor}},
    }


def client(url: str) -> httpx.Client:
    """Return a plain HTTP client of the door."""
    return httpx.Client(base_url=url, timeout=120)


class Kubectl:
    """The real kubectl against one server, with a home of its own."""

    def __init__(self, url: str, folder: Path, key: str = "") -> None:
        self._folder = folder
        self.config = folder / "kubeconfig"
        kubeconfig.write(self.config, url, key)

    def __call__(self, *arguments: str, text: str = "", expect: int = 0, **environment: str) -> str:
        """Run it and return what it printed, errors after output."""
        done = subprocess.run(
            self.command(*arguments),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            env={**os.environ, "HOME": str(self._folder), **environment},
        )
        assert done.returncode == expect, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def command(self, *arguments: str) -> list[str]:
        """Return the command line."""
        return [_kubectl(), "--kubeconfig", str(self.config), *arguments]


def _kubectl() -> str:
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not on the PATH")
    return found
