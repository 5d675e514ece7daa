"""`/api/ondol/registry/*` and `/api/ondol/status`: what needs MLflow, asked of the process that has it loaded.

Must not be reachable before MLflow is: the adapter calls MLflow through our own door, so that moves are recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ondol.api.admin.routes import Handler, answer
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.records import codec
from ondol.registry import agreement, mirror
from ondol.registry.models import Registry
from ondol.store import releases, routes
from ondol.store.connection import Store

# Threads of our own: these calls wait for MLflow, which answers from the server's shared threads.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="registry")


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """Body of `POST /register`."""

    name: str
    path: str
    run: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)
    example: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class AliasRequest:
    """Body of `POST /alias`; an empty version removes the alias."""

    name: str
    alias: str
    version: str = ""


class RegistryApi:
    """The handlers, over the registry of this control process."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self.registry = Registry(own_url(settings), settings.artifacts_root)

    def routes(self) -> list[Route]:
        """Return the routes to mount under `/api/ondol`."""
        return [
            Route("/registry/models", _asking(self.registry.list), methods=["GET"]),
            Route("/registry/disagreements", _asking(self._disagreements), methods=["GET"]),
            Route("/registry/register", self._register, methods=["POST"]),
            Route("/registry/alias", self._alias, methods=["POST"]),
            Route("/registry/mirror", _asking(self._mirror), methods=["POST"]),
        ]

    def _disagreements(self) -> Any:
        known = {release.digest: release for release in releases.of_name(self._store)}
        return agreement.disagreements(routes.every(self._store), known, self.registry.list())

    def _mirror(self) -> Any:
        return {"mirrored": mirror.mirror_runs(self._store, self.registry)}

    async def _register(self, request: Request) -> Response:
        body = await request.body()

        def register() -> Any:
            asked = codec.decode(body, RegisterRequest)
            path = Path(asked.path)
            self._check_path(path)
            return self.registry.register(
                asked.name, path, asked.run, asked.tags, aliases=asked.aliases, example=asked.example
            )

        return await _answered(register)

    def _check_path(self, path: Path) -> None:
        """Callers from other machines may name only what is in this project."""
        if self._settings.control.is_loopback:
            return
        roots = (self._settings.home, self._settings.project)
        if not any(path.resolve().is_relative_to(root) for root in roots):
            raise errors.RefusedError(f"{str(path)!r} is not in this project", where="path", code="REF-012")

    async def _alias(self, request: Request) -> Response:
        body = await request.body()

        def move() -> Any:
            asked = codec.decode(body, AliasRequest)
            if asked.version:
                self.registry.set_alias(asked.name, asked.alias, asked.version)
            else:
                self.registry.delete_alias(asked.name, asked.alias)
            return {"aliases": self.registry.aliases(asked.name)}

        return await _answered(move)


def _asking(function: Callable[[], Any]) -> Handler:
    async def handler(_: Request) -> Response:
        return await _answered(function)

    return handler


async def _answered(function: Callable[[], Any]) -> Response:
    try:
        loop = asyncio.get_running_loop()
        return answer(await loop.run_in_executor(_THREADS, function))
    except errors.OndolError as error:
        return answer(error.to_json(), error.http_status)


def own_url(settings: Settings) -> str:
    """Return how this process reaches itself."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.control.host, settings.control.host)
    return f"http://{host}:{settings.control.port}"
