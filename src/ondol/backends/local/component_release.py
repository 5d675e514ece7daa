"""From a component of an InferenceService to what is pinned: its files as blobs, a release, or a worker to run.

Must not move a route.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ondol.backends.local import containers, model_source
from ondol.base.settings import Settings
from ondol.formats import serving_runtime
from ondol.formats.inference_service import Component, InferenceService, Model
from ondol.formats.serving_runtime import ServingRuntime
from ondol.records.release import ModelManifest
from ondol.records.worker import WorkerSpec
from ondol.store import releases, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

_MODELS = "/mnt/models"


def of(
    store: Store, settings: Settings, service: InferenceService, part: Component, runtime: ServingRuntime | None = None
) -> str:
    """Return the digest of a predictor's release: of its model, or of the server that is run.

    :param runtime: the server of the user's own that serves the model; None: an engine of Ondol's does.
    :raises OndolError: when its files cannot be had or its container not be run.
    """
    model = part.model
    if model is None or runtime is not None:
        spec = (
            worker(service, "predictor", part, settings)
            if runtime is None
            else _of_runtime(service, part, settings, runtime)
        )
        manifest = ModelManifest("", spec.image or spec.command[0], "custom", worker=spec)
        return releases.put(store, service.name, manifest).digest
    with _files_of(part, model, settings) as source:
        artifact = Blobs(settings.blobs).put_path(source.path)
    manifest = ModelManifest(artifact, source.uri, model.format, source.model, source.version, source.run)
    if source.model:  # the same model registered by the loop is the same release
        manifest = replace(manifest, format="sklearn")
    return _serves_already(store, service.name, artifact) or releases.put(store, service.name, manifest).digest


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


def _of_runtime(service: InferenceService, part: Component, settings: Settings, runtime: ServingRuntime) -> WorkerSpec:
    """Return the server that a runtime describes, with the model's files where its containers find them."""
    assert part.model is not None  # a runtime is chosen for models only
    where = f"{runtime.kind} {runtime.name!r}: spec.containers[0]"
    spec = worker(service, "predictor", serving_runtime.as_server(service, part, runtime), settings, where)
    if part.model.storage is not None and not spec.mounts:
        with tempfile.TemporaryDirectory(dir=settings.home, prefix="fetch-") as folder:
            found = model_source.of_storage(part.model.storage, settings, Path(folder))
            spec = replace(spec, mounts={_MODELS: Blobs(settings.blobs).put_path(found.path)})
    return replace(spec, protocol=serving_runtime.protocol(part.model, runtime))


def worker(service: InferenceService, name: str, part: Component, settings: Settings, where: str = "") -> WorkerSpec:
    """Return what runs for a component that is a container, with its files as blobs."""
    spec = containers.worker(service, name, part, settings, where)
    addresses = {one.mount_path: one.uri for one in part.storage_uris}
    if part.server is not None and (own := part.server.value_of("STORAGE_URI")):
        addresses[_MODELS] = own
    mounts = {}
    for path, uri in addresses.items():
        with _fetched(uri, settings) as source:
            mounts[path] = _put_folder(source.path, settings)
    return replace(spec, mounts=mounts)


def _put_folder(files: Path, settings: Settings) -> str:
    """Store what a container finds at its mount: a folder, or one with a single file, as KServe's initializer does."""
    if files.is_dir():
        return Blobs(settings.blobs).put_path(files)
    with tempfile.TemporaryDirectory(dir=settings.home, prefix="fetch-") as folder:
        shutil.copy(files, folder)
        return Blobs(settings.blobs).put_path(Path(folder))


def _serves_already(store: Store, name: str, artifact: str) -> str:
    """Return the release on the route that has exactly these files; empty when none has."""
    route = routes.get(store, name)
    for digest in route.releases if route else ():
        if releases.get(store, digest).manifest.get("artifact") == artifact:
            return digest
    return ""
