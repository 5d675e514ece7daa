"""The control process: MLflow, our admin API, the pages and the conductor, behind one guard, on one port.

Must not run user code: components run in workers, models load in the data plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from ondol.api.admin import routes as admin
from ondol.api.admin.guard import Guard
from ondol.api.admin.judging import JudgingApi
from ondol.api.admin.registry_routes import RegistryApi
from ondol.api.kfp.door import KfpApi
from ondol.api.kubernetes import door as kubernetes
from ondol.api.mlflow.door import MlflowDoor, is_ours
from ondol.app import listen
from ondol.app.pipelining import PipelineThread
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats import project as projects
from ondol.monitoring import alert_targets, alerts, pulse
from ondol.store.connection import Store
from ondol.ui.pages import Pages

_log = logging.getLogger(__name__)
_CONDUCTOR = "ondol.app.conducting"
_REGISTRY = "/api/ondol/registry/"
_STOP_SECONDS = 3  # for requests under way


class Control:
    """The ASGI application: MLflow's paths and Kubernetes' go to their doors, everything else is ours.

    :param conduct: run the conductor thread (tests that want a quiet control leave it out).
    """

    def __init__(self, store: Store, settings: Settings, *, conduct: bool = True) -> None:
        self.store, self.settings = store, settings
        self.mlflow = MlflowDoor(store, settings)
        self.kubernetes = kubernetes.KubernetesDoor(store)
        self._conductor = ConductorThread(store, settings, self._mlflow_settled) if conduct else None
        self._pulse = pulse.Pulse(store, "control")
        self._alerts = alerts.Delivering(store, self._outbox, self._look)
        self._pipelines = PipelineThread(store, settings)
        pages = Pages(store, settings.home)
        self._ours = Starlette(routes=[*self._routes(), *pages.routes()], exception_handlers={404: pages.missing})

    def _routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = [
            Route("/readyz", self._readyz, methods=["GET"]),
            Route("/livez", self._livez, methods=["GET"]),
            Mount(
                "/api/ondol",
                routes=[
                    *admin.AdminApi(self.store).routes(),
                    *JudgingApi(self.store).routes(),
                    *RegistryApi(self.store, self.settings).routes(),
                ],
            ),
            *KfpApi(self.store, self.settings, self._pipelines.wake).routes(),
        ]
        return routes

    def _mlflow_settled(self) -> bool:
        """Whether MLflow's import has ended: two threads must not import it at the same time."""
        return self.mlflow.ready or self.mlflow.error is not None

    def _outbox(self) -> alerts.Outbox:
        try:
            targets = alert_targets.read(projects.load(self.settings.project).alerts)
        except errors.NotFoundError:  # no ondol.yaml: nobody to tell
            targets = []
        return alerts.Outbox(self.store, targets)

    def _look(self) -> None:
        """Say that this process lives, and look after the data plane."""
        self._pulse.beat()
        pulse.alert_if_dead(self.store, "data")

    async def _readyz(self, _: Request) -> Response:
        if self.mlflow.ready:
            return JSONResponse({"ready": True})
        error = self.mlflow.error
        body = {"ready": False, "waiting_for": "mlflow", **(error.to_json() if error else {})}
        return JSONResponse(body, 503, {"Retry-After": "1"})

    async def _livez(self, _: Request) -> Response:
        return JSONResponse({"live": True, "pid": os.getpid()})

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Start what runs beside the requests, and stop it."""
        self.mlflow.start()
        self._pipelines.start()
        if self._conductor:
            self._pulse.begin()
            self._conductor.start()
            self._alerts.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self._pipelines.stop)
            if self._conductor:
                await asyncio.to_thread(self._conductor.stop)
                await asyncio.to_thread(self._alerts.stop)
                self._pulse.end()
            await asyncio.to_thread(self.mlflow.stop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _run_lifespan(self.lifespan, receive, send)
        elif scope["type"] == "http" and kubernetes.is_ours(scope["path"]):
            await self.kubernetes(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith(_REGISTRY) and not self.mlflow.ready:
            await (await self._readyz(Request(scope)))(scope, receive, send)
        elif scope["type"] == "http" and not is_ours(scope["path"]):
            await self._ours(scope, receive, send)
        else:
            await self.mlflow(scope, receive, send)


async def _run_lifespan(
    lifespan: Callable[[], contextlib.AbstractAsyncContextManager[None]], receive: Receive, send: Send
) -> None:
    await receive()
    async with lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


class ConductorThread:
    """Keeps `ondol.loop.conductor` running: after an exception it is started again, ever more slowly."""

    def __init__(self, store: Store, settings: Settings, may_start: Callable[[], bool]) -> None:
        self._store, self._settings, self._may_start = store, settings, may_start
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conductor", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end and wait a little."""
        self._stop.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        if not _exists(_CONDUCTOR):
            return
        while not self._may_start() and not self._stop.wait(0.05):
            pass
        pause = 1.0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                conducting: Any = importlib.import_module(_CONDUCTOR)
                conducting.make(self._store, self._settings).run(self._stop)
            except Exception:  # noqa: BLE001 - the loop must outlive any failure of one round
                _log.exception("the conductor failed; it starts again in %.0f s", pause)
            pause = 1.0 if time.monotonic() - began > 60 else min(pause * 2, 30.0)
            self._stop.wait(pause)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its package
        return False


class _Server(uvicorn.Server):
    """Ends watches first when it is told to stop: uvicorn waits for answers, and those would never end."""

    def __init__(self, config: uvicorn.Config, control: Control) -> None:
        super().__init__(config)
        self._control = control

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._control.kubernetes.close()
        super().handle_exit(sig, frame)


def main(settings: Settings) -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    listening = listen.inherited_or_bound(settings.control, "--control")
    settings = replace(settings, control=listen.address_of(listening))
    if settings.api_key:
        os.environ["MLFLOW_TRACKING_TOKEN"] = settings.api_key  # the registry asks MLflow through our own door
    with Store(settings.database) as store:
        control = Control(store, settings)
        config = uvicorn.Config(
            Guard(control, settings),
            loop="uvloop" if sys.platform != "win32" else "asyncio",
            http="httptools",
            lifespan="on",
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=_STOP_SECONDS,
            timeout_keep_alive=75,
        )
        _Server(config, control).run(sockets=[listening])
