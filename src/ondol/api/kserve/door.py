"""The inference protocols' paths: exact dispatch, no framework, no work but finding who answers.

`handle` is called with a whole request and replies now or later through a callback; it never raises and never awaits,
so that it can sit behind ASGI as well as directly on a connection.
"""

from __future__ import annotations

import itertools
import logging
import time
from functools import partial
from typing import Any

from ondol.api.kserve import answers, labels, v2
from ondol.api.kserve.answers import Headers, Reply
from ondol.api.kserve.exchange import Context, Exchange
from ondol.base import errors, ids
from ondol.rollout import units
from ondol.serving import payloads_v1
from ondol.serving.models import Models, Serving
from ondol.store.connection import Store

log = logging.getLogger("ondol.serving")

RequestHeaders = dict[bytes, bytes]
_V1, _V2 = "/v1/models/", "/v2/models/"


class KServeDoor:
    """V1 and V2 over the models in memory."""

    def __init__(self, models: Models, context: Context, store: Store) -> None:
        self.models = models
        self.context = context
        self._store = store
        self.draining = False
        # Ids of requests that bring none: this process' own id and a number, a tenth of the cost of a random one each.
        self._prefix = ids.new_id("req") + "-"
        self._numbers = itertools.count(1)

    def handle(self, method: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply) -> bool:
        """Answer a request through `reply`; return False when the path is not of these protocols."""
        started = time.perf_counter()
        service = ""
        try:
            if path.startswith(_V1) and path.endswith(":predict"):
                service = path[len(_V1) : -len(":predict")]
                _only("POST", method)
                self._predict_v1(service, headers, body, reply, started)
            elif path.startswith(_V2) and path.endswith("/infer"):
                service = path[len(_V2) : -len("/infer")]
                _only("POST", method)
                self._infer_v2(service, headers, body, reply, started)
            else:
                return self._other(method, path, headers, body, reply)
        except errors.OndolError as error:
            status = answers.refuse(reply, error, _known_id(headers))
            known = service if service in self.models.serving else ""
            self.context.metrics.record(known, "", path[1:3], status, time.perf_counter() - started)
        except Exception as error:  # a bug of ours: the connection and the process must live on
            log.exception("%s %s failed", method, path)
            answers.refuse(reply, errors.OndolError(f"internal error: {type(error).__name__}"))
            self.context.metrics.record("", "", path[1:3], 500, time.perf_counter() - started)
        return True

    def _find(self, service: str) -> Serving:
        serving = self.models.serving.get(service)
        if serving is not None:
            return serving
        state = self.models.states().get(service)
        if state is None:
            raise errors.NotFoundError(
                f"no model {service!r}", where="path", way_out="GET /v1/models lists them.", code="NOF-020"
            )
        raise errors.StateError(f"model {service!r} is not ready: {state}", way_out="`ondol status`", code="STA-021")

    def _predict_v1(self, service: str, headers: RequestHeaders, body: bytes, reply: Reply, started: float) -> None:
        serving = self._find(service)
        answers.check_body(headers, body)
        rows, features = payloads_v1.read(body, serving.stable.spec)
        exchange = self._exchange(serving, "v1", headers, body, started, len(rows), "", payloads_v1_write, reply)
        exchange.start(rows, features, serving.options.probabilities and serving.stable.probabilities)

    def _infer_v2(self, service: str, headers: RequestHeaders, body: bytes, reply: Reply, started: float) -> None:
        serving = self._find(service)
        answers.check_body(headers, body)
        request = v2.read(body, serving)
        write = v2.writer(service, serving, request)
        exchange = self._exchange(serving, "v2", headers, body, started, len(request.rows), request.id, write, reply)
        request.id = exchange.ids[0]
        exchange.start(request.rows, request.features, request.probabilities)

    def _exchange(
        self, serving: Serving, protocol: str, headers: RequestHeaders, body: bytes, started: float, count: int,
        given: str, write: Any, reply: Reply,
    ) -> Exchange:  # fmt: skip
        unit = _text(headers, "x-ondol-unit")
        if not unit and serving.route.unit:
            unit = units.find(serving.route.unit, partial(_text, headers), body)
        listed = headers.get(b"x-request-ids")
        if listed is not None:
            named = [one.strip() for one in listed.decode("utf-8", "replace").split(",")]
            if len(named) != count or not all(named):
                raise errors.InputError(
                    f"{len(named)} ids for {count} rows", where="x-request-ids", code="INP-201",
                    way_out="Send one id per row, separated by commas.",
                )  # fmt: skip
            return Exchange(
                self.context, serving, protocol, started, named, "", per_row=True, explicit=True, write=write,
                reply=reply,
            )  # fmt: skip
        own = _text(headers, "x-request-id")
        identifier = own or given or f"{self._prefix}{next(self._numbers)}"
        return Exchange(
            self.context, serving, protocol, started, [identifier], unit or identifier, per_row=False,
            explicit=bool(own or given or unit), write=write, reply=reply,
        )  # fmt: skip

    def _other(self, method: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply) -> bool:
        if path == "/ondol/v1/labels":
            _only("POST", method)
            answers.check_body(headers, body)
            self._labels(body, reply)
            return True
        found = self._document(path)
        if found is None:
            return False
        _only("GET", method)
        status, document = found
        reply(status, payloads_v1.encode(document) if document is not None else b"", [answers.JSON])
        return True

    def _labels(self, body: bytes, reply: Reply) -> None:
        """Commit labels, then acknowledge them; they may come before their request is logged: the store joins by id."""
        given = labels.read(body)
        labels.store_async(self._store, given, reply)

    def _document(self, path: str) -> tuple[int, Any] | None:
        if path in ("/v1/models", "/v1/models/"):
            return 200, {"models": sorted(self.models.serving)}
        if path.startswith(_V1) and ":" not in path:
            serving = self._find(path[len(_V1) :])
            return 200, {"name": serving.route.service, "ready": True}
        if path == "/v2" or path.startswith("/v2/"):
            return v2.document(path, self._find, self.draining, self.models)
        return None


def payloads_v1_write(predictions: list[Any], _: Any) -> bytes:
    """Write V1's answer; it says nothing of the model."""
    return payloads_v1.write(predictions)


def _text(headers: RequestHeaders, name: str) -> str:
    return headers.get(name.encode("utf-8", "replace"), b"").decode("utf-8", "replace")


def _only(allowed: str, method: str) -> None:
    if method != allowed:
        raise errors.UsageError(f"method {method!r} is not served here", way_out=f"Use {allowed}.", code="USE-020")


def _known_id(headers: RequestHeaders) -> Headers:
    own = headers.get(b"x-request-id")
    return [(b"x-request-id", own)] if own else []
