"""Our door to MLflow: what arrives under its paths, translated, recorded, sped up where safe, then passed on.

MLflow is loaded in a thread while the rest of the control process answers already; requests that arrive before it is
there wait for it. Must not change what a request means: only add what MLflow lacks.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass

from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ondol.api.mlflow import embedded, fast_metrics, moves, sources
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.store.connection import Store

_log = logging.getLogger(__name__)
UI_PREFIX = "/mlflow"
PREFIXES = (
    "/api/2.0/",
    "/api/3.0/",
    "/ajax-api/",
    "/gateway/",
    "/static-files/",
    "/v1/traces",
    "/get-artifact",
    "/model-versions/get-artifact",
    "/graphql",
)
EXACT = ("/health", "/version", "/server-info")
_WAIT_SECONDS = 60.0


def is_ours(path: str) -> bool:
    """Say whether a path belongs to MLflow."""
    return path == UI_PREFIX or path.startswith((UI_PREFIX + "/", *PREFIXES)) or path in EXACT


@dataclass(slots=True)
class _Loaded:
    application: ASGIApp | None = None
    error: errors.OndolError | None = None


class MlflowDoor:
    """An ASGI application in front of MLflow's.

    :param store: where stage and alias moves are recorded.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._loaded = _Loaded()
        self._done = threading.Event()
        self._fast: fast_metrics.FastMetrics | None = None

    def start(self) -> None:
        """Begin to load MLflow in the background."""
        threading.Thread(target=self._load, name="mlflow-load", daemon=True).start()

    def stop(self) -> None:
        """Finish what the fast path has accepted."""
        if self._fast:
            self._fast.close()

    @property
    def ready(self) -> bool:
        """Whether MLflow answers."""
        return self._done.is_set() and self._loaded.error is None

    @property
    def error(self) -> errors.OndolError | None:
        """Why MLflow could not be loaded, if so."""
        return self._loaded.error

    def _load(self) -> None:
        try:
            self._loaded.application = embedded.load(self._settings)
            if file := embedded.sqlite_file(self._settings):
                self._fast = fast_metrics.FastMetrics(file)
        except errors.OndolError as error:
            self._loaded.error = error
            _log.error("%s %s", error.message, error.way_out)
        except Exception as error:  # noqa: BLE001 - whatever an import of foreign code raises must reach /readyz
            _log.exception("MLflow could not be loaded")
            self._loaded.error = errors.DependencyError(
                f"MLflow could not be loaded: {error}", way_out="`ondol doctor` checks its version.", code="DEP-010"
            )
        finally:
            self._done.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._done.is_set():
            await asyncio.to_thread(self._done.wait, _WAIT_SECONDS)
        application = self._loaded.application
        if application is None:
            await self._refuse(scope, receive, send)
        elif self._fast and scope["type"] == "http" and scope["method"] == "POST" and self._fast.wants(scope["path"]):
            await self._fast(scope, receive, send, application)
        else:
            await self._pass_on(scope, receive, send, application)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, application: ASGIApp) -> None:
        path = scope["path"]
        if path == UI_PREFIX:
            await RedirectResponse(UI_PREFIX + "/")(scope, receive, send)
            return
        if path.startswith(UI_PREFIX + "/"):
            path = path.removeprefix(UI_PREFIX)
            scope = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
        if scope["type"] == "http" and scope["method"] != "GET":
            if sources.wants(path):
                receive = await sources.translated(scope, receive)
            elif moves.wants(path):
                await moves.recorded(self._store, scope, receive, send, application)
                return
        await application(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._loaded.error or errors.StateError("MLflow is still being loaded", way_out="Try again.")
        body = {**error.to_json(), "error_code": "TEMPORARILY_UNAVAILABLE", "message": error.message}
        await JSONResponse(body, status_code=503, headers={"Retry-After": "2"})(scope, receive, send)
