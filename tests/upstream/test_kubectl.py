"""The real kubectl and the real KServeClient against the resource API, with the guide's own manifests."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.behaviour import kubernetes_tools
from tests.behaviour.kubernetes_tools import GUIDE, Kubectl

from ondol.api.admin.guard import Guard
from ondol.base.settings import Address, Settings
from ondol.store import resources
from ondol.store.connection import Store

NAME = "inferenceservice.serving.kserve.io/sklearn-model"
READY = {"url": "http://127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    with kubernetes_tools.door(store) as url:
        yield url


@pytest.fixture
def kubectl(url: str, tmp_path: Path) -> Kubectl:
    return Kubectl(url, tmp_path)


@pytest.fixture
def guide(tmp_path: Path) -> str:
    (tmp_path / "guide.yaml").write_text(GUIDE)
    return str(tmp_path / "guide.yaml")


def ready(store: Store, name: str = "sklearn-model", namespace: str = "kubeflow") -> None:
    """Say that a service is ready, as its controller would."""
    one = resources.get(store, "InferenceService", namespace, name)
    resources.set_status(store, one.kind, namespace, name, {**READY, "observedGeneration": one.generation})


@pytest.mark.slow
def test_kubectl_from_apply_to_delete(kubectl: Kubectl, store: Store, guide: str) -> None:
    assert "sklearn-model created" in kubectl("apply", "-f", guide)
    assert "sklearn-model unchanged" in kubectl("apply", "-f", guide)
    assert kubectl("diff", "-f", guide) == ""
    changed = GUIDE.replace("maxReplicas: 10", "maxReplicas: 12")
    assert "+    maxReplicas: 12" in kubectl("diff", "-f", "-", text=changed, expect=1)
    assert "sklearn-model configured" in kubectl("apply", "-f", "-", text=changed)
    ready(store)
    assert "condition met" in kubectl("wait", "--for=condition=Ready", "-n", "kubeflow", "isvc/sklearn-model")
    table = kubectl("get", "isvc", "-A").splitlines()
    assert table[0].split()[:4] == ["NAMESPACE", "NAME", "URL", "READY"]
    assert table[1].split()[:4] == ["kubeflow", "sklearn-model", "http://127.0.0.1", "True"]
    assert "Max Replicas:  12" in kubectl("describe", "isvc", "-n", "kubeflow")
    assert "isvc" in kubectl("api-resources", "--api-group", "serving.kserve.io")
    assert "storageUri" in kubectl("explain", "isvc.spec.predictor.model")
    labelled = kubectl("label", "-n", "kubeflow", "isvc", "sklearn-model", "team=a")
    assert labelled == f"{NAME} labeled\n"
    assert kubectl("get", "isvc", "-A", "-l", "team=a", "-o", "name") == f"{NAME}\n"
    kubectl("annotate", "-n", "kubeflow", "isvc", "sklearn-model", "note=hello")
    path = "jsonpath={.metadata.annotations.note} {.metadata.generation}"
    assert kubectl("get", "-n", "kubeflow", "isvc", "sklearn-model", "-o", path) == "hello 2"
    assert "edited" in kubectl("edit", "-n", "kubeflow", "isvc", "sklearn-model", KUBE_EDITOR="sed -i s/12$/14/")
    assert "deleted" in kubectl("delete", "-f", guide)
    assert "No resources found" in kubectl("get", "isvc", "-n", "kubeflow")


@pytest.mark.slow
def test_kubectl_tells_what_is_wrong(kubectl: Kubectl, guide: str) -> None:
    bogus = GUIDE.replace("minReplicas", "minReplica")
    said = kubectl("apply", "-f", "-", text=bogus, expect=1)  # by the server, or by kubectl before 1.25 itself
    assert "unknown field" in said
    assert "minReplica" in said
    wrong = GUIDE.replace("minReplicas: 1", "minReplicas: one")
    said = kubectl("create", "-f", "-", "--validate=false", text=wrong, expect=1)
    assert 'spec.predictor.minReplicas: Invalid value: "one"' in said
    kubectl("create", "-f", guide)
    assert "AlreadyExists" in kubectl("create", "-f", guide, expect=1)
    patch = ("patch", "-n", "kubeflow", "isvc", "sklearn-model", "--type=merge", "-p")
    kubectl(*patch, '{"spec": {"predictor": {"maxReplicas": 3}}}')
    refused = kubectl("apply", "--server-side", "-f", guide, expect=1)
    assert 'conflict with "kubectl-patch"' in refused
    assert "--force-conflicts" in refused
    assert "serverside-applied" in kubectl("apply", "--server-side", "--force-conflicts", "-f", guide)
    assert f"{NAME} replaced" in kubectl("replace", "-f", guide)


@pytest.mark.slow
def test_kubectl_watches(kubectl: Kubectl, store: Store, guide: str) -> None:
    kubectl("apply", "-f", guide)
    watch = subprocess.Popen(
        kubectl.command("get", "isvc", "-n", "kubeflow", "-w", "--no-headers"), stdout=subprocess.PIPE, text=True
    )
    assert watch.stdout is not None
    assert watch.stdout.readline().split()[0] == "sklearn-model"
    ready(store)
    # Nothing else would bring it before this test's time is over: the watch, which has no bookmarks, ends later.
    assert watch.stdout.readline().split()[:3] == ["sklearn-model", "http://127.0.0.1", "True"]
    watch.terminate()
    watch.wait()
    watch.stdout.close()


@pytest.mark.slow
def test_the_kserve_client_works_unmodified(url: str, kubectl: Kubectl, store: Store) -> None:
    kserve: Any = pytest.importorskip("kserve")
    kubernetes: Any = pytest.importorskip("kubernetes")
    client = kserve.KServeClient(config_file=str(kubectl.config))
    sklearn = kserve.V1beta1SKLearnSpec(storage_uri="file:///models/delay")
    service = kserve.V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        metadata=kubernetes.client.V1ObjectMeta(name="delay", namespace="kubeflow"),
        spec=kserve.V1beta1InferenceServiceSpec(predictor=kserve.V1beta1PredictorSpec(sklearn=sklearn)),
    )
    created = client.create(service)
    assert created["metadata"]["uid"]
    assert client.is_isvc_ready("delay", namespace="kubeflow") is False
    timer = threading.Timer(0.5, ready, (store, "delay"))
    timer.start()
    client.wait_isvc_ready("delay", namespace="kubeflow", timeout_seconds=180, polling_interval=1)
    timer.join()
    assert client.is_isvc_ready("delay", namespace="kubeflow") is True
    service.spec.predictor.timeout = 5
    patched = client.patch("delay", service, namespace="kubeflow")
    assert patched["spec"]["predictor"]["timeout"] == 5
    service.spec.predictor.timeout = None
    replaced = client.replace("delay", service, namespace="kubeflow")
    assert "timeout" not in replaced["spec"]["predictor"]
    listed = client.get(namespace="kubeflow")
    assert [one["metadata"]["name"] for one in listed["items"]] == ["delay"]
    client.delete("delay", namespace="kubeflow")
    with pytest.raises(RuntimeError, match="404"):
        client.get("delay", namespace="kubeflow")


@pytest.mark.slow
def test_kubectl_and_kserve_send_the_key_where_one_is_demanded(home: Settings, store: Store, tmp_path: Path) -> None:
    guarded = replace(home, control=Address("0.0.0.0", 0), api_key="k:e@y/")
    with kubernetes_tools.door(store, lambda app: Guard(app, guarded)) as url:
        assert Kubectl(url, tmp_path, "k:e@y/")("get", "ns", "default", "-o", "name") == "namespace/default\n"
        kserve: Any = pytest.importorskip("kserve")
        client = kserve.KServeClient(config_file=str(tmp_path / "kubeconfig"))
        assert client.get(namespace="default")["items"] == []
        assert "provide credentials" in Kubectl(url, tmp_path)("get", "ns", expect=1)


RUNTIME = """
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterServingRuntime
metadata: {name: team-server}
spec:
  supportedModelFormats: [{name: team-format, version: "1", autoSelect: true, priority: 2}]
  protocolVersions: [v1]
  containers:
    - {name: kserve-container, image: "team/server:v1", args: ["--model_name={{.Name}}"]}
"""


@pytest.mark.slow
def test_kubectl_keeps_runtimes_and_what_they_serve(kubectl: Kubectl) -> None:
    served = GUIDE.replace("name: sklearn\n", "name: team-format\n")
    assert "no runtime here supports it" in kubectl("apply", "-f", "-", text=served, expect=1)
    assert "team-server created" in kubectl("apply", "-f", "-", text=RUNTIME)
    assert "team-server unchanged" in kubectl("apply", "-f", "-", text=RUNTIME)
    assert "sklearn-model created" in kubectl("apply", "-f", "-", text=served)
    heads, row = kubectl("get", "clusterservingruntimes").splitlines()
    assert heads.split() == ["NAME", "DISABLED", "MODELTYPE", "CONTAINERS", "AGE"]
    assert row.split()[:3] == ["team-server", "team-format", "kserve-container"]
    assert "autoSelect" in kubectl("explain", "clusterservingruntime.spec.supportedModelFormats")
    assert "deleted" in kubectl("delete", "clusterservingruntime", "team-server")
