"""A project with LLM applications, served on a free loopback port: for tests that use real clients.

with LLMHome(folder, {"OPENAI_BASE_URL": fake.url}) as home:
    openai.OpenAI(base_url=home.url, api_key="any")
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn

from ondol.api.openai.door import OpenAIDoor
from ondol.api.openai.wiring import Services
from ondol.base import settings
from ondol.records.release import Release
from ondol.records.rollout import Route
from ondol.serving import application_release
from ondol.serving.desired import RouteTable
from ondol.serving.request_log import RequestLog
from ondol.store import routes
from ondol.store.connection import Store


class LLMHome:
    """A home, its door and its clients' address. A context manager.

    :param folder: the project; `ondol.yaml` in it is used when there is one.
    :param environ: set while the home runs.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.settings = settings.load(folder, {"ONDOL_HOME": str(folder / ".ondol")})
        self.store = Store(self.settings.database)
        self._environ = {"OPENAI_API_KEY": "test-key-for-openai", **(environ or {})}
        self._before: dict[str, str | None] = {}
        self._clients: list[Any] = []
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.door: OpenAIDoor | None = None
        self.url = ""

    def __enter__(self) -> LLMHome:
        for name, value in self._environ.items():
            self._before[name] = os.environ.get(name)
            os.environ[name] = value
        self.routes = RouteTable(self.store)
        self.log = RequestLog(self.store, flush_seconds=0.02)
        self.services = Services(self.store, self.settings)
        self.door = OpenAIDoor(self.store, self.settings, self.routes, self.log, self.services)
        self.routes.start()
        self.log.start()
        config = uvicorn.Config(
            self.door, host="127.0.0.1", port=0, log_level="error", access_log=False, lifespan="off", http="httptools"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="llm-home", daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the door did not start")
            time.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/openai/v1"
        return self

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        assert self._server is not None
        assert self.door is not None
        await self.door.start()
        await self._server.serve()
        await self.door.stop()

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._thread is not None
        for client in self._clients:
            client.close()
        self._server.should_exit = True
        self._thread.join(120)
        self.routes.stop()
        self.log.stop()
        self.store.close()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def release(self, name: str) -> Release:
        """Pin an application of the project as it is now."""
        spec = self.services.project.applications[name]
        return application_release.build_release(self.store, self.settings, name, spec, self.services.project.llms)

    def serve(self, name: str, candidate: str = "", weight: float = 0.0) -> Release:
        """Release an application, send its traffic there and wait until both releases are open, or cannot be opened.

        :raises TimeoutError: when one is neither after three minutes.
        """
        release = self.release(name)
        before = routes.get(self.store, name)
        route = Route(
            name, "application", release.digest, candidate, weight, "salt", "", "", before.generation if before else 0
        )
        routes.put(self.store, route)
        self.routes.refresh()
        self._wait_opened(route)
        return release

    def _wait_opened(self, route: Route) -> None:
        """A candidate that is still being opened gets no traffic: whoever asks now would be answered by stable."""
        assert self.door is not None
        host, deadline = self.door.host, time.monotonic() + 180.0
        while not all(host.get(one) is not None or host.why_not(one) for one in route.releases):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a release of {route.service} was not opened")
            time.sleep(0.005)

    def flush(self) -> None:
        """Wait until everything that happened is in the store."""
        self.log.flush()
        self.services.spans.flush()

    def client(self, **options: Any) -> Any:
        """Return an unmodified OpenAI client for this home; it is closed with it."""
        import openai

        made = openai.OpenAI(base_url=self.url, api_key="any", max_retries=0, **options)
        self._clients.append(made)
        return made
