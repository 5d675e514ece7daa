"""The controller of InferenceGraphs on this machine: it says in their status whether they can be asked, and where.

The data plane routes graphs by itself, from their manifests; here nothing is started. Must not route.
"""

from __future__ import annotations

from typing import Any

from ondol.backends.local import inference_status
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats import inference_graph, inference_service
from ondol.formats.inference_graph import InferenceGraph
from ondol.store import loads, resources, routes
from ondol.store.connection import Store
from ondol.store.resources import Resource

Json = dict[str, Any]


def reconcile(store: Store, settings: Settings) -> bool:
    """Bring the status of every graph up to date; return whether any changed."""
    graphs = resources.by_age(store, inference_graph.KIND)
    if not graphs:
        return False
    services = {one.name: one for one in resources.every(store, inference_service.KIND)}
    owners: dict[str, str] = {}
    changed = False
    for resource in graphs:
        key = f"{resource.namespace}/{resource.name}"
        owner = owners.setdefault(resource.name, key)
        fresh = _status(store, settings, resource, services, owner if owner != key else "")
        if fresh != resource.status:
            resources.set_status(store, resource.kind, resource.namespace, resource.name, fresh)
            changed = True
    return changed


def _status(store: Store, settings: Settings, resource: Resource, services: dict[str, Resource], owner: str) -> Json:
    reason, message = _blocked(store, resource, services, owner)
    stopped = reason == "Stopped"
    ready: Json = {"type": "Ready", "status": "False" if reason else "True"}
    if reason:
        ready |= {"reason": reason, "message": message} if message else {"reason": reason}
    conditions = [ready, {"type": "Stopped", "status": "True" if stopped else "False"}]
    fresh: Json = {
        "observedGeneration": resource.generation,
        "conditions": inference_status.keep_times(conditions, resource.status.get("conditions", [])),
    }
    return fresh if reason else {**fresh, "url": f"{settings.data.url}/v1/graphs/{resource.name}"}


def _blocked(store: Store, resource: Resource, services: dict[str, Resource], owner: str) -> tuple[str, str]:
    """Return why a graph is not ready, in one word and in a sentence; empty when it is."""
    try:
        graph = inference_graph.typed(resource.manifest)
    except errors.InputError as error:  # written by an older Ondol that took what this one refuses
        return "InvalidSpec", error.message
    if graph.stopped:
        return "Stopped", ""
    if owner:
        return "Conflict", f"{owner!r} has the same name: graphs are addressed by name, whatever their namespace"
    return _waiting(store, graph, services)


def _waiting(store: Store, graph: InferenceGraph, services: dict[str, Resource]) -> tuple[str, str]:
    for name in graph.services:
        resource, route = services.get(name), routes.get(store, name)
        if resource is None and route is None:
            return "ServiceNotFound", f"there is no InferenceService {name!r}"
        if resource is not None:
            conditions = resource.status.get("conditions", [])
            ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
        else:  # a model of the loop has no manifest
            ready = any(
                route is not None and load.release == route.stable and load.state == "Loaded"
                for load in loads.every(store, name)
            )
        if not ready:
            return "ServiceNotReady", f"service {name!r} is not ready"
    return "", ""
