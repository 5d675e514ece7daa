"""The judge for whoever moves the traffic: requests in, a verdict out, in the words of Argo Rollouts and Flagger.

On a cluster the split is made by KServe's gateway, and its controllers ask here. `verdict` is what Argo's web metric
reads; `prometheus/api/v1/query` answers the two queries of a Flagger MetricTemplate; `gates/…` are Flagger's webhooks.

Must not move a route: the conductor of this home does, for what this home serves.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ondol.api.admin.routes import Handler, answer, endpoint
from ondol.base import errors
from ondol.records import codec
from ondol.records.rollout import Observation
from ondol.rollout import standing
from ondol.rollout.standing import Standing
from ondol.store import observations, rollouts
from ondol.store.connection import Store

Json = dict[str, Any]
QUERIES = ("vector(1)", "ondol_rollout_harm", "ondol_rollout_verdict")
_NUMBERS = {"roll_back": -1.0, "promote": 1.0}  # everything else: 0, not known yet
_MOST = 10_000


class Posted(msgspec.Struct, forbid_unknown_fields=True):
    """One request that somebody else served."""

    id: str
    arm: str
    status: int
    latency_ms: float
    unit: str = ""
    weight: float = -1.0
    at: float = 0.0
    prediction: Any = None
    signals: dict[str, float] = {}


class JudgingApi:
    """The handlers, over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """Return the routes to mount under `/api/ondol`."""
        base = "/rollouts/{id}"
        return [
            Route(f"{base}/verdict", endpoint(self._verdict), methods=["GET"]),
            Route(f"{base}/prometheus/api/v1/query", self._prometheus(), methods=["GET"]),
            Route(f"{base}/gates/{{verdict}}", endpoint(self._gate), methods=["POST"]),
            Route(f"{base}/observations", self._observations, methods=["POST"]),
        ]

    def _standing(self, request: Request) -> Standing:
        return standing.of(self._store, rollouts.get(self._store, request.path_params["id"]))

    def _verdict(self, request: Request) -> Json:
        rollout = rollouts.get(self._store, request.path_params["id"])
        found = standing.of(self._store, rollout)
        return {
            "rollout": rollout.id,
            "service": rollout.service,
            "state": rollout.state,
            "verdict": found.verdict,
            "value": _NUMBERS.get(found.verdict, 0.0),
            "harm": round(found.harm, 4),
            "more_requests": found.more_requests,
            "reason": found.reason,
            "findings": found.evidence.get("findings", []),
            "decision": found.decision,
        }

    def _prometheus(self) -> Handler:
        """Answer an instant query as Prometheus does, of the few that mean something here."""

        def read(request: Request) -> Response:
            query = " ".join(request.query_params.get("query", "").split())
            try:
                if query == QUERIES[0]:
                    value = 1.0
                elif query in QUERIES:
                    found = self._standing(request)
                    value = found.harm if query == QUERIES[1] else _NUMBERS.get(found.verdict, 0.0)
                else:
                    known = ", ".join(QUERIES)
                    return answer({"status": "error", "errorType": "bad_data", "error": f"only: {known}"}, 400)
            except errors.OndolError as error:
                return answer({"status": "error", "errorType": "execution", "error": error.message}, error.http_status)
            metric = {"__name__": query} if query != QUERIES[0] else {}
            result = [{"metric": metric, "value": [time.time(), f"{value:g}"]}]
            return answer({"status": "success", "data": {"resultType": "vector", "result": result}})

        async def handler(request: Request) -> Response:
            return await run_in_threadpool(read, request)

        return handler

    def _gate(self, request: Request) -> Json:
        """Open when the verdict is the one that is asked for; a closed gate is 409."""
        wanted = request.path_params["verdict"]
        if wanted not in _NUMBERS:
            raise errors.UsageError(
                f"no gate {wanted!r}", where="path", way_out=f"There are: {', '.join(_NUMBERS)}.", code="USE-420"
            )
        found = self._standing(request)
        if found.verdict != wanted:
            raise errors.StateError(f"the verdict is {found.verdict!r}: {found.reason}", code="STA-420")
        return {"verdict": found.verdict, "reason": found.reason}

    async def _observations(self, request: Request) -> Response:
        """Take requests that were served elsewhere: `{"observations": [{"id", "arm", "status", "latency_ms", …}]}`."""
        try:
            body = await request.body()
            return answer(await run_in_threadpool(self._append, request.path_params["id"], body))
        except errors.OndolError as error:
            return answer(error.to_json(), error.http_status)

    def _append(self, identifier: str, body: bytes) -> Json:
        rollout = rollouts.get(self._store, identifier)
        given = codec.decode(body, dict[str, Any]).get("observations")
        if not isinstance(given, list) or len(given) > _MOST:
            raise errors.InputError(
                f"'observations' is not a list of at most {_MOST}", where="observations", code="INP-425"
            )
        releases = {"stable": rollout.stable, **{one.name: one.release for one in rollout.variants}}
        batch = []
        for index, one in enumerate(given):
            where = f"observations[{index}]"
            try:
                posted = msgspec.convert(one, Posted)
            except msgspec.ValidationError as error:
                raise errors.InputError(str(error), where=where, code="INP-425") from error
            if posted.arm not in releases:
                raise errors.InputError(
                    f"arm {posted.arm!r} is not of this rollout", where=f"{where}.arm",
                    way_out=f"It has {', '.join(releases)}.", code="INP-425",
                )  # fmt: skip
            if not 0 <= posted.weight <= 100 and posted.weight != -1:
                raise errors.InputError(f"{posted.weight:g} is no percentage", where=f"{where}.weight", code="INP-425")
            batch.append(
                Observation(
                    posted.id, posted.at or time.time(), rollout.service, releases[posted.arm], posted.arm,
                    posted.unit or posted.id, posted.status, posted.latency_ms, rollout.id,
                    prediction="" if posted.prediction is None else msgspec.json.encode(posted.prediction).decode(),
                    weight=posted.weight, signals=dict(posted.signals),
                )
            )  # fmt: skip
        return {"received": len(batch), "new": observations.append_new(self._store, rollout.id, batch)}
