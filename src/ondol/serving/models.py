"""The models that are in memory, following the routes: load, warm up, test, swap, drain, unload.

Loading happens in a thread of its own. What the event loop sees is one immutable `Serving` per service, replaced by one
assignment: a request works with the one it began with, so that a swap can neither lose nor mix anything. A release that
does not load changes nothing but its entry in the store's `loads`.

Must not know a protocol, nor decide which release should serve.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ondol.base import errors, hashing
from ondol.formats.inference_service import InferenceService
from ondol.records.release import Release
from ondol.records.rollout import Arm, Route
from ondol.serving import describing, loading
from ondol.serving.batching import Batcher
from ondol.serving.engines import compiled
from ondol.serving.inputs import InputSpec
from ondol.store import loads, releases
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

log = logging.getLogger("ondol.serving")

DEFAULT_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """How a service is served, whatever release serves it."""

    protocol: str = "v1"
    """Whose V2 dialect is spoken: `v1` KServe's own server, `v2` MLServer."""

    probabilities: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    concurrency: int = 0
    """Requests at once; 0: unlimited."""


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded release, ready to answer."""

    digest: str
    version: str
    spec: InputSpec
    choice: compiled.Choice
    batcher: Batcher
    probabilities: bool
    """Whether it can answer with probabilities."""

    platform: str
    dialect: str = ""
    """The protocol version it was loaded for, when it would answer otherwise under another."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Serving:
    """What one service's requests see; never changed, only replaced."""

    route: Route
    """The route as it is served: without a candidate that is not loaded."""

    stable: Model
    arms: Mapping[Arm, Model] = field(default_factory=dict)
    """The loaded variants by name; the candidate is the first."""

    options: Options = field(default_factory=Options)

    @property
    def candidate(self) -> Model | None:
        return self.arms.get(self.route.candidate_name)

    @property
    def models(self) -> tuple[Model, ...]:
        return (self.stable, *self.arms.values())

    def model(self, arm: Arm) -> Model:
        return self.arms.get(arm, self.stable)


def options_of(service: InferenceService | None) -> Options:
    """Return how a service wants to be served; without a manifest, the defaults."""
    if service is None:
        return Options()
    return Options(
        protocol=service.protocol,
        probabilities=service.probabilities,
        timeout_seconds=service.predictor.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
        concurrency=service.predictor.container_concurrency,
    )


def load_release(store: Store, blobs: Blobs, release: Release, *, dialect: str = "v1", safe: bool = False) -> Model:
    """Load a release, test its engine and warm it up.

    :param dialect: the service's protocol version.
    :param safe: open no pickle.
    :raises OndolError: with the reason when it cannot be served.
    """
    manifest = releases.model_manifest(release)
    path = blobs.path(manifest.artifact)
    if not path.exists():
        path = Path(manifest.uri.removeprefix("file://"))
    artifact = loading.load(path, manifest.artifact, manifest.format, dialect=dialect, safe=safe)
    spec = describing.describe(artifact)
    try:
        choice = compiled.choose(artifact.model, spec, name=release.name)
    except Exception as error:  # the model's own code ran: whatever it raised is why it cannot serve
        raise errors.InputError(
            f"the model fails on sample rows: {type(error).__name__}: {error}", where=manifest.uri, code="INP-224"
        ) from error
    return Model(
        digest=release.digest,
        version=manifest.version or hashing.short(release.digest),
        spec=spec,
        choice=choice,
        batcher=Batcher(choice, spec),
        probabilities=compiled.has_probabilities(artifact.model),
        platform=f"{manifest.format}_{artifact.flavour}" if artifact.flavour != manifest.format else manifest.format,
        dialect=artifact.dialect,
        notes=artifact.notes,
    )


class Models:
    """Keeps `serving` in step with the routes.

    :param safe: open no pickle.
    """

    def __init__(self, store: Store, blobs: Blobs, *, safe: bool = False) -> None:
        self._store = store
        self._safe = safe
        self._blobs = blobs
        self.serving: Mapping[str, Serving] = {}
        """By service; replaced as a whole, never changed."""

        self._wanted: dict[str, Route] = {}
        self._options: dict[str, Options] = {}
        self._models: dict[tuple[str, str], Model] = {}
        self._failed: dict[tuple[str, str], int] = {}  # generation of the route at which it failed
        self._reported: dict[str, int] = {}
        self._work: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settled = threading.Event()
        self._listeners: list[Callable[[], None]] = []

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to follow; closed batchers are told on the given loop."""
        self._loop = loop
        self._thread = threading.Thread(target=self._run, name="ondol-loader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being loaded and stop."""
        self._work.put(False)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for model in self._models.values():
            model.batcher.close()

    def follow(self, routes: Mapping[str, Route]) -> None:
        """Take the routes as they should be; applications are somebody else's."""
        with self._guard:
            self._wanted = {name: route for name, route in routes.items() if route.kind == "model"}
            self._settled.clear()
        self._work.put(True)

    def configure(self, options: Mapping[str, Options]) -> None:
        """Take the services' options; those that did not change cost nothing."""
        with self._guard:
            if self._options == options:
                return
            self._options = dict(options)
        self._work.put(True)

    @property
    def settled(self) -> bool:
        """Whether everything the routes name was loaded or failed."""
        return self._settled.is_set()

    def states(self) -> dict[str, str]:
        """Return per wanted service `Loaded`, `Loading` or `FailedToLoad`, of its stable release."""
        with self._guard:
            wanted = dict(self._wanted)
        return {
            name: "Loaded"
            if (name, route.stable) in self._models
            else "FailedToLoad"
            if (name, route.stable) in self._failed
            else "Loading"
            for name, route in sorted(wanted.items())
        }

    def _forget_the_past(self) -> None:
        """Correct what an earlier process of this home said of releases that nobody routes to any more."""
        with self._guard:
            named = {(name, digest) for name, route in self._wanted.items() for digest in _asked_for(route)}
        for load in loads.every(self._store):
            if load.state != "Unloaded" and (load.service, load.release) not in named:
                loads.put(self._store, load.service, load.release, "Unloaded")

    def _run(self) -> None:
        first = True
        while self._work.get():
            while not self._work.empty():  # several changes at once are one round
                if not self._work.get():
                    return
            try:
                if first:
                    self._forget_the_past()
                    first = False
                self._round()
            except Exception:
                log.exception("loading models failed; the next change of a route tries again")

    def _round(self) -> None:
        with self._guard:
            wanted = dict(self._wanted)
        for name, route in wanted.items():
            fresh = self._reported.get(name) != route.generation
            for digest in dict.fromkeys(_asked_for(route)):
                self._ensure(name, digest, route.generation, fresh)
                self._publish(wanted)  # each service serves as soon as it can
            self._reported[name] = route.generation
        self._publish(wanted)
        self._unload(wanted)
        with self._guard:
            if wanted == self._wanted:
                self._settled.set()

    def _ensure(self, service: str, digest: str, generation: int, fresh: bool) -> None:
        """Load a release unless it is there or failed already; tell the store, again for every change of the route."""
        key = (service, digest)
        with self._guard:
            dialect = self._options.get(service, Options()).protocol
        before = self._models.get(key)
        if before is not None and before.dialect in ("", dialect):
            if fresh:
                loads.put(self._store, service, digest, "Loaded", before.choice.reason)
            return
        if self._failed.get(key) == generation:
            return
        loads.put(self._store, service, digest, "Loading")
        try:
            release = releases.get(self._store, digest)
            model = load_release(self._store, self._blobs, release, dialect=dialect, safe=self._safe)
        except errors.OndolError as error:
            self._failed[key] = generation
            log.error("%s: release %s cannot be served: %s", service, hashing.short(digest), error.message)
            loads.put(self._store, service, digest, "FailedToLoad", f"{error.code}: {error.message}")
            return
        self._failed.pop(key, None)
        self._models[key] = model
        if before is not None:
            self._retire(before)
        for note in model.notes:
            log.warning("%s: release %s: %s", service, hashing.short(digest), note)
        log.info(
            "%s: release %s loaded, engine %s (%s)", service, hashing.short(digest), model.choice.engine.name,
            model.choice.reason,
        )  # fmt: skip
        loads.put(self._store, service, digest, "Loaded", model.choice.reason)

    def _publish(self, wanted: Mapping[str, Route]) -> None:
        with self._guard:
            options = self._options
        found: dict[str, Serving] = {}
        for name, route in wanted.items():
            before = self.serving.get(name)
            stable = self._models.get((name, route.stable)) or (before.stable if before else None)
            if stable is None:
                continue
            served, arms = self._arms(replace(route, stable=stable.digest))
            chosen = options.get(name, Options())
            for model in (stable, *arms.values()):
                model.batcher.most_jobs = chosen.concurrency
            fresh = Serving(served, stable, arms, chosen)
            found[name] = before if fresh == before and before is not None else fresh
        self.serving = found

    def _arms(self, route: Route) -> tuple[Route, dict[Arm, Model]]:
        """Return the route as it can be served now, and its variants by name.

        On trial all variants serve or none does, or their comparison would not be one. By hand each serves by itself.
        """
        wanted = route.variants
        loaded = {one.name: model for one in wanted if (model := self._models.get((route.service, one.release)))}
        if len(loaded) == len(wanted):
            return route, loaded
        kept = () if route.rollout else tuple(one for one in wanted if one.name in loaded)
        weight = route.weight * sum(one.share for one in kept)
        return route.with_variants(kept, weight), {one.name: loaded[one.name] for one in kept}

    def _unload(self, wanted: Mapping[str, Route]) -> None:
        """Forget models nobody routes to; requests that hold one still finish with it."""
        kept = {(name, digest) for name, route in wanted.items() for digest in route.releases}
        kept |= {(name, serving.stable.digest) for name, serving in self.serving.items()}
        for key in [key for key in self._models if key not in kept]:
            model = self._models.pop(key)
            loads.put(self._store, *key, "Unloaded")
            self._retire(model)

    def _retire(self, model: Model) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(model.batcher.close)


def _asked_for(route: Route) -> tuple[str, ...]:
    """Return the releases that are to be loaded; a previous one is only kept."""
    return (route.stable, *(one.release for one in route.variants))
