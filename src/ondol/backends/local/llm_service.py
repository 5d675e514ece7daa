"""The controller of LLMInferenceServices on this machine: it says in their status whether they can be asked, and where.

The data plane opens the model when it is first asked, from the manifest; here nothing is started.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from ondol.backends.local import inference_status
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats import llm_inference_service
from ondol.llm import gguf
from ondol.store import resources
from ondol.store.connection import Store
from ondol.store.resources import Resource

Json = dict[str, Any]


def reconcile(store: Store, settings: Settings) -> bool:
    """Bring the status of every service up to date; return whether any changed."""
    owners: dict[str, str] = {}
    changed = False
    for resource in resources.by_age(store, llm_inference_service.KIND):
        fresh = _status(settings, resource, owners)
        if fresh != resource.status:
            resources.set_status(store, resource.kind, resource.namespace, resource.name, fresh)
            changed = True
    return changed


def _status(settings: Settings, resource: Resource, owners: dict[str, str]) -> Json:
    reason, message = _blocked(settings, resource, owners)
    condition: Json = {"status": "False", "reason": reason, "message": message} if reason else {"status": "True"}
    conditions = [{"type": kind, **condition} for kind in ("WorkloadsReady", "Ready")]
    fresh: Json = {
        "observedGeneration": resource.generation,
        "conditions": inference_status.keep_times(conditions, resource.status.get("conditions", [])),
    }
    if reason:
        return fresh
    url = f"{settings.data.url}/openai"  # clients put `/v1/chat/completions` behind it, as on a cluster
    return {**fresh, "url": url, "addresses": [{"url": url}]}


def _blocked(settings: Settings, resource: Resource, owners: dict[str, str]) -> tuple[str, str]:
    """Return why a service cannot be asked, in one word and in a sentence; empty when it can."""
    try:
        service = llm_inference_service.typed(resource.manifest)
        key = f"{resource.namespace}/{resource.name}"
        owner = owners.setdefault(service.model, key)
        if service.stopped:
            return "Stopped", "the service is stopped"
        if owner != key:
            return "Conflict", f"{owner!r} has the same model name {service.model!r}"
        gguf.find(service.path, settings.project)
    except errors.InputError as error:
        return "InvalidModel", error.message
    if importlib.util.find_spec("xllamacpp") is None:
        return "MissingLibrary", "a GGUF model needs xllamacpp: pip install 'ondol[local-llm]'"
    return "", ""
