"""The pools of one data plane, by what they are for; a new one is there for use only once it serves.

Called by the loading thread. Must not decide who gets requests.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

from ondol.base import environments, errors
from ondol.base.environments import Need
from ondol.records.worker import Scaling, WorkerSpec
from ondol.serving.background import Background
from ondol.serving.metrics import Labels
from ondol.serving.workers.pool import Place, Pool
from ondol.store.blobs import Blobs

log = logging.getLogger("ondol.workers")

Key = tuple[str, str, str]
"""Service, component, digest of what runs."""

Secrets = Callable[[WorkerSpec], Mapping[str, str]]

_MOST_LOG_BYTES = 16 << 20


class Fleet:
    """Starts pools and closes them.

    :param home: where environments are built.
    :param secrets: looks up the variables that a spec names by reference.
    :param finished: called when a pool serves or failed.
    """

    def __init__(self, home: Path, blobs: Blobs, logs: Path, secrets: Secrets, finished: Callable[[], None]) -> None:
        self._home = home
        self._blobs = blobs
        self._logs = logs
        self._secrets = secrets
        self._slow = Background(finished)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alive: dict[Key, Pool] = {}

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop that will send requests."""
        self._loop = loop

    def ensure(self, key: Key, spec: WorkerSpec, scaling: Scaling, extra: Mapping[str, str]) -> Pool | None:
        """Return the pool for a key once it serves, None while it starts; the first call starts it.

        :raises OndolError: why it does not serve, until the key is forgotten.
        """
        pool = cast("Pool | None", self._slow.result(key, partial(self._open, key, spec, scaling, extra)))
        if pool is not None and pool.scaling != scaling:
            pool.rescale(scaling)
        return pool

    def has(self, key: Key) -> bool:
        """Return whether `ensure` was called for a key that was not forgotten."""
        return key in self._slow.begun()

    def forget(self, key: Key) -> None:
        """Close the pool of a key; the next `ensure` starts another."""
        self._slow.forget(key)
        pool = self._alive.pop(key, None)
        if pool is not None:
            pool.close()

    def keep(self, wanted: set[Key]) -> None:
        """Close the pools that nobody wants any more."""
        for key in self._slow.begun():
            if key not in wanted:
                self.forget(cast(Key, key))

    def measured(self, read: Callable[[Pool], float]) -> list[tuple[Labels, float]]:
        """Return a number of every service's and component's pools, added up."""
        found: dict[Labels, float] = {}
        for (service, component, _), pool in sorted(self._alive.copy().items()):
            labels = (("service", service), ("component", component))
            found[labels] = found.get(labels, 0.0) + read(pool)
        return list(found.items())

    def stop(self) -> None:
        """Close all pools and wait until their processes are gone."""
        self._slow.stop()
        pools, self._alive = list(self._alive.values()), {}
        for pool in pools:
            pool.close()
        for pool in pools:
            pool.close(wait=True)

    def _open(self, key: Key, spec: WorkerSpec, scaling: Scaling, extra: Mapping[str, str]) -> Pool:
        assert self._loop is not None  # `start` comes first
        service, component, _ = key
        name = f"{service}/{component}"
        self._logs.mkdir(parents=True, exist_ok=True)
        log_file = self._logs / f"{service}-{component}.log"
        if log_file.exists() and log_file.stat().st_size > _MOST_LOG_BYTES:
            log_file.replace(log_file.with_suffix(".log.1"))
        place = Place(self._python(spec, name), log_file, extra, self._mounts(spec), partial(self._secrets, spec))
        pool = Pool(name, spec, scaling, place, self._loop)
        self._alive[key] = pool
        pool.start()
        pool.wait_until_ready()
        return pool

    def _python(self, spec: WorkerSpec, name: str) -> str:
        """Return the interpreter a worker runs with: ours when it has all it asks for, else one built for it."""
        lacking = environments.missing(spec.packages)
        if not lacking and environments.is_running_python(spec.python):
            return sys.executable
        need = Need(spec.packages, python="" if environments.is_running_python(spec.python) else spec.python)
        return environments.ensure(need, self._home, lambda text: log.info("%s: %s", name, text), name).python

    def _mounts(self, spec: WorkerSpec) -> dict[str, Path]:
        found = {}
        for path, digest in spec.mounts.items():
            folder = self._blobs.path(digest)
            if not folder.exists():
                raise errors.InputError(f"the files for {path!r} are gone", where=str(folder), code="INP-221")
            found[path] = folder
        return found
