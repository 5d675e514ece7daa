"""The controller of InferenceServices on this machine: manifest -> model files -> release -> route -> status.

Level-triggered: every call looks at what is and does the next step that is missing, so that it may be killed anywhere.
A changed manifest moves the route once. What moves it afterwards (a judge, a rollback, a promotion) is not undone.

Must not load a model nor judge one: the data plane loads, and says so in `store.loads`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ondol.backends.local import containers, inference_status, model_source
from ondol.base import errors, ids
from ondol.base.settings import Settings
from ondol.formats import inference_service
from ondol.formats.inference_service import Component, InferenceService, Model
from ondol.records.release import ModelManifest
from ondol.records.rollout import Route
from ondol.records.worker import WorkerSpec
from ondol.store import components, counters, loads, releases, resources, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store
from ondol.store.resources import Resource

_FACT = "inference_services"
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
_WRONG_CONTAINER = ("UNS-340", "UNS-342", "INP-340")
Json = dict[str, Any]


@dataclass(slots=True)
class Progress:
    """How far one generation of one manifest is."""

    generation: int
    state: str = "resolving"
    """`resolving`, `moving`, `done`, `failed` (nothing more to do until the manifest changes) or `stopped`."""

    release: str = ""
    staged_at: float = 0.0
    """When the release was put on the route to be loaded."""

    reason: str = ""
    message: str = ""
    tries: int = 0
    retry_at: float = 0.0
    uid: str = ""
    """Of the object: one deleted and made anew begins anew, though its generation is the same."""

    stop: str = ""
    """The stop annotation; annotations do not count as a generation."""

    def is_of(self, resource: Resource) -> bool:
        """Whether this is progress with what the manifest asks for now."""
        same_object = self.uid in ("", resource.uid)
        return same_object and (self.generation, self.stop) == (resource.generation, _stop(resource))


def _stop(resource: Resource) -> str:
    return str(resource.manifest["metadata"].get("annotations", {}).get(inference_service.STOP_ANNOTATION, ""))


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
            progress = Progress(resource.generation, uid=resource.uid, stop=_stop(resource))
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
        service = inference_service.typed(resource.manifest)
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
            _resolve(store, settings, service, progress)
        if progress.state == "moving":
            _move(store, service, progress)
    except errors.ConflictError as error:
        _later(progress, "Conflict", error)
    except errors.InputError as error:
        reason = "InvalidPredictorSpec" if error.code in _WRONG_CONTAINER else "InvalidStorage"
        progress.state, progress.reason, progress.message = (
            "failed",
            reason,
            f"{error.where}: {error.message}".lstrip(": "),
        )
        if error.code == "INP-230":  # files may still come
            _later(progress, "InvalidStorage", error)
    except errors.OndolError as error:
        _later(progress, "StorageUnavailable", error)


def _later(progress: Progress, reason: str, error: errors.OndolError) -> None:
    progress.reason, progress.message = reason, error.message
    if progress.state == "failed":
        progress.state = "resolving"
    progress.retry_at = time.time() + _RETRY_SECONDS[min(progress.tries, len(_RETRY_SECONDS) - 1)]
    progress.tries += 1


def _resolve(store: Store, settings: Settings, service: InferenceService, progress: Progress) -> None:
    """Fetch the files, keep them as blobs, pin them or the server that uses them in a release."""
    settings.home.mkdir(parents=True, exist_ok=True)
    around = {
        name: _worker(service, name, part, settings)
        for name, part in (("transformer", service.transformer), ("explainer", service.explainer))
        if part is not None
    }
    model = service.predictor.model
    if model is None:
        spec = _worker(service, "predictor", service.predictor, settings)
        manifest = ModelManifest("", spec.image or spec.command[0], "custom", worker=spec)
        progress.release = releases.put(store, service.name, manifest).digest
    else:
        with _files_of(service.predictor, model, settings) as source:
            artifact = Blobs(settings.blobs).put_path(source.path)
        manifest = ModelManifest(artifact, source.uri, model.format, source.model, source.version, source.run)
        if source.model:  # the same model registered by the loop is the same release
            manifest = replace(manifest, format="sklearn")
        served = _serves_already(store, service.name, artifact)
        progress.release = served or releases.put(store, service.name, manifest).digest
    components.want(store, service.name, around)
    progress.state, progress.reason, progress.message = "moving", "", ""
    progress.tries, progress.retry_at = 0, 0.0


@contextlib.contextmanager
def _fetched(uri: str, settings: Settings) -> Iterator[model_source.Source]:
    with tempfile.TemporaryDirectory(dir=settings.home, prefix="fetch-") as folder:
        yield model_source.fetch(uri, settings, Path(folder))


@contextlib.contextmanager
def _files_of(predictor: Component, model: Model, settings: Settings) -> Iterator[model_source.Source]:
    """Fetch a model's files: one address, an entry of the storage Secret, or several addresses as one folder."""
    if model.storage_uri or not (model.storage or predictor.storage_uris):
        with _fetched(model.storage_uri, settings) as source:
            yield source
        return
    with tempfile.TemporaryDirectory(dir=settings.home, prefix="fetch-") as folder:
        if model.storage is not None:
            yield model_source.of_storage(model.storage, settings, Path(folder))
            return
        together = Path(folder) / "together"
        root = os.path.commonpath([one.mount_path for one in predictor.storage_uris])
        for number, one in enumerate(predictor.storage_uris):
            found = model_source.fetch(one.uri, settings, Path(folder) / str(number)).path
            target = together / os.path.relpath(one.mount_path, root)
            if found.is_dir():
                shutil.copytree(found, target, dirs_exist_ok=True)
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, target)
        yield model_source.Source(together, " ".join(one.uri for one in predictor.storage_uris))


def _worker(service: InferenceService, name: str, part: Component, settings: Settings) -> WorkerSpec:
    """Return what runs for a component that is a container, with its files as blobs."""
    spec = containers.worker(service, name, part, settings)
    addresses = {one.mount_path: one.uri for one in part.storage_uris}
    if part.server is not None and (own := part.server.value_of("STORAGE_URI")):
        addresses["/mnt/models"] = own
    mounts = {}
    for path, uri in addresses.items():
        with _fetched(uri, settings) as source:
            mounts[path] = Blobs(settings.blobs).put_path(source.path)
    return replace(spec, mounts=mounts)


def _serves_already(store: Store, name: str, artifact: str) -> str:
    """Return the release on the route, stable or candidate, that has exactly these files; empty when none has."""
    route = routes.get(store, name)
    for digest in (route.stable, route.candidate) if route else ():
        if digest and releases.get(store, digest).manifest.get("artifact") == artifact:
            return digest
    return ""


def _move(store: Store, service: InferenceService, progress: Progress) -> None:
    """Bring the route to what the manifest asks for, one step at a time."""
    route = routes.get(store, service.name)
    new, percent = progress.release, service.predictor.canary_percent
    if route is None:
        routes.put(store, Route(service.name, "model", new))
        _done(progress)
        return
    if route.rollout:
        progress.message = f"waits for rollout {route.rollout} to end"
        return
    if route.stable == new:
        if route.candidate:
            routes.put(store, replace(route, candidate="", weight=0.0))
        _done(progress)
    elif percent is not None and percent < 100:
        salt = route.salt if route.candidate == new else ids.new_id("canary")
        routes.put(store, replace(route, candidate=new, weight=float(percent), salt=salt))
        _done(progress)
    elif route.candidate != new or not progress.staged_at:
        weight = route.weight if route.candidate == new else 0.0
        progress.staged_at = time.time()
        routes.put(store, replace(route, candidate=new, weight=weight, salt=route.salt or ids.new_id("canary")))
    else:
        _promote_when_loaded(store, route, progress)


def _promote_when_loaded(store: Store, route: Route, progress: Progress) -> None:
    """Move the route once the data plane has the new release in memory; one that does not load leaves it alone."""
    load = next((one for one in loads.every(store, route.service) if one.release == progress.release), None)
    if load is None or load.at < progress.staged_at:
        return
    if load.state == "Loaded":
        routes.put(store, replace(route, stable=progress.release, candidate="", weight=0.0, previous=route.stable))
        _done(progress)
    elif load.state == "FailedToLoad":
        routes.put(store, replace(route, candidate="", weight=0.0))
        progress.state, progress.reason, progress.message = "failed", "ModelLoadFailed", load.message


def _done(progress: Progress) -> None:
    progress.state, progress.reason, progress.message = "done", "", ""
