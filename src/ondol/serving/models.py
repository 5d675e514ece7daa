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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from ondol.base import errors, hashing
from ondol.records.rollout import Arm, Route
from ondol.records.worker import Scaling
from ondol.serving import collecting
from ondol.serving.background import Background
from ondol.serving.kept_engines import KeptEngines
from ondol.serving.opening import Model as Model
from ondol.serving.opening import Serving as Serving
from ondol.serving.opening import behind, files_of, in_own_environment
from ondol.serving.opening import load_release as load_release
from ondol.serving.options import Options as Options
from ondol.serving.options import options_of as options_of
from ondol.serving.workers import recorded, variables
from ondol.serving.workers.fleet import Fleet
from ondol.serving.workers.model_process import ModelProcess
from ondol.serving.workers.pool import Pool
from ondol.store import components, loads, releases
from ondol.store.blobs import Blobs
from ondol.store.components import ServedComponent
from ondol.store.connection import Store

log = logging.getLogger("ondol.serving")

DRAIN_SECONDS = 10.0
"""How long a process that nobody routes to any more is kept for requests that found it before."""

RETRY_SECONDS = 15.0
"""After how long processes that did not start are tried again."""


class Models:
    """Keeps `serving` in step with the routes.

    :param home: where environments and logs of processes are kept.
    :param predictor_host: gives the address where a transformer of a service reaches its predictor.
    :param safe: open no pickle.
    """

    def __init__(
        self, store: Store, blobs: Blobs, home: Path, predictor_host: Callable[[str], str], *, safe: bool = False
    ) -> None:
        self._store = store
        self._safe = safe
        self._blobs = blobs
        self._home = home
        self._engines = KeptEngines(home / "engines")
        self._slow = Background(lambda: self._work.put(True))  # models in environments of their own
        self._predictor_host = predictor_host
        self.fleet = Fleet(home, blobs, home / "logs", partial(variables.resolve, store), lambda: self._work.put(True))
        self._parts: dict[tuple[str, str], tuple[str, Pool]] = {}  # of service and component: digest and who serves
        self._components: list[ServedComponent] = []
        self.serving: Mapping[str, Serving] = {}
        """By service; replaced as a whole, never changed."""

        self._wanted: dict[str, Route] = {}
        self._options: dict[str, Options] = {}
        self._models: dict[tuple[str, str], Model] = {}
        self._failed: dict[tuple[str, str], int] = {}  # generation of the route at which it failed
        self._reported: dict[str, int] = {}
        self._work: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._publishing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settled = threading.Event()
        self._waiting: set[tuple[str, str, str]] = set()  # what is tried again in a while
        self._pending = False  # whether the last round left something being started
        self._listeners: list[Callable[[], None]] = []

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to follow; closed batchers are told on the given loop."""
        self._loop = loop
        self.fleet.start(loop)
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
            if isinstance(model.choice.engine, ModelProcess):
                model.choice.engine.retire()
        self._slow.stop()
        self.fleet.stop()

    def follow(self, routes: Mapping[str, Route]) -> None:
        """Take the routes as they should be; applications are somebody else's."""
        with self._guard:
            self._wanted = {name: route for name, route in routes.items() if route.kind == "model"}
            self._settled.clear()
        self._publish()  # a moved pointer waits for nothing: not for a load, nor for what is written about one
        self._work.put(True)

    def configure(self, options: Mapping[str, Options]) -> None:
        """Take the services' options; those that did not change cost nothing."""
        with self._guard:
            if self._options == options:
                return
            self._options = dict(options)
        self._work.put(True)

    def surround(self, wanted: list[ServedComponent]) -> None:
        """Take the components that are wanted beside the predictors."""
        with self._guard:
            if [(one.service, one.component, one.digest) for one in wanted] == [
                (one.service, one.component, one.digest) for one in self._components
            ]:
                return
            self._components = wanted
            self._settled.clear()
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
                self._speed_up()
            except Exception:
                log.exception("loading models failed; the next change of a route tries again")

    def _round(self) -> None:
        with self._guard:
            wanted, around = dict(self._wanted), list(self._components)
        self._pending = False
        before = dict(self._models)
        for name, route in wanted.items():
            fresh = self._reported.get(name) != route.generation
            for digest in dict.fromkeys(_asked_for(route)):
                self._ensure(name, digest, route.generation, fresh)
                self._publish()  # each service serves as soon as it can
            self._reported[name] = route.generation
        for one in around:
            self._ensure_part(one)
        self._publish()
        self._unload(wanted, around)
        if before != self._models:
            collecting.settle()
        if not before.items() <= self._models.items():
            collecting.sweep_later()
        with self._guard:
            if wanted == self._wanted and not self._pending:
                self._settled.set()

    def _speed_up(self) -> None:
        """Give models that answer already a faster engine, unless there is something else to do."""
        for key, model in list(self._models.items()):
            if model.faster is None or not self._work.empty():
                continue
            try:
                faster = model.faster()
                log.info("%s: goes on with a faster engine", key[0])
            except Exception as error:  # noqa: BLE001 - it goes on as it is, and answers right
                log.warning("%s: stays with a slower engine (%s: %s)", key[0], type(error).__name__, error)
                faster = replace(model, faster=None)
            self._models[key] = faster
            self._publish()
            if faster.batcher is not model.batcher:
                self._retire(model)
                collecting.settle()

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
        if fresh or key in self._failed:
            loads.put(self._store, service, digest, "Loading")
        try:
            model = self._load(service, digest, dialect)
            if model is None:  # being started; it says when it is done
                self._pending = True
                return
        except errors.OndolError as error:
            self._failed[key] = generation
            self._slow.forget((service, digest, dialect))
            self._try_again_later((service, "predictor", digest))
            log.error("%s: release %s cannot be served: %s", service, hashing.short(digest), error.message)
            loads.put(self._store, service, digest, "FailedToLoad", f"{error.code}: {error.message}")
            return
        self._failed.pop(key, None)
        self._models[key] = model
        self._publish()  # before the store says so: who reads there that it is loaded may ask for it at once
        if before is not None:
            self._retire(before)
        for note in model.notes:
            log.warning("%s: release %s: %s", service, hashing.short(digest), note)
        log.info(
            "%s: release %s loaded, engine %s (%s)", service, hashing.short(digest), model.choice.engine.name,
            model.choice.reason,
        )  # fmt: skip
        loads.put(self._store, service, digest, "Loaded", model.choice.reason)

    def _load(self, service: str, digest: str, dialect: str) -> Model | None:
        """Return the loaded release; None while processes of its own are being started."""
        release = releases.get(self._store, digest)
        manifest = releases.model_manifest(release)
        if manifest.worker is None:
            path = files_of(self._blobs, manifest)
            need = recorded.need_of(path, manifest.format) if path.exists() else None
            if need is None:
                return load_release(
                    self._store, self._blobs, release, dialect=dialect, safe=self._safe, engines=self._engines
                )
            work = partial(in_own_environment, release, path, need, self._home, dialect=dialect, safe=self._safe)
            key = (service, digest, dialect)
            model = cast("Model | None", self._slow.result(key, work))
            if model is not None:
                self._slow.forget(key)
            return model
        with self._guard:
            scaling = self._options.get(service, Options()).scaling
        pool = self.fleet.ensure((service, "predictor", digest), manifest.worker, scaling, {})
        return behind(release, manifest, pool) if pool is not None else None

    def _ensure_part(self, one: ServedComponent) -> None:
        """Start a component; the one that served before stays until the new one does."""
        place = (one.service, one.component)
        with self._guard:
            scaling = self._options.get(one.service, Options()).parts.get(one.component, Scaling())
        try:
            extra = {"PREDICTOR_HOST": self._predictor_host(one.service), "INFERENCE_SERVICE_NAME": one.service}
            pool = self.fleet.ensure((*place, one.digest), one.spec, scaling, extra)
        except errors.OndolError as error:
            components.report(self._store, one, "FailedToLoad", f"{error.code}: {error.message}")
            self._try_again_later((*place, one.digest))
            return
        if pool is None:
            self._pending = True
            return
        self._parts[place] = (one.digest, pool)
        self._publish()
        components.report(self._store, one, "Loaded", replicas=len(pool.ready))

    def _try_again_later(self, key: tuple[str, str, str]) -> None:
        """Let processes that did not start be started anew after a while: the program may have been mended."""
        if not self.fleet.has(key) or key in self._waiting:
            return
        self._waiting.add(key)

        def again() -> None:
            self._waiting.discard(key)
            self.fleet.forget(key)
            self._failed.pop((key[0], key[2]), None)
            self._work.put(True)

        timer = threading.Timer(RETRY_SECONDS, again)
        timer.daemon = True
        timer.start()

    def _publish(self) -> None:
        """Let the event loop see what is wanted now, as far as it is loaded. Called by the follower and the loader."""
        with self._publishing:
            self.serving = self._servings()

    def _servings(self) -> dict[str, Serving]:
        with self._guard:
            wanted, options = dict(self._wanted), self._options
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
                if model.pool is not None and model.pool.scaling != chosen.scaling:
                    model.pool.rescale(chosen.scaling)
            parts = {part: pool for (service, part), (_, pool) in list(self._parts.items()) if service == name}
            forwards = "transformer" in chosen.parts or any(model.pool for model in (stable, *arms.values()))
            fresh = Serving(served, stable, arms, chosen, parts, forwards)
            found[name] = before if fresh == before and before is not None else fresh
        return found

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

    def _unload(self, wanted: Mapping[str, Route], wanted_parts: list[ServedComponent]) -> None:
        """Forget models nobody routes to; requests that hold one still finish with it."""
        kept = {(name, digest) for name, route in wanted.items() for digest in route.releases}
        kept |= {(name, serving.stable.digest) for name, serving in self.serving.items()}
        for key in [key for key in self._models if key not in kept]:
            model = self._models.pop(key)
            loads.put(self._store, *key, "Unloaded")
            self._retire(model)
        for slow in self._slow.begun():
            if cast("tuple[str, str, str]", slow)[:2] not in kept and (unwanted := self._slow.forget(slow)):
                self._retire(unwanted)
        places = {(one.service, one.component) for one in wanted_parts}
        self._parts = {place: found for place, found in self._parts.items() if place in places}
        self.fleet.keep(
            {(service, "predictor", digest) for service, digest in kept}
            | {(*place, digest) for place, (digest, _) in self._parts.items()}
            | {(one.service, one.component, one.digest) for one in wanted_parts}
        )

    def _retire(self, model: Model) -> None:
        """Let a model go once the requests that hold it are answered."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(model.batcher.close)
        if isinstance(model.choice.engine, ModelProcess):
            timer = threading.Timer(DRAIN_SECONDS, model.choice.engine.retire)
            timer.daemon = True
            timer.start()


def _asked_for(route: Route) -> tuple[str, ...]:
    """Return the releases that are to be loaded; a previous one is only kept."""
    return (route.stable, *(one.release for one in route.variants))
