"""The data plane's door to language models, opened late: importing it takes as long as importing scikit-learn does.

Must not be imported with the door: no model's first answer needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import signal
import time
from typing import Any

from ondol.api.kserve.exchange import Context
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.serving.desired import RouteTable
from ondol.serving.models import Models
from ondol.store import resources
from ondol.store.connection import Store

log = logging.getLogger("ondol.dataplane")

WAITS_SECONDS = 5.0
"""How long the door lets models load before it is imported."""


class LanguageModels:
    """The door, or the promise of one."""

    def __init__(self, store: Store, settings: Settings, routes: RouteTable, models: Models, context: Context) -> None:
        self._store = store
        self._settings = settings
        self._routes = routes
        self._models = models
        self._context = context
        self._door: Any = None
        self._opening: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether it answers; until then the data plane is not ready."""
        return self._door is not None

    def start(self) -> None:
        """Begin to open, beside everything else."""
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        """Open once models answer, or as soon as somebody is at the door.

        What cannot be opened, a broken project for instance, ends the process.
        """
        deadline = time.monotonic() + WAITS_SECONDS
        while not (self._models.settled or self._asked.is_set() or time.monotonic() > deadline):
            await asyncio.sleep(0.01)
        try:
            module = await asyncio.to_thread(importlib.import_module, "ondol.api.openai.door")
            door = module.OpenAIDoor(self._store, self._settings, self._routes, self._context.request_log)
            await door.start()
        except Exception as error:
            log.error("the door to language models cannot be opened", exc_info=error)
            signal.raise_signal(signal.SIGTERM)
            raise
        self._door = door
        self._context.spans = door.services.spans
        self.read_manifests()

    async def ask(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request; one that comes before the door is open opens it, and waits."""
        if self._door is None and self._opening is not None:
            self._asked.set()
            await asyncio.shield(self._opening)
        await self._door(scope, receive, send)

    def read_manifests(self) -> None:
        """Tell the gateway which files applied manifests name; a manifest that is refused is control's to report."""
        if self._door is None:
            return
        from ondol.formats import llm_inference_service  # after models answer, as the door itself

        files: dict[str, str] = {}
        for resource in resources.by_age(self._store, llm_inference_service.KIND):
            with contextlib.suppress(errors.InputError):
                service = llm_inference_service.typed(resource.manifest)
                if not service.stopped:
                    files.setdefault(service.model, service.path)
        self._door.services.serve(files)

    async def stop(self) -> None:
        """Stop to open, or what was opened."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._door is not None:
            await self._door.stop()
