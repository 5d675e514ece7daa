"""The applications that the routes name, opened and kept: what a release pins becomes something that answers.

Opening happens in a thread of its own; a release that cannot be opened is reported in the `loads` table and never
replaces one that serves. Must not assign callers to arms: that is `rollout.split`.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ondol.base import errors, hashing, settings
from ondol.guardrails import output_validation, rails
from ondol.llm import registry
from ondol.llm.port import Meter
from ondol.prompts.library import Prompts
from ondol.records.release import ApplicationManifest, Release
from ondol.records.rollout import Route
from ondol.records.usage import Price
from ondol.retrieval import index as indexes
from ondol.serving import application_release
from ondol.serving.applications import Application, Parts
from ondol.store import loads, releases
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

log = logging.getLogger("ondol.applications")
PriceOf = Callable[[registry.LLMSpec], Price | None]


class Opener:
    """Opens releases of applications.

    :param price_of: what a model costs, or None when nobody knows.
    """

    def __init__(
        self,
        store: Store,
        settings_: settings.Settings,
        meter: Meter,
        price_of: PriceOf,
        providers: Mapping[str, Any] | None = None,
        models: registry.Models | None = None,
    ) -> None:
        self._store, self._settings, self._meter = store, settings_, meter
        self._price_of, self._providers = price_of, providers
        self._blobs = Blobs(settings_.blobs)
        self.models = models or registry.Models(settings_.project)
        self._indexes: dict[str, Any] = {}
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="ondol-app")

    def open(self, release: Release) -> Application:
        """Open everything a release pins.

        :raises OndolError: when a part is missing, damaged, or not what was pinned.
        """
        manifest = releases.application_manifest(release)
        llm = application_release.llm_of(manifest, self._providers)
        _check_file(manifest)
        parts = Parts(
            release.name,
            release.digest,
            manifest,
            self.models.get(llm),
            llm,
            self._price_of(llm),
            prompt=Prompts(self._store).get(manifest.prompt) if manifest.prompt else None,
            index=self._index(manifest.index),
            rails=self._rails(manifest.guardrails),
            schema=self._schema(manifest),
        )
        return Application(parts, self._meter, self._threads)

    def _index(self, pinned: str) -> Any:
        digest = pinned.partition("@")[2]
        if not digest:
            return None
        if digest not in self._indexes:
            self._indexes[digest] = indexes.open_snapshot(digest, home=self._settings.home)
        return self._indexes[digest]

    def _rails(self, digest: str) -> Any:
        if not digest:
            return None
        folder = self._blobs.path(digest)
        if not folder.is_dir():
            raise errors.NotFoundError(f"the guardrails {hashing.short(digest)!r} are gone", code="NOF-164")
        return rails.Guardrails.load(folder)

    def _schema(self, manifest: ApplicationManifest) -> Any:
        if not manifest.output:
            return None
        text, _, digest = manifest.output.rpartition("@")
        file, _, name = text.partition(":")
        folder = self._blobs.path(str(manifest.retrieval.get("output_source", "")))
        schema = output_validation.OutputSchema.load(f"{Path(file).name}:{name}", folder)
        if hashing.of_json(schema.json_schema) != digest:
            raise errors.StateError(f"the output schema {text!r} is not what was released", code="STA-162")
        return schema

    async def close(self) -> None:
        """Close models and threads."""
        await self.models.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _check_file(manifest: ApplicationManifest) -> None:
    pinned = manifest.retrieval.get("llm") or {}
    if not pinned.get("file"):
        return
    path = Path(pinned["file"])
    if not path.is_file() or hashing.of_file(path) != pinned.get("digest"):
        raise errors.StateError(
            f"the model file {path.name!r} is not the one that was released",
            where=str(path),
            way_out="Put the file back, or make a new release.",
            code="STA-163",
        )


class ApplicationHost:
    """Keeps the applications of the current routes open.

    :param open_release: opens one release; runs in the host's thread.
    """

    def __init__(self, store: Store, open_release: Callable[[Release], Application]) -> None:
        self._store, self._open_release = store, open_release
        self._open: dict[str, Application] = {}
        self._failed: dict[str, str] = {}
        self._routes: Mapping[str, Route] = {}
        self._queue: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to open what `follow` names."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ondol-app-host", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop opening; what is open stays usable."""
        if self._thread is not None:
            self._queue.put(False)
            self._thread.join(timeout=10)
            self._thread = None

    def follow(self, routes: Mapping[str, Route]) -> None:
        """Take the new routes; returns at once."""
        self._routes = {name: route for name, route in routes.items() if route.kind == "application"}
        self._queue.put(True)

    def get(self, digest: str) -> Application | None:
        """Return an open application, or None."""
        return self._open.get(digest)

    def why_not(self, digest: str) -> str:
        """Return why a release could not be opened; empty when it could, or is being opened."""
        return self._failed.get(digest, "")

    async def wait_for(self, digest: str, seconds: float) -> Application | None:
        """Return an application as soon as it is open; None when it is not in time or cannot be."""
        for _ in range(max(1, int(seconds / 0.02))):
            if digest in self._open or digest in self._failed:
                break
            await asyncio.sleep(0.02)
        return self._open.get(digest)

    def _run(self) -> None:
        while self._queue.get():
            wanted = {digest: route.service for route in self._routes.values() for digest in route.releases}
            for digest, service in wanted.items():
                if digest not in self._open:
                    self._load(service, digest)
            for digest in [one for one in self._open if one not in wanted]:
                del self._open[digest]
            self._failed = {digest: why for digest, why in self._failed.items() if digest in wanted}

    def _load(self, service: str, digest: str) -> None:
        if digest in self._failed:
            return
        try:
            loads.put(self._store, service, digest, "Loading")
            self._open[digest] = self._open_release(releases.get(self._store, digest))
        except Exception as error:  # noqa: BLE001  whatever it is, what serves must go on serving
            why = error.message if isinstance(error, errors.OndolError) else f"{type(error).__name__}: {error}"
            log.error("release %s of %s cannot be opened: %s", hashing.short(digest), service, why)
            self._failed[digest] = why
            loads.put(self._store, service, digest, "FailedToLoad", why)
            return
        loads.put(self._store, service, digest, "Loaded")
