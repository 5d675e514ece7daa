"""The status of an InferenceService in KServe's own words: url, conditions, modelStatus, traffic.

Computed from the route and the data plane's loads every time. Must not change anything.
"""

from __future__ import annotations

from typing import Any

from ondol.backends.local.progress import Progress
from ondol.base import clock, hashing
from ondol.base.settings import Settings
from ondol.formats.kserve.runtime import SERVING_RUNTIME
from ondol.records.rollout import Route
from ondol.store import components, loads, routes
from ondol.store.components import ServedComponent
from ondol.store.connection import Store
from ondol.store.loads import Load
from ondol.store.resources import Resource

Json = dict[str, Any]

_INVALID_SPEC = ("InvalidPredictorSpec", "RuntimeNotRecognized", "RuntimeDisabled", "NoSupportingRuntime")


def status(store: Store, settings: Settings, resource: Resource, progress: Progress) -> Json:
    """Return the status; times of conditions stay when nothing changed."""
    route = routes.get(store, resource.name) if progress.state != "stopped" else None
    found = {load.release: load for load in loads.every(store, resource.name)}
    stable = found.get(route.stable) if route else None
    serving = stable is not None and stable.state == "Loaded"
    failure = _failure(progress, route, found)
    fresh: Json = {"observedGeneration": resource.generation}
    if route is not None:
        fresh["url"] = f"{settings.data.url}/v1/models/{resource.name}:predict"
        fresh["address"] = {"url": settings.data.url}
        fresh["components"] = {"predictor": _component(route, settings)}
    kind, _, runtime = progress.runtime.partition("/")
    if runtime:
        fresh["servingRuntimeName" if kind == SERVING_RUNTIME.kind else "clusterServingRuntimeName"] = runtime
    fresh["modelStatus"] = _model_status(progress, route, stable, failure)
    canaries = _canaries(resource, progress, found)
    if canaries:
        fresh["canaryStatuses"] = canaries
    reason, message = _why(progress, failure)
    stopped = progress.state == "stopped"
    around = components.every(store, resource.name)
    missing = next((one for one in around if one.state != "Loaded"), None)
    ready = serving and progress.state == "done"
    fresh["conditions"] = keep_times(
        [
            _condition("IngressReady", route is not None, reason, message),
            _condition("PredictorReady", serving, reason, message),
            *_canary_condition(canaries),
            *(_condition(f"{one.component.title()}Ready", *_of_component(one)) for one in around),
            _condition("Ready", ready, reason, message)
            if missing is None or not ready
            else _condition("Ready", *_of_component(missing)),
            {"type": "Stopped", "status": "True" if stopped else "False"},
        ],
        resource.status.get("conditions", []),
    )
    return fresh


def _condition(kind: str, true: bool, reason: str, message: str) -> Json:
    if true:
        return {"type": kind, "status": "True"}
    waiting = reason in ("", "Loading")
    found: Json = {"type": kind, "status": "Unknown" if waiting else "False", "reason": reason or "Loading"}
    return {**found, "message": message} if message else found


def _of_component(one: ServedComponent) -> tuple[bool, str, str]:
    reason = f"{one.component.title()}LoadFailed" if one.state == "FailedToLoad" else "Loading"
    return one.state == "Loaded", reason, one.message


def keep_times(conditions: list[Json], before: list[Json]) -> list[Json]:
    """Give conditions the time since when they are as they are."""
    now = _now()
    old = {condition.get("type"): condition for condition in before}
    for condition in conditions:
        last = old.get(condition["type"], {})
        same = last.get("status") == condition["status"]
        condition["lastTransitionTime"] = last.get("lastTransitionTime", now) if same else now
    return conditions


def _now() -> str:
    return clock.iso(clock.SYSTEM.now())[:19] + "Z"


def _canaries(resource: Resource, progress: Progress, found: dict[str, Load]) -> list[Json]:
    """Return what is to be said of each variant of `spec.canary[]`."""
    said = []
    for one in resource.manifest["spec"].get("canary") or []:
        name = one["predictor"].get("name", "")
        load = found.get(progress.variants.get(name, ""))
        state = load.state if load else "Pending"
        model: Json = {
            "transitionStatus": {"Loaded": "UpToDate", "FailedToLoad": "BlockedByFailedLoad"}.get(state, "InProgress"),
            "states": {"activeModelState": state, "targetModelState": state},
        }
        if load is not None and state == "FailedToLoad":
            model["lastFailureInfo"] = {"reason": "ModelLoadFailed", "message": load.message}
        ready = state == "Loaded"
        said.append({"name": name, "ready": ready, "trafficPercent": one["trafficPercent"], "modelStatus": model})
    return said


def _canary_condition(canaries: list[Json]) -> list[Json]:
    waiting = [one["name"] for one in canaries if not one["ready"]]
    if not canaries:
        return []
    return [_condition("CanaryPredictorReady", not waiting, "CanaryNotReady" if waiting else "", ", ".join(waiting))]


def _component(route: Route, settings: Settings) -> Json:
    first = {"revisionName": _revision(route, route.stable), "percent": round(100 - _weight(route)), "tag": "stable"}
    traffic = [first] + [
        {"revisionName": _revision(route, one.release), "percent": round(route.weight * one.share), "tag": one.name}
        for one in route.variants
    ]
    traffic[1 if route.candidate else 0]["latestRevision"] = True
    found: Json = {"url": settings.data.url, "traffic": traffic}
    found["latestReadyRevision"] = traffic[0]["revisionName"]
    if route.previous:
        found["previousRolledoutRevision"] = _revision(route, route.previous)
    return found


def _weight(route: Route) -> float:
    return route.weight if route.candidate else 0.0


def _revision(route: Route, digest: str) -> str:
    return f"{route.service}-predictor-{hashing.short(digest, 8)}"


def _failure(progress: Progress, route: Route | None, found: dict[str, Load]) -> Json | None:
    if progress.state == "failed" or (progress.reason and progress.state == "resolving"):
        return {"reason": progress.reason, "message": progress.message}
    for digest in filter(None, (route.candidate, route.stable) if route else ()):
        load = found.get(digest)
        if load is not None and load.state == "FailedToLoad":
            return {"reason": "ModelLoadFailed", "message": load.message, "modelRevisionName": hashing.short(digest, 8)}
    return None


def _why(progress: Progress, failure: Json | None) -> tuple[str, str]:
    if failure is not None:
        return str(failure["reason"]), str(failure["message"])
    return progress.reason or "Loading", progress.message


def _model_status(progress: Progress, route: Route | None, stable: Load | None, failure: Json | None) -> Json:
    active = {"Loaded": "Loaded", "Loading": "Loading", "FailedToLoad": "FailedToLoad"}.get(
        stable.state if stable else "", "Pending"
    )
    target = active
    transition = "UpToDate" if active == "Loaded" else "InProgress"
    if failure is not None:
        transition, target = "BlockedByFailedLoad", "FailedToLoad"
        if failure["reason"] in _INVALID_SPEC or (failure["reason"] == "InvalidStorage" and route is None):
            transition = "InvalidSpec"
    elif progress.state in ("resolving", "moving"):
        transition, target = "InProgress", "Pending" if progress.state == "resolving" else "Loading"
    found: Json = {"transitionStatus": transition, "states": {"activeModelState": active, "targetModelState": target}}
    if failure is not None:
        found["lastFailureInfo"] = failure
    return found
