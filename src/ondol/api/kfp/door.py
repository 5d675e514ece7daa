"""The routes of `/apis/v2beta1` together."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ondol.api.kfp.asked import Asked, endpoint, failure
from ondol.api.kfp.pipelines import Pipelines
from ondol.api.kfp.runs import Runs
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.store.connection import Store

PREFIX = "/apis/v2beta1"


class KfpApi:
    """KFP's server for this home.

    :param wake: called when something was asked for, so that it begins at once.
    """

    def __init__(self, store: Store, settings: Settings, wake: Callable[[], None]) -> None:
        self._pipelines = Pipelines(store)
        self._runs = Runs(store, settings, self._pipelines, wake)

    def routes(self) -> list[Route]:
        """Return all routes; what KFP has and we have not is refused by name."""
        return [
            Route(f"{PREFIX}/healthz", endpoint(_healthz), methods=["GET"]),
            *self._pipelines.routes(PREFIX),
            *self._runs.routes(PREFIX),
            Route("/apis/{rest:path}", _unknown),
        ]


def _healthz(_: Asked) -> dict[str, object]:
    return {"multi_user": False}


async def _unknown(request: Request) -> Response:
    path = request.url.path
    if path.startswith(PREFIX):
        error = errors.NotFoundError(
            f"{request.method} {path} is not served", way_out="docs/compatibility.md lists what is.", code="NOF-532"
        )
        return failure(error)
    return JSONResponse({"error": f"only {PREFIX} is served", "code": 5, "message": f"nothing at {path}"}, 404)
