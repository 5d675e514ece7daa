"""KServe's own clients on an inference graph: created, waited for, asked and deleted as on a cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sklearn.linear_model import LinearRegression
from tests.behaviour import kubernetes_tools, serving_tools
from tests.behaviour.kubernetes_tools import Kubectl
from tests.behaviour.serving_tools import Plane

from ondol.backends.local import inference_graph
from ondol.base.settings import Settings
from ondol.store.connection import Store


@contextmanager
def reconciled(plane: Plane) -> Iterator[None]:
    """Keep the statuses of graphs up to date, as control does."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(0.05):
            inference_graph.reconcile(plane.store, plane.settings)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def ask(kserve: Any, address: str) -> Any:
    """Ask a graph with KServe's inference client."""
    client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v1", retries=0))
    try:
        return await client.infer(address, {"instances": [[4]]}, is_graph_endpoint=True)
    finally:
        await client.close()


@pytest.mark.slow
def test_kserves_clients_make_a_graph_and_ask_it(home: Settings, store: Store, tmp_path: Path) -> None:
    kserve: Any = pytest.importorskip("kserve")
    kubernetes: Any = pytest.importorskip("kubernetes")
    steps = [
        kserve.V1alpha1InferenceStep(service_name="double"),
        kserve.V1alpha1InferenceStep(service_name="double", data="$request", dependency="Hard"),
    ]
    graph = kserve.V1alpha1InferenceGraph(
        api_version="serving.kserve.io/v1alpha1",
        kind="InferenceGraph",
        metadata=kubernetes.client.V1ObjectMeta(name="twice", namespace="default"),
        spec=kserve.V1alpha1InferenceGraphSpec(
            nodes={"root": kserve.V1alpha1InferenceRouter(router_type="Sequence", steps=steps)}
        ),
    )
    with kubernetes_tools.door(store) as url, serving_tools.running(home, store) as plane, reconciled(plane):
        plane.serve("double", LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0]), tmp_path / "double")
        client = kserve.KServeClient(config_file=str(Kubectl(url, tmp_path).config))
        client.create_inference_graph(graph)
        client.wait_ig_ready("twice", "default", timeout_seconds=180, polling_interval=1)
        # The data plane learns of a graph from the same store as its status does, not by it.
        serving_tools.wait(lambda: plane.client.get("/v1/graphs").json() == {"graphs": ["twice"]})
        address = client.get_inference_graph("twice", "default")["status"]["url"]
        assert asyncio.run(ask(kserve, address)) == {"predictions": [pytest.approx(8)]}
        client.delete_inference_graph("twice", "default")
        serving_tools.wait(lambda: plane.client.get("/v1/graphs").json() == {"graphs": []})
