"""`/api/ondol/*`: the state of this home as JSON, labels in, one URL per decision.

Must not hold logic: every answer is a query of the store, every write a call of the room that owns it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ondol.base import errors
from ondol.records import codec
from ondol.store import loads, observations, overview, registry_events, releases, resources, rollouts, runs
from ondol.store.connection import Store

Json = Any
Handler = Callable[[Request], Awaitable[Response]]
_MAX_LIMIT = 10_000


def answer(value: Json, status: int = 200) -> Response:
    """Return any record or plain value as a JSON response."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def endpoint(function: Callable[[Request], Json]) -> Handler:
    """Run a plain function in a thread and turn its value, or its error, into a JSON response."""

    async def handler(request: Request) -> Response:
        try:
            return answer(await run_in_threadpool(function, request))
        except errors.OndolError as error:
            return answer(error.to_json(), error.http_status)

    return handler


def limit_of(request: Request, default: int = 100) -> int:
    """Read `?limit=`.

    :raises UsageError: when it is not a number between 1 and 10,000.
    """
    text = request.query_params.get("limit", str(default))
    if not text.isdigit() or not 1 <= int(text) <= _MAX_LIMIT:
        raise errors.UsageError(f"limit {text!r} is not a number from 1 to {_MAX_LIMIT}", where="limit")
    return int(text)


class AdminApi:
    """The handlers, over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """Return the routes to mount under `/api/ondol`."""
        gets: dict[str, Callable[[Request], Json]] = {
            "/services": lambda _: overview.services(self._store),
            "/releases": lambda request: releases.of_name(self._store, request.query_params.get("name", "")),
            "/releases/{digest}": lambda request: releases.get(self._store, request.path_params["digest"]),
            "/rollouts": self._rollouts,
            "/rollouts/{id}": lambda request: rollouts.get(self._store, request.path_params["id"]),
            "/decisions": self._decisions,
            "/decisions/{id}": lambda request: rollouts.decision(self._store, request.path_params["id"]),
            "/resources": lambda request: resources.every(self._store, request.query_params.get("kind", "")),
            "/loads": lambda request: loads.every(self._store, request.query_params.get("service", "")),
            "/runs": lambda request: runs.every(self._store, request.query_params.get("name", ""), limit_of(request)),
            "/runs/{id}": lambda request: runs.get(self._store, request.path_params["id"]),
            "/registry/events": self._events,
        }
        found = [Route(path, endpoint(function), methods=["GET"]) for path, function in gets.items()]
        return [*found, Route("/labels", self._labels, methods=["POST"])]

    def _rollouts(self, request: Request) -> Json:
        query = request.query_params
        return rollouts.of_service(self._store, query.get("service", ""), query.get("state", ""))

    def _decisions(self, request: Request) -> Json:
        query = request.query_params
        return rollouts.decisions(self._store, query.get("subject", ""), query.get("action", ""), limit_of(request))

    def _events(self, request: Request) -> Json:
        return registry_events.every(self._store, request.query_params.get("model", ""), limit_of(request))

    async def _labels(self, request: Request) -> Response:
        """Join ground truth to requests: `{"labels": {"<request id>": <any JSON>}}`."""
        try:
            labels = codec.decode(await request.body(), dict).get("labels")
            if not isinstance(labels, dict):
                raise errors.InputError("'labels' is not an object of request id to label", where="labels")
            if empty := [key for key, value in labels.items() if value is None]:
                raise errors.InputError(f"the label of {str(empty[0])!r} is null", where="labels", code="INP-205")
            texts = {str(key): msgspec.json.encode(value).decode() for key, value in labels.items()}
            new = await run_in_threadpool(observations.label, self._store, texts)
        except errors.OndolError as error:
            return answer(error.to_json(), error.http_status)
        return answer({"received": len(texts), "new": new})
