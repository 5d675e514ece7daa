"""The controller of InferenceServices on this machine: manifest -> model files -> release -> route -> status.

Level-triggered: every call looks at what is and does the next step that is missing, so that it may be killed anywhere.
A changed manifest moves the route once. What moves it afterwards (a judge, a rollback, a promotion) is not undone.

Must not load a model nor judge one: the data plane loads, and says so in `store.loads`.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from ondol.backends.local import component_release, inference_status, moving, serving_runtimes
from ondol.backends.local.progress import Progress
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats import inference_service, serving_runtime
from ondol.formats.inference_service import InferenceService
from ondol.formats.serving_runtime import ServingRuntime
from ondol.store import components, counters, resources, routes
from ondol.store.connection import Store
from ondol.store.resources import Resource

_FACT = "inference_services"
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
_REASONS = {
    **dict.fromkeys(("UNS-340", "UNS-342", "INP-340"), "InvalidPredictorSpec"),
    **dict.fromkeys(("INP-030", "INP-420", "INP-422"), "InvalidRollout"),
    "INP-560": "RuntimeNotRecognized",
    "INP-561": "RuntimeDisabled",
    "INP-562": "NoSupportingRuntime",
}
_MAY_COME = ("INP-230", "INP-560", "INP-561", "INP-562")
"""Files and runtimes may still come."""

Json = dict[str, Any]


def reconcile(store: Store, settings: Settings) -> bool:
    """Do the next steps of every InferenceService; return whether anything was done."""
    known: dict[str, Json] = counters.fact(store, _FACT) or {}
    applied = resources.every(store, inference_service.KIND)
    after: dict[str, Json] = {}
    changed = False
    owners: dict[str, str] = {}
    for resource in applied:
        key = f"{resource.namespace}/{resource.name}"
        before = known.get(key)
        progress = Progress(**before) if before else Progress(0)
        if not progress.is_of(resource):
            progress = Progress.of(resource)
        owner = owners.setdefault(resource.name, key)
        _advance(store, settings, resource, progress, owner if owner != key else "")
        after[key] = asdict(progress)
        changed = changed or after[key] != before
        status = inference_status.status(store, settings, resource, progress)
        if status != resource.status:
            resources.set_status(store, resource.kind, resource.namespace, resource.name, status)
            changed = True
    for key in known.keys() - after.keys():
        name = key.partition("/")[2]
        if name not in owners:
            routes.remove(store, name)
            components.want(store, name, {})
        changed = True
    if after != known:
        counters.put_fact(store, _FACT, after)
    return changed


def _advance(store: Store, settings: Settings, resource: Resource, progress: Progress, other_owner: str) -> None:
    """Do what one manifest needs next; a failure is written into `progress`, never raised."""
    if progress.state in ("failed", "done", "stopped") or time.time() < progress.retry_at:
        return
    try:
        service, chosen = serving_runtime.settled(resource.manifest, serving_runtimes.every(store))
        if other_owner:
            raise errors.ConflictError(
                f"{other_owner!r} has the same name: services are addressed by name, whatever their namespace",
                code="CON-030",
            )
        if service.stopped:
            routes.remove(store, service.name)
            components.want(store, service.name, {})
            progress.state, progress.reason = "stopped", "Stopped"
            return
        if progress.state == "resolving":
            _resolve(store, settings, service, chosen, progress)
        if progress.state == "moving":
            moving.move(store, service, progress)
    except errors.ConflictError as error:
        _later(progress, "Conflict", error)
    except errors.InputError as error:
        reason = _REASONS.get(error.code, "InvalidStorage")
        progress.state, progress.reason, progress.message = (
            "failed",
            reason,
            f"{error.where}: {error.message}".lstrip(": "),
        )
        if error.code in _MAY_COME:
            _later(progress, reason, error)
    except errors.OndolError as error:
        _later(progress, "StorageUnavailable", error)


def _later(progress: Progress, reason: str, error: errors.OndolError) -> None:
    progress.reason, progress.message = reason, error.message
    if progress.state == "failed":
        progress.state = "resolving"
    progress.retry_at = time.time() + _RETRY_SECONDS[min(progress.tries, len(_RETRY_SECONDS) - 1)]
    progress.tries += 1


def _resolve(
    store: Store,
    settings: Settings,
    service: InferenceService,
    chosen: list[ServingRuntime | None],
    progress: Progress,
) -> None:
    """Fetch the files, keep them as blobs, pin them or the server that uses them in releases."""
    settings.home.mkdir(parents=True, exist_ok=True)
    around = {
        name: component_release.worker(service, name, part, settings)
        for name, part in (("transformer", service.transformer), ("explainer", service.explainer))
        if part is not None
    }
    runtime, *others = chosen
    progress.release = component_release.of(store, settings, service, service.predictor, runtime)
    progress.runtime = f"{runtime.kind}/{runtime.name}" if runtime else ""
    progress.variants = {
        one.predictor.name: component_release.of(store, settings, service, one.predictor, other)
        for one, other in zip(service.canary, others, strict=True)
    }
    components.want(store, service.name, around)
    progress.state, progress.reason, progress.message = "moving", "", ""
    progress.tries, progress.retry_at = 0, 0.0
